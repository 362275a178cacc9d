package pipeline_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

var (
	start       = time.Date(2026, time.November, 22, 3, 0, 0, 0, time.UTC)
	created     = time.Date(2026, time.January, 10, 9, 30, 0, 0, time.UTC)
	periodStart = time.Date(2026, time.November, 10, 9, 30, 0, 0, time.UTC)
	periodEnd   = time.Date(2026, time.December, 10, 9, 30, 0, 0, time.UTC)

	rules = billing.Rules{Prices: map[string]billing.Tier{
		"price_starter": billing.TierStarter, "price_pro": billing.TierPro, "price_max": billing.TierMax,
	}}

	// quick retries in place as in production, without its pauses.
	quick = pipeline.Retry{Base: time.Millisecond}
)

func ptr[T any](v T) *T { return &v }

// fixture is a database, a fake Stripe over HTTP, two queues over HTTP, and the steps on them.
type fixture struct {
	*testing.T
	rules   billing.Rules
	db      *mysqltest.DB
	store   *mysqlstore.Store
	pools   []*sql.DB // of processes behind a tap
	stripe  *stripetest.Server
	proxy   proxy // before stripe
	queues  *sqs.Client
	work    string // URL
	results string // URL
	clock   clock
	logs    logBuffer
	metrics logBuffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, rules: rules, db: mysqltest.New(t), clock: clock{now: start}}
	f.store = mysqlstore.New(f.db.DB)
	if _, err := f.store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.stripe = stripetest.New(stripetest.Options{Now: f.clock.Now})
	f.proxy.to = f.stripe
	f.proxy.server = httptest.NewServer(&f.proxy)
	t.Cleanup(func() {
		f.proxy.server.CloseClientConnections()
		f.proxy.server.Close()
		if err := f.stripe.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// startQueues gives the fixture its queues.
func (f *fixture) startQueues() *sqsserver.Server {
	f.Helper()
	server, err := sqsserver.Start(sqsserver.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := server.Close(); err != nil {
			f.Error(err)
		}
	})
	f.queues = sqs.NewFromConfig(server.AWSConfig(), func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	for name, url := range map[string]*string{"work": &f.work, "results": &f.results} {
		out, err := f.queues.CreateQueue(f.Context(), &sqs.CreateQueueInput{QueueName: &name})
		if err != nil {
			f.Fatal(err)
		}
		*url = *out.QueueUrl
	}
	return server
}

// proxy stands before the fake Stripe, so that a test can answer for single objects.
type proxy struct {
	to     http.Handler
	server *httptest.Server

	mu     sync.Mutex
	broken map[string]bool          // paths that answer 500
	refuse func(*http.Request) bool // what answers 400
	paths  []string                 // of every request
	done   []answered               // where answers are kept
}

// answered is a request that was answered, the answer's status apart.
type answered struct {
	url    *url.URL
	status int
}

// noting keeps the status of what is written.
type noting struct {
	http.ResponseWriter

	status int
}

func (n *noting) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.paths = append(p.paths, r.URL.Path)
	broken := p.broken[r.URL.Path]
	p.mu.Unlock()
	if broken {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"error":{"type":"api_error","message":"this object is broken"}}`))
		return
	}
	if p.refuse != nil && p.refuse(r) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":{"type":"invalid_request_error","message":"this is refused"}}`))
		return
	}
	n := &noting{w, http.StatusOK}
	p.to.ServeHTTP(n, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, answered{r.URL, n.status})
}

// taken returns the paths of the requests since it was last called.
func (p *proxy) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	paths := p.paths
	p.paths = nil
	return paths
}

// answers returns the requests that were answered since it was last called.
func (p *proxy) answers() []answered {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.done
	p.done = nil
	return done
}

func (p *proxy) breakPath(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = map[string]bool{}
	}
	p.broken[path] = true
}

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logBuffer collects lines of JSON.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns those for which the member has the value; an empty member asks for all.
func (b *logBuffer) lines(t testing.TB, member string, value any) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []map[string]any
	for line := range strings.Lines(b.buf.String()) {
		var parsed map[string]any
		if err := json.Unmarshal([]byte(line), &parsed); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		if got, ok := parsed[member]; member == "" || (ok && (value == nil || got == value)) {
			all = append(all, parsed)
		}
	}
	return all
}

