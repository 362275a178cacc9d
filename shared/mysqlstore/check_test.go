package mysqlstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/localdb"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// problems returns the problems that the check reports, nil if there is none.
func problems(t *testing.T, store *mysqlstore.Store, writes bool) []string {
	t.Helper()
	_, err := store.CheckApplication(t.Context(), writes)
	if err == nil {
		return nil
	}
	wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseSchema)
	list, ok := strings.CutPrefix(err.Error(), "the database is not as this system needs it: ")
	if !ok {
		t.Errorf("the message is %q", err)
	}
	return strings.Split(list, "; ")
}

func TestApplicationsTablesPassTheCheck(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for _, writes := range []bool{true, false} {
			if warnings, err := f.store.CheckApplication(t.Context(), writes); len(warnings) > 0 || err != nil {
				t.Errorf("writes %t: %q, %v", writes, warnings, err)
			}
		}
	})
}

func TestCheckAcceptsOtherSuitableTypes(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		for _, change := range []string{
			`subscriptions DROP FOREIGN KEY fk_subscriptions_org`,
			`organizations MODIFY id VARCHAR(26) NOT NULL`,
			`subscriptions MODIFY org_id VARCHAR(26) NOT NULL`,
			`organizations MODIFY subscription_tier VARCHAR(7) NOT NULL`,
			`subscriptions MODIFY plan_tier ENUM('it''s, odd','free','starter','team','pro','max','enterprise') NOT NULL`,
			`subscriptions MODIFY status VARCHAR(18) NOT NULL`,
			`organizations MODIFY is_deleted BIT(1) NOT NULL`,
			`subscriptions MODIFY cancel_at_period_end BIGINT NULL`,
			`subscriptions MODIFY trial_end DATETIME(6) NULL`,
			`subscriptions MODIFY stripe_customer_id TEXT NULL`,
			`organizations CHANGE id ID VARCHAR(26) NOT NULL`,
			`organizations ADD seats INT NOT NULL`,
		} {
			f.MustExec(t, `ALTER TABLE `+change)
		}
		warnings, err := f.store.CheckApplication(t.Context(), true)
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "no foreign key") {
			t.Errorf("%q, %v", warnings, err)
		}
	})
}

