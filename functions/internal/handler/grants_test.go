package handler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdasource"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// documented are the statements of infra/README.md for MySQL.
type documented struct {
	user    string   // the statement that creates it
	grants  []string // what the functions need
	reports []string // what reports need beyond that
	remove  string   // of this system's own tables
}

func readDocumented(t *testing.T) (d documented) {
	t.Helper()
	readme, err := os.ReadFile("../../../infra/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range regexp.MustCompile(`(?m)^ +((?:CREATE USER|GRANT)\s[^;]*);$`).FindAllStringSubmatch(string(readme), -1) {
		switch s := strings.Join(strings.Fields(statement[1]), " "); {
		case strings.HasPrefix(s, "CREATE USER"):
			d.user = s
		case strings.Contains(s, "(name)"):
			d.reports = append(d.reports, s)
		default:
			d.grants = append(d.grants, s)
		}
	}
	d.remove = regexp.MustCompile(`DROP TABLE reconciliation[a-z_, ]*`).FindString(string(readme))
	if d.user == "" || len(d.grants) == 0 || len(d.reports) == 0 || d.remove == "" {
		t.Fatalf("infra/README.md: found %+v", d)
	}
	return d
}

// operator is a fixture whose steps use their own database user.
type operator struct {
	*fixture
	user, password string
	now            time.Time
}

// newOperator creates the documented user with these grants, in a database without this system's own tables.
func newOperator(t *testing.T, d documented, grants []string) *operator {
	t.Helper()
	o := &operator{fixture: newFixture(t), password: "Secret-1-secret", now: start} // secret-scan:allow of a database that is gone with the test
	o.Exec(d.remove)
	if own := o.ownTables(); len(own) > 0 {
		t.Errorf("%q leaves %q", d.remove, own)
	}
	o.user = strings.TrimPrefix(o.DB.Name, "test_")
	create := strings.NewReplacer("USER reconciliation", "USER "+o.account(), "'...'", "'"+o.password+"'").Replace(d.user)
	if _, err := o.DB.ExecContext(t.Context(), create); err != nil {
		t.Skipf("needs a user that may create users: %v", err)
	}
	t.Cleanup(func() {
		if _, err := o.DB.ExecContext(context.Background(), `DROP USER `+o.account()); err != nil {
			t.Error(err)
		}
	})
	o.grant(grants...)
	o.connect()
	return o
}

func (o *operator) account() string { return "'" + o.user + "'@'%'" }

func (o *operator) grant(grants ...string) {
	o.Helper()
	for _, g := range grants {
		o.Exec(o.here(g))
	}
}

// revoke revokes one of the grants.
func (o *operator) revoke(grant string) {
	o.Helper()
	o.Exec(strings.Replace(strings.Replace(o.here(grant), "GRANT ", "REVOKE ", 1), " TO ", " FROM ", 1))
}

// here adapts a documented statement to this test's database and user.
func (o *operator) here(statement string) string {
	return strings.TrimSuffix(strings.Replace(statement, "application.", o.DB.Name+".", 1), "TO reconciliation") + "TO " + o.account()
}

// connect opens the store as a starting function does.
func (o *operator) connect() {
	o.Helper()
	store, err := mysqlstore.Open(o.Context(), mysqlstore.Config{Host: o.DB.Host, Port: o.DB.Port, User: o.user, Password: o.password, Name: o.DB.Name})
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() {
		if err := store.Close(); err != nil {
			o.Error(err)
		}
	})
	if _, err := store.Migrate(o.Context()); err != nil {
		o.Fatal(err)
	}
	o.Store = store
}

func (o *operator) ownTables() []string {
	o.Helper()
	return o.Texts(`SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'reconciliation\_%' ORDER BY table_name`)
}

// start begins the run that the event asks for.
func (o *operator) start(event string, limit int) (string, error) {
	e := o.enumerator()
	e.Enumerator.Now, e.Enumerator.Downgrades = func() time.Time { return o.now }, func(int) int { return limit }
	answer, err := e.Handle(o.Context(), json.RawMessage(event))
	return answer.RunID, err
}

// run runs all functions and returns the run's summary.
func (o *operator) run(event string, limit int) billing.Summary {
	o.Helper()
	runID, err := o.start(event, limit)
	if err != nil {
		o.Fatal(err)
	}
	return o.rest(runID)
}

