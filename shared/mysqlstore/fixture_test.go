package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// now is the time in these tests; old is the time at which the rows were last written.
var (
	now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	old = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// patience is how long a test waits for another goroutine or connection.
const patience = 30 * time.Second

// fixture is a database with the application's and this system's own tables, and a store on it.
type fixture struct {
	*mysqltest.DB

	store *mysqlstore.Store
}

// onEach runs a test on a real server and on the server in this process, because both must pass it. Tests of locks and
// concurrency use onServer.
func onEach(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(t, mysqltest.New(t)))
	})
	t.Run("in process", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(t, mysqltest.InProcess(t)))
	})
}

func onServer(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return newFixture(t, mysqltest.New(t))
}

func newFixture(t *testing.T, db *mysqltest.DB) *fixture {
	t.Helper()
	f := &fixture{DB: db, store: mysqlstore.New(db.DB)}
	if _, err := f.store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// singleConnection returns a store that uses one connection only, and that connection's id.
func (f *fixture) singleConnection(t *testing.T) (store *mysqlstore.Store, connection int64) {
	t.Helper()
	db := f.Open(t)
	db.SetMaxOpenConns(1)
	if err := db.QueryRowContext(t.Context(), `SELECT CONNECTION_ID()`).Scan(&connection); err != nil {
		t.Fatal(err)
	}
	return mysqlstore.New(db), connection
}

// awaitStatement waits until the connection executes a statement that begins like this.
func (f *fixture) awaitStatement(t *testing.T, connection int64, beginning string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := 0; n == 0; {
		err := f.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.processlist WHERE id = ? AND info LIKE ?`,
			connection, beginning+"%").Scan(&n)
		if err != nil {
			t.Fatalf("waiting for %q on connection %d: %v", beginning, connection, err)
		}
	}
}

const pausedInsert = "SET @paused"

// pauseInserts makes the insert of a row with the price "pause" wait until resume is called.
func (f *fixture) pauseInserts(t *testing.T) (resume func()) {
	t.Helper()
	f.MustExec(t, `CREATE TRIGGER pause BEFORE INSERT ON subscriptions FOR EACH ROW
		BEGIN IF NEW.stripe_price_id = 'pause' THEN SET @paused = GET_LOCK(DATABASE(), 30); END IF; END`)
	gate, err := f.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gate.Close() })
	if _, err := gate.ExecContext(t.Context(), `SELECT GET_LOCK(DATABASE(), 30)`); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := gate.ExecContext(t.Context(), `SELECT RELEASE_LOCK(DATABASE())`); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitLock waits until the connection waits for a lock on rows. It does not use information_schema.innodb_trx, which
// is not refreshed while somebody reads it more often than every 0.1 s.
func (f *fixture) awaitLock(t *testing.T, connection int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	waits := regexp.MustCompile(fmt.Sprintf(`LOCK WAIT [^-]*thread id %d,`, connection))
	for status := ""; !waits.MatchString(status); {
		var kind, name string
		if err := f.QueryRowContext(ctx, `SHOW ENGINE INNODB STATUS`).Scan(&kind, &name, &status); err != nil {
			t.Fatalf("waiting for connection %d to wait for a lock: %v", connection, err)
		}
	}
}

// lock begins a transaction and executes a statement that locks rows.
func (f *fixture) lock(t *testing.T, statement string) *sql.Tx {
	t.Helper()
	tx, err := f.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	return tx
}

func (f *fixture) addOrganizations(t *testing.T, organizations ...appschema.Organization) {
	t.Helper()
	for i := range organizations {
		o := &organizations[i]
		if o.Name == "" {
			o.Name, o.CreatedBy = "Name of "+o.ID, "user"
		}
		if o.UpdatedAt.IsZero() {
			o.CreatedAt, o.UpdatedAt = old, old
		}
	}
	if err := appschema.InsertOrganizations(t.Context(), f.DB.DB, organizations); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) addRows(t *testing.T, rows ...appschema.Subscription) {
	t.Helper()
	for i := range rows {
		if rows[i].UpdatedAt.IsZero() {
			rows[i].CreatedAt, rows[i].UpdatedAt = old, old
		}
	}
	if err := appschema.InsertSubscriptions(t.Context(), f.DB.DB, rows); err != nil {
		t.Fatal(err)
	}
}

// rowID returns the id of the row that addPaying creates for the organization.
func rowID(orgID string) string { return "row-" + orgID[max(0, len(orgID)-32):] }

// addPaying adds an organization on the pro tier with one row, "sub_"+id of customer "cus_"+id.
func (f *fixture) addPaying(t *testing.T, ids ...string) {
	t.Helper()
	var organizations []appschema.Organization
	var rows []appschema.Subscription
	for _, id := range ids {
		organizations = append(organizations, testworld.Organization(id, func(o *appschema.Organization) { o.CreatedAt, o.UpdatedAt = old, old }))
		rows = append(rows, testworld.Row(id, func(s *appschema.Subscription) {
			s.ID, s.CreatedAt, s.UpdatedAt, s.CurrentPeriodStart, s.CurrentPeriodEnd = rowID(id), old, old, nil, nil
		}))
	}
	f.addOrganizations(t, organizations...)
	f.addRows(t, rows...)
}

func newRun(id string) billing.Run {
	return billing.Run{
		ID: id, Status: billing.RunEnumerating, Strategy: billing.StrategyRetrieve,
		StartedAt: now, DeadlineAt: now.Add(12 * time.Hour),
	}
}

func (f *fixture) openRun(t *testing.T, run billing.Run) billing.Run {
	t.Helper()
	opened, err := f.store.OpenRun(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// leaseOf returns the lease of an enumerator called owner.
func leaseOf(runID string) billing.Lease {
	return billing.Lease{RunID: runID, Owner: "owner", End: until}
}

func (f *fixture) lease(t *testing.T, l billing.Lease) {
	t.Helper()
	held, err := f.store.AcquireLease(t.Context(), l, now)
	if err != nil || !held {
		t.Fatalf("%+v: held %v, %v", l, held, err)
	}
}

// startRun opens a run with this downgrade limit, lists all organizations and sets it running.
func (f *fixture) startRun(t *testing.T, id string, limit int) {
	t.Helper()
	f.openRun(t, newRun(id))
	f.lease(t, leaseOf(id))
	n, _, err := f.store.ListOrganizations(t.Context(), leaseOf(id), "free", "", "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.FinishListing(t.Context(), leaseOf(id), n, limit); err != nil {
		t.Fatal(err)
	}
	if err := f.store.MarkRunning(t.Context(), leaseOf(id)); err != nil {
		t.Fatal(err)
	}
}

// key returns the run's key, which its items refer to. It opens the run if it does not exist.
func (f *fixture) key(t *testing.T, runID string) (key int) {
	t.Helper()
	f.MustExec(t, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, started_at, deadline_at) VALUES (?,'enumerating',FALSE,'retrieve',?,?)
		ON DUPLICATE KEY UPDATE id = VALUES(id)`, runID, now, now.Add(12*time.Hour))
	return mysqltest.Value[int](t, f.DB, `SELECT run_key FROM reconciliation_runs WHERE id = ?`, runID)
}

// addItems writes items as they are.
func (f *fixture) addItems(t *testing.T, items ...billing.Item) {
	t.Helper()
	const perStatement = 500
	for len(items) > 0 {
		chunk := items[:min(perStatement, len(items))]
		items = items[len(chunk):]
		var args []any
		keys := map[string]int{}
		for _, i := range chunk {
			if keys[i.RunID] == 0 {
				keys[i.RunID] = f.key(t, i.RunID)
			}
			args = append(args, keys[i.RunID], i.OrgID, i.Outcome, i.Reason)
		}
		f.MustExec(t, `INSERT INTO reconciliation_items (run_key, org_id, outcome, reason) VALUES (?,?,?,?)`+
			strings.Repeat(`,(?,?,?,?)`, len(chunk)-1), args...)
	}
}

func pendingItem(runID, orgID string) billing.Item {
	return billing.Item{RunID: runID, OrgID: orgID, Outcome: billing.OutcomePending}
}

func (f *fixture) run(t *testing.T, id string) billing.Run {
	t.Helper()
	runs, err := f.store.Runs(t.Context(), []string{id})
	if err != nil {
		t.Fatal(err)
	}
	run, ok := runs[id]
	if !ok {
		t.Fatalf("run %s does not exist", id)
	}
	return run
}

// leaseEnd returns when the lease of the run's enumerator ends.
func (f *fixture) leaseEnd(t *testing.T, runID string) sql.NullTime {
	t.Helper()
	return mysqltest.Value[sql.NullTime](t, f.DB, `SELECT lease_expires_at FROM reconciliation_runs WHERE id = ?`, runID)
}

func (f *fixture) item(t *testing.T, runID, orgID string) billing.Item {
	t.Helper()
	work := billing.Work{RunID: runID, OrgID: orgID}
	items, err := f.store.Items(t.Context(), []billing.Work{work})
	if err != nil {
		t.Fatal(err)
	}
	item, ok := items[work]
	if !ok {
		t.Fatalf("item %v does not exist", work)
	}
	return item
}

func (f *fixture) record(t *testing.T, orgID string) billing.Record {
	t.Helper()
	records, err := f.store.Records(t.Context(), []string{orgID})
	if err != nil {
		t.Fatal(err)
	}
	record, ok := records[orgID]
	if !ok {
		t.Fatalf("organization %s does not exist", orgID)
	}
	return record
}

// state is everything that a failed write must leave unchanged.
type state struct {
	Application string
	Items       map[string]billing.Item
	Downgrades  map[string]int
}

func (f *fixture) state(t *testing.T) state {
	t.Helper()
	s := state{Items: map[string]billing.Item{}, Downgrades: map[string]int{}}
	var err error
	if s.Application, err = appschema.Checksum(t.Context(), f.DB.DB); err != nil {
		t.Fatal(err)
	}
	var works []billing.Work
	for _, pair := range f.selectStrings(t, `SELECT CONCAT(r.id, '|', i.org_id) FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key`) {
		runID, orgID, _ := strings.Cut(pair, "|")
		works = append(works, billing.Work{RunID: runID, OrgID: orgID})
	}
	items, err := f.store.Items(t.Context(), works)
	if err != nil {
		t.Fatal(err)
	}
	for work, item := range items {
		s.Items[work.RunID+"|"+work.OrgID] = item
	}
	for _, id := range f.selectStrings(t, `SELECT id FROM reconciliation_runs`) {
		s.Downgrades[id] = f.run(t, id).Downgrades
	}
	return s
}

// requireUnchanged fails the test if anything was written since the state was read.
func (f *fixture) requireUnchanged(t *testing.T, before state) {
	t.Helper()
	if diff := cmp.Diff(before, f.state(t)); diff != "" {
		t.Errorf("the state changed (-before +after):\n%s", diff)
	}
}

func (f *fixture) selectStrings(t *testing.T, query string) []string {
	t.Helper()
	return mysqltest.Values[string](t, f.DB, query)
}

// wantFailure checks the class and the reason of the error, and that its message is one line.
func wantFailure(t *testing.T, err error, class billing.Class, reason billing.Reason) {
	t.Helper()
	f, ok := errors.AsType[*billing.Failure](err)
	if !ok {
		t.Errorf("got %v, want a %s failure %s", err, class, reason)
		return
	}
	if f.Class != class || f.Reason != reason {
		t.Errorf("got %s %s, want %s %s (%v)", f.Class, f.Reason, class, reason, err)
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("the message has more than one line: %q", err)
	}
}

// inParallel calls fn n times in parallel and returns the errors.
func inParallel(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start, done := make(chan struct{}), make(chan struct{})
	for i := range n {
		go func() {
			<-start
			errs[i] = fn(i)
			done <- struct{}{}
		}()
	}
	close(start)
	for range n {
		<-done
	}
	return errs
}

func orgID(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012d", uint32(n)*2654435761, n) }

func orgIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = orgID(i)
	}
	return ids
}