func TestCheckReportsAllProblemsTogether(t *testing.T) {
	changes := []struct{ change, problem string }{
		{`subscriptions DROP FOREIGN KEY fk_subscriptions_org`, ""},
		{`organizations MODIFY is_deleted INT NULL DEFAULT 0`, "organizations.is_deleted may be NULL but must be NOT NULL"},
		{`organizations MODIFY id BIGINT NOT NULL`, "organizations.id is bigint but must be VARCHAR or CHAR"},
		{`organizations MODIFY updated_at BIGINT NULL`, "organizations.updated_at is bigint but must be TIMESTAMP or DATETIME"},
		{``, "organizations.updated_at may be NULL but must be NOT NULL"},
		{`organizations MODIFY subscription_tier ENUM('max','pro','starter','free') NOT NULL`, "organizations.subscription_tier is an ENUM that ranks max, pro, starter, free but must rank free, starter, pro, max (the lowest first)"},
		{`organizations MODIFY subscription_status VARCHAR(5) NULL`, "organizations.subscription_status is varchar(5) but must hold 10 characters"},
		{``, "organizations.subscription_status may be NULL but must be NOT NULL"},
		{`organizations MODIFY trial_ends_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP`, "organizations.trial_ends_at is NOT NULL but must allow NULL"},
		{`subscriptions MODIFY org_id BINARY(16) NOT NULL`, "subscriptions.org_id is binary(16) but must be VARCHAR or CHAR"},
		{`subscriptions MODIFY id CHAR(26) NOT NULL`, "subscriptions.id is char(26) but must hold 36 characters"},
		{`subscriptions MODIFY plan_tier ENUM('free','pro') NOT NULL`, "subscriptions.plan_tier is an ENUM that lacks starter, max"},
		{`subscriptions MODIFY status ENUM('active','trialing','past_due','canceled','incomplete') NOT NULL`, "subscriptions.status is an ENUM that lacks incomplete_expired, unpaid"},
		{`subscriptions MODIFY stripe_price_id VARCHAR(30) NULL`, "subscriptions.stripe_price_id is varchar(30) but must hold 120 characters"},
		{`subscriptions MODIFY stripe_customer_id ENUM('cus_1') NULL`, "subscriptions.stripe_customer_id is enum('cus_1') but must be VARCHAR or CHAR"},
		{`subscriptions MODIFY cancel_at_period_end CHAR(1) NULL`, "subscriptions.cancel_at_period_end is char(1) but must be TINYINT or INT"},
		{`subscriptions MODIFY canceled_at DATE NULL`, "subscriptions.canceled_at is date but must be TIMESTAMP or DATETIME"},
		{`subscriptions DROP COLUMN ended_at`, "subscriptions.ended_at is missing, or DB_USER has no right to it"},
	}
	onEach(t, func(t *testing.T, f *fixture) {
		var want []string
		for _, c := range changes {
			if c.change != "" {
				f.MustExec(t, `ALTER TABLE `+c.change)
			}
			if c.problem != "" {
				want = append(want, c.problem)
			}
		}
		found := problems(t, f.store, true)
		for i := range found {
			found[i] = strings.Replace(found[i], "bigint(20)", "bigint", 1) // MariaDB shows the width
		}
		if diff := cmp.Diff(want, found, cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestCheckRefusesAnIDColumnWiderThanOurs(t *testing.T) {
	f := onServer(t)
	f.MustExec(t, `ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
	f.MustExec(t, `ALTER TABLE organizations MODIFY id VARCHAR(37) NOT NULL`)
	want := []string{"organizations.id is varchar(37) but must be no wider than this system's own 36 characters"}
	if diff := cmp.Diff(want, problems(t, f.store, true)); diff != "" {
		t.Error(diff)
	}
	own := mysqltest.Value[int](t, f.DB, `SELECT MIN(character_maximum_length) FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name LIKE 'reconciliation\_%' AND column_name IN ('org_id', 'listed_through', 'sent_through')`)
	if own != 36 {
		t.Errorf("this system's own columns hold %d characters, want 36", own)
	}
}

func TestMissingTableIsOneProblem(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.MustExec(t, `DROP TABLE subscriptions`)
		want := []string{"there is no table subscriptions, or DB_USER has no right to it: check DB_NAME"}
		if diff := cmp.Diff(want, problems(t, f.store, true)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCheckWarnsOfMissingKeys(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		f.MustExec(t, `ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
		f.MustExec(t, `ALTER TABLE subscriptions DROP INDEX stripe_subscription_id`)
		f.MustExec(t, `ALTER TABLE subscriptions ADD UNIQUE KEY both_of_them (stripe_subscription_id, org_id)`)
		warnings, err := f.store.CheckApplication(t.Context(), true)
		if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "subscriptions.stripe_subscription_id has no unique key") ||
			!strings.Contains(warnings[1], "subscriptions has no foreign key to organizations") {
			t.Errorf("%q, %v", warnings, err)
		}
	})
}

// Such a key makes names unique among the organizations that are not deleted.
func TestUniqueKeyOnAnExpressionIsIgnored(t *testing.T) {
	f := onServer(t)
	if strings.Contains(f.Kind, "MariaDB") {
		t.Skip("MariaDB has no keys on expressions")
	}
	f.MustExec(t, `ALTER TABLE organizations ADD UNIQUE KEY living ((IF(is_deleted = 0, name, NULL)))`)
	if warnings, err := f.store.CheckApplication(t.Context(), true); err != nil || len(warnings) != 0 {
		t.Errorf("%q, %v", warnings, err)
	}
}

func TestCheckWarnsOfMissingForeignKeyWithAnyGrants(t *testing.T) {
	for name, grants := range map[string][]string{
		"rights to tables":       {"SELECT, UPDATE ON organizations", "SELECT, INSERT, UPDATE ON subscriptions"},
		"rights to columns":      {readOrganizations, writeOrganizations, readSubscriptions, writeSubscriptions},
		"rights to the database": {"SELECT, INSERT, UPDATE, DELETE ON *"},
	} {
		t.Run(name, func(t *testing.T) {
			f := onServer(t)
			f.MustExec(t, `ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`)
			store := f.login(t, grants...)
			warnings, err := store.CheckApplication(t.Context(), true)
			if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "no foreign key") {
				t.Errorf("%q, %v", warnings, err)
			}
		})
	}
}

// login creates a user with these rights and returns a store that connects as this user.
func (f *fixture) login(t *testing.T, grants ...string) *mysqlstore.Store {
	t.Helper()
	const password = "Secret-1-secret" // secret-scan:allow of a database that the test deletes
	user := `'u` + f.Name[5:25] + `'@'%'`
	f.MustExec(t, `CREATE USER `+user+` IDENTIFIED BY '`+password+`'`)
	t.Cleanup(func() {
		if _, err := f.ExecContext(context.Background(), `DROP USER `+user); err != nil {
			t.Error(err)
		}
	})
	for _, grant := range grants {
		right, object, _ := strings.Cut(grant, " ON ")
		f.MustExec(t, `GRANT `+right+` ON `+f.Name+`.`+object+` TO `+user)
	}
	store, err := mysqlstore.Open(t.Context(), mysqlstore.Config{Host: f.Host, Port: f.Port, User: strings.Split(user, "'")[1], Password: password, Name: f.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

const (
	readOrganizations = "SELECT (id, is_deleted, updated_at, stripe_customer_id, subscription_tier, subscription_status, trial_ends_at) ON organizations"
	readSubscriptions = "SELECT (id, org_id, created_at, updated_at, stripe_subscription_id, stripe_customer_id, stripe_price_id, plan_tier, status, " +
		"current_period_start, current_period_end, trial_end, cancel_at_period_end, canceled_at, ended_at) ON subscriptions"
	writeOrganizations = "UPDATE (stripe_customer_id, subscription_tier, subscription_status, trial_ends_at) ON organizations"
)

// writeSubscriptions are the rights to insert all columns and to update the compared ones.
var writeSubscriptions = func() string {
	inserted := strings.Replace(strings.Replace(strings.TrimSuffix(readSubscriptions, " ON subscriptions"), "created_at, updated_at, ", "", 1), "SELECT", "INSERT", 1)
	return inserted + ", " + strings.Replace(strings.Replace(inserted, "id, org_id, ", "", 1), "INSERT", "UPDATE", 1) + " ON subscriptions"
}()

func TestCheckNamesMissingPrivileges(t *testing.T) {
	for name, c := range map[string]struct {
		grants []string
		writes bool
		want   []string
	}{
		"rights to read, dry run": {[]string{readOrganizations, readSubscriptions}, false, nil},
		"rights to read, real run": {[]string{readOrganizations, readSubscriptions}, true, []string{
			"DB_USER lacks UPDATE (stripe_customer_id, subscription_tier, subscription_status, trial_ends_at) on organizations: grant it",
			"DB_USER lacks UPDATE (stripe_subscription_id, stripe_customer_id, stripe_price_id, plan_tier, status, current_period_start, current_period_end, " +
				"trial_end, cancel_at_period_end, canceled_at, ended_at) on subscriptions: grant it",
			"DB_USER lacks INSERT (id, org_id, stripe_subscription_id, stripe_customer_id, stripe_price_id, plan_tier, status, current_period_start, " +
				"current_period_end, trial_end, cancel_at_period_end, canceled_at, ended_at) on subscriptions: grant it",
		}},
		"rights to the columns": {[]string{readOrganizations, writeOrganizations, readSubscriptions, writeSubscriptions}, true, nil},
		"rights to the tables":  {[]string{"SELECT, UPDATE ON organizations", "SELECT, INSERT, UPDATE ON subscriptions"}, true, nil},
		"some columns are missing": {[]string{
			"SELECT, UPDATE (stripe_customer_id, subscription_tier, subscription_status) ON organizations",
			"SELECT, UPDATE, INSERT (id, stripe_subscription_id, stripe_customer_id, stripe_price_id, plan_tier, status, " +
				"current_period_start, current_period_end, trial_end, cancel_at_period_end, canceled_at, ended_at) ON subscriptions",
		}, true, []string{
			"DB_USER lacks UPDATE (trial_ends_at) on organizations: grant it",
			"DB_USER lacks INSERT (org_id) on subscriptions: grant it",
		}},
		"rights to write but not to read": {[]string{"UPDATE ON organizations", readSubscriptions}, false, []string{
			"DB_USER lacks SELECT (id, is_deleted, updated_at, stripe_customer_id, subscription_tier, subscription_status, trial_ends_at) on organizations: grant it",
		}},
		"a column cannot be read": {[]string{readOrganizations, strings.Replace(readSubscriptions, "org_id, ", "", 1)}, false, []string{
			"subscriptions.org_id is missing, or DB_USER has no right to it",
		}},
		"no right to a table": {[]string{readOrganizations}, false, []string{"there is no table subscriptions, or DB_USER has no right to it: check DB_NAME"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := onServer(t)
			store := f.login(t, c.grants...)
			before := f.state(t)
			if diff := cmp.Diff(c.want, problems(t, store, c.writes)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			f.requireUnchanged(t, before)
			if warnings, err := store.CheckApplication(t.Context(), c.writes); err == nil && len(warnings) > 0 {
				t.Errorf("the check warns of keys that exist: %q", warnings)
			}
		})
	}
}

// The check only prepares its statements. So neither locks nor triggers stop it.
func TestCheckTakesNoLocksAndFiresNoTriggers(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "org-1")
	for _, table := range []string{"organizations", "subscriptions"} {
		f.MustExec(t, `CREATE TRIGGER no_`+table+` BEFORE UPDATE ON `+table+` FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'`)
	}
	f.lock(t, `SELECT o.id FROM organizations o JOIN subscriptions s ON s.org_id = o.id FOR UPDATE`)
	if found := problems(t, f.store, true); len(found) > 0 {
		t.Error(found)
	}
}

func TestCheckAcceptsUpdatableViewsOnly(t *testing.T) {
	f := onServer(t)
	for _, s := range []string{
		`ALTER TABLE subscriptions DROP FOREIGN KEY fk_subscriptions_org`,
		`RENAME TABLE organizations TO organizations_all, subscriptions TO subscriptions_all`,
		`CREATE VIEW organizations AS SELECT * FROM organizations_all WHERE created_by <> 'system'`,
		`CREATE VIEW subscriptions AS SELECT DISTINCT * FROM subscriptions_all`,
	} {
		f.MustExec(t, s)
	}
	store := f.login(t, "SELECT, UPDATE ON organizations", "SELECT, INSERT, UPDATE ON subscriptions")
	found := problems(t, store, true)
	if len(found) != 2 || !strings.HasPrefix(found[0], "MySQL refuses UPDATE on subscriptions: ") || !strings.HasPrefix(found[1], "MySQL refuses INSERT on subscriptions: ") {
		t.Errorf("problems of a view that cannot be updated: %q", found)
	}
	f.MustExec(t, `CREATE OR REPLACE VIEW subscriptions AS SELECT * FROM subscriptions_all`)
	if found := problems(t, store, true); len(found) > 0 {
		t.Errorf("problems of a view that can be updated: %q", found)
	}
}

func TestReadOnlyServerIsRefused(t *testing.T) {
	t.Parallel()
	mysqltest.New(t)                          // skips the test if there is no server
	server, err := localdb.Start(t.Context()) // a separate server, because other tests write to the shared one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.CreateDatabase(t.Context(), "application"); err != nil {
		t.Fatal(err)
	}
	store := open(t, mysqlstore.Config{Host: server.Host(), Port: server.Port(), User: server.User(), Password: server.Password(), Name: "application"})
	if err := appschema.Create(t.Context(), store.DB()); err != nil {
		t.Fatal(err)
	}
	var before, after int64
	if err := store.DB().QueryRowContext(t.Context(), `SELECT CONNECTION_ID()`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := store.DB().ExecContext(t.Context(), `SET GLOBAL read_only = ON`); err != nil {
		t.Fatal(err)
	}
	for _, writes := range []bool{true, false} {
		_, err := store.CheckApplication(t.Context(), writes)
		if f := billing.AsFailure(err); err == nil || f.Class != billing.Unavailable || !strings.Contains(f.Error(), "name the writer in DB_HOST") || !strings.HasSuffix(f.Error(), "read_only is ON") {
			t.Errorf("%v", err)
		}
	}
	if err := store.DB().QueryRowContext(t.Context(), `SELECT CONNECTION_ID()`).Scan(&after); err != nil || after == before {
		t.Errorf("connection %d is used again after the refusal, %v", after, err)
	}
}

// A NULL must neither fail the other organizations of the batch nor hide its own.
func TestNullInARequiredColumnFailsItsOrganizationOnly(t *testing.T) {
	nulls := map[string]string{
		"organizations.is_deleted":          "INT",
		"organizations.subscription_tier":   "ENUM('free','starter','pro','max')",
		"organizations.subscription_status": "VARCHAR(20)",
		"organizations.updated_at":          "TIMESTAMP",
		"subscriptions.plan_tier":           "ENUM('free','starter','pro','max')",
		"subscriptions.status":              "VARCHAR(20)",
		"subscriptions.created_at":          "TIMESTAMP",
		"subscriptions.updated_at":          "TIMESTAMP",
	}
	onEach(t, func(t *testing.T, f *fixture) {
		f.addPaying(t, "good")
		ids := []string{"good"}
		for field, declared := range nulls {
			table, name, _ := strings.Cut(field, ".")
			f.addPaying(t, name+table[:1])
			ids = append(ids, name+table[:1])
			f.MustExec(t, `ALTER TABLE `+table+` MODIFY `+name+` `+declared+` NULL`)
		}
		for field := range nulls {
			table, name, _ := strings.Cut(field, ".")
			key := map[string]string{"organizations": "id", "subscriptions": "org_id"}[table]
			f.MustExec(t, `UPDATE `+table+` SET `+name+` = NULL WHERE `+key+` = ?`, name+table[:1])
		}
		records, err := f.store.Records(t.Context(), ids)
		if err != nil || len(records) != len(ids) || len(records["good"].Nulls) != 0 {
			t.Fatalf("%d records, %q, %v", len(records), records["good"].Nulls, err)
		}
		for field := range nulls {
			table, name, _ := strings.Cut(field, ".")
			if diff := cmp.Diff([]string{field}, records[name+table[:1]].Nulls); diff != "" {
				t.Errorf("%s: %s", field, diff)
			}
		}
		f.startRun(t, "run-1", 10)
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items`); n != len(ids) {
			t.Errorf("%d of %d organizations were listed", n, len(ids))
		}
		if exists, err := f.store.OrganizationExists(t.Context(), "is_deletedo"); err != nil || !exists {
			t.Errorf("the organization whose is_deleted is NULL exists: %t, want true, %v", exists, err)
		}
	})
}

func TestRecordThatBecameInvalidIsNotWritten(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "org-1")
	f.startRun(t, "run-1", 10)
	before := f.record(t, "org-1")
	f.MustExec(t, `ALTER TABLE organizations MODIFY is_deleted INT NULL`)
	f.MustExec(t, `UPDATE organizations SET is_deleted = NULL, updated_at = updated_at`)
	plan := billing.Plan{Outcome: billing.OutcomeSynced, Changes: []billing.Change{{Field: billing.FieldOrgTier, From: "pro", To: "max"}}}
	item := pendingItem("run-1", "org-1")
	item.Outcome, item.Changes = billing.OutcomeSynced, plan.Changes
	if err := f.store.Apply(t.Context(), before, plan, item, false, now); !errors.Is(err, billing.ErrRecordChanged) {
		t.Errorf("got %v, want ErrRecordChanged", err)
	}
}

func TestRowWithoutOrganizationClaimsNothing(t *testing.T) {
	f := onServer(t)
	f.MustExec(t, `ALTER TABLE subscriptions MODIFY org_id CHAR(36) NULL`)
	f.MustExec(t, `INSERT INTO subscriptions (id, stripe_subscription_id) VALUES ('row', 'sub_1')`)
	claims, err := f.store.Claims(t.Context(), []billing.Subscription{{ID: "sub_1"}})
	if err != nil || len(claims.RecordedBy) != 0 {
		t.Errorf("%+v, %v", claims, err)
	}
}

// The tiers decide which values an ENUM needs and in which order, and which changes count as downgrades.
func TestCheckAndDowngradesFollowTheConfiguredTiers(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a", "b")
	config := configOf(f.DB)
	config.Tiers = billing.Tiers{"free", "max", "starter", "pro", "gold"}
	f.store = open(t, config)
	want := []string{
		"organizations.subscription_tier is an ENUM that lacks gold",
		"subscriptions.plan_tier is an ENUM that ranks free, starter, pro, max, gold but must rank free, max, starter, pro, gold (the lowest first)",
	}
	f.MustExec(t, `ALTER TABLE subscriptions MODIFY plan_tier ENUM('free','starter','pro','max','gold') NOT NULL`)
	if diff := cmp.Diff(want, problems(t, f.store, true), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error(diff)
	}
	for _, column := range []string{"organizations MODIFY subscription_tier", "subscriptions MODIFY plan_tier"} {
		f.MustExec(t, `ALTER TABLE `+column+` ENUM('free','max','starter','pro','gold') NOT NULL`)
	}
	if found := problems(t, f.store, true); len(found) > 0 {
		t.Error(found)
	}
	f.startRun(t, "r", 1)
	for id, to := range map[string]string{"a": "max", "b": "gold"} { // only max ranks below pro here
		if err := f.apply(t, "r", f.record(t, id), planFor(id, billing.Change{Field: billing.FieldPlanTier, From: "pro", To: to})); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.run(t, "r").Downgrades; got != 1 {
		t.Errorf("the run counts %d downgrades, want 1", got)
	}
}
