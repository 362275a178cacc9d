package chaos_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/bootstrap"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

// TestADeploymentInTheMiddleOfARunLosesNothing: a run begins with the programs and the tables of the
// version that CHAOS_OLD names, a commit; in its middle the new enumerator comes, which upgrades the
// tables, and workers of both versions go on side by side, with faults as ever. One round in ten is
// such a one.
func TestADeploymentInTheMiddleOfARunLosesNothing(t *testing.T) {
	commit := os.Getenv("CHAOS_OLD")
	if commit == "" {
		t.Skip("builds an earlier version: name its commit in CHAOS_OLD")
	}
	s := prepared(t)
	old := buildOld(t, commit)
	seed := number(t, "CHAOS_SEED", anySeed())
	total := map[string]int{}
	for i := range max(1, number(t, "CHAOS_ROUNDS", rounds)/10) {
		playRound(t, s, seed+i, total, func(t *testing.T, r *round) []plannedFault { return r.deployLater(t, old) })
	}
	t.Logf("upgrades from seed %d on; what struck:\n%s", seed, table(total))
}

// buildOld builds the programs of a commit and returns their folder.
func buildOld(t *testing.T, commit string) string {
	t.Helper()
	root, err := bootstrap.Root()
	if err != nil {
		t.Fatal(err)
	}
	source, programs := t.TempDir(), t.TempDir()
	archive := filepath.Join(source, "source.tar")
	for _, command := range [][]string{
		{"git", "-C", root, "archive", "--output", archive, commit},
		{"tar", "-x", "-f", archive, "-C", source},
	} {
		if output, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, output)
		}
	}
	for _, name := range bootstrap.Functions() {
		if err := bootstrap.Build(t.Context(), source, "./functions/"+name, filepath.Join(programs, name, "bootstrap"), runtime.GOARCH); err != nil {
			t.Fatal(err)
		}
	}
	return programs
}

// deployLater has the round begin with the old programs, whose first start makes the old tables.
func (r *round) deployLater(t *testing.T, old string) []plannedFault {
	t.Helper()
	r.Strategy = billing.StrategyRetrieve // the old version may know no other
	path := func(name string) string { return filepath.Join(old, name, "bootstrap") }
	oldEnumerator, oldWorker := r.functionAt(path("enumerator"), "enumerator"), r.functionAt(path("worker"), "worker")
	p, err := runtimeapi.Start(t.Context(), runtimeapi.Program{
		Path: path("aggregator"), Name: "aggregator", Environ: r.environ(nil), Timeout: functionTimeout, Output: &r.printed,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	now := r.cast()
	r.onStage.Store(&cast{oldEnumerator, []*runtimeapi.Function{oldWorker}})
	deploy := func(ctx context.Context, r *round, _ fault) {
		r.invoke(ctx, now.enumerator, `{"resume":true}`) // upgrades the tables, unless a fault keeps it from doing so
		r.onStage.Store(&cast{now.enumerator, []*runtimeapi.Function{now.workers[0], oldWorker}})
	}
	remove := func(_ context.Context, r *round, _ fault) { r.onStage.Store(now) }
	return []plannedFault{
		{fault{kind: "new version deployed", at: 300 * time.Millisecond}, deploy},
		{fault{kind: "old version removed", at: window}, remove},
	}
}
