package mysqlstore_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func newCatchUp(id string) billing.Run {
	run := newRun(id)
	run.Strategy = billing.StrategyEvents
	return run
}

var hour = billing.Window{From: now.Add(-time.Hour), To: now}

// catchUp opens a catch-up and takes its lease.
func (f *fixture) catchUp(t *testing.T, id string) billing.Lease {
	t.Helper()
	run, err := f.store.OpenCatchUp(t.Context(), newCatchUp(id), hour)
	if err != nil || run.ID != id {
		t.Fatalf("opened %q, %v", run.ID, err)
	}
	f.lease(t, leaseOf(id))
	return leaseOf(id)
}

// event returns an event of the subscription, created in this second of the hour.
func event(subscription string, second int, changes ...func(*billing.Event)) billing.Event {
	e := billing.Event{
		ID: fmt.Sprintf("evt_%s_%d", subscription, second), Type: "customer.subscription.updated", Created: hour.From.Add(time.Duration(second) * time.Second),
		SubscriptionID: subscription, CustomerID: "cus_of_" + subscription,
	}
	for _, change := range changes {
		change(&e)
	}
	return e
}

func (f *fixture) saveEvents(t *testing.T, l billing.Lease, w billing.Window, events ...billing.Event) {
	t.Helper()
	if err := f.store.SaveEvents(t.Context(), l, w, events, w, now); err != nil {
		t.Fatal(err)
	}
}

