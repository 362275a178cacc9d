package chaos_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// slowRound is longer than a round takes on an idle machine.
const slowRound = 10 * time.Second

// rounds is small, because all tests together should not take long.
const rounds = 3

// TestNothingIsLost plays CHAOS_ROUNDS rounds. CHAOS_SEED is the seed of the first one, and each next seed is one more.
func TestNothingIsLost(t *testing.T) {
	s := prepared(t)
	seed := number(t, "CHAOS_SEED", randomSeed())
	total := map[string]int{}
	longest := time.Duration(0)
	for i := range number(t, "CHAOS_ROUNDS", rounds) {
		took := playRound(t, s, seed+i, total)
		longest = max(longest, took)
	}
	if n := number(t, "CHAOS_ROUNDS", rounds); n >= roundsForAllFaults {
		wantEveryFault(t, total)
	}
	t.Logf("rounds from seed %d on, the longest took %v; faults:\n%s", seed, longest.Round(10*time.Millisecond), table(total))
}

// roundsForAllFaults is the number of rounds within which every fault takes effect, in all but one of thousands of
// campaigns.
const roundsForAllFaults = 100

// wantEveryFault checks that every fault took effect. A campaign without faults would find nothing.
func wantEveryFault(t *testing.T, total map[string]int) {
	t.Helper()
	wanted := []string{
		"commits lost", "answers to commits lost", "errors 1040 of the database", "errors 1290 of the database",
		"at work: worker killed", "at work: enumerator killed", "messages delivered once more", "rows locked by others",
	}
	for _, s := range faultKinds {
		if strings.HasPrefix(s.kind, "SQS: ") || strings.HasPrefix(s.kind, "EventBridge: ") || (strings.HasPrefix(s.kind, "Stripe: ") && s.kind != "Stripe: slow") {
			wanted = append(wanted, "requests hit by "+s.kind)
		} else if total[s.kind] == 0 {
			t.Errorf("the fault %q was never planned", s.kind)
		}
	}
	for _, effect := range wanted {
		if total["  "+effect] == 0 {
			t.Errorf("the count of %q is 0", effect)
		}
	}
	// It depends on the server and its load whether locked rows end in a timeout (1205) or in a deadlock (1213).
	if total["  errors 1205 of the database"]+total["  errors 1213 of the database"] == 0 {
		t.Error("no locked row caused an error")
	}
}

func randomSeed() uint64 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return uint64(binary.BigEndian.Uint32(b[:]))
}

// number returns the number in the environment variable, or defaultValue if it is not set.
func number(t *testing.T, name string, defaultValue uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return defaultValue
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func table(counts map[string]int) string {
	var lines []string
	for _, event := range slices.Sorted(maps.Keys(counts)) {
		lines = append(lines, fmt.Sprintf("%7d %s", counts[event], event))
	}
	return strings.Join(lines, "\n")
}

// playRound plays the round of a seed, with the faults that prepares adds to its plan, and adds the counts to total.
func playRound(t *testing.T, s *server, seed uint64, total map[string]int, prepares ...func(*testing.T, *round) []plannedFault) (took time.Duration) {
	t.Helper()
	t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		random := mathrand.New(mathrand.NewPCG(seed, 0))
		with, plan := drawSettings(random), drawPlan(random)
		if !with.FaultsAwaitBatch {
			plan = append(plan, partialSends(random))
		}
		r := newRound(t, s, seed, with)
		for _, prepare := range prepares {
			plan = append(plan, prepare(t, r)...)
		}
		began := time.Now()
		err := r.play(t.Context(), plan)
		took = time.Since(began)
		for event, n := range r.counts {
			total[event] += n
		}
		total["changes in Stripe"] += r.app.changed
		total["events handled by the webhook"] += r.app.handled
		if took > slowRound {
			total["  rounds that took more than "+slowRound.String()]++
			t.Logf("the round was slow: %+v\nplan:\n%s\nwaited for:\n%s", with, describe(plan), strings.Join(r.waited, "\n"))
		}
		if err == nil {
			t.Logf("%v %v: %d Stripe changes, %d events, %s", took.Round(10*time.Millisecond), r.phases, r.app.changed, r.app.handled, r.outcome())
			return
		}
		name, _, _ := strings.Cut(t.Name(), "/")
		t.Errorf("%v\nrepeat it with: CHAOS_SEED=%d CHAOS_ROUNDS=1 go test -count=1 -v -run %s ./functions/internal/chaos\nsettings: %+v\nplan:\n%s\nprinted: %s",
			err, seed, name, with, describe(plan), r.keepPrinted(seed))
	})
	return took
}