func (f *fixture) log() *slog.Logger { return telemetry.NewLogger(&f.logs, slog.LevelInfo) }

// --- steps ---

// tap stands between a step and what it calls: methods of Stripe and the queues, and what goes to the
// database, as [mysqltest.Interceptor] names it.
type tap struct {
	before func(ctx context.Context, call string) error // an error keeps the call from happening
	after  func(ctx context.Context, call string) error // an error takes the place of the call's answer
	killer *killer
}

func (p *tap) do(ctx context.Context, call string, effect func() error) error {
	if p == nil {
		return effect()
	}
	if p.before != nil {
		if err := p.before(ctx, call); err != nil {
			return err
		}
	}
	var err error
	if p.killer != nil {
		err = p.killer.do(effect)
	} else {
		err = effect()
	}
	if p.after != nil {
		if lost := p.after(ctx, call); lost != nil {
			return lost
		}
	}
	return err
}

// inTransaction: the call comes between the begin of a transaction and its end.
func inTransaction(call string) bool {
	return strings.HasPrefix(call, "in ") || strings.HasPrefix(call, "commit ")
}

// errKilled is what a process hears from then on that was killed, whoever hands it on.
var errKilled error = &billing.Failure{Class: billing.Unavailable, Reason: billing.ReasonInternal, Message: "the process was killed"}

// killer ends a process at its n-th call to the outside, before or after the call's effect. From
// then on nothing it does has an effect, cleaning up included.
type killer struct {
	at    int
	after bool

	mu    sync.Mutex
	calls int
	dead  bool
}

func (k *killer) tap() *tap { return &tap{killer: k} }

func (k *killer) do(effect func() error) error {
	k.mu.Lock()
	k.calls++
	last := !k.dead && k.calls == k.at
	k.dead = k.dead || last
	if k.dead && (!last || !k.after) {
		k.mu.Unlock()
		return errKilled
	}
	k.mu.Unlock()
	err := effect()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return errKilled
	}
	return err
}

// dyingAt dies as it makes the call.
func dyingAt(call string) *tap { return failingFrom(call, errKilled) }

// failingFrom answers the call and every one after it with the error.
func failingFrom(call string, err error) *tap {
	var begun atomic.Bool
	return &tap{before: func(_ context.Context, name string) error {
		if name == call {
			begun.Store(true)
		}
		if begun.Load() {
			return err
		}
		return nil
	}}
}

// everyDeath calls fn for a process killed at its first call, at its second and so on, each
// before and after the call's effect, until one ends alive.
func everyDeath(t *testing.T, fn func(t *testing.T, k *killer)) {
	t.Helper()
	for at := 1; ; at++ {
		survived := false
		for _, after := range []bool{false, true} {
			k := &killer{at: at, after: after}
			fn(t, k)
			if t.Failed() {
				t.Fatalf("killed at call %d, after its effect: %t", at, after)
			}
			survived = survived || !k.dead
		}
		if survived {
			if at < 3 {
				t.Fatalf("only %d calls were made", at-1)
			}
			t.Logf("%d deaths before and after their effect", at-1)
			return
		}
	}
}

// storeBehind is the store as one process has it that is behind a tap, with connections of its own.
func (f *fixture) storeBehind(p *tap) *mysqlstore.Store {
	f.Helper()
	if p == nil {
		return f.store
	}
	pool := f.db.Intercepted(f.T, p.do)
	f.pools = append(f.pools, pool)
	return mysqlstore.New(pool)
}

// endProcesses closes the connections of all processes so far: a test that has many must not leave as
// many connections.
func (f *fixture) endProcesses() {
	f.Helper()
	for _, pool := range f.pools {
		if err := pool.Close(); err != nil {
			f.Error(err)
		}
	}
	f.pools = nil
}

func tapped[T any](ctx context.Context, p *tap, call string, fn func() (T, error)) (value T, err error) {
	err = p.do(ctx, call, func() (err error) {
		value, err = fn()
		return err
	})
	return value, err
}