// listEventOrganizations lists the organizations of the events.
func (f *fixture) listEventOrganizations(t *testing.T, l billing.Lease) {
	t.Helper()
	for after, first := "", true; first || after != ""; first = false {
		var err error
		if after, err = f.store.ListFromEvents(t.Context(), l, after); err != nil {
			t.Fatal(err)
		}
	}
	for more := true; more; {
		var err error
		if more, err = f.store.ListByEventCustomers(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLatestEventOfASubscriptionIsKept(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		l := f.catchUp(t, "r")
		f.addPaying(t, "a")
		f.saveEvents(t, l, hour, event("sub_a", 30), event("sub_a", 20))
		f.saveEvents(t, l, hour, event("sub_a", 40, func(e *billing.Event) { e.PendingWebhooks = 2 }), event("sub_a", 10))
		f.saveEvents(t, l, hour, event("sub_a", 40, func(e *billing.Event) { e.ID = "evt_zzz" })) // in the same second, but listed later
		f.saveEvents(t, l, hour, billing.Event{ID: "evt_without_subscription", Created: now}, event("sub_a", 5))
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_events`); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
		f.listEventOrganizations(t, l)
		want := &billing.Cause{ID: "evt_sub_a_40", Type: "customer.subscription.updated", Created: hour.From.Add(40 * time.Second), PendingWebhooks: 2}
		if err := f.store.Decide(t.Context(), billing.Item{RunID: "r", OrgID: "a", Outcome: billing.OutcomeError, Reason: billing.ReasonWithheld}, false, now); err != nil {
			t.Fatal(err)
		}
		items, err := f.store.Notable(t.Context(), "r", 10)
		if err != nil || len(items) != 1 {
			t.Fatalf("%+v, %v", items, err)
		}
		if diff := cmp.Diff(want, items[0].Cause); diff != "" {
			t.Error(diff)
		}
		err = f.store.EachReportItem(t.Context(), "r", func(i mysqlstore.ReportItem) error {
			if diff := cmp.Diff(want, i.Cause); diff != "" {
				t.Error(diff)
			}
			return nil
		}, billing.OutcomeError)
		if err != nil {
			t.Error(err)
		}
		later := f.catchUpAfter(t, "r", "s")
		f.saveEvents(t, later, hour, event("sub_a", 35)) // an older event in a later catch-up
		f.listEventOrganizations(t, later)
		for org, want := range map[string]*billing.Cause{"a": want, "b": nil} {
			if got, err := f.store.LatestCause(t.Context(), org); !cmp.Equal(got, want) || err != nil {
				t.Errorf("the latest event of %s is %+v, %v", org, got, err)
			}
		}
	})
}

// catchUpAfter opens a catch-up after the other one has ended its listing.
func (f *fixture) catchUpAfter(t *testing.T, before, id string) billing.Lease {
	t.Helper()
	f.MustExec(t, `UPDATE reconciliation_runs SET status = 'running' WHERE id = ?`, before)
	return f.catchUp(t, id)
}

func TestEventsListOrganizationsByRowMetadataAndCustomer(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "recorded", "named", "both", "deleted")
		f.addOrganizations(t, appschema.Organization{ID: "customer", StripeCustomerID: new("cus_c")}, appschema.Organization{ID: "same-customer", StripeCustomerID: new(" cus_c ")},
			appschema.Organization{ID: "padded"})
		f.addRows(t, appschema.Subscription{ID: "padded", OrgID: "padded", StripeSubscriptionID: new("\tsub_padded ")})
		f.MustExec(t, `UPDATE organizations SET is_deleted = TRUE WHERE id = 'deleted'`)
		l := f.catchUp(t, "r")
		f.saveEvents(t, l, hour,
			event("sub_recorded", 1), event("sub_deleted", 1), event("sub_padded", 1), event("sub_stranger", 1),
			event("sub_new", 2, func(e *billing.Event) { e.OrgID = "named" }),
			event("sub_both", 3, func(e *billing.Event) { e.OrgID = "NAMED" }),
			event("sub_by_customer", 4, func(e *billing.Event) { e.CustomerID = "cus_c" }),
			event("sub_of_deleted", 4, func(e *billing.Event) { e.OrgID, e.CustomerID = "deleted", "" }),
			event("sub_long", 4, func(e *billing.Event) { e.OrgID = strings.Repeat("named", 100) }),
			event("", 5, func(e *billing.Event) { e.CustomerID, e.OrgID = "", "recorded" }))
		f.listEventOrganizations(t, l)
		want := []string{
			"both sub_both", "customer sub_by_customer", "named sub_both", "named sub_new", "padded sub_padded", "recorded ", "recorded sub_recorded", "same-customer sub_by_customer",
		}
		if diff := cmp.Diff(want, f.selectStrings(t, `SELECT CONCAT(org_id, ' ', subscription_id) FROM reconciliation_named ORDER BY 1`)); diff != "" {
			t.Error(diff)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_events`); n != 0 {
			t.Errorf("%d events are left", n)
		}
		got, err := f.store.EventSubscriptions(t.Context(), []billing.Work{{RunID: "r", OrgID: "recorded"}, {RunID: "r", OrgID: "customer"}, {RunID: "x", OrgID: "both"}})
		if diff := cmp.Diff(map[billing.Work][]string{{RunID: "r", OrgID: "recorded"}: {"sub_recorded"}, {RunID: "r", OrgID: "customer"}: {"sub_by_customer"}}, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	})
}

func TestOneOfManyConcurrentCatchUpsIsOpened(t *testing.T) {
	f := onServer(t)
	var all sync.WaitGroup
	opened := make([]string, 12)
	for i := range opened {
		all.Go(func() {
			run, err := f.store.OpenCatchUp(t.Context(), newCatchUp(fmt.Sprintf("run-%02d", i)), hour)
			if err != nil {
				t.Error(err)
			}
			opened[i] = run.ID
		})
	}
	all.Wait()
	if one := slices.Compact(slices.Sorted(slices.Values(opened))); len(one) != 1 {
		t.Errorf("the calls opened the catch-ups %v, want one", one)
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_windows`); n != 1 {
		t.Errorf("%d windows, want 1", n)
	}
}

func TestCatchUpCoverageFollowsListedAndInterruptedCatchUps(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		add := func(id string, status billing.RunStatus, listed bool, from, to time.Duration, changes ...func(*billing.Run, *billing.Window)) {
			t.Helper()
			run, w := newCatchUp(id), billing.Window{From: now.Add(from), To: now.Add(to)}
			for _, change := range changes {
				change(&run, &w)
			}
			if got, err := f.store.OpenCatchUp(t.Context(), run, w); err != nil || got.ID != id {
				t.Fatal(got, err)
			}
			f.MustExec(t, `UPDATE reconciliation_runs SET status = ?, listed = ? WHERE id = ?`, status, listed, id)
		}
		want := func(through, interrupted time.Duration) {
			t.Helper()
			at, err := f.store.CatchUpCoverage(t.Context(), now)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				got  time.Time
				want time.Duration
			}{{at.Through, through}, {at.Interrupted, interrupted}} {
				if (c.want == 0) != c.got.IsZero() || c.want != 0 && !c.got.Equal(now.Add(c.want)) {
					t.Errorf("%+v, want Through %v and Interrupted %v from %v", at, through, interrupted, now)
				}
			}
		}
		want(0, 0)
		add("first", billing.RunCompleted, true, -9*time.Hour, -8*time.Hour)
		add("running", billing.RunRunning, true, -8*time.Hour, -7*time.Hour)
		add("dry", billing.RunCompleted, true, -7*time.Hour, -2*time.Hour, func(r *billing.Run, _ *billing.Window) { r.DryRun = true })
		add("since", billing.RunCompleted, true, -2*time.Hour, -time.Hour, func(_ *billing.Run, w *billing.Window) { w.Since = true })
		add("future", billing.RunCompleted, true, -time.Hour, time.Hour)
		want(-7*time.Hour, 0)
		add("stopped", billing.RunStopped, false, -7*time.Hour, -6*time.Hour)
		add("incomplete", billing.RunIncomplete, true, -6*time.Hour, -5*time.Hour)
		want(-7*time.Hour, -7*time.Hour)
		add("after them", billing.RunCompletedWithErrors, true, -5*time.Hour, -4*time.Hour)
		want(-4*time.Hour, -7*time.Hour)
		add("covers one", billing.RunCompleted, true, -7*time.Hour, -5*time.Hour-time.Minute)
		want(-4*time.Hour, -6*time.Hour)
		add("covers both", billing.RunCompleted, true, -8*time.Hour, -3*time.Hour)
		want(-3*time.Hour, 0)
		at, err := f.store.CatchUpCoverage(t.Context(), now)
		if err != nil || !at.Full.IsZero() {
			t.Errorf("%+v, %v", at, err)
		}
		f.openRun(t, newRun("full"))
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed' WHERE id = 'full'`)
		if at, err := f.store.CatchUpCoverage(t.Context(), now); err != nil || !at.Full.Equal(now) {
			t.Errorf("%+v, %v", at, err)
		}
	})
}

func TestCatchUpThatLostItsLeaseWritesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b")
		l := f.catchUp(t, "r")
		f.saveEvents(t, l, hour, event("sub_a", 1), event("sub_x", 1, func(e *billing.Event) { e.CustomerID = "cus_b" }))
		f.MustExec(t, `INSERT INTO reconciliation_undelivered (event_id, type, pending_webhooks, subscription_id, customer_id, org_id, created_at, seen_key, seen_at)
			VALUES ('evt_late', 't', 1, 'sub_b', 'cus_b', '', ?, 0, ?)`, hour.From, hour.From)
		l.Owner = "another"
		undelivered := hour
		undelivered.State = billing.WindowUndelivered
		for name, write := range map[string]func() error{
			"SaveEvents": func() error {
				return f.store.SaveEvents(t.Context(), l, hour, []billing.Event{event("sub_b", 1)}, undelivered, now)
			},
			"SaveEvents undelivered": func() error {
				return f.store.SaveEvents(t.Context(), l, undelivered, []billing.Event{event("sub_b", 1)}, undelivered, now)
			},
			"AddLateEvents":        func() error { _, err := f.store.AddLateEvents(t.Context(), l, hour); return err },
			"ListFromEvents":       func() error { _, err := f.store.ListFromEvents(t.Context(), l, ""); return err },
			"ListByEventCustomers": func() error { _, err := f.store.ListByEventCustomers(t.Context(), l); return err },
		} {
			if err := write(); !errors.Is(err, billing.ErrLeaseLost) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for table, want := range map[string]int{"events": 2, "named": 0, "items": 0, "undelivered": 1} {
			if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_`+table); n != want {
				t.Errorf("%s has %d rows, want %d", table, n, want)
			}
		}
		if w := f.run(t, "r").Window; w.State != billing.WindowEvents {
			t.Errorf("%+v", w)
		}
	})
}

func TestTrimAndPruneDeleteCatchUpRows(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b")
		l := f.catchUp(t, "r")
		f.saveEvents(t, l, hour, event("sub_a", 1), event("sub_b", 1))
		f.listEventOrganizations(t, l)
		f.saveEvents(t, l, hour, event("sub_a", 1))
		for org, outcome := range map[string]billing.Outcome{"a": billing.OutcomeSkipped, "b": billing.OutcomeError} {
			if err := f.store.Decide(t.Context(), billing.Item{RunID: "r", OrgID: org, Outcome: outcome, Reason: billing.ReasonInSync}, false, now); err != nil {
				t.Fatal(err)
			}
		}
		f.MustExec(t, `UPDATE reconciliation_runs SET status = 'completed_with_errors'`)
		if err := f.store.Trim(t.Context(), now.Add(-time.Hour), now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"b"}, f.selectStrings(t, `SELECT org_id FROM reconciliation_named`)); diff != "" {
			t.Error(diff)
		}
		if n, err := f.store.PruneEmptyCatchUps(t.Context(), now.Add(time.Minute)); n != 0 || err != nil { // this catch-up named organizations
			t.Errorf("%d, %v", n, err)
		}
		if n, err := f.store.Prune(t.Context(), now.Add(time.Minute)); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		for _, table := range []string{"runs", "windows", "events", "named", "items", "tallies"} {
			if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_`+table); n != 0 {
				t.Errorf("%s has %d rows, want none", table, n)
			}
		}
	})
}

