package mysqlstore_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// onEachEmpty runs a test on the servers of onEach, in databases without this system's own tables.
func onEachEmpty(t *testing.T, test func(t *testing.T, db *mysqltest.DB)) {
	t.Helper()
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		test(t, mysqltest.New(t))
	})
	t.Run("in process", func(t *testing.T) {
		t.Parallel()
		test(t, mysqltest.InProcess(t))
	})
}

// tables returns the CREATE TABLE statement of every table.
func tables(t *testing.T, db *mysqltest.DB) map[string]string {
	t.Helper()
	f := &fixture{DB: db}
	all := map[string]string{}
	for _, name := range f.selectStrings(t, `SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()`) {
		var shownName, statement string
		if err := db.QueryRowContext(t.Context(), `SHOW CREATE TABLE `+name).Scan(&shownName, &statement); err != nil {
			t.Fatal(err)
		}
		all[name] = statement
	}
	return all
}

func names(all map[string]string) []string {
	var list []string
	for name := range all {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func migrate(t *testing.T, db *mysqltest.DB) int {
	t.Helper()
	n, err := mysqlstore.New(db.DB).Migrate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMigrateCreatesOnlyItsOwnTables(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, db *mysqltest.DB) {
		before := tables(t, db)
		if n := migrate(t, db); n == 0 {
			t.Error("no migration was applied")
		}
		after := tables(t, db)
		want := []string{
			"organizations", "reconciliation_accepted", "reconciliation_accounts", "reconciliation_archives", "reconciliation_budgets", "reconciliation_events", "reconciliation_items", "reconciliation_late", "reconciliation_migrations", "reconciliation_named", "reconciliation_orders", "reconciliation_outbox",
			"reconciliation_ranges", "reconciliation_repairs", "reconciliation_runs", "reconciliation_settings", "reconciliation_snapshots", "reconciliation_sweeps",
			"reconciliation_tallies", "reconciliation_undelivered", "reconciliation_unreadable", "reconciliation_windows", "subscriptions",
		}
		if diff := cmp.Diff(want, names(after)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
		for name, statement := range before {
			if diff := cmp.Diff(statement, after[name]); diff != "" {
				t.Errorf("the migrations changed %s (-before +after):\n%s", name, diff)
			}
		}
	})
}

func TestSecondMigrateDoesNothing(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, db *mysqltest.DB) {
		migrate(t, db)
		before := tables(t, db)
		if n := migrate(t, db); n != 0 {
			t.Errorf("the second Migrate applied %d migrations", n)
		}
		if diff := cmp.Diff(before, tables(t, db)); diff != "" {
			t.Errorf("tables (-before +after):\n%s", diff)
		}
	})
}

func TestMigrationsCanBeReverted(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, db *mysqltest.DB) {
		steps := migrate(t, db)
		up := tables(t, db)
		if err := mysqlstore.New(db.DB).MigrateDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"organizations", "reconciliation_migrations", "subscriptions"}, names(tables(t, db))); diff != "" {
			t.Errorf("tables after MigrateDown (-want +got):\n%s", diff)
		}
		if n := migrate(t, db); n != steps {
			t.Errorf("Migrate after MigrateDown applied %d migrations, want %d", n, steps)
		}
		delete(up, "reconciliation_migrations") // its next id differs
		after := tables(t, db)
		delete(after, "reconciliation_migrations")
		if diff := cmp.Diff(up, after); diff != "" {
			t.Errorf("tables (-before +after):\n%s", diff)
		}
	})
}

func TestInterruptedMigrateContinues(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, db *mysqltest.DB) {
		migrate(t, db)
		want := tables(t, db)
		for _, statement := range []string{
			`DELETE FROM reconciliation_migrations WHERE version_id > 0`,
			`DROP TABLE reconciliation_items`,
		} {
			db.MustExec(t, statement)
		}
		migrate(t, db)
		if diff := cmp.Diff(names(want), names(tables(t, db))); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
	})
}

// CREATE TABLE commits at once. A process that dies after it leaves a version table without rows.
func TestMigrateAcceptsAnEmptyVersionTable(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, db *mysqltest.DB) {
		migrate(t, db)
		want := tables(t, db)
		for _, name := range names(want) {
			if strings.HasPrefix(name, "reconciliation_") && name != "reconciliation_migrations" {
				db.MustExec(t, `DROP TABLE `+name)
			}
		}
		db.MustExec(t, `DELETE FROM reconciliation_migrations`)
		migrate(t, db)
		if diff := cmp.Diff(names(want), names(tables(t, db))); diff != "" {
			t.Error(diff)
		}
		if n := migrate(t, db); n != 0 {
			t.Errorf("the second Migrate applied %d migrations", n)
		}
	})
}

func TestOneOfManyConcurrentMigratesAppliesAllMigrations(t *testing.T) {
	t.Parallel()
	db := mysqltest.New(t)
	const n = 8
	stores, steps := make([]*mysqlstore.Store, n), make([]int, n)
	for i := range stores {
		pool := db.Open(t)
		if i%2 == 0 {
			pool.SetMaxOpenConns(1)
		}
		stores[i] = mysqlstore.New(pool)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i, err := range inParallel(n, func(i int) (err error) {
		steps[i], err = stores[i].Migrate(ctx)
		return err
	}) {
		if err != nil {
			t.Errorf("store %d: %v", i, err)
		}
	}
	slices.Sort(steps)
	if steps[n-1] == 0 || steps[n-2] != 0 {
		t.Errorf("the stores applied %v migrations, want one of them to apply all", steps)
	}
}

func TestMigrateNeedsOneConnectionOnly(t *testing.T) {
	t.Parallel()
	db := mysqltest.New(t)
	pool := db.Open(t)
	pool.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		if _, err := mysqlstore.New(pool).Migrate(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Every function migrates when it starts. If an administrator migrated before, the function's user needs no right to
// create tables.
func TestMigrateOfCurrentTablesNeedsNoCreatePrivilege(t *testing.T) {
	t.Parallel()
	f := newFixture(t, mysqltest.New(t))
	user := strings.TrimPrefix(f.Name, "test_")
	if _, err := f.ExecContext(t.Context(), `CREATE USER '`+user+`'@'%' IDENTIFIED BY 'Secret-1-secret'`); err != nil {
		t.Skipf("needs a user that may create users: %v", err)
	}
	t.Cleanup(func() {
		if _, err := f.ExecContext(context.Background(), `DROP USER '`+user+`'@'%'`); err != nil {
			t.Error(err)
		}
	})
	f.MustExec(t, `GRANT SELECT, INSERT, UPDATE, DELETE ON `+f.Name+`.* TO '`+user+`'@'%'`)
	config := configOf(f.DB)
	config.User, config.Password = user, "Secret-1-secret"
	store := open(t, config)
	if n, err := store.Migrate(t.Context()); n != 0 || err != nil {
		t.Errorf("Migrate of current tables applied %d migrations, %v", n, err)
	}
	f.MustExec(t, `DROP TABLE reconciliation_migrations`)
	_, err := store.Migrate(t.Context())
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
	if !strings.Contains(err.Error(), "own tables") || !strings.Contains(err.Error(), "grants") {
		t.Errorf("the error does not name the missing grants: %v", err)
	}
}
