package billing_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestWindowContinuesThePreviousOneUnlessSomebodyAsksForMore(t *testing.T) {
	now := time.Date(2026, time.November, 22, 3, 0, 0, 400_000_000, time.UTC)
	second := now.Truncate(time.Second)
	settled := second.Add(-10 * time.Minute)
	ago := func(d time.Duration) time.Time { return second.Add(-d) }
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		since time.Time
		at    billing.Coverage
		want  billing.Window
	}{
		"the first one, and no full run":          {want: billing.Window{From: ago(day), To: settled}},
		"the first one, after a full run":         {at: billing.Coverage{Full: ago(3 * day)}, want: billing.Window{From: ago(3 * day), To: settled}},
		"from the end of the one before":          {at: billing.Coverage{Through: ago(70 * time.Minute), Full: ago(3 * day)}, want: billing.Window{From: ago(85 * time.Minute), To: settled}},
		"right after the one before":              {at: billing.Coverage{Through: settled}, want: billing.Window{From: settled.Add(-billing.Overlap), To: settled}},
		"one was stopped since":                   {at: billing.Coverage{Through: ago(70 * time.Minute), Interrupted: ago(5 * time.Hour)}, want: billing.Window{From: ago(5 * time.Hour), To: settled}},
		"the first one was stopped":               {at: billing.Coverage{Interrupted: ago(2 * day)}, want: billing.Window{From: ago(2 * day), To: settled}},
		"away for longer than Stripe's log":       {at: billing.Coverage{Through: ago(40 * day), Full: ago(35 * day)}, want: billing.Window{From: ago(30 * day), To: settled, Expired: true}},
		"away, but a full run has seen to it":     {at: billing.Coverage{Through: ago(40 * day), Full: ago(2 * day)}, want: billing.Window{From: ago(2 * day), To: settled}},
		"a clock was ahead":                       {at: billing.Coverage{Through: now.Add(time.Hour)}, want: billing.Window{From: settled, To: settled}},
		"somebody asks for two hours":             {since: ago(2 * time.Hour), at: billing.Coverage{Through: ago(time.Hour)}, want: billing.Window{From: ago(2 * time.Hour), To: settled, Since: true}},
		"somebody asks for the last five minutes": {since: ago(5 * time.Minute), want: billing.Window{From: ago(5 * time.Minute), To: second, Since: true}},
		"somebody asks for too much":              {since: ago(31 * day), at: billing.Coverage{Full: ago(day)}, want: billing.Window{From: ago(30 * day), To: settled, Since: true, Expired: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := billing.NewWindow(now, 10*time.Minute, test.since, test.at)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever the clocks say, a window begins and ends at whole seconds and begins no later than the previous one ended,
// unless it is marked as expired.
func TestAWindowLeavesNoGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "now"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
		around := func(name string) time.Time {
			if rapid.Bool().Draw(t, "no "+name) {
				return time.Time{}
			}
			return now.Add(time.Duration(rapid.Int64Range(-45*24*3600, 3600).Draw(t, name)) * time.Second)
		}
		at := billing.Coverage{Through: around("through"), Interrupted: around("undone"), Full: around("full")}
		settle := time.Duration(rapid.Int64Range(0, 3600).Draw(t, "settle")) * time.Second
		w := billing.NewWindow(now, settle, time.Time{}, at)
		if w.From.After(w.To) || w.To.After(now) || w.From.Nanosecond()+w.To.Nanosecond() != 0 {
			t.Fatalf("%+v", w)
		}
		fromFull := w.From.Equal(at.Full.Truncate(time.Second)) || w.From.Equal(w.To) && at.Full.After(w.To) // which has seen to what was before
		for _, since := range []time.Time{at.Through, at.Interrupted} {
			if !since.IsZero() && w.From.After(since) && !w.Expired && !fromFull && since.Before(w.To) {
				t.Fatalf("a gap between %v and %+v", since, w)
			}
		}
	})
}

func TestAWindowIsReadToItsEnd(t *testing.T) {
	from := time.Date(2026, time.November, 22, 2, 0, 0, 0, time.UTC)
	w := billing.Window{From: from, To: from.Add(time.Hour)}
	page := func(more bool, ids ...string) billing.EventPage {
		p := billing.EventPage{More: more}
		for _, id := range ids {
			p.Events = append(p.Events, billing.Event{ID: id})
		}
		return p
	}
	w = w.Advance(page(true, "evt_3", "evt_2"), false)
	if diff := cmp.Diff(billing.EventQuery{From: from, To: w.To, StartingAfter: "evt_2"}, w.Query()); diff != "" {
		t.Error(diff)
	}
	if dry := w.Advance(page(false), true); dry.State != billing.WindowRead || dry.After != "" {
		t.Errorf("a dry run goes on with %+v", dry)
	}
	w = w.Advance(page(false, "evt_1"), false)
	if diff := cmp.Diff(billing.EventQuery{From: w.To.Add(-4 * 24 * time.Hour), To: w.To, Undelivered: true}, w.Query()); diff != "" {
		t.Error(diff)
	}
	w = w.Advance(page(true, "evt_9"), false)
	if q := w.Query(); q.StartingAfter != "evt_9" || !q.Undelivered {
		t.Errorf("%+v", q)
	}
	if w = w.Advance(page(false), false); w.State != billing.WindowRead {
		t.Errorf("%+v", w)
	}
}

func TestLaterEventIsTheCause(t *testing.T) {
	at := time.Date(2026, time.November, 22, 2, 0, 0, 0, time.UTC)
	a, b := billing.Cause{ID: "evt_b", Created: at}, billing.Cause{ID: "evt_a", Created: at.Add(time.Second)}
	if !a.Before(b) || b.Before(a) || !b.Before(billing.Cause{ID: "evt_c", Created: b.Created}) {
		t.Error("the order is wrong")
	}
	if a.Pending() || !(billing.Cause{PendingWebhooks: 1}).Pending() {
		t.Error("pending is wrong")
	}
}