// tappedStripe is the real client behind a tap.
type tappedStripe struct {
	*stripesource.Client

	tap *tap
}

func (s tappedStripe) Account(ctx context.Context) (string, error) {
	return tapped(ctx, s.tap, "Account", func() (string, error) { return s.Client.Account(ctx) })
}

func (s tappedStripe) Subscription(ctx context.Context, id string) (sub billing.Subscription, exists bool, err error) {
	err = s.tap.do(ctx, "Subscription", func() (err error) {
		sub, exists, err = s.Client.Subscription(ctx, id)
		return err
	})
	return sub, exists, err
}

func (s tappedStripe) CustomerSubscriptions(ctx context.Context, id string) (subs []billing.Subscription, exists bool, err error) {
	err = s.tap.do(ctx, "CustomerSubscriptions", func() (err error) {
		subs, exists, err = s.Client.CustomerSubscriptions(ctx, id)
		return err
	})
	return subs, exists, err
}

func (s tappedStripe) CustomerExists(ctx context.Context, id string) (bool, error) {
	return tapped(ctx, s.tap, "CustomerExists", func() (bool, error) { return s.Client.CustomerExists(ctx, id) })
}

func (s tappedStripe) SearchByOrgID(ctx context.Context, orgID string) (ids []string, available bool, err error) {
	err = s.tap.do(ctx, "SearchByOrgID", func() (err error) {
		ids, available, err = s.Client.SearchByOrgID(ctx, orgID)
		return err
	})
	return ids, available, err
}

// tappedQueue is a real queue behind a tap.
type tappedQueue struct {
	*sqsqueue.Queue

	tap *tap
}

func (q tappedQueue) SendWork(ctx context.Context, runID string, orgIDs []string) error {
	return q.tap.do(ctx, "SendWork", func() error { return q.Queue.SendWork(ctx, runID, orgIDs) })
}

func (q tappedQueue) SendProgress(ctx context.Context, runID string) error {
	return q.tap.do(ctx, "SendProgress", func() error { return q.Queue.SendProgress(ctx, runID) })
}

func (f *fixture) stripeClient(changes ...func(*stripesource.Config)) *stripesource.Client {
	c := stripesource.Config{Key: f.stripe.Key(), BaseURL: f.proxy.server.URL, Log: f.log()}
	for _, change := range changes {
		change(&c)
	}
	return stripesource.New(c)
}

func (f *fixture) enumerator(p *tap) *pipeline.Enumerator {
	return &pipeline.Enumerator{
		Store: f.storeBehind(p), Stripe: tappedStripe{f.stripeClient(), p},
		Work: tappedQueue{sqsqueue.New(f.queues, f.work), p}, Progress: tappedQueue{sqsqueue.New(f.queues, f.results), p},
		Downgrades: func(listed int) int { return max(10, listed/20) }, RunDeadline: 12 * time.Hour, PageSize: 3,
		Reserve: 15 * time.Second, Retry: quick, Now: f.clock.Now, Log: f.log(),
	}
}

func (f *fixture) reconciler(p *tap) *pipeline.Reconciler {
	return &pipeline.Reconciler{
		Store: f.storeBehind(p), Stripe: tappedStripe{f.stripeClient(), p}, Rules: f.rules,
		Reserve: 15 * time.Second, Retry: quick, Now: f.clock.Now, Log: f.log(),
	}
}

func (f *fixture) aggregator(p *tap) *pipeline.Aggregator {
	return &pipeline.Aggregator{
		Store: f.storeBehind(p), Retention: 90 * 24 * time.Hour, Retry: quick, Now: f.clock.Now, Log: f.log(),
		Metrics: telemetry.NewMetrics(&f.metrics, "Test", f.clock.Now),
	}
}

// --- queues ---

// received takes every message out of a queue and returns the bodies.
func (f *fixture) received(url string) []string {
	f.Helper()
	var bodies []string
	for {
		out, err := f.queues.ReceiveMessage(f.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
		if err != nil {
			f.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return bodies
		}
		entries := make([]types.DeleteMessageBatchRequestEntry, len(out.Messages))
		for i, m := range out.Messages {
			bodies = append(bodies, *m.Body)
			entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle}
		}
		if _, err := f.queues.DeleteMessageBatch(f.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: entries}); err != nil {
			f.Fatal(err)
		}
	}
}

