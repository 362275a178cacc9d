package mysqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

func TestOneOfSeveralConcurrentRepairsOfAnOrganizationIsApplied(t *testing.T) {
	f := onServer(t)
	const rounds, callers = 10, 4
	for round := range rounds {
		id := fmt.Sprintf("org-%d", round)
		f.addPaying(t, id)
		record := f.record(t, id)
		for i := range callers { // two runs, each with two deliveries
			f.MustExec(t, `INSERT INTO reconciliation_items (run_key, org_id) VALUES (?, ?) ON DUPLICATE KEY UPDATE run_key = VALUES(run_key)`,
				f.key(t, fmt.Sprintf("run-%d", i%2)), id)
		}
		applied := 0
		for i, err := range inParallel(callers, func(i int) error {
			return f.apply(t, fmt.Sprintf("run-%d", i%2), record, planFor(id, billing.Change{Field: billing.FieldPriceID, From: "price_pro", To: fmt.Sprintf("price-%d", i)}))
		}) {
			switch {
			case err == nil:
				applied++
				if got := *f.record(t, id).Rows[0].PriceID; got != fmt.Sprintf("price-%d", i) {
					t.Errorf("repair %d was applied, but the price is %s", i, got)
				}
			case !errors.Is(err, billing.ErrRecordChanged) && !errors.Is(err, billing.ErrAlreadyDecided):
				t.Errorf("repair %d: %v", i, err)
			}
		}
		if applied != 1 {
			t.Errorf("%d repairs were applied, want 1", applied)
		}
		if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM reconciliation_items WHERE org_id = ? AND outcome = 'synced'`, id); n != 1 {
			t.Errorf("%d items are synced, want 1", n)
		}
	}
}

// A webhook reads the price and then writes "hook-N", with N growing. A worker repairs "hook-N" to "hook-N/repaired". If
// the webhook reads the repair of a value before its last one, the worker has overwritten a webhook's write.
func TestRepairNeverOverwritesAWebhook(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.MustExec(t, `UPDATE subscriptions SET stripe_price_id = 'hook-0'`)
	const writes = 150
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	webhookDone, repaired := make(chan struct{}), make(chan struct{}, 1)
	for _, err := range inParallel(2, func(i int) error {
		if i == 0 {
			defer close(webhookDone)
			return webhook(ctx, f, writes, repaired)
		}
		defer cancel() // so that the webhook does not wait for repairs any longer
		return repairUntil(ctx, f, webhookDone, repaired)
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	last := fmt.Sprintf("hook-%d", writes)
	if got := *f.record(t, "a").Rows[0].PriceID; got != last && got != last+"/repaired" {
		t.Errorf("the webhook's last write is lost, the price is %s", got)
	}
}

// repairUntil repairs organization a until done is closed, each time in another run.
func repairUntil(ctx context.Context, f *fixture, done <-chan struct{}, repaired chan<- struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-done:
			return nil
		default:
		}
		runID := fmt.Sprintf("run-%d", i)
		if _, err := f.ExecContext(ctx, `INSERT INTO reconciliation_runs (id, status, dry_run, strategy, started_at, deadline_at) VALUES (?,'running',FALSE,'retrieve',?,?)`, runID, now, now); err != nil {
			return err
		}
		if _, err := f.ExecContext(ctx, `INSERT INTO reconciliation_items (run_key, org_id) VALUES ((SELECT run_key FROM reconciliation_runs WHERE id = ?), 'a')`, runID); err != nil {
			return err
		}
		records, err := f.store.Records(ctx, []string{"a"})
		if err != nil {
			return err
		}
		price := *records["a"].Rows[0].PriceID
		if strings.HasSuffix(price, "/repaired") {
			continue
		}
		plan := planFor("a", billing.Change{Field: billing.FieldPriceID, From: price, To: price + "/repaired"})
		err = f.store.Apply(ctx, records["a"], plan, itemOf(runID, "a", plan), false, now)
		if err != nil && !errors.Is(err, billing.ErrRecordChanged) {
			return err
		}
		if err == nil {
			select {
			case repaired <- struct{}{}:
			default:
			}
		}
	}
}

// webhook writes without pauses, but waits for a repair after every tenth write, so that there are repairs.
func webhook(ctx context.Context, f *fixture, writes int, repaired <-chan struct{}) error {
	for n := 1; n <= writes; n++ {
		if err := webhookOnce(ctx, f, fmt.Sprintf("hook-%d", n-1), fmt.Sprintf("hook-%d", n)); err != nil {
			return err
		}
		if n%10 != 0 {
			continue
		}
		select {
		case <-repaired:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func webhookOnce(ctx context.Context, f *fixture, last, next string) error {
	tx, err := f.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var price string
	if err := tx.QueryRowContext(ctx, `SELECT stripe_price_id FROM subscriptions WHERE org_id = 'a' FOR UPDATE`).Scan(&price); err != nil {
		return err
	}
	if price != last && price != last+"/repaired" {
		return fmt.Errorf("the price is %s after the webhook wrote %s", price, last)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET stripe_price_id = ? WHERE org_id = 'a'`, next); err != nil {
		return err
	}
	return tx.Commit()
}

