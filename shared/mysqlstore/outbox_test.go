package mysqlstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// setEventBus records a bus, so that repairs are announced.
func (f *fixture) setEventBus(t *testing.T) {
	t.Helper()
	if err := f.store.SetEventBus(t.Context(), "arn:aws:events:us-east-1::event-bus/application"); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) dueAnnouncements(t *testing.T, at time.Time) []billing.Announcement {
	t.Helper()
	due, err := f.store.DueAnnouncements(t.Context(), at, 100)
	if err != nil {
		t.Fatal(err)
	}
	return due
}

func details(t *testing.T, of []billing.Announcement) []map[string]any {
	t.Helper()
	var all []map[string]any
	for _, a := range of {
		var detail map[string]any
		if err := json.Unmarshal(a.Detail, &detail); err != nil {
			t.Fatal(err)
		}
		if detail["id"] != a.ID {
			t.Errorf("the detail of announcement %s has the id %v", a.ID, detail["id"])
		}
		all = append(all, detail)
	}
	return all
}

func ids(of []billing.Announcement) []string {
	var all []string
	for _, a := range of {
		all = append(all, a.ID)
	}
	return all
}

func TestRepairIsAnnouncedInItsTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c", "d")
		f.startRun(t, "r", 1)
		if _, err := f.store.EnsureStage(t.Context(), "staging"); err != nil {
			t.Fatal(err)
		}
		if err := f.apply(t, "r", f.record(t, "a"), upgrade("a")); err != nil {
			t.Fatal(err)
		}
		if due := f.dueAnnouncements(t, now); len(due) > 0 {
			t.Fatalf("without a bus there are %d announcements", len(due))
		}
		f.setEventBus(t)
		if err := f.apply(t, "r", f.record(t, "b"), downgrade("b")); err != nil {
			t.Fatal(err)
		}
		stale := f.record(t, "d")
		f.MustExec(t, `UPDATE organizations SET subscription_tier = 'max' WHERE id = 'd'`)
		for _, refused := range []error{
			f.apply(t, "r", f.record(t, "c"), downgrade("c")), // above the limit
			f.apply(t, "r", stale, upgrade("d")),              // the record changed
			f.apply(t, "r", f.record(t, "a"), upgrade("a")),   // the item is decided
		} {
			if refused == nil {
				t.Error("a repair was not refused")
			}
		}
		announced := details(t, f.dueAnnouncements(t, now))
		if len(announced) != 1 {
			t.Fatalf("%d announcements, want 1", len(announced))
		}
		delete(announced[0], "id")
		want := map[string]any{
			"version": 1.0, "stage": "staging", "livemode": false, "runId": "r", "orgId": "b", "subscriptionId": "sub_b", "customerId": "cus_b",
			"tier": map[string]any{"from": "pro", "to": "free"}, "status": map[string]any{"from": "active", "to": "active"},
			"period": map[string]any{"from": nil, "to": nil}, "accessLowered": true, "decidedAt": "2026-11-22T03:00:00Z",
			"changes": []any{
				map[string]any{"field": "organizations.subscription_tier", "from": "pro", "to": "free"},
				map[string]any{"field": "subscriptions.plan_tier", "from": "pro", "to": "free"},
			},
		}
		if diff := cmp.Diff(want, announced[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestFollowUpIsAnnouncedSeparately(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a")
		f.startRun(t, "r", 1)
		f.setEventBus(t)
		if err := f.apply(t, "r", f.record(t, "a"), downgrade("a")); err != nil {
			t.Fatal(err)
		}
		restore := planFor("a", billing.Change{Field: billing.FieldOrgTier, From: "free", To: "pro"})
		item := f.item(t, "r", "a")
		item.Changes = append(item.Changes, restore.Changes...)
		for range 2 { // the second is a duplicate
			err := f.store.Apply(t.Context(), f.record(t, "a"), restore, item, true, now)
			if err != nil && !errors.Is(err, billing.ErrAlreadyDecided) {
				t.Fatal(err)
			}
		}
		due := f.dueAnnouncements(t, now)
		announced := details(t, due)
		if len(announced) != 2 || due[0].ID == due[1].ID {
			t.Fatalf("announcements: %v, want 2 with different ids", announced)
		}
		if diff := cmp.Diff([]any{map[string]any{"field": "organizations.subscription_tier", "from": "free", "to": "pro"}}, announced[1]["changes"]); diff != "" || announced[1]["accessLowered"] != false {
			t.Errorf("the announcement of the follow-up is %v", announced[1])
		}
	})
}