// sentWork returns the organizations of a run that the work queue held, sorted, repeated as often
// as they were sent.
func (f *fixture) sentWork(runID string) []string {
	f.Helper()
	var orgs []string
	for _, body := range f.received(f.work) {
		w, err := sqsqueue.DecodeWork(body)
		if err != nil || w.RunID != runID {
			f.Errorf("message %s of another run, or unreadable: %v", body, err)
		}
		orgs = append(orgs, w.OrgID)
	}
	slices.Sort(orgs)
	return orgs
}

func distinct(sorted []string) []string { return slices.Compact(slices.Clone(sorted)) }

// --- database ---

// org inserts an organization of customer "cus_ID" that agrees with a subscription of price_pro.
func (f *fixture) org(id string, changes ...func(*appschema.Organization)) {
	f.Helper()
	o := appschema.Organization{
		ID: id, Name: "Organization " + id, CreatedBy: "user-1", StripeCustomerID: ptr("cus_" + id),
		SubscriptionStatus: "active", SubscriptionTier: "pro", CreatedAt: created, UpdatedAt: created,
	}
	for _, change := range changes {
		change(&o)
	}
	if err := appschema.InsertOrganizations(f.Context(), f.db.DB, []appschema.Organization{o}); err != nil {
		f.Fatal(err)
	}
}

// row inserts the organization's subscriptions row, of subscription "sub_ID".
func (f *fixture) row(id string, changes ...func(*appschema.Subscription)) {
	f.Helper()
	s := appschema.Subscription{
		ID: "row-" + id, OrgID: id, StripeSubscriptionID: ptr("sub_" + id), StripePriceID: ptr("price_pro"), StripeCustomerID: ptr("cus_" + id),
		PlanTier: "pro", Status: "active", CurrentPeriodStart: ptr(periodStart), CurrentPeriodEnd: ptr(periodEnd),
		CancelAtPeriodEnd: ptr(false), CreatedAt: created, UpdatedAt: created,
	}
	for _, change := range changes {
		change(&s)
	}
	if err := appschema.InsertSubscriptions(f.Context(), f.db.DB, []appschema.Subscription{s}); err != nil {
		f.Fatal(err)
	}
}

// sub puts subscription "sub_ID" of customer "cus_ID" into Stripe, active at price_pro.
func (f *fixture) sub(id string, changes ...func(*stripetest.Subscription)) {
	s := stripetest.Subscription{
		ID: "sub_" + id, CustomerID: "cus_" + id, Status: "active", PriceID: "price_pro",
		Created: created.Unix(), CurrentPeriodStart: periodStart.Unix(), CurrentPeriodEnd: periodEnd.Unix(),
	}
	for _, change := range changes {
		change(&s)
	}
	f.stripe.PutSubscription(s)
}

// inSync makes an organization on which both sides agree.
func (f *fixture) inSync(id string) {
	f.Helper()
	f.org(id)
	f.row(id)
	f.sub(id)
}

func canceled(s *stripetest.Subscription) {
	s.Status, s.CanceledAt, s.EndedAt = "canceled", start.Add(-48*time.Hour).Unix(), start.Add(-47*time.Hour).Unix()
}

func pastDue(s *stripetest.Subscription) { s.Status = "past_due" }

func price(id string) func(*stripetest.Subscription) {
	return func(s *stripetest.Subscription) { s.PriceID = id }
}

// numbered returns "org-000" and so on.
func numbered(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("org-%03d", i)
	}
	return ids
}

func (f *fixture) exec(statement string, args ...any) {
	f.Helper()
	f.db.MustExec(f.T, statement, args...)
}