func TestApplyWaitsForAWebhooksTransactionAndThenRefuses(t *testing.T) {
	for name, statement := range map[string]string{
		"that updates the row":         `UPDATE subscriptions SET stripe_price_id = 'hook'`,
		"that updates the other table": `UPDATE organizations SET subscription_tier = 'max'`,
		"that inserts a row":           `INSERT INTO subscriptions (id, org_id) VALUES ('hook', 'a')`,
		"that deletes the row":         `DELETE FROM subscriptions`,
	} {
		t.Run(name, func(t *testing.T) {
			f := onServer(t)
			f.addPaying(t, "a")
			f.startRun(t, "r", 0)
			record := f.record(t, "a")
			store, connection := f.singleConnection(t)
			webhook := f.lock(t, statement)
			result := make(chan error, 1)
			go func() {
				result <- store.Apply(t.Context(), record, upgrade("a"), itemOf("r", "a", upgrade("a")), false, now)
			}()
			f.awaitStatement(t, connection, "SELECT id, ")
			if err := webhook.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-result; !errors.Is(err, billing.ErrRecordChanged) {
				t.Errorf("got %v, want ErrRecordChanged", err)
			}
			if item := f.item(t, "r", "a"); item.Outcome != billing.OutcomePending {
				t.Errorf("the item became %s", item.Outcome)
			}
		})
	}
}

