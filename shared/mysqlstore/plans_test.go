package mysqlstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// rowsRead returns how many rows the only connection of the store's pool reads while fn runs.
func rowsRead(t *testing.T, store *mysqlstore.Store, fn func() error) int {
	t.Helper()
	count := func() int { return mysqltest.RowsRead(t, store.DB(), "SESSION") }
	before, idle := count(), count()
	if err := fn(); err != nil {
		t.Fatal(err)
	}
	return count() - idle - (idle - before)
}

// readBy returns how many rows the call reads on a separate connection.
func readBy(t *testing.T, f *fixture, call func(*mysqlstore.Store) error) int {
	t.Helper()
	store, _ := f.singleConnection(t)
	return rowsRead(t, store, func() error { return call(store) })
}

// bulk is how each organization of addBulk is connected with its subscription.
type bulk struct {
	named    bool // the subscription's metadata names the organization
	recorded bool // the organization's row records the subscription
}

// addBulk adds n organizations with a decided item in the run "run". A complete sweep has a subscription of each.
func (f *fixture) addBulk(t *testing.T, n int, b bulk) {
	t.Helper()
	var subs []billing.Subscription
	var organizations []appschema.Organization
	var rows []appschema.Subscription
	var items []billing.Item
	for i := range n {
		id := fmt.Sprintf("org-%06d", i)
		sub := billing.Subscription{ID: "sub_" + id, CustomerID: "cus_" + id, Status: billing.StatusActive, Created: now}
		if b.named {
			sub.OrgID = id
		}
		organizations = append(organizations, appschema.Organization{ID: id, StripeCustomerID: new("cus_" + id)})
		if b.recorded {
			rows = append(rows, appschema.Subscription{ID: "row-" + id, OrgID: id, StripeSubscriptionID: new(sub.ID), StripeCustomerID: new(sub.CustomerID)})
		}
		subs = append(subs, sub)
		items = append(items, billing.Item{RunID: "run", OrgID: id, Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync})
	}
	f.addOrganizations(t, organizations...)
	if len(rows) > 0 {
		f.addRows(t, rows...)
	}
	sweep := fmt.Sprintf("sweep-%d", n)
	f.sweeping(t, sweep)
	for len(subs) > 0 {
		page := subs[:min(500, len(subs))]
		subs = subs[len(page):]
		f.storePage(t, sweep, billing.Range{}, billing.Page{Subscriptions: page})
	}
	if err := f.store.FinishSweep(t.Context(), leaseOf(sweep), billing.SweepComplete); err != nil {
		t.Fatal(err)
	}
	f.addItems(t, items...)
	for _, table := range []string{"organizations", "subscriptions", "reconciliation_items", "reconciliation_snapshots", "reconciliation_runs"} {
		f.MustExec(t, `ANALYZE TABLE `+table)
	}
}

// Without hints the optimizer would read the whole run.
func TestFrequentQueriesReadAsManyRowsInLargeRunsAsInSmallOnes(t *testing.T) {
	calls := map[string]func(context.Context, *mysqlstore.Store) error{
		"HasPending": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.HasPending(ctx, "run")
			return err
		},
		"UnfinishedRuns": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.UnfinishedRuns(ctx)
			return err
		},
		"RunsToClose": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.RunsToClose(ctx, now)
			return err
		},
		"ClosedRunsWithSnapshot": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.ClosedRunsWithSnapshot(ctx)
			return err
		},
		"Runs": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.Runs(ctx, []string{"run"})
			return err
		},
		"Items": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.Items(ctx, []billing.Work{{RunID: "run", OrgID: "org-000007"}})
			return err
		},
		"Records": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.Records(ctx, []string{"org-000007", "org-000008"})
			return err
		},
		"Claims": func(ctx context.Context, s *mysqlstore.Store) error {
			_, err := s.Claims(ctx, []billing.Subscription{{ID: "sub_org-000007"}, {ID: "sub_org-000008", OrgID: "org-000009"}})
			return err
		},
		"Snapshot": func(ctx context.Context, s *mysqlstore.Store) error {
			_, _, err := s.Snapshot(ctx, "sweep-3000", []billing.Record{{Org: billing.Organization{ID: "org-000007", CustomerID: new("cus_org-000007")}}})
			return err
		},
	}
	read := map[int]map[string]int{}
	for _, n := range []int{300, 3000} {
		f := newFixture(t, mysqltest.New(t))
		f.addBulk(t, n, bulk{recorded: true})
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'running' WHERE id = 'run'`)
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed' WHERE id <> 'run'`)
		read[n] = map[string]int{}
		for name, call := range calls {
			read[n][name] = readBy(t, f, func(s *mysqlstore.Store) error { return call(t.Context(), s) })
		}
	}
	for name := range calls {
		if small, large := read[300][name], read[3000][name]; large > small+10 {
			t.Errorf("%s reads %d rows in a run over 300 organizations, and %d in one over 3,000", name, small, large)
		}
	}
	t.Log(read)
}

