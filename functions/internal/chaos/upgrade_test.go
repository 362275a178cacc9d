package chaos_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/lambdabuild"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

// oldVersion is the last commit before the table reconciliation_settings.
const oldVersion = "4633c0baa5eb109c58b0a8276466490392de10a8"

// TestDeploymentDuringARunLosesNothing begins a run with the programs and the tables of an older version, the commit
// CHAOS_OLD or oldVersion. During the run the new enumerator upgrades the tables, and workers of both versions work side
// by side, under faults. There is one such round for ten others.
func TestDeploymentDuringARunLosesNothing(t *testing.T) {
	s := prepared(t)
	old := buildOld(t, earlier(t))
	seed := number(t, "CHAOS_SEED", randomSeed())
	total := map[string]int{}
	upgrades := max(1, number(t, "CHAOS_ROUNDS", rounds)/10)
	for i := range upgrades {
		playRound(t, s, seed+i, total, func(t *testing.T, r *round) []plannedFault { return r.deployLater(t, old) })
	}
	for _, event := range []string{inTheMiddle, upgradedAtOnce} {
		if upgrades*10 >= roundsForAllFaults && total[event] == 0 {
			t.Errorf("the count of %q is 0", event)
		}
	}
	t.Logf("upgrades from seed %d on; faults:\n%s", seed, table(total))
}

const (
	inTheMiddle    = "  deployed in the middle of a run"
	upgradedAtOnce = "  tables upgraded at once"
)

// earlier returns the commit to deploy over.
func earlier(t *testing.T) string {
	t.Helper()
	commit := os.Getenv("CHAOS_OLD")
	if commit != "" {
		return commit
	}
	root, err := lambdabuild.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), "git", "-C", root, "cat-file", "-e", oldVersion+"^{commit}").Run(); err != nil {
		t.Skipf("this clone does not have the commit to deploy over, %s (%v): git fetch --unshallow gets it", oldVersion, err)
	}
	return oldVersion
}

// buildOld builds the programs of a commit and returns their folder.
func buildOld(t *testing.T, commit string) string {
	t.Helper()
	root, err := lambdabuild.Root()
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
	for _, name := range lambdabuild.Functions() {
		if err := lambdabuild.Build(t.Context(), source, "./functions/"+name, filepath.Join(programs, name, "bootstrap"), runtime.GOARCH); err != nil {
			t.Fatal(err)
		}
	}
	return programs
}

// deployLater starts the round with the old programs, which create the old tables, and returns the deployment as faults.
func (r *round) deployLater(t *testing.T, folder string) []plannedFault {
	t.Helper()
	path := func(name string) string { return filepath.Join(folder, name, "bootstrap") }
	old := &deployment{r.functionAt(path("enumerator"), "enumerator"), r.functionAt(path("aggregator"), "aggregator"), []*runtimeapi.Function{r.functionAt(path("worker"), "worker")}}
	p, err := runtimeapi.Start(t.Context(), runtimeapi.Program{
		Path: path("aggregator"), Name: "aggregator", Environ: r.environ(nil), Timeout: functionTimeout, Output: &r.printed,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	now := r.deployment()
	r.withOldVersion = true
	r.deployed.Store(old)
	deploy := func(ctx context.Context, r *round, _ fault) {
		if n, err := r.newTables(ctx); err == nil && n > 0 {
			r.note(errors.New("the new tables exist before the deployment"))
		}
		if n, err := r.pending(ctx); err == nil && n > 0 {
			r.count(inTheMiddle)
		}
		r.invoke(ctx, now.enumerator, `{"resume":true}`) // upgrades the tables, unless a fault prevents it
		if n, err := r.newTables(ctx); err == nil && n > 0 {
			r.count(upgradedAtOnce)
		}
		r.deployed.Store(&deployment{now.enumerator, now.aggregator, append(now.workers, old.workers...)})
	}
	remove := func(_ context.Context, r *round, _ fault) { r.deployed.Store(now) }
	return []plannedFault{
		{fault{kind: "new version deployed", at: 300 * time.Millisecond}, deploy},
		{fault{kind: "old version removed", at: window}, remove},
	}
}

// newTables counts the tables that only the new version has.
func (r *round) newTables(ctx context.Context) (n int, err error) {
	err = r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'reconciliation_settings'`).Scan(&n)
	return n, err
}

// pending counts the first run's organizations without an outcome.
func (r *round) pending(ctx context.Context) (n int, err error) {
	err = r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) AND outcome = 'pending'`, firstRun).Scan(&n)
	return n, err
}
