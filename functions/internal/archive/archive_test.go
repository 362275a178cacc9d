package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/s3server"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/s3bucket"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

const (
	page  = "reports/run/report.html"
	table = "reports/run/changes.csv"
)

// fixture is an aggregator that archives, and its surroundings.
type fixture struct {
	*mysqltest.DB

	t          *testing.T
	store      *mysqlstore.Store
	aggregator *pipeline.Aggregator
	server     *s3server.Server
	fault      func(key string) *s3server.Fault
	now        time.Time
	logs, emf  bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, DB: mysqltest.NewAny(t), now: time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC)}
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary) // after the database server has started in the usual one
	f.store = mysqlstore.New(f.DB.DB)
	if _, err := f.store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	f.server, err = s3server.Start(s3server.Options{Buckets: []string{"acme"}, Fault: func(key string) *s3server.Fault {
		if f.fault != nil {
			return f.fault(key)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.server.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
			t.Errorf("customer data is left in temporary files: %v, %v", left, err)
		}
	})
	clock := func() time.Time { return f.now }
	aws := f.server.AWSConfig()
	f.aggregator = &pipeline.Aggregator{
		Store: f.store, Now: clock, Log: telemetry.NewLogger(&f.logs, 0), Metrics: telemetry.NewMetrics(&f.emf, "Test", clock), Retention: 90 * 24 * time.Hour,
		Archive: Reports{
			Store: f.store, Mode: config.ModeTest, Now: clock,
			Bucket: s3bucket.New(s3bucket.Options{Name: "acme", Region: aws.Region, Endpoint: f.server.URL(), Credentials: aws.Credentials}),
		},
	}
	return f
}

// running adds a run with one repaired organization and one in error that can be closed.
func (f *fixture) running(change func(*billing.Run)) {
	f.t.Helper()
	run := billing.Run{ID: "run", Strategy: billing.StrategyRetrieve, StartedAt: f.now, DeadlineAt: f.now.Add(12 * time.Hour)}
	change(&run)
	if _, err := f.store.OpenRun(f.t.Context(), run); err != nil {
		f.t.Fatal(err)
	}
	for _, i := range []billing.Item{
		{OrgID: "repaired", Outcome: billing.OutcomeSynced, Reason: billing.ReasonRepaired, Changes: []billing.Change{{Field: billing.FieldPlanTier, From: "pro", To: "max"}}},
		{OrgID: "failed", Outcome: billing.OutcomeError, Reason: billing.ReasonTierUnresolved, Error: "no tier for price_x"},
	} {
		i.RunID = run.ID
		f.MustExec(f.t, `INSERT INTO reconciliation_items (run_key, org_id) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?), ?)`, i.RunID, i.OrgID)
		if err := f.store.Decide(f.t.Context(), i, false, f.now); err != nil {
			f.t.Fatal(err)
		}
	}
	f.MustExec(f.t, `UPDATE reconciliation_runs SET status = 'running', listed = TRUE WHERE id = ?`, run.ID)
}

func (f *fixture) progress() {
	f.t.Helper()
	if err := f.aggregator.Progress(f.t.Context(), "run"); err != nil {
		f.t.Fatal(err)
	}
}

// tick returns how many runs are still to be archived.
func (f *fixture) tick() int {
	f.t.Helper()
	f.emf.Reset()
	if _, err := f.aggregator.Tick(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(f.emf.String()) {
		var metrics map[string]any
		if err := json.Unmarshal([]byte(line), &metrics); err != nil {
			f.t.Fatal(err)
		}
		if left, ok := metrics[telemetry.MetricRunsToArchive].(float64); ok {
			return int(left)
		}
	}
	f.t.Fatal("the metric of the runs to archive is missing")
	return 0
}

// mend decides the organization in error, as a redrive does.
func (f *fixture) mend() {
	f.t.Helper()
	mended := billing.Item{RunID: "run", OrgID: "failed", Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync}
	mended.Revision = mysqltest.Value[int](f.t, f.DB, `SELECT revision FROM reconciliation_items WHERE org_id = 'failed'`)
	if err := f.store.Decide(f.t.Context(), mended, false, f.now); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) status() string {
	return mysqltest.Value[string](f.t, f.DB, `SELECT status FROM reconciliation_runs WHERE id = 'run'`)
}

func (f *fixture) wantArchived(what string, keys ...string) {
	f.t.Helper()
	if diff := cmp.Diff(keys, f.server.Keys("acme")); diff != "" {
		f.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestReportsOfFullRunAreArchivedOnClose(t *testing.T) {
	for name, change := range map[string]func(*billing.Run){"that writes": func(*billing.Run) {}, "dry": func(r *billing.Run) { r.DryRun = true }} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.running(change)
			f.progress()
			f.wantArchived("after the close", table, page)
			objects := f.server.Objects("acme")
			if o := objects[page]; o.ContentType != "text/html; charset=utf-8" || !bytes.Contains(o.Body, []byte("no tier for price_x")) || !bytes.HasPrefix(o.Body, []byte("<!DOCTYPE html>")) {
				t.Errorf("the page: %s, %.300s", o.ContentType, o.Body)
			}
			if o := objects[table]; o.ContentType != "text/csv; charset=utf-8" || !bytes.Contains(o.Body, []byte("subscriptions.plan_tier,pro,max")) {
				t.Errorf("the table: %s, %s", o.ContentType, o.Body)
			}
			if left := f.tick(); left != 0 || f.server.Objects("acme")[page].Puts != 1 {
				t.Errorf("%d runs are left, the page was written %d times", left, f.server.Objects("acme")[page].Puts)
			}
		})
	}
}