// rest runs the worker and the aggregator until the run is closed.
func (o *operator) rest(runID string) (summary billing.Summary) {
	o.Helper()
	w := o.worker()
	w.Reconciler.Now = func() time.Time { return o.now }
	if failed := o.handle(w); len(failed) > 0 {
		o.Errorf("the worker returned %q", failed)
	}
	a := o.aggregator()
	a.Aggregator.Now = w.Reconciler.Now
	response, err := a.HandleRecords(o.Context(), lambdasource.Event("arn:aws:sqs:us-east-1:123456789012:results", o.Receive(o.Results)))
	if err != nil || len(response.BatchItemFailures) > 0 {
		o.Errorf("aggregator: %+v, %v", response, err)
	}
	answer, err := a.Handle(o.Context(), json.RawMessage(`{"runId":"`+runID+`"}`))
	if err != nil {
		o.Fatal(err)
	}
	return answer.(billing.Summary)
}

func (o *operator) tick() {
	o.Helper()
	a := o.aggregator()
	a.Aggregator.Now = func() time.Time { return o.now }
	if _, err := a.Handle(o.Context(), json.RawMessage(`{"tick":true}`)); err != nil {
		o.Error(err)
	}
}

// unrecorded creates an organization whose checkout webhook was missed: a customer without a row.
func (o *operator) unrecorded(id string) {
	o.Helper()
	o.Subscriber(id)
	o.Exec(`DELETE FROM subscriptions WHERE org_id = ?`, id)
}

// The documented user is enough for the functions, from an empty database on, and the documented clean-up removes
// everything that they create.
func TestDocumentedGrantsAreEnough(t *testing.T) {
	d := readDocumented(t)
	o := newOperator(t, d, d.grants)
	o.seed()
	o.unrecorded("org-unrecorded")
	o.giveUpAfter(maxReceive)

	dry := o.run(`{"scheduledFor":"2026-11-15T03:00:00Z","dryRun":true}`, 100)
	if dry.Synchronized != 21 || dry.Errors != 5 || dry.Pending != 0 {
		t.Errorf("dry run: %+v", dry)
	}
	s := o.run(`{"scheduledFor":"`+runID+`"}`, 3)
	if s.Status != billing.RunCompletedWithErrors || s.Downgrades != 3 || s.Reasons[billing.ReasonWithheld] != 7 ||
		s.Reasons[billing.ReasonRowInserted] != 1 || s.Reasons[billing.ReasonRepaired] == 0 || s.Pending != 0 {
		t.Errorf("run: %+v", s)
	}
	if raised, err := o.Store.Approve(t.Context(), runID, billing.Approval{Limit: 10, By: "ops@desk", At: time.Now()}); err != nil || !raised {
		t.Errorf("the limit was raised: %t, %v", raised, err)
	}
	o.redrive()
	if s = o.rest(runID); s.Downgrades != 10 || s.Reasons[billing.ReasonWithheld] != 0 {
		t.Errorf("redriven: %+v", s)
	}
	o.tick()
	if left := o.Count(`SELECT COUNT(*) FROM reconciliation_snapshots`); left > 0 {
		t.Errorf("%d rows of snapshots are left", left)
	}

	stopped, err := o.start(`{"strategy":"retrieve"}`, 100)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := o.Store.StopRun(t.Context(), stopped, billing.ReasonInterrupted, "stopped by hand", o.now); err != nil || !ok {
		t.Errorf("stopped: %t, %v", ok, err)
	}
	if s = o.run(`{"resume":"`+stopped+`"}`, 100); s.Pending != 0 {
		t.Errorf("resumed: %+v", s)
	}

	o.now = start.AddDate(0, 0, 200)
	if s = o.run(`{"orgId":"org-00"}`, 100); s.Status != billing.RunCompleted {
		t.Errorf("one organization: %+v", s)
	}
	if s = o.run(`{"scheduledFor":"2027-06-10T03:00:00Z"}`, 100); s.TotalOrganizations != 31 {
		t.Errorf("later: %+v", s)
	}
	o.tick()
	if kept := o.Texts(`SELECT id FROM reconciliation_runs WHERE id LIKE '2026%'`); len(kept) > 0 {
		t.Errorf("not pruned: %q", kept)
	}

	read := func() error {
		return o.Store.EachReportItem(t.Context(), "2027-06-10T03:00:00Z", func(mysqlstore.ReportItem) error { return nil }, billing.OutcomeError)
	}
	if read() == nil {
		t.Error("reports do not need the right that is said to be theirs")
	}
	o.grant(d.reports...)
	if err := read(); err != nil {
		t.Error(err)
	}

	var named []string
	for _, g := range d.grants {
		if table := regexp.MustCompile(`application\.(reconciliation_\w+)`).FindStringSubmatch(g); table != nil {
			named = append(named, table[1])
			o.revoke("GRANT CREATE ON application." + table[1] + " TO reconciliation")
		}
	}
	slices.Sort(named)
	if diff := cmp.Diff(o.ownTables(), named); diff != "" {
		t.Errorf("the grants name other tables than there are (-there +named)\n%s", diff)
	}
	o.connect()
	o.Subscriber("org-late", price("price_max"))
	if s = o.run(`{"scheduledFor":"2027-06-17T03:00:00Z"}`, 100); s.Reasons[billing.ReasonRepaired] != 1 {
		t.Errorf("without CREATE: %+v", s)
	}
	o.tick()
}