// The queries use indexes. Only events without an organization cause a scan of the application's tables, one for many
// events.
func TestCatchUpReadsInProportionToItsEvents(t *testing.T) {
	const events = 100
	read := map[int]map[string]int{}
	for _, n := range []int{500, 5000} {
		f := newFixture(t, mysqltest.New(t))
		f.addBulk(t, n, bulk{recorded: true})
		l := f.catchUp(t, "catch-up")
		var page []billing.Event
		for i := range events {
			id := fmt.Sprintf("org-%06d", 4*i)
			e := event("sub_"+id, i, func(e *billing.Event) { e.CustomerID = "cus_" + id })
			if i%2 == 1 {
				e.SubscriptionID, e.OrgID = "sub_new_"+id, id
			}
			page = append(page, e)
		}
		calls := map[string]func(*mysqlstore.Store) error{
			"1 CatchUpCoverage": func(s *mysqlstore.Store) error { _, err := s.CatchUpCoverage(t.Context(), now); return err },
			"2 SaveEvents":      func(s *mysqlstore.Store) error { return s.SaveEvents(t.Context(), l, hour, page, hour, now) },
			"3 AddLateEvents": func(s *mysqlstore.Store) error {
				_, err := s.AddLateEvents(t.Context(), l, hour)
				return err
			},
			"4 ListFromEvents": func(s *mysqlstore.Store) error { _, err := s.ListFromEvents(t.Context(), l, ""); return err },
			"5 ListByEventCustomers": func(s *mysqlstore.Store) error {
				_, err := s.ListByEventCustomers(t.Context(), l)
				return err
			},
			"6 EventSubscriptions": func(s *mysqlstore.Store) error {
				_, err := s.EventSubscriptions(t.Context(), []billing.Work{{RunID: "catch-up", OrgID: "org-000004"}})
				return err
			},
			"7 LastCatchUpAt": func(s *mysqlstore.Store) error { _, err := s.LastCatchUpAt(t.Context(), now); return err },
		}
		read[n] = map[string]int{}
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			read[n][name] = readBy(t, f, calls[name])
		}
		if got := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_named`); got != events {
			t.Errorf("%d organizations are named, want %d", got, events)
		}
	}
	for name, small := range read[500] {
		if large := read[5000][name]; large > small+small/5+10 {
			t.Errorf("%s reads %d rows with 500 organizations, %d with 5,000", name, small, large)
		}
	}
	t.Log(read)
}