func TestOtherRunsAreNotArchived(t *testing.T) {
	for name, change := range map[string]func(*billing.Run){
		"over one organization": func(r *billing.Run) { r.OrgID = "repaired" }, "catch-up": func(r *billing.Run) { r.Strategy = billing.StrategyEvents },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.running(change)
			f.progress()
			if left := f.tick(); left != 0 {
				t.Errorf("%d runs are left", left)
			}
			f.wantArchived("a run " + name)
		})
	}
}

func TestTickArchivesAmendedRunAgain(t *testing.T) {
	f := newFixture(t)
	f.running(func(*billing.Run) {})
	f.progress()
	f.now = f.now.Add(time.Minute)
	f.mend()
	f.progress()
	if puts := f.server.Objects("acme")[page].Puts; puts != 1 {
		t.Errorf("each message of a redrive writes the reports: %d times", puts)
	}
	f.now = f.now.Add(15 * time.Minute)
	if left := f.tick(); left != 0 || f.status() != "completed" {
		t.Errorf("%d runs are left, status %s", left, f.status())
	}
	if o := f.server.Objects("acme")[page]; !bytes.Contains(o.Body, []byte("<dt>Amended</dt><dd>29 November 2026, 03:01 UTC, by a redrive")) {
		t.Error("the page does not say that it was amended")
	}
	if o := f.server.Objects("acme")[page]; o.Puts != 2 || bytes.Contains(o.Body, []byte("no tier for price_x")) {
		t.Errorf("written %d times; it still has what was mended: %t", o.Puts, bytes.Contains(o.Body, []byte("no tier for price_x")))
	}
}

func TestArchiveFailureFailsNoRunAndIsRetried(t *testing.T) {
	f := newFixture(t)
	denied := true
	f.fault = func(key string) *s3server.Fault {
		if denied && key == table {
			return &s3server.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
		}
		return nil
	}
	f.running(func(*billing.Run) {})
	f.progress()
	if f.status() != "completed_with_errors" {
		t.Errorf("the run is %s", f.status())
	}
	for _, want := range []string{`"level":"ERROR"`, "the reports were not archived, the next tick tries again", "AccessDenied", `"run"`} {
		if !strings.Contains(f.logs.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, f.logs.String())
		}
	}
	if left := f.tick(); left != 1 {
		t.Errorf("%d runs are left, want 1", left)
	}
	denied = false
	if left := f.tick(); left != 0 {
		t.Errorf("%d runs are left", left)
	}
	f.wantArchived("at last", table, page)
}

// A process that dies between page and table keeps the lease.
func TestTickArchivesAfterCrashDuringArchiving(t *testing.T) {
	f := newFixture(t)
	f.running(func(*billing.Run) {})
	ctx, die := context.WithCancel(t.Context())
	dead := false
	f.fault = func(key string) *s3server.Fault {
		if key != table || dead {
			return nil
		}
		dead = true
		f.MustExec(t, `UPDATE reconciliation_archives SET lease_owner = 'crashed'`) // so that it cannot end its lease
		die()
		return &s3server.Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown"}
	}
	if err := f.aggregator.Progress(ctx, "run"); err != nil {
		t.Fatal(err)
	}
	f.wantArchived("when it died", page)
	if left := f.tick(); left != 1 {
		t.Errorf("%d runs are left while the lease lasts, want 1", left)
	}
	f.now = f.now.Add(billing.ArchiveLeaseTTL + time.Second)
	if left := f.tick(); left != 0 {
		t.Errorf("%d runs are left", left)
	}
	f.wantArchived("at last", table, page)
}

func TestRunAmendedDuringArchivingIsArchivedAgain(t *testing.T) {
	f := newFixture(t)
	f.running(func(*billing.Run) {})
	amended := false
	f.fault = func(key string) *s3server.Fault {
		if key == table && !amended {
			amended = true
			f.mend()
			f.progress()
		}
		return nil
	}
	f.progress()
	if left := f.tick(); left != 0 || f.server.Objects("acme")[page].Puts != 2 {
		t.Errorf("%d runs are left, the page was written %d times", left, f.server.Objects("acme")[page].Puts)
	}
	if bytes.Contains(f.server.Objects("acme")[page].Body, []byte("no tier for price_x")) {
		t.Error("the archived page is older than the run")
	}
}
