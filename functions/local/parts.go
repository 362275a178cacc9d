package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/localdb"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// databaseName is the demonstration's database.
const databaseName = "reconciliation"

// ownParts are the database and the fake Stripe of a demonstration.
type ownParts struct {
	database *localdb.Server
	stripe   *stripetest.Server
	// unlimited: the fake Stripe has no rate limit.
	unlimited bool
	planted   demo.Population
}

// startDatabase starts the server that MYSQLD names, else a server of this machine, else one in the process.
func startDatabase(ctx context.Context) (*localdb.Server, error) {
	database, err := localdb.Start(ctx)
	switch {
	case errors.Is(err, localdb.ErrNoServer):
		return localdb.StartInProcess(ctx)
	case errors.Is(err, localdb.ErrNoProgram):
		return nil, &cli.Error{Exit: cli.ExitUsage, Code: "configuration", Hint: "correct MYSQLD, or unset it to use a server of this machine", Err: err}
	}
	return database, err
}

// startOwnParts starts and seeds them.
func startOwnParts(ctx context.Context, o demoOptions, database func(context.Context) (*localdb.Server, error), progress *output.Progress) (parts *ownParts, err error) {
	parts = &ownParts{unlimited: o.rate == 0}
	defer func() {
		if err != nil {
			err = errors.Join(err, parts.close())
		}
	}()
	parts.database, err = database(ctx)
	if err != nil {
		return parts, fmt.Errorf("start a database: %w", err)
	}
	parts.stripe, err = stripetest.Start(stripetest.Options{Latency: o.latency, EndpointRate: o.rate, GlobalRate: globalRate * o.rate})
	if err != nil {
		return parts, fmt.Errorf("start the fake Stripe: %w", err)
	}
	progress.Note("database: %s", parts.database.Kind())
	if o.hold && !parts.database.Concurrent() {
		return parts, cli.Usage("--hold needs a database server, and there is none on PATH: install one (apt-get install mariadb-server-core)")
	}
	progress.Note("Stripe: a fake one at %s", parts.stripe.URL())
	err = parts.seed(ctx, o, progress)
	return parts, err
}

// globalRate: Stripe allows an account four times what it allows each endpoint.
// https://docs.stripe.com/rate-limits
const globalRate = 4

func (p *ownParts) seed(ctx context.Context, o demoOptions, progress *output.Progress) (err error) {
	if err := p.database.CreateDatabase(ctx, databaseName); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	db, err := p.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := appschema.Create(ctx, db); err != nil {
		return fmt.Errorf("create the application's tables: %w", err)
	}
	progress.Note("seeding %s, %g %% drifted, seed %d", billing.Count(o.orgs, "organization"), o.drift, o.seed)
	p.planted, err = demo.Populate(ctx, db, p.stripe, demo.Options{
		Orgs: o.orgs, Drift: o.drift / 100, Seed: o.seed, Now: time.Now().UTC().Truncate(time.Second),
	})
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	progress.Note("%d drifted, at least one of each kind if there are enough; %d are deleted or unknown to Stripe and not listed",
		p.planted.Outcomes[billing.OutcomeSynced], p.planted.Organizations-p.planted.Listed)
	return nil
}

// open returns a pool of connections to the own database.
func (p *ownParts) open() (*sql.DB, error) {
	settings := p.database.DSN()
	settings.DBName, settings.ParseTime, settings.Loc, settings.InterpolateParams = databaseName, true, time.UTC, true
	connector, err := mysql.NewConnector(settings)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	if !p.database.Concurrent() {
		db.SetMaxOpenConns(1)
	}
	return db, nil
}

// environ is the environment of a program that uses the parts; it overrides .env.
func (p *ownParts) environ() map[string]string {
	environ := placeholders()
	maps.Copy(environ, map[string]string{
		"DB_HOST": p.database.Host(), "DB_PORT": strconv.Itoa(p.database.Port()), "DB_USER": p.database.User(), "DB_PASSWORD": p.database.Password(),
		"STRIPE_SECRET_KEY": p.stripe.Key(), "STRIPE_API_BASE": p.stripe.URL(),
	})
	if p.unlimited {
		environ["STRIPE_RPS"] = "100"
	}
	return environ
}

// placeholders is the part of the environment that is known before the parts are started.
func placeholders() map[string]string {
	environ := map[string]string{
		"DB_HOST": "127.0.0.1", "DB_USER": "root", "DB_NAME": databaseName, "DB_TLS": "false",
		"STRIPE_SECRET_KEY": "sk_test_notStartedYet", "STRIPE_MODE": "test", "STRIPE_ACCOUNT_ID": "",
		"TIERS": billing.DefaultTiers.String(), "DEFAULT_TIER": "",
	}
	maps.Copy(environ, demo.Prices())
	return environ
}

// explained says what drifted and what to try next.
func (p *ownParts) explained(o options, summary billing.Summary) string {
	text := "\nWebhooks that the demonstration lost on purpose: " + p.planted.Summary()
	if len(summary.Warnings) > 0 {
		text += "\nWarnings need a person; to see what each means:\n  reconcile help reasons"
	}
	if summary.OrphansTotal > 0 {
		text += "\nOrphans need a person: see infra/runbooks/orphans.md"
	}
	text += "\nNext (local is go run ./functions/local, reconcile is go run ./functions/reconcile):"
	for _, next := range nextOf(o) {
		text += "\n  " + next.command + "\n      " + next.does
	}
	return text
}

// nextCommand is what to try after a demonstration.
type nextCommand struct{ command, does string }

func nextOf(o options) (all []nextCommand) {
	if o.dryRun {
		all = append(all, nextCommand{"local --demo", "repair the drift"})
	}
	all = append(all, nextCommand{"local --demo --hold", "keep it up for reconcile (status, org ID --explain, report)"},
		nextCommand{"local --demo --orgs 10000 --drift 1", "a larger one"})
	if o.reading.Strategy != string(billing.StrategyEvents) {
		all = append(all, nextCommand{"local --demo --strategy events", "repair only the organizations that Stripe's events of the last day name"})
	}
	return all
}

func (p *ownParts) close() error {
	var all []error
	if p.stripe != nil {
		all = append(all, p.stripe.Close())
	}
	if p.database != nil {
		all = append(all, p.database.Close())
	}
	return errors.Join(all...)
}
