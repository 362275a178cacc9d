package cli_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// fakeStore is a database with one run.
type fakeStore struct {
	billing.Run

	swept  int
	tally  []billing.Tally
	asked  chan struct{} // one for each look for the latest run
	looked chan struct{} // one for each look at runs by id; nil if nobody waits for them
	broken error
}

func (r fakeStore) Runs(ctx context.Context, ids []string) (map[string]billing.Run, error) {
	if r.looked != nil {
		select {
		case r.looked <- struct{}{}:
		case <-ctx.Done():
		}
	}
	found := map[string]billing.Run{}
	for _, id := range ids {
		if id == r.ID {
			found[id] = r.Run
		}
	}
	return found, nil
}

func (r fakeStore) CountSwept(context.Context, string) (int, error) { return r.swept, nil }

func (r fakeStore) Tallies(context.Context, string) ([]billing.Tally, error) { return r.tally, nil }

func (r fakeStore) LatestRun(ctx context.Context) (billing.Run, bool, error) {
	select {
	case r.asked <- struct{}{}:
	case <-ctx.Done():
	}
	return r.Run, r.ID != "", r.broken
}

func TestShowProgressInEachPhaseOfARun(t *testing.T) {
	pending := []billing.Tally{{Outcome: billing.OutcomePending, Items: 1200}}
	for name, c := range map[string]struct {
		run  fakeStore
		want string
	}{
		"sweep":             {fakeStore{Run: billing.Run{Status: billing.RunEnumerating, Strategy: billing.StrategySweep, Sweep: billing.SweepOpen}, swept: 4300}, "listing subscriptions: 4,300\n"},
		"organizations":     {fakeStore{Run: billing.Run{Status: billing.RunEnumerating, Strategy: billing.StrategySweep, Sweep: billing.SweepComplete}, tally: pending}, "listing organizations: 1,200\n"},
		"without a sweep":   {fakeStore{Run: billing.Run{Status: billing.RunEnumerating, Strategy: billing.StrategyRetrieve, Sweep: billing.SweepOpen}, tally: pending}, "listing organizations: 1,200\n"},
		"sending":           {fakeStore{Run: billing.Run{Status: billing.RunEnumerating, Listed: true, Total: 1200}, tally: pending}, "enumerating: 0 of 1200 organizations\n"},
		"workers are at it": {fakeStore{Run: billing.Run{Status: billing.RunRunning, Total: 1201}, tally: append(pending, billing.Tally{Outcome: billing.OutcomeSynced, Items: 1})}, "running: 1 of 1201 organizations\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c.run.ID = "run"
			var out bytes.Buffer
			if _, err := cli.ShowProgress(t.Context(), c.run, output.NewProgress(&out), "run"); err != nil || out.String() != c.want {
				t.Errorf("%v, %q, want %q", err, &out, c.want)
			}
		})
	}
}

func TestShowProgressWhileShowsAResumedRunOnceItIsOpenAgain(t *testing.T) {
	for status, want := range map[billing.RunStatus]string{billing.RunStopped: "", billing.RunRunning: "running: 0 of 5 organizations\n"} {
		run := fakeStore{Run: billing.Run{ID: "run", Status: status, Total: 5, Listed: true}, looked: make(chan struct{})}
		var out bytes.Buffer
		err := cli.ShowProgressWhile(t.Context(), run, output.NewProgress(&out), time.Nanosecond, "run", func() error {
			<-run.looked
			<-run.looked
			<-run.looked // the first look is over
			return nil
		})
		if err != nil || out.String() != want {
			t.Errorf("%s: %v, %q, want %q", status, err, &out, want)
		}
	}
}

func TestShowProgressWhileFindsTheRunThatIsStarted(t *testing.T) {
	failed := errors.New("refused")
	sweep := billing.Run{ID: "run", Status: billing.RunEnumerating, Strategy: billing.StrategySweep, Sweep: billing.SweepOpen, StartedAt: time.Now()}
	older := sweep
	older.StartedAt = time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		run  fakeStore
		want string
	}{
		"it is":                   {fakeStore{Run: sweep, swept: 100}, "listing subscriptions: 100\n"},
		"one of an hour ago":      {fakeStore{Run: older}, ""},
		"no run":                  {fakeStore{}, ""},
		"a database that is away": {fakeStore{broken: errors.New("away")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.run.asked = make(chan struct{})
			var out bytes.Buffer
			err := cli.ShowProgressWhile(t.Context(), c.run, output.NewProgress(&out), time.Nanosecond, "", func() error {
				<-c.run.asked
				<-c.run.asked // the first look is over
				return failed
			})
			if !errors.Is(err, failed) || out.String() != c.want {
				t.Errorf("%v, %q, want %q", err, &out, c.want)
			}
		})
	}
}