func describe(plan []plannedFault) string {
	slices.SortFunc(plan, func(a, b plannedFault) int { return int(a.at - b.at) })
	var lines []string
	for _, f := range plan {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// keepPrinted writes the functions' output to a file that the test does not remove.
func (r *round) keepPrinted(seed uint64) string {
	file := filepath.Join(os.TempDir(), fmt.Sprintf("chaos-%d.log", seed))
	if err := os.WriteFile(file, []byte(r.printed.String()), 0o600); err != nil {
		return err.Error()
	}
	return file
}

func (r *round) outcome() string {
	var lines []string
	_ = each(context.WithoutCancel(r.Context()), r.db, func(rows *sql.Rows) error {
		var run, outcome string
		var n int
		err := rows.Scan(&run, &outcome, &n)
		lines = append(lines, fmt.Sprintf("%s %d %s", run, n, outcome))
		return err
	}, `SELECT r.id, i.outcome, COUNT(*) FROM reconciliation_items i JOIN reconciliation_runs r ON r.run_key = i.run_key
		GROUP BY r.id, i.outcome ORDER BY r.id, i.outcome`) // for the log only
	return strings.Join(lines, ", ")
}

// play plays the three phases of the round.
func (r *round) play(ctx context.Context, plan []plannedFault) error {
	pumping, stop := context.WithCancel(ctx)
	sources := r.runEventSources(pumping)
	defer func() {
		stop()
		sources.Wait()
	}()
	for _, phase := range []struct {
		name string
		play func(context.Context) error
	}{
		{"the run with faults", func(ctx context.Context) error { return r.runWithFaults(ctx, plan) }},
		{"the redrive", r.redriveAndCheck},
		{"the run without faults", r.runWithoutFaults},
	} {
		began := time.Now()
		if err := phase.play(ctx); err != nil {
			return errors.Join(append(r.problems, fmt.Errorf("%s: %w", phase.name, err))...)
		}
		r.phases = append(r.phases, time.Since(began).Round(10*time.Millisecond))
	}
	return errors.Join(append(r.problems, r.secretsStaySecret(ctx))...)
}

// ticking delivers start and the schedules' ticks while fn runs.
func (r *round) ticking(ctx context.Context, start string, fn func(context.Context) error) error {
	ticks, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.tick(ticks, start)
	}()
	defer func() {
		stop()
		<-ended
	}()
	return fn(ctx)
}

func (r *round) runWithFaults(ctx context.Context, plan []plannedFault) error {
	err := r.ticking(ctx, r.startEvent(), func(ctx context.Context) error {
		living, stop := context.WithCancel(ctx)
		defer stop()
		lived := make(chan struct{})
		go func() {
			defer close(lived)
			r.app.live(living)
		}()
		r.injectFaults(ctx, plan)
		stop()
		<-lived
		if err := r.endFaults(ctx); err != nil {
			return err
		}
		if err := r.awaitRun(ctx, firstRun); err != nil {
			return err
		}
		return r.awaitQuiet(ctx)
	})
	if err != nil {
		return err
	}
	s, err := r.readResult(ctx)
	for w, i := range s.items {
		switch {
		case i.Outcome == billing.OutcomePending:
			r.count("  left pending, because the worker crashed at the last receive")
		case i.Outcome == billing.OutcomeError && s.population.unreconcilable[w.OrgID] == "":
			r.count("  left in error: " + string(i.Reason))
		}
	}
	return errors.Join(err, everyOrganizationHasAnOutcome(s), totalsAddUp(s), downgradeLimitHolds(s), limitsFollowTheSetting(s), deadLettersAreTheErrors(s), unreadableProgressIsKept(s),
		auditReplays(s), announcementsAreTheRepairs(s), noStaleWrites(s))
}

func (r *round) redriveAndCheck(ctx context.Context) error {
	if err := r.restoreLimits(ctx); err != nil {
		return err
	}
	err := r.ticking(ctx, "", func(ctx context.Context) error {
		if err := r.approveAll(ctx); err != nil {
			return err
		}
		if err := r.redrive(ctx); err != nil {
			return err
		}
		return r.awaitQuiet(ctx)
	})
	if err != nil {
		return err
	}
	s, err := r.readResult(ctx)
	return errors.Join(err, everyOrganizationHasAnOutcome(s), nothingIsPending(s), totalsAddUp(s), downgradeLimitHolds(s), deadLettersAreExactlyTheErrors(s), onlyUnreconcilableAreInError(s),
		auditReplays(s), announcementsAreTheRepairs(s), noStaleWrites(s))
}

// approveAll approves everything that runs withheld, and lets a day pass.
func (r *round) approveAll(ctx context.Context) error {
	s, err := r.readResult(ctx)
	for id := range s.runs {
		_, approveErr := r.store.Approve(ctx, id, billing.Approval{Limit: 1000, By: "the campaign", At: time.Now()})
		err = errors.Join(err, approveErr)
	}
	return errors.Join(err, r.aDayPasses(ctx))
}

// aDayPasses makes the repairs and the catch-ups' budget more than a day old. So undone lowerings are repeated, and a new
// budget begins.
func (r *round) aDayPasses(ctx context.Context) error {
	_, repairsErr := r.db.ExecContext(ctx, `UPDATE reconciliation_repairs SET written_at = written_at - INTERVAL 25 HOUR`)
	_, budgetErr := r.db.ExecContext(ctx, `UPDATE reconciliation_budgets SET opened_at = opened_at - INTERVAL 25 HOUR`)
	return errors.Join(repairsErr, budgetErr)
}

func (r *round) runWithoutFaults(ctx context.Context) error {
	if err := r.aDayPasses(ctx); err != nil {
		return err
	}
	err := r.ticking(ctx, `{"scheduledFor":"`+secondRun+`"}`, func(ctx context.Context) error {
		if err := r.awaitRun(ctx, secondRun); err != nil {
			return err
		}
		return r.awaitQuiet(ctx)
	})
	if err != nil {
		return err
	}
	s, err := r.readResult(ctx)
	if !s.runs[secondRun].swept {
		err = errors.Join(err, errors.New("the run without faults has no complete sweep"))
	}
	inStripe, listErr := r.stripeSubscriptions(ctx)
	return errors.Join(err, listErr, everyOrganizationHasAnOutcome(s), nothingIsPending(s), totalsAddUp(s), downgradeLimitHolds(s), deadLettersAreExactlyTheErrors(s),
		onlyUnreconcilableAreInError(s), auditReplays(s), announcementsAreTheRepairs(s), noStaleWrites(s), payingOrganizationsAreNotFree(s, inStripe), r.recordsMatchStripe(ctx))
}

// awaitRun returns when the run exists.
func (r *round) awaitRun(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	for n := 0; n == 0; {
		err := r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM reconciliation_runs WHERE id = ?`, id).Scan(&n)
		if n == 0 && !pause(ctx, 20*time.Millisecond) {
			return errors.Join(fmt.Errorf("run %s does not begin", id), err) // the tables may not exist yet
		}
	}
	return nil
}

// recordsMatchStripe: the tables match Stripe for every organization that a sweep finds, except those that cannot be
// reconciled.
func (r *round) recordsMatchStripe(ctx context.Context) error {
	var problems []error
	all := slices.AppendSeq(slices.Collect(maps.Keys(r.population.eligible)), maps.Keys(r.population.named)) // a sweep finds those that metadata names
	for _, org := range all {
		e, err := r.explain(ctx, org)
		if f := billing.AsFailure(err); err != nil && f.Class == billing.Permanent {
			e.Refusal = f // Stripe's object cannot be decoded
		} else if err != nil {
			return err
		}
		want := r.population.unreconcilable[org]
		switch {
		case e.Refusal != nil && e.Refusal.Reason != want:
			problems = append(problems, fmt.Errorf("organization %s cannot be reconciled (%s): %w", org, e.Refusal.Reason, e.Refusal))
		case e.Refusal == nil && want != "":
			problems = append(problems, fmt.Errorf("organization %s can be reconciled, want %s", org, want))
		case len(e.Plan.Changes) > 0:
			problems = append(problems, fmt.Errorf("organization %s differs from Stripe: %+v", org, e.Plan.Changes))
		}
	}
	return errors.Join(problems...)
}