// A query for one organization must not read the whole run, and a page must not read the pages before it.
func TestListingReadsInProportionToTheOrganizations(t *testing.T) {
	steps := map[string]func(ctx context.Context, s *mysqlstore.Store, run billing.Run, after string) (through string, err error){
		"ListOrganizations": func(ctx context.Context, s *mysqlstore.Store, run billing.Run, after string) (string, error) {
			n, through, err := s.ListOrganizations(ctx, leaseOf(run.ID), "free", "", after, 250)
			if n < 250 {
				through = ""
			}
			return through, err
		},
		"ListFromSnapshot": func(ctx context.Context, s *mysqlstore.Store, run billing.Run, after string) (string, error) {
			_, through, err := s.ListFromSnapshot(ctx, leaseOf(run.ID), after)
			return through, err
		},
		"PendingAfter": func(ctx context.Context, s *mysqlstore.Store, run billing.Run, after string) (string, error) {
			ids, err := s.PendingAfter(ctx, run.ID, after, 250)
			if len(ids) == 0 {
				return "", err
			}
			return ids[len(ids)-1], err
		},
		"Drift": func(ctx context.Context, s *mysqlstore.Store, _ billing.Run, _ string) (string, error) {
			_, err := s.Drift(ctx, "run")
			return "", err
		},
		"EachReportItem": func(ctx context.Context, s *mysqlstore.Store, _ billing.Run, _ string) (string, error) {
			return "", s.EachReportItem(ctx, "run", func(mysqlstore.ReportItem) error { return nil }, billing.OutcomeSynced, billing.OutcomeError)
		},
		"Tallies": func(ctx context.Context, s *mysqlstore.Store, _ billing.Run, _ string) (string, error) {
			_, err := s.Tallies(ctx, "run")
			return "", err
		},
	}
	for name, b := range map[string]bulk{
		"row":                      {recorded: true},
		"metadata and row":         {recorded: true, named: true},
		"metadata":                 {named: true},
		"neither metadata nor row": {},
	} {
		t.Run(name, func(t *testing.T) {
			const small, large = 500, 5000
			read := map[string]map[int]float64{}
			for _, n := range []int{small, large} {
				f := newFixture(t, mysqltest.New(t))
				f.addBulk(t, n, b)
				run := f.run(t, fmt.Sprintf("sweep-%d", n))
				for _, step := range []string{"ListOrganizations", "ListFromSnapshot", "PendingAfter", "Drift", "EachReportItem", "Tallies"} {
					total := readBy(t, f, func(s *mysqlstore.Store) error {
						after, err := steps[step](t.Context(), s, run, "")
						for after != "" && err == nil {
							after, err = steps[step](t.Context(), s, run, after)
						}
						return err
					})
					if read[step] == nil {
						read[step] = map[int]float64{}
					}
					read[step][n] = float64(total) / float64(n)
				}
			}
			for step, each := range read {
				if each[large] > 1.3*each[small]+0.5 {
					t.Errorf("%s reads %.1f rows for each of 500 organizations, and %.1f for each of 5,000", step, each[small], each[large])
				}
			}
			t.Log(read)
		})
	}
}