// A worker may start before the aggregator has recorded the bus.
func TestConfiguredStoreAnnouncesWithoutARecordedBus(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.startRun(t, "r", 1)
	store, err := mysqlstore.Open(t.Context(), mysqlstore.Config{
		Host: f.Host, Port: f.Port, User: f.User, Password: f.Password, Name: f.Name,
		Announce: true, Origin: billing.Origin{Stage: "blue", LiveMode: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	f.store = store
	if err := f.apply(t, "r", f.record(t, "a"), upgrade("a")); err != nil {
		t.Fatal(err)
	}
	if announced := details(t, f.dueAnnouncements(t, now)); len(announced) != 1 || announced[0]["livemode"] != true || announced[0]["stage"] != "blue" {
		t.Errorf("%v", announced)
	}
}

// A message may quote the driver, with hosts and users. Every subscriber of the bus receives the announcement.
func TestAnnouncedEndHasTheMeaningOfItsReasonInsteadOfItsMessage(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.startRun(t, "r", 1)
		f.setEventBus(t)
		const raw = "Access denied for user 'recon'@'10.0.3.7' (database db.internal)"
		summary := summaryOf("r", billing.RunStopped)
		summary.StatusReason, summary.StatusMessage = billing.ReasonDatabaseLogin, raw
		text := billing.Digest(billing.Run{ID: "r"}, summary, "")
		if ok, err := f.store.CloseRun(t.Context(), billing.End{Summary: summary, Kind: billing.KindFull, Text: text, At: now}, billing.RunRunning); !ok || err != nil {
			t.Fatal(ok, err)
		}
		due := f.dueAnnouncements(t, now)
		if len(due) != 1 || strings.Contains(string(due[0].Detail), "recon'@") || strings.Contains(string(due[0].Detail), "internal") {
			t.Fatalf("announced: %v", due)
		}
		if got := details(t, due)[0]; got["statusReason"] != "database_login" || got["statusMessage"] != billing.ReasonDatabaseLogin.Advice().Means {
			t.Errorf("announced: %v", got)
		}
		if got := f.run(t, "r").StatusMessage; got != raw {
			t.Errorf("the run's row has the message %q", got)
		}
	})
}

func TestEventBusIsRecorded(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for _, bus := range []string{"", "one", "one", "another", "", "one"} {
			if err := f.store.SetEventBus(t.Context(), bus); err != nil {
				t.Fatal(err)
			}
			if got, err := f.store.AnnouncesRepairs(t.Context()); got != (bus != "") || err != nil {
				t.Errorf("with the bus %q, repairs are announced: %v, %v", bus, got, err)
			}
			if got, _, err := f.store.EventBus(t.Context()); got != bus || err != nil {
				t.Errorf("the recorded bus is %q, %v, want %q", got, err, bus)
			}
		}
	})
}