// openRun opens a running run over the organizations, as an enumerator leaves it.
func (f *fixture) openRun(id string, orgIDs []string, changes ...func(*billing.Run)) {
	f.Helper()
	run := billing.Run{
		ID: id, Strategy: billing.StrategyRetrieve, StartedAt: f.clock.Now(), DeadlineAt: f.clock.Now().Add(12 * time.Hour), DowngradeLimit: 100,
	}
	for _, change := range changes {
		change(&run)
	}
	if _, err := f.store.OpenRun(f.Context(), run); err != nil {
		f.Fatal(err)
	}
	for _, org := range orgIDs {
		f.exec(`INSERT INTO reconciliation_items (run_key, org_id) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?),?)`, id, org)
	}
	f.exec(`UPDATE reconciliation_runs SET status = 'running', listed = TRUE, total = ?, downgrade_limit = ? WHERE id = ?`, len(orgIDs), run.DowngradeLimit, id)
}

// sweepInto gives run-1 a complete snapshot of what Stripe holds now.
func (f *fixture) sweepInto() {
	f.Helper()
	now := f.clock.Now()
	lease := billing.Lease{RunID: runID, Owner: "the enumerator", End: now.Add(time.Minute)}
	f.exec(`UPDATE reconciliation_runs SET status = 'enumerating', strategy = 'sweep' WHERE id = ?`, runID)
	_, err := f.store.AcquireLease(f.Context(), lease, now)
	if err == nil {
		err = f.store.BeginSweep(f.Context(), lease, now)
	}
	client, page := f.stripeClient(), billing.Page{More: true}
	for of := (billing.Range{}); err == nil && page.More; of = of.Rest(page) {
		if page, err = client.SweepPage(f.Context(), of); err != nil {
			break
		}
		var left []billing.Range
		if page.More {
			left = []billing.Range{of.Rest(page)}
		}
		err = f.store.SaveSweepPage(f.Context(), lease, of, page, left)
	}
	if err == nil {
		err = f.store.FinishSweep(f.Context(), lease, billing.SweepComplete)
	}
	if err == nil {
		err = f.store.MarkRunning(f.Context(), lease)
	}
	if err != nil {
		f.Fatal(err)
	}
}

func dryRun(r *billing.Run) { r.DryRun = true }

func (f *fixture) run(id string) billing.Run {
	f.Helper()
	runs, err := f.store.Runs(f.Context(), []string{id})
	if err != nil {
		f.Fatal(err)
	}
	return runs[id]
}

func (f *fixture) status(id string) billing.RunStatus {
	f.Helper()
	return f.run(id).Status
}

func (f *fixture) countRuns() int {
	f.Helper()
	return mysqltest.Value[int](f.T, f.db, `SELECT COUNT(*) FROM reconciliation_runs`)
}

// leased reports whether somebody holds the lease of the only run.
func (f *fixture) leased() bool {
	f.Helper()
	return mysqltest.Value[string](f.T, f.db, `SELECT lease_owner FROM reconciliation_runs`) != ""
}

func (f *fixture) item(runID, orgID string) billing.Item {
	f.Helper()
	w := billing.Work{RunID: runID, OrgID: orgID}
	items, err := f.store.Items(f.Context(), []billing.Work{w})
	if err != nil {
		f.Fatal(err)
	}
	return items[w]
}

// items returns all items of a run, without what counts writes.
func (f *fixture) items() map[string]billing.Item {
	f.Helper()
	ids := f.itemIDs(runID)
	all := map[string]billing.Item{}
	for _, id := range ids {
		item := f.item(runID, id)
		item.Revision = 0
		all[id] = item
	}
	return all
}

func (f *fixture) itemIDs(runID string) []string {
	f.Helper()
	return f.texts(`SELECT org_id FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) ORDER BY org_id`, runID)
}

// texts returns the only column of a query.
func (f *fixture) texts(query string, args ...any) []string {
	f.Helper()
	rows, err := f.db.QueryContext(f.Context(), query, args...)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			f.Fatal(err)
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	return all
}

func (f *fixture) checksum() string {
	f.Helper()
	sum, err := appschema.Checksum(f.Context(), f.db.DB)
	if err != nil {
		f.Fatal(err)
	}
	return sum
}

// cells is the content of the application's tables: table, row and column to value.
type cells map[[3]string]string

// cells reads every column of every row.
func (f *fixture) cells() cells { return f.cellsOf("%") }

