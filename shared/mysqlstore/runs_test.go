package mysqlstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestOpenedRunIsReadBackUnchanged(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		want := newRun("r")
		want.RequestID, want.DryRun, want.OrgID = "request", true, "org"
		want.StartedAt = now.Add(123 * time.Millisecond)
		if diff := cmp.Diff(want, f.openRun(t, want)); diff != "" {
			t.Errorf("the opened run (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, f.run(t, "r")); diff != "" {
			t.Errorf("the run that was read (-want +got):\n%s", diff)
		}
	})
}

func TestOpenRunReturnsTheExistingRunOfAnIDOrRequest(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		byID, byRequest := newRun("scheduled"), newRun("manual")
		byRequest.RequestID = "request"
		f.openRun(t, byID)
		f.openRun(t, byRequest)
		f.openRun(t, newRun("other scheduled"))

		again := newRun("scheduled")
		again.DryRun, again.StartedAt = true, now.Add(time.Hour)
		if diff := cmp.Diff(byID, f.openRun(t, again)); diff != "" {
			t.Errorf("the same id (-want +got):\n%s", diff)
		}
		again = newRun("another id")
		again.RequestID = "request"
		if diff := cmp.Diff(byRequest, f.openRun(t, again)); diff != "" {
			t.Errorf("the same request (-want +got):\n%s", diff)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_runs`); n != 3 {
			t.Errorf("%d runs, want 3", n)
		}
	})
}

func TestRunOpenedConcurrentlyIsOpenedOnce(t *testing.T) {
	f := onServer(t)
	const n = 8
	ids := make([]string, n)
	for _, err := range inParallel(n, func(i int) error {
		run := newRun(fmt.Sprintf("run-%d", i))
		run.RequestID = "request"
		opened, err := f.store.OpenRun(t.Context(), run)
		ids[i] = opened.ID
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if slices.Sort(ids); ids[0] != ids[n-1] {
		t.Errorf("several runs for one request: %v", ids)
	}
}

func TestUnknownRunsAreAbsent(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.openRun(t, newRun("a"))
		f.openRun(t, newRun("b"))
		runs, err := f.store.Runs(t.Context(), []string{"b", "unknown", "A"})
		if err != nil {
			t.Fatal(err)
		}
		if len(runs) != 1 || runs["b"].ID != "b" {
			t.Errorf("got %v", runs)
		}
		if runs, err = f.store.Runs(t.Context(), nil); len(runs) != 0 || err != nil {
			t.Errorf("without ids: %v, %v", runs, err)
		}
	})
}

func TestResumableRunsAreEnumeratingWithAFreeLease(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for i, id := range []string{"free", "held", "expired", "from the future", "running", "stopped", "released"} {
			run := newRun(id)
			run.StartedAt = now.Add(-time.Duration(i) * time.Minute)
			f.openRun(t, run)
		}
		for _, id := range []string{"held", "expired", "from the future", "running", "released"} {
			f.lease(t, leaseOf(id))
		}
		for id, remaining := range map[string]time.Duration{"held": 2 * time.Minute, "expired": -time.Second, "from the future": 2*time.Minute + time.Second} {
			lease := leaseOf(id)
			lease.End = now.Add(remaining)
			if err := f.store.MarkSent(t.Context(), lease, "x"); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.store.MarkRunning(t.Context(), leaseOf("running")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.store.StopRun(t.Context(), "stopped", billing.ReasonWrongMode, "why", now); err != nil {
			t.Fatal(err)
		}
		if err := f.store.ReleaseLease(t.Context(), leaseOf("released")); err != nil {
			t.Fatal(err)
		}
		got, err := f.store.ResumableRuns(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"released", "from the future", "expired", "free"}, got); diff != "" {
			t.Errorf("resumable runs, the earliest first (-want +got):\n%s", diff)
		}
	})
}

func TestOneOfManyConcurrentOwnersGetsTheLease(t *testing.T) {
	f := onServer(t)
	for round := range 5 {
		id := fmt.Sprintf("run-%d", round)
		f.openRun(t, newRun(id))
		const n = 8
		held := make([]bool, n)
		for _, err := range inParallel(n, func(i int) (err error) {
			held[i], err = f.store.AcquireLease(t.Context(), billing.Lease{RunID: id, Owner: fmt.Sprintf("owner-%d", i), End: until}, now)
			return err
		}) {
			if err != nil {
				t.Error(err)
			}
		}
		holders := 0
		for _, h := range held {
			if h {
				holders++
			}
		}
		if holders != 1 {
			t.Errorf("%d owners hold the lease, want 1", holders)
		}
	}
}

func TestLeaseIsHeldUntilItExpiresOrIsReleased(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		acquire := func(id, owner string, at time.Time) bool {
			t.Helper()
			held, err := f.store.AcquireLease(t.Context(), billing.Lease{RunID: id, Owner: owner, End: at.Add(time.Minute)}, at)
			if err != nil {
				t.Fatal(err)
			}
			return held
		}
		f.openRun(t, newRun("r"))
		if acquire("unknown", "a", now) {
			t.Error("an unknown run was leased")
		}
		if !acquire("r", "a", now) || acquire("r", "b", now.Add(59*time.Second)) {
			t.Error("the lease was not held for its time")
		}
		if !acquire("r", "a", now.Add(59*time.Second)) || acquire("r", "b", now.Add(61*time.Second)) {
			t.Error("the lease was not renewed")
		}
		if err := f.store.ReleaseLease(t.Context(), billing.Lease{RunID: "r", Owner: "b"}); err != nil {
			t.Fatal(err)
		}
		if acquire("r", "b", now.Add(62*time.Second)) {
			t.Error("an enumerator that does not hold the lease released it")
		}
		if !acquire("r", "b", now.Add(5*time.Minute)) || acquire("r", "a", now.Add(5*time.Minute)) {
			t.Error("the lease was not free after it expired")
		}
		if err := f.store.ReleaseLease(t.Context(), billing.Lease{RunID: "r", Owner: "b"}); err != nil {
			t.Fatal(err)
		}
		if at := f.leaseEnd(t, "r"); at.Valid {
			t.Errorf("the released lease ends at %v", at.Time)
		}
		if !acquire("r", "a", now) {
			t.Error("the lease was not free after its release")
		}
		if err := f.store.MarkRunning(t.Context(), billing.Lease{RunID: "r", Owner: "a"}); err != nil {
			t.Fatal(err)
		}
		if acquire("r", "a", now) {
			t.Error("a running run was leased")
		}
	})
}

// An enumerator with a wrong clock may have died. The others do not wait for the end of its lease.
func TestLeaseThatEndsTooFarInTheFutureIsFree(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		acquire := func(owner string, at time.Time) bool {
			t.Helper()
			held, err := f.store.AcquireLease(t.Context(), billing.Lease{RunID: "r", Owner: owner, End: at.Add(billing.LeaseTTL)}, at)
			if err != nil {
				t.Fatal(err)
			}
			return held
		}
		f.openRun(t, newRun("r"))
		if !acquire("a day ahead", now.Add(24*time.Hour)) || !acquire("right", now) {
			t.Error("the lease of an enumerator a day ahead was not taken over")
		}
		if !acquire("a minute ahead", now.Add(61*time.Second)) || acquire("right", now.Add(time.Second)) {
			t.Error("enumerators whose clocks differ by a minute took the lease from each other")
		}
		if err := f.store.MarkSent(t.Context(), billing.Lease{RunID: "r", Owner: "right", End: now}, "x"); !errors.Is(err, billing.ErrLeaseLost) {
			t.Errorf("the write of an enumerator that lost the lease: got %v, want ErrLeaseLost", err)
		}
	})
}

// leasedWrites returns the writes that only the holder of the lease may do.
func leasedWrites(f *fixture, l billing.Lease) map[string]func(t *testing.T) error {
	return map[string]func(t *testing.T) error{
		"ListOrganizations": func(t *testing.T) error {
			_, _, err := f.store.ListOrganizations(t.Context(), l, "free", "", "", 10)
			return err
		},
		"FinishListing": func(t *testing.T) error { return f.store.FinishListing(t.Context(), l, 7, 3) },
		"MarkSent":      func(t *testing.T) error { return f.store.MarkSent(t.Context(), l, "x") },
		"MarkRunning":   func(t *testing.T) error { return f.store.MarkRunning(t.Context(), l) },
	}
}

func TestEnumeratorThatLostItsLeaseWritesNothing(t *testing.T) {
	first := billing.Lease{RunID: "r", Owner: "first", End: until}
	for name, lose := range map[string]func(t *testing.T, f *fixture){
		"another enumerator took it over": func(t *testing.T, f *fixture) {
			held, err := f.store.AcquireLease(t.Context(), billing.Lease{RunID: "r", Owner: "second", End: now.Add(3 * time.Minute)}, now.Add(2*time.Minute))
			if err != nil || !held {
				t.Fatalf("held %v, %v", held, err)
			}
		},
		"it was released": func(t *testing.T, f *fixture) {
			if err := f.store.ReleaseLease(t.Context(), first); err != nil {
				t.Fatal(err)
			}
		},
		"the run was stopped": func(t *testing.T, f *fixture) {
			if ok, err := f.store.StopRun(t.Context(), "r", billing.ReasonWrongAccount, "why", now); err != nil || !ok {
				t.Fatalf("stopped %v, %v", ok, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, f *fixture) {
				f.addPaying(t, orgIDs(3)...)
				f.openRun(t, newRun("r"))
				f.lease(t, first)
				lose(t, f)
				before := f.run(t, "r")
				for name, write := range leasedWrites(f, first) {
					if err := write(t); !errors.Is(err, billing.ErrLeaseLost) {
						t.Errorf("%s: got %v, want ErrLeaseLost", name, err)
					}
				}
				if diff := cmp.Diff(before, f.run(t, "r")); diff != "" {
					t.Errorf("the run changed (-before +after):\n%s", diff)
				}
				if n, err := f.store.CountItems(t.Context(), "r"); n != 0 || err != nil {
					t.Errorf("the refused page left %d items (%v)", n, err)
				}
			})
		})
	}
}

func TestEnumeratorWithTheLeaseAdvancesTheRun(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b")
		f.openRun(t, newRun("r"))
		lease := leaseOf("r")
		f.lease(t, lease)
		lease.End = now.Add(time.Hour)
		if n, through, err := f.store.ListOrganizations(t.Context(), lease, "free", "", "", 10); n != 2 || through != "b" || err != nil {
			t.Fatalf("listed %d through %q, %v", n, through, err)
		}
		if err := f.store.FinishListing(t.Context(), lease, 2, 10); err != nil {
			t.Fatal(err)
		}
		if err := f.store.MarkSent(t.Context(), lease, "b"); err != nil {
			t.Fatal(err)
		}
		want := newRun("r")
		want.ListedThrough, want.SentThrough, want.Listed, want.Total, want.DowngradeLimit = "b", "b", true, 2, 10
		if diff := cmp.Diff(want, f.run(t, "r")); diff != "" {
			t.Errorf("the run after MarkSent (-want +got):\n%s", diff)
		}
		if at := f.leaseEnd(t, "r"); !at.Time.Equal(lease.End) {
			t.Errorf("the lease ends at %v, want %v", at, lease.End)
		}
		if err := f.store.MarkRunning(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		want.Status = billing.RunRunning
		if diff := cmp.Diff(want, f.run(t, "r")); diff != "" {
			t.Errorf("the run after MarkRunning (-want +got):\n%s", diff)
		}
		if at := f.leaseEnd(t, "r"); at.Valid {
			t.Errorf("the running run has a lease until %v", at.Time)
		}
	})
}

func TestLimitApprovedWhileEnumeratingIsKept(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.openRun(t, newRun("r"))
		f.lease(t, leaseOf("r"))
		if raised, err := f.store.Approve(t.Context(), "r", billing.Approval{Limit: 50, By: "ops@desk", At: time.Now()}); !raised || err != nil {
			t.Fatalf("raised %v, %v", raised, err)
		}
		if err := f.store.FinishListing(t.Context(), leaseOf("r"), 100, 10); err != nil {
			t.Fatal(err)
		}
		if got := f.run(t, "r").DowngradeLimit; got != 50 {
			t.Errorf("the limit is %d, want the 50 that were approved", got)
		}
	})
}

// listAll lists all pages of the run as an enumerator does, and returns their sizes.
func listAll(t *testing.T, f *fixture, run billing.Run, limit int) (sizes []int) {
	t.Helper()
	for {
		n, through, err := f.store.ListOrganizations(t.Context(), leaseOf(run.ID), "free", run.OrgID, run.ListedThrough, limit)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, n)
		run.ListedThrough = through
		if stored := f.run(t, run.ID).ListedThrough; stored != through {
			t.Fatalf("the cursor is %q, want %q", stored, through)
		}
		if n < limit {
			return sizes
		}
	}
}

// addPopulation adds n organizations of every kind, with ids in lower and upper case. It returns the eligible ones.
func addPopulation(t *testing.T, f *fixture, n int) (eligible []string) {
	t.Helper()
	var organizations []appschema.Organization
	var rows []appschema.Subscription
	for i := range n {
		o := appschema.Organization{ID: orgID(i)}
		if i%3 == 0 {
			o.ID = strings.ToUpper(o.ID)
		}
		row := appschema.Subscription{ID: orgID(100_000 + i), OrgID: o.ID}
		isEligible, hasRow := true, false
		switch i % 10 {
		case 0: // no id of Stripe
			isEligible = false
		case 1: // an unfinished checkout
			o.StripeCustomerID, isEligible = new(""), false
		case 2: // a row without an id of Stripe
			hasRow = true
		case 3:
			o.StripeCustomerID = new("cus")
		case 4:
			o.StripeCustomerID, hasRow, o.IsDeleted, isEligible = new("cus"), true, true, false
		default:
			o.StripeCustomerID, hasRow = new("cus"), true
		}
		organizations = append(organizations, o)
		if hasRow {
			rows = append(rows, row)
		}
		if isEligible {
			eligible = append(eligible, o.ID)
		}
	}
	f.addOrganizations(t, organizations...)
	f.addRows(t, rows...)
	slices.Sort(eligible)
	return eligible
}

func TestEachEligibleOrganizationIsListedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		n, page := 2500, 400
		if !f.Concurrent { // go-mysql-server reads every row for every organization
			n, page = 300, 50
		}
		eligible := addPopulation(t, f, n)
		run := f.openRun(t, newRun("r"))
		f.lease(t, leaseOf("r"))
		if sizes := listAll(t, f, run, page); len(sizes) < n/page/2 {
			t.Errorf("the pages have %v organizations, want at least %d pages", sizes, n/page/2)
		}
		if n, err := f.store.CountItems(t.Context(), "r"); n != len(eligible) || err != nil {
			t.Errorf("%d items for %d eligible organizations (%v)", n, len(eligible), err)
		}

		var pending []string
		for after := ""; ; {
			page, err := f.store.PendingAfter(t.Context(), "r", after, page)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			pending = append(pending, page...)
			after = page[len(page)-1]
		}
		if diff := cmp.Diff(eligible, pending); diff != "" {
			t.Errorf("pending organizations in byte order (-want +got):\n%s", diff)
		}
	})
}

func TestPagesListedAgainAddNoItems(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, orgIDs(10)...)
		run := f.openRun(t, newRun("r"))
		f.lease(t, leaseOf("r"))
		listAll(t, f, run, 4)
		decided := f.selectStrings(t, `SELECT org_id FROM reconciliation_items ORDER BY org_id`)[0]
		item := billing.Item{RunID: "r", OrgID: decided, Outcome: billing.OutcomeSkipped, Reason: billing.ReasonInSync}
		if err := f.store.Decide(t.Context(), item, false, now); err != nil {
			t.Fatal(err)
		}
		listAll(t, f, run, 4) // from the start
		if n, err := f.store.CountItems(t.Context(), "r"); n != 10 || err != nil {
			t.Errorf("%d items, want 10 (%v)", n, err)
		}
		if got := f.item(t, "r", decided); got.Outcome != billing.OutcomeSkipped {
			t.Errorf("the outcome of a decided organization changed to %s", got.Outcome)
		}
	})
}

func TestRunOverOneOrganizationListsThatOrganizationOnly(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.addOrganizations(t, appschema.Organization{ID: "without-row"}, appschema.Organization{ID: "deleted", IsDeleted: true})
		for name, want := range map[string]int{"b": 1, "without-row": 1, "deleted": 0, "unknown": 0} {
			run := newRun("run " + name)
			run.OrgID = name
			run = f.openRun(t, run)
			f.lease(t, leaseOf(run.ID))
			if sizes := listAll(t, f, run, 1); sizes[0] != want {
				t.Errorf("%s: the pages have %v organizations, want %d", name, sizes, want)
			}
			if n, err := f.store.CountItems(t.Context(), run.ID); n != want || err != nil {
				t.Errorf("%s: %d items, want %d (%v)", name, n, want, err)
			}
			if want == 1 {
				f.item(t, run.ID, name)
			}
			exists, err := f.store.OrganizationExists(t.Context(), name)
			if err != nil || exists != (want == 1) {
				t.Errorf("%s exists: %v, %v", name, exists, err)
			}
		}
	})
}

func TestPendingAfterLeavesOutDecidedItems(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addItems(t,
			pendingItem("r", "a"), billing.Item{RunID: "r", OrgID: "b", Outcome: billing.OutcomeSynced},
			pendingItem("r", "c"), billing.Item{RunID: "r", OrgID: "d", Outcome: billing.OutcomeError},
			pendingItem("r", "e"), pendingItem("r", "f"), pendingItem("other", "aa"))
		for _, c := range []struct {
			after string
			limit int
			want  []string
		}{
			{"", 10, []string{"a", "c", "e", "f"}},
			{"", 2, []string{"a", "c"}},
			{"a", 2, []string{"c", "e"}},
			{"f", 2, nil},
		} {
			got, err := f.store.PendingAfter(t.Context(), "r", c.after, c.limit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("after %q, with the limit %d (-want +got):\n%s", c.after, c.limit, diff)
			}
		}
	})
}

func TestReopenContinuesRunsWithPendingItemsAndStoppedRuns(t *testing.T) {
	all := []billing.RunStatus{
		billing.RunEnumerating, billing.RunRunning, billing.RunCompleted, billing.RunCompletedWithErrors,
		billing.RunIncomplete, billing.RunStopped,
	}
	onEach(t, func(t *testing.T, f *fixture) {
		reopen := func(id string, status billing.RunStatus, listed bool) bool {
			t.Helper()
			f.openRun(t, newRun(id))
			f.MustExec(t, `UPDATE reconciliation_runs SET status = ?, listed = ?, total = 5, downgrades = 2, downgrade_limit = 9, listed_through = 'l',
				sent_through = 's', status_reason = 'why', status_message = 'because', finished_at = ?, summary = '{}', lease_owner = 'o', lease_expires_at = ?
				WHERE id = ?`, status, listed, now, now, id)
			ok, err := f.store.Reopen(t.Context(), id, "", now.Add(24*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		for _, status := range all {
			f.addItems(t, pendingItem("pending "+string(status), "a"),
				billing.Item{RunID: "decided " + string(status), OrgID: "a", Outcome: billing.OutcomeError})
			reopenable := status == billing.RunRunning || status == billing.RunStopped || status == billing.RunIncomplete

			if got := reopen("decided "+string(status), status, true); got != (status == billing.RunStopped) {
				t.Errorf("a run that is %s, without pending items: reopened %v", status, got)
			}
			id := "pending " + string(status)
			if got := reopen(id, status, true); got != reopenable {
				t.Errorf("a run that is %s, with pending items: reopened %v, want %v", status, got, reopenable)
			}
			if !reopenable {
				continue
			}
			want := newRun(id)
			want.DeadlineAt, want.SummaryRevision = now.Add(24*time.Hour), 1
			want.Listed, want.ListedThrough, want.Total, want.Downgrades, want.DowngradeLimit = true, "l", 5, 2, 9
			if diff := cmp.Diff(want, f.run(t, id)); diff != "" {
				t.Errorf("a run that was %s, reopened (-want +got):\n%s", status, diff)
			}
			if ids, err := f.store.ResumableRuns(t.Context(), now); !slices.Contains(ids, id) || err != nil {
				t.Errorf("the reopened run %s is not resumable (%v)", id, err)
			}
		}
		for _, status := range []billing.RunStatus{billing.RunStopped, billing.RunIncomplete} {
			if !reopen("not listed "+string(status), status, false) {
				t.Errorf("a run that was %s before it was listed was not reopened", status)
			}
		}
		if ok, err := f.store.Reopen(t.Context(), "unknown", "", now); ok || err != nil {
			t.Errorf("unknown run: %v, %v", ok, err)
		}
	})
}

// Without pending items no worker reads the snapshot, but its orphans must be reported.
func TestReopenKeepsTheSweepOfARunWithoutPendingItems(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for id, want := range map[string]billing.SweepState{"decided": billing.SweepComplete, "pending": billing.SweepOpen, "not listed": billing.SweepOpen} {
			f.openRun(t, newRun(id))
			f.MustExec(t, `INSERT INTO reconciliation_sweeps (run_id, state, began_at) VALUES (?, 'complete', ?)`, id, now)
			f.MustExec(t, `UPDATE reconciliation_runs SET status = 'stopped', listed = ? WHERE id = ?`, id != "not listed", id)
			if id == "pending" {
				f.addItems(t, pendingItem(id, "a"))
			}
			if ok, err := f.store.Reopen(t.Context(), id, "", now.Add(time.Hour)); !ok || err != nil {
				t.Errorf("%s: reopened %v, %v", id, ok, err)
			}
			if got := f.run(t, id).Sweep; got != want {
				t.Errorf("%s: the sweep is %q, want %q", id, got, want)
			}
		}
	})
}

func TestRunIsStoppedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.startRun(t, "running", 0)
		f.openRun(t, newRun("enumerating"))
		f.lease(t, leaseOf("enumerating"))
		for _, id := range []string{"running", "enumerating"} {
			if ok, err := f.store.StopRun(t.Context(), id, billing.ReasonWrongAccount, "the key's account", now); !ok || err != nil {
				t.Errorf("%s: stopped %v, %v", id, ok, err)
			}
			if ok, err := f.store.StopRun(t.Context(), id, billing.ReasonWrongMode, "again", now.Add(time.Hour)); ok || err != nil {
				t.Errorf("%s: stopped again %v, %v", id, ok, err)
			}
			run := f.run(t, id)
			if run.Status != billing.RunStopped || run.StatusReason != billing.ReasonWrongAccount || run.StatusMessage != "the key's account" ||
				run.FinishedAt == nil || !run.FinishedAt.Equal(now) || f.leaseEnd(t, id).Valid {
				t.Errorf("%s: %+v", id, run)
			}
		}
		if got := f.item(t, "running", "a"); got.Outcome != billing.OutcomePending {
			t.Errorf("the item's outcome is %s, want pending", got.Outcome)
		}
		if ok, err := f.store.StopRun(t.Context(), "unknown", billing.ReasonWrongMode, "", now); ok || err != nil {
			t.Errorf("unknown run: %v, %v", ok, err)
		}
	})
}

func TestOneOfManyConcurrentCallsStopsTheRun(t *testing.T) {
	f := onServer(t)
	f.openRun(t, newRun("r"))
	stopped := make(chan bool, 8)
	for _, err := range inParallel(cap(stopped), func(int) error {
		ok, err := f.store.StopRun(t.Context(), "r", billing.ReasonWrongMode, "why", now)
		stopped <- ok
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := countTrue(stopped); n != 1 {
		t.Errorf("%d calls stopped the run, want 1", n)
	}
}

func countTrue(answers chan bool) (n int) {
	close(answers)
	for answer := range answers {
		if answer {
			n++
		}
	}
	return n
}

func TestUsageAddsUp(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.openRun(t, newRun("r"))
		f.openRun(t, newRun("other"))
		for range 2 {
			if err := f.store.AddUsage(t.Context(), "r", billing.Usage{List: 1, Retrieve: 20, Other: 300, Throttled: 4 << 32}); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := f.run(t, "r").Usage, (billing.Usage{List: 2, Retrieve: 40, Other: 600, Throttled: 8 << 32}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := f.run(t, "other").Usage; got != (billing.Usage{}) {
			t.Errorf("the usage of the other run is %+v", got)
		}
	})
}

func TestUsageAddedConcurrentlyAddsUp(t *testing.T) {
	f := onServer(t)
	f.openRun(t, newRun("r"))
	for _, err := range inParallel(16, func(int) error {
		for range 20 {
			if err := f.store.AddUsage(t.Context(), "r", billing.Usage{List: 1, Retrieve: 2, Other: 3, Throttled: 4}); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if got, want := f.run(t, "r").Usage, (billing.Usage{List: 320, Retrieve: 640, Other: 960, Throttled: 1280}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