var writeRights = regexp.MustCompile(`, (?:INSERT|UPDATE) \([^)]*\)`)

func TestDryRunNeedsNoWriteGrantOnApplicationTables(t *testing.T) {
	d := readDocumented(t)
	reading := slices.Clone(d.grants)
	for i := range reading {
		reading[i] = writeRights.ReplaceAllString(reading[i], "")
	}
	o := newOperator(t, d, reading)
	o.seed()
	o.unrecorded("org-unrecorded")
	before, err := appschema.Checksum(t.Context(), o.DB.DB)
	if err != nil {
		t.Fatal(err)
	}

	_, err = o.start(`{}`, 100)
	f := billing.AsFailure(err)
	if f.Reason != billing.ReasonDatabaseSchema || len(o.Texts(`SELECT id FROM reconciliation_runs`)) > 0 {
		t.Errorf("a run that writes: %v", err)
	}
	for _, part := range []string{"UPDATE (stripe_customer_id,", "on organizations", "INSERT (id, org_id,", "UPDATE (stripe_subscription_id,", "on subscriptions"} {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %q", part, err)
		}
	}

	for _, id := range o.Texts(`SELECT stripe_subscription_id FROM subscriptions WHERE stripe_subscription_id IS NOT NULL`) {
		if sub, ok := o.Stripe.Subscription(id); ok {
			o.Stripe.AddEvent(stripetest.Event{Subscription: &sub, Created: o.now.Add(-time.Hour).Unix()})
		}
	}
	for strategy, want := range map[billing.Strategy][2]int{billing.StrategySweep: {21, 5}, billing.StrategyRetrieve: {21, 5}, billing.StrategyEvents: {15, 5}} {
		s := o.run(fmt.Sprintf(`{"dryRun":true,"strategy":%q}`, strategy), 100)
		if s.Synchronized != want[0] || s.Errors != want[1] || s.Pending != 0 {
			t.Errorf("%s: %+v", strategy, s)
		}
	}
	after, err := appschema.Checksum(t.Context(), o.DB.DB)
	if err != nil || after != before {
		t.Errorf("something was written, %v", err)
	}
}

func TestEachDocumentedGrantIsNeeded(t *testing.T) {
	d := readDocumented(t)
	o := newOperator(t, d, d.grants)
	n := 0
	for _, g := range d.grants {
		table := regexp.MustCompile(` ON application\.(organizations|subscriptions) `).FindStringSubmatch(g)
		if table == nil {
			continue
		}
		for _, right := range regexp.MustCompile(`(SELECT|INSERT|UPDATE) \(([^)]*)\)`).FindAllStringSubmatch(g, -1) {
			for _, column := range strings.Split(right[2], ", ") {
				n++
				one := fmt.Sprintf("GRANT %s (%s) ON application.%s TO reconciliation", right[1], column, table[1])
				o.revoke(one)
				if _, err := o.Store.CheckApplication(t.Context(), true); err == nil || !strings.Contains(err.Error(), column) {
					t.Errorf("%s is not needed, or not missed: %v", one, err)
				}
				o.grant(one)
			}
		}
	}
	if _, err := o.Store.CheckApplication(t.Context(), true); err != nil || n < 40 {
		t.Errorf("after %d rights: %v", n, err)
	}
}