// cellsOf reads every column of the rows of the organizations whose id is LIKE the pattern.
func (f *fixture) cellsOf(pattern string) cells {
	f.Helper()
	all := cells{}
	for table, owner := range map[string]string{"organizations": "id", "subscriptions": "org_id"} {
		f.readCells(all, table, owner, pattern)
	}
	return all
}

// readCells names a row by the organization it belongs to and its id.
func (f *fixture) readCells(all cells, table, owner, pattern string) {
	f.Helper()
	rows, err := f.db.QueryContext(f.Context(), `SELECT `+owner+`, t.* FROM `+table+` t WHERE `+owner+` LIKE ?`, pattern)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		f.Fatal(err)
	}
	values := make([]sql.NullString, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			f.Fatal(err)
		}
		for i, column := range columns[1:] {
			value := "NULL"
			if values[i+1].Valid {
				value = values[i+1].String
			}
			all[[3]string{values[0].String, table + ":" + values[1].String, table + "." + column}] = value
		}
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
}

// of returns those of one table.
func (c cells) of(table string) cells {
	some := maps.Clone(c)
	maps.DeleteFunc(some, func(key [3]string, _ string) bool { return !strings.HasPrefix(key[1], table+":") })
	return some
}

// changedSince returns the columns whose value differs, by organization; of a new row those with
// a value.
func (c cells) changedSince(before cells) map[string][]string {
	changed := map[string][]string{}
	for key, value := range c {
		old, existed := before[key]
		if (existed && old != value) || (!existed && value != "NULL") {
			changed[key[0]] = append(changed[key[0]], key[2])
		}
	}
	for org := range changed {
		slices.Sort(changed[org])
		changed[org] = slices.Compact(changed[org])
	}
	return changed
}

// withoutTimestamps leaves out what the database itself writes.
func (c cells) withoutTimestamps() cells {
	rest := maps.Clone(c)
	maps.DeleteFunc(rest, func(key [3]string, _ string) bool {
		return strings.HasSuffix(key[2], ".updated_at") || strings.HasSuffix(key[2], ".created_at")
	})
	return rest
}

func fieldsOf(changes []billing.Change) []string {
	var fields []string
	for _, c := range changes {
		fields = append(fields, c.Field)
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// deliver reconciles a batch of the organizations and returns the results by organization.
func (f *fixture) deliver(r *pipeline.Reconciler, runID string, orgIDs ...string) map[string]pipeline.Result {
	f.Helper()
	return f.deliverAs(f.Context(), r, runID, false, orgIDs...)
}

func (f *fixture) deliverAs(ctx context.Context, r *pipeline.Reconciler, runID string, last bool, orgIDs ...string) map[string]pipeline.Result {
	f.Helper()
	work := map[billing.Work]bool{}
	for _, id := range orgIDs {
		work[billing.Work{RunID: runID, OrgID: id}] = last
	}
	results := r.Reconcile(ctx, work)
	if len(results) != len(work) {
		f.Fatalf("%d results for %d organizations", len(results), len(work))
	}
	byOrg := map[string]pipeline.Result{}
	for w, result := range results {
		byOrg[w.OrgID] = result
	}
	return byOrg
}

// wantResult checks what becomes of a message and why.
func (f *fixture) wantResult(got pipeline.Result, want pipeline.Disposition, reason billing.Reason) {
	f.Helper()
	var why billing.Reason
	if got.Failure != nil {
		why = got.Failure.Reason
	}
	if got.Disposition != want || why != reason {
		f.Errorf("disposition %d with reason %q (%v), want %d with %q", got.Disposition, why, got.Failure, want, reason)
	}
}

// wantItem checks an item of run-1.
func (f *fixture) wantItem(orgID string, outcome billing.Outcome, reason billing.Reason) billing.Item {
	f.Helper()
	item := f.item(runID, orgID)
	if item.Outcome != outcome || item.Reason != reason {
		f.Errorf("item of %s is %s %q (%s), want %s %q", orgID, item.Outcome, item.Reason, item.Error, outcome, reason)
	}
	return item
}

// once calls fn at the first call only.
func once(fn func()) func() {
	var o sync.Once
	return func() { o.Do(fn) }
}