func TestConcurrentDowngradesReachTheLimitExactly(t *testing.T) {
	f := onServer(t)
	f.SetMaxOpenConns(16)
	const organizations, workers, limit = 160, 16, 37
	ids := orgIDs(organizations)
	f.addPaying(t, ids...)
	f.startRun(t, "r", limit)
	records, err := f.store.Records(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range inParallel(workers, func(worker int) error {
		for i := worker; i < organizations; i += workers {
			err := f.apply(t, "r", records[ids[i]], downgrade(ids[i]))
			if err != nil && billing.AsFailure(err).Reason != billing.ReasonWithheld {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	for query, want := range map[string]int{
		`SELECT downgrades FROM reconciliation_runs`:                                                            limit,
		`SELECT COUNT(*) FROM reconciliation_items WHERE outcome = 'synced'`:                                    limit,
		`SELECT COUNT(*) FROM reconciliation_items WHERE outcome = 'pending' AND changes IS NULL`:               organizations - limit,
		`SELECT COUNT(*) FROM organizations WHERE subscription_tier = 'free'`:                                   limit,
		`SELECT COUNT(*) FROM subscriptions WHERE plan_tier = 'free'`:                                           limit,
		`SELECT COUNT(*) FROM organizations WHERE subscription_tier = 'pro' AND updated_at = '` + oldText + `'`: organizations - limit,
		`SELECT COUNT(*) FROM subscriptions WHERE plan_tier = 'pro' AND updated_at = '` + oldText + `'`:         organizations - limit,
	} {
		if got := mysqltest.Value[int](t, f.DB, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

var oldText = old.Format("2006-01-02 15:04:05")

// Repairs insert rows for every second organization, and webhooks for the others, into an empty table, which is a single
// gap for InnoDB's locks.
func TestConcurrentInsertsOfRepairsAndWebhooksDoNotBlock(t *testing.T) {
	f := onServer(t)
	f.SetMaxOpenConns(16)
	const organizations, callers = 240, 12
	ids := orgIDs(organizations)
	for _, id := range ids {
		f.addOrganizations(t, appschema.Organization{ID: id, StripeCustomerID: new("cus_" + id)})
	}
	f.startRun(t, "r", 0)
	records, err := f.store.Records(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	insert := func(i int) error {
		id := ids[i]
		if i%2 == 0 {
			return f.apply(t, "r", records[id], billing.Plan{
				GoverningID: "sub_" + id, Insert: true, Outcome: billing.OutcomeSynced,
				Changes: []billing.Change{{Field: billing.FieldSubscriptionID, To: "sub_" + id}, {Field: billing.FieldOrgTier, From: "free", To: "pro"}},
			})
		}
		if _, err := f.ExecContext(t.Context(), `INSERT INTO subscriptions (id, org_id, stripe_subscription_id) VALUES (?,?,?)`, rowID(id), id, "sub_"+id); err != nil {
			return err
		}
		_, err := f.ExecContext(t.Context(), `UPDATE organizations SET subscription_tier = 'pro' WHERE id = ?`, id)
		return err
	}
	todo := make(chan int, organizations)
	for i := range organizations {
		todo <- i
	}
	close(todo)
	for _, err := range inParallel(callers, func(int) error {
		for i := range todo {
			if err := insert(i); err != nil {
				return fmt.Errorf("organization %d: %w", i, err)
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := mysqltest.Value[int](t, f.DB, `SELECT COUNT(*) FROM subscriptions`); n != organizations {
		t.Errorf("%d rows, want %d", n, organizations)
	}
}

// blockedDowngrade starts a downgrade on its own connection. The downgrade writes everything except the run's count, and
// then waits for the transaction that has locked the run. Apply's error is sent to result.
func blockedDowngrade(t *testing.T, f *fixture) (connection int64, cancel func(), result <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	record := f.record(t, "a")
	store, connection := f.singleConnection(t)
	answer := make(chan error, 1)
	go func() {
		answer <- store.Apply(ctx, record, downgrade("a"), itemOf("r", "a", downgrade("a")), false, now)
	}()
	f.awaitStatement(t, connection, "UPDATE reconciliation_runs")
	return connection, cancel, answer
}

func TestConnectionKilledBeforeCommitWritesNothing(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.startRun(t, "r", 5)
	before := f.state(t)
	holder := f.lock(t, `SELECT id FROM reconciliation_runs FOR UPDATE`)
	connection, _, result := blockedDowngrade(t, f)
	f.MustExec(t, fmt.Sprintf(`KILL CONNECTION %d`, connection))
	if f := billing.AsFailure(<-result); f.Class != billing.Unavailable {
		t.Errorf("got %s %s: %v", f.Class, f.Reason, f)
	}
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.requireUnchanged(t, before)
	if err := f.apply(t, "r", f.record(t, "a"), downgrade("a")); err != nil {
		t.Errorf("after the connection was killed: %v", err)
	}
}

func TestKilledStatementIsUnavailable(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.startRun(t, "r", 5)
	before := f.state(t)
	holder := f.lock(t, `SELECT id FROM reconciliation_runs FOR UPDATE`)
	connection, _, result := blockedDowngrade(t, f)
	f.MustExec(t, fmt.Sprintf(`KILL QUERY %d`, connection))
	wantFailure(t, <-result, billing.Unavailable, billing.ReasonDatabaseUnavailable)
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.requireUnchanged(t, before)
}

func TestContextCanceledBeforeCommitWritesNothing(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.startRun(t, "r", 5)
	before := f.state(t)
	holder := f.lock(t, `SELECT id FROM reconciliation_runs FOR UPDATE`)
	_, cancel, result := blockedDowngrade(t, f)
	cancel()
	err := <-result
	if f := billing.AsFailure(err); !errors.Is(err, context.Canceled) || f.Reason != billing.ReasonOutOfTime {
		t.Errorf("got %s: %v", f.Reason, err)
	}
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.requireUnchanged(t, before)
}

func TestLockWaitTimeoutIsUnavailable(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.startRun(t, "r", 5)
	before, record := f.state(t), f.record(t, "a")
	holder := f.lock(t, `SELECT id FROM reconciliation_runs FOR UPDATE`)
	store, _ := f.singleConnection(t)
	if _, err := store.DB().ExecContext(t.Context(), `SET innodb_lock_wait_timeout = 1`); err != nil {
		t.Fatal(err)
	}
	err := store.Apply(t.Context(), record, downgrade("a"), itemOf("r", "a", downgrade("a")), false, now)
	wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.requireUnchanged(t, before)
}

func TestDeadlockIsUnavailable(t *testing.T) {
	f := onServer(t)
	f.addPaying(t, "a")
	f.startRun(t, "r", 5)
	var insert strings.Builder
	insert.WriteString(`INSERT INTO reconciliation_items (run_key, org_id) VALUES (999,'x')`)
	for i := range 500 { // InnoDB rolls back the transaction that wrote less
		fmt.Fprintf(&insert, `,(999,'%d')`, i)
	}
	before := f.state(t)
	holder := f.lock(t, insert.String())
	if _, err := holder.ExecContext(t.Context(), `SELECT id FROM reconciliation_runs FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	_, _, result := blockedDowngrade(t, f)
	if _, err := holder.ExecContext(t.Context(), `SELECT id FROM organizations FOR UPDATE`); err != nil {
		t.Fatalf("InnoDB rolled back the test's transaction, not the repair's: %v", err)
	}
	wantFailure(t, <-result, billing.Unavailable, billing.ReasonDatabaseUnavailable)
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.requireUnchanged(t, before)
}

// If a repair locked a gap between keys, webhooks could not insert rows of other organizations, or would end in a
// deadlock.
func TestRepairDoesNotBlockInsertsOfOtherOrganizations(t *testing.T) {
	f := onServer(t)
	ids := []string{"a", "b", "bb-without-row", "c"}
	f.addPaying(t, "b")
	f.addOrganizations(t, appschema.Organization{ID: "a"}, appschema.Organization{ID: "bb-without-row"}, appschema.Organization{ID: "c"})
	f.startRun(t, "r", 5)
	f.addItems(t, pendingItem("r", "bb-without-row"))
	for orgID, plan := range map[string]billing.Plan{
		"b": downgrade("b"),
		"bb-without-row": {GoverningID: "sub_new", Insert: true, Outcome: billing.OutcomeSynced, Changes: []billing.Change{
			{Field: billing.FieldSubscriptionID, To: "sub_new"}, {Field: billing.FieldOrgTier, From: "pro", To: "free"},
		}},
	} {
		t.Run(orgID, func(t *testing.T) {
			holder := f.lock(t, `SELECT id FROM reconciliation_runs FOR UPDATE`)
			record := f.record(t, orgID)
			store, connection := f.singleConnection(t)
			result := make(chan error, 1)
			go func() { result <- store.Apply(t.Context(), record, plan, itemOf("r", orgID, plan), false, now) }()
			f.awaitStatement(t, connection, "UPDATE reconciliation_runs")

			webhook := f.Open(t)
			webhook.SetMaxOpenConns(1)
			if _, err := webhook.ExecContext(t.Context(), `SET innodb_lock_wait_timeout = 1`); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if id == orgID {
					continue
				}
				if _, err := webhook.ExecContext(t.Context(), `INSERT INTO subscriptions (id, org_id, stripe_subscription_id) VALUES (?,?,?)`,
					"hook-"+orgID+"-"+id, id, "sub_hook_"+orgID+"_"+id); err != nil {
					t.Errorf("the webhook's insert for organization %s: %v", id, err)
				}
			}
			if err := holder.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := <-result; err != nil {
				t.Errorf("the repair: %v", err)
			}
		})
	}
}

// If a repair and a webhook insert the same row, they may deadlock. InnoDB then rolls back the transaction that wrote
// less. It must not be the webhook's.
func TestDeadlockWithAWebhookRollsBackTheRepair(t *testing.T) {
	f := onServer(t)
	f.addOrganizations(t, appschema.Organization{ID: "a", StripeCustomerID: new("cus_a")})
	f.startRun(t, "r", 0)
	resume := f.pauseInserts(t)
	record := f.record(t, "a")
	plan := billing.Plan{GoverningID: "sub_new", Insert: true, Outcome: billing.OutcomeSynced, Changes: []billing.Change{
		{Field: billing.FieldSubscriptionID, To: "sub_new"}, {Field: billing.FieldPriceID, To: "pause"}, {Field: billing.FieldOrgTier, From: "free", To: "pro"},
	}}
	store, connection := f.singleConnection(t)
	repair, webhook := make(chan error, 1), make(chan error, 1)
	go func() { repair <- store.Apply(t.Context(), record, plan, itemOf("r", "a", plan), false, now) }()
	f.awaitStatement(t, connection, pausedInsert)
	application, connection := f.singleConnection(t)
	go func() {
		_, err := application.DB().ExecContext(t.Context(), `INSERT INTO subscriptions (id, org_id, stripe_subscription_id) VALUES ('hook', 'a', 'sub_new')`)
		webhook <- err
	}()
	f.awaitStatement(t, connection, "INSERT INTO subscriptions")
	if strings.Contains(f.Kind, "MariaDB") { // MySQL since 9.6 waits for the organization's row before it begins
		f.awaitLock(t, connection)
	}
	resume()
	err, webhookErr := <-repair, <-webhook
	if e, ok := errors.AsType[*mysql.MySQLError](webhookErr); webhookErr != nil && (!ok || e.Number != 1062) {
		t.Errorf("the webhook got %v, want no error or a duplicate key", webhookErr)
	}
	if err != nil {
		wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
	}
	if (err == nil) == (webhookErr == nil) {
		t.Errorf("the repair got %v, the webhook %v, want exactly one of them to insert its row", err, webhookErr)
	}
}
