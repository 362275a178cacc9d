package pipeline_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

const runID = "run-1"

var (
	start, created         = testworld.Start, testworld.Created
	periodStart, periodEnd = testworld.PeriodStart, testworld.PeriodEnd

	rules = testworld.Rules

	canceled, pastDue, price = testworld.Canceled, testworld.PastDue, testworld.Price
	free, withoutCustomer    = testworld.Free, testworld.WithoutCustomer

	numbered = testworld.Numbered
	once     = testworld.Once
)

type (
	hooks = testworld.Hooks
	cells = testworld.Cells
)

// fixture is a world with methods that execute the steps of runs in it.
type fixture struct{ *testworld.World }

// newFixture returns a fixture, and lets the test run in parallel with others.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if _, again := parallel.LoadOrStore(t, true); !again {
		t.Parallel()
	}
	return &fixture{testworld.New(t)}
}

// parallel has the tests that called t.Parallel, because a test may have several fixtures.
var parallel sync.Map

func distinct(sorted []string) []string { return slices.Compact(slices.Clone(sorted)) }

// sweepInto gives run-1 a complete snapshot of Stripe's subscriptions.
func (f *fixture) sweepInto() {
	f.Helper()
	now := f.Clock.Now()
	lease := billing.Lease{RunID: runID, Owner: "the enumerator", End: now.Add(time.Minute)}
	f.Exec(`UPDATE reconciliation_runs SET status = 'enumerating', strategy = 'sweep' WHERE id = ?`, runID)
	_, err := f.Store.AcquireLease(f.Context(), lease, now)
	if err == nil {
		err = f.Store.BeginSweep(f.Context(), lease, now)
	}
	client, page := f.StripeClient(), billing.Page{More: true}
	for of := (billing.Range{}); err == nil && page.More; of = of.Rest(page) {
		if page, err = client.SweepPage(f.Context(), of); err != nil {
			break
		}
		var rest []billing.Range
		if page.More {
			rest = []billing.Range{of.Rest(page)}
		}
		err = f.Store.SaveSweepPage(f.Context(), lease, of, page, rest)
	}
	if err == nil {
		err = f.Store.FinishSweep(f.Context(), lease, billing.SweepComplete)
	}
	if err == nil {
		err = f.Store.MarkRunning(f.Context(), lease)
	}
	if err != nil {
		f.Fatal(err)
	}
}

// items returns all items of run-1, without their revisions.
func (f *fixture) items() map[string]billing.Item {
	f.Helper()
	ids := f.ItemIDs(runID)
	all := map[string]billing.Item{}
	for _, id := range ids {
		item := f.Item(runID, id)
		item.Revision = 0
		all[id] = item
	}
	return all
}

func fieldsOf(changes []billing.Change) []string {
	var fields []string
	for _, c := range changes {
		fields = append(fields, c.Field)
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// deliver reconciles the organizations in one batch and returns the results by organization.
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

// wantResult checks the disposition of a message and the reason of its failure, "" without a failure.
func (f *fixture) wantResult(got pipeline.Result, want pipeline.Disposition, reason billing.Reason) {
	f.Helper()
	var gotReason billing.Reason
	if got.Failure != nil {
		gotReason = got.Failure.Reason
	}
	if got.Disposition != want || gotReason != reason {
		f.Errorf("disposition %d with reason %q (%v), want %d with %q", got.Disposition, gotReason, got.Failure, want, reason)
	}
}

// wantItem checks an item of run-1.
func (f *fixture) wantItem(orgID string, outcome billing.Outcome, reason billing.Reason) billing.Item {
	f.Helper()
	item := f.Item(runID, orgID)
	if item.Outcome != outcome || item.Reason != reason {
		f.Errorf("the item of %s is %s %q (%s), want %s %q", orgID, item.Outcome, item.Reason, item.Error, outcome, reason)
	}
	return item
}