func TestPostponedAnnouncementsComeLast(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "a", "b", "c")
		f.startRun(t, "r", 1)
		f.setEventBus(t)
		for _, id := range []string{"a", "b", "c"} {
			if err := f.apply(t, "r", f.record(t, id), upgrade(id)); err != nil {
				t.Fatal(err)
			}
		}
		all := ids(f.dueAnnouncements(t, now))
		later := now.Add(time.Minute)
		if err := f.store.PostponeAnnouncement(t.Context(), all[0], "InternalFailure: \xff try again", later); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all[1:], ids(f.dueAnnouncements(t, now))); diff != "" {
			t.Errorf("due now (-want +got):\n%s", diff)
		}
		due := f.dueAnnouncements(t, later)
		if diff := cmp.Diff([]string{all[1], all[2], all[0]}, ids(due)); diff != "" {
			t.Errorf("due later (-want +got):\n%s", diff)
		}
		if due[2].Attempts != 1 {
			t.Errorf("the postponed announcement has %d attempts, want 1", due[2].Attempts)
		}
		if err := f.store.PostponeAnnouncement(t.Context(), all[0], "", now.Add(24*time.Hour)); err != nil { // by a clock that is a day ahead
			t.Fatal(err)
		}
		if len(f.dueAnnouncements(t, now)) != 3 {
			t.Error("an announcement that a wrong clock postponed is not due")
		}
		if err := f.store.DeleteAnnouncements(t.Context(), all[1:]); err != nil {
			t.Fatal(err)
		}
		if err := f.store.DeleteAnnouncements(t.Context(), all[1:]); err != nil { // a second aggregator sent the same ones
			t.Fatal(err)
		}
		waiting, since, err := f.store.OutboxBacklog(t.Context())
		if err != nil || waiting != 1 || !since.Equal(now) {
			t.Errorf("the outbox has %d announcements since %v, %v", waiting, since, err)
		}
		if err := f.store.DeleteAnnouncements(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if waiting, since, err := f.store.OutboxBacklog(t.Context()); err != nil || waiting != 0 || since != nil {
			t.Errorf("the outbox has %d announcements since %v, %v", waiting, since, err)
		}
	})
}

func TestEndIsAnnouncedInItsTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.startRun(t, "r", 1)
		f.startRun(t, "quiet", 1)
		f.setEventBus(t)
		summary := summaryOf("r", billing.RunCompletedWithErrors)
		summary.Details = []billing.Detail{{OrgID: "a", Error: "of one organization"}}
		end := billing.End{Summary: summary, Kind: billing.KindFull, Text: "It ended.", At: now}
		for i, want := range []bool{true, false} {
			if ok, err := f.store.CloseRun(t.Context(), end, billing.RunRunning); ok != want || err != nil {
				t.Fatalf("CloseRun call %d: closed %v, want %v, %v", i, ok, want, err)
			}
		}
		if ok, err := f.store.CloseRun(t.Context(), billing.End{Summary: summaryOf("quiet", billing.RunCompleted)}, billing.RunRunning); !ok || err != nil {
			t.Fatal(ok, err)
		}
		first := f.dueAnnouncements(t, now)
		announced := details(t, first)
		if len(announced) != 1 || first[0].Type != billing.AnnounceRunFinished {
			t.Fatalf("%v", announced)
		}
		for key, want := range map[string]any{"runId": "r", "kind": "full", "text": "It ended.", "status": "completed_with_errors", "version": 1.0, "stage": "", "livemode": false} {
			if announced[0][key] != want {
				t.Errorf("%s is %v, want %v", key, announced[0][key], want)
			}
		}
		if _, has := announced[0]["details"]; has {
			t.Error("the announced end has details of organizations")
		}

		// A redrive amends the run before its end was sent. Only the last amendment is announced, after a delay.
		for i := range 2 {
			end.Summary.Synchronized++
			end.NotBefore, end.Text = now.Add(billing.AmendmentDelay), fmt.Sprint("Amended ", i)
			if ok, err := f.store.AmendRun(t.Context(), end, end.Summary.Status, f.run(t, "r").SummaryRevision); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		if due := f.dueAnnouncements(t, now); len(due) != 0 {
			t.Errorf("%d announcements are due without the delay", len(due))
		}
		again := f.dueAnnouncements(t, now.Add(billing.AmendmentDelay))
		if amended := details(t, again); len(amended) != 1 || amended[0]["text"] != "Amended 1" || slices.Equal(ids(first), ids(again)) {
			t.Errorf("%v", amended)
		}
		if err := f.store.DeleteAnnouncements(t.Context(), ids(first)); err != nil { // by an aggregator that sent the first end
			t.Fatal(err)
		}
		if len(f.dueAnnouncements(t, now.Add(billing.AmendmentDelay))) != 1 {
			t.Error("the amendment is lost")
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_outbox`); n != 1 {
			t.Errorf("the outbox has %d rows, want 1", n)
		}
	})
}
