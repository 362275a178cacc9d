package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// EdgeCasesFrom is how many organizations there must be for the situations that are no drift.
const EdgeCasesFrom = 60

const (
	// situationsEvery is how many organizations there are to each further set of situations.
	situationsEvery = 1000
	// chunk is how many organizations are generated and inserted at a time.
	chunk = 1000
)

// Options describe a population. The same ones always give the same.
type Options struct {
	Orgs  int     // organizations in all
	Drift float64 // share of them that drifted, 0 to 1
	Seed  uint64
	Now   time.Time // what the dates lie around
	Plain bool      // drift, and what is plainly in sync, and no other situation
}

// Population says what was made, in figures, and what a reconciliation must find.
type Population struct {
	Organizations int          // rows of organizations
	Listed        int          // those that a run lists
	Drifted       map[Kind]int // by kind of drift
	Other         map[Kind]int // situations that are no drift, and what is plainly in sync
	Outcomes      map[billing.Outcome]int
	Reasons       map[billing.Reason]int
	Warnings      map[billing.WarningCode]int
	Downgrades    int // repairs that lower access
	Subscriptions int // objects in Stripe
	Named         Named
}

// Named are the organizations that Stripe's events of the last day name.
type Named struct {
	Organizations       int
	Pending, NotPending int // of those that drifted, by whether an endpoint has not taken the event
}

func (n *Named) count(e Expectation, event *stripetest.Event) {
	switch {
	case event == nil:
		return
	case e.Drifted() && event.PendingWebhooks > 0:
		n.Pending++
	case e.Drifted():
		n.NotPending++
	}
	n.Organizations++
}

// Expectation is what the first reconciliation must find at one organization.
type Expectation struct {
	OrgID    string
	Kind     Kind
	Listed   bool // what follows is empty where it is not
	Outcome  billing.Outcome
	Reason   billing.Reason
	Fields   []string // that change, sorted
	Warnings []billing.WarningCode
	Lowers   bool // the repair lowers access
}

// Drifted reports whether there is something to repair.
func (e Expectation) Drifted() bool { return len(e.Fields) > 0 }

// Populate fills the application's empty tables and the fake Stripe.
func Populate(ctx context.Context, db *sql.DB, stripe *stripetest.Server, o Options) (Population, error) {
	if err := o.validate(); err != nil {
		return Population{}, fmt.Errorf("demo population: %w", err)
	}
	p := Population{
		Drifted: map[Kind]int{}, Other: map[Kind]int{},
		Outcomes: map[billing.Outcome]int{}, Reasons: map[billing.Reason]int{}, Warnings: map[billing.WarningCode]int{},
	}
	for first := 0; first < o.Orgs; first += chunk {
		if err := populateChunk(ctx, db, stripe, o, first, &p); err != nil {
			return p, fmt.Errorf("demo population: %w", err)
		}
	}
	return p, nil
}

// Expect tells what the first reconciliation must find at organization i of 0 to Orgs-1.
func Expect(o Options, i int) Expectation {
	return expectation(identityOf(o.Seed, i).org, o.at(i))
}

func expectation(orgID string, s script) Expectation {
	e := Expectation{OrgID: orgID, Kind: s.kind, Listed: !s.unlisted}
	if !e.Listed {
		return e
	}
	e.Reason, e.Fields, e.Warnings, e.Lowers = s.reason, s.fields, s.warnings, s.lowers
	e.Outcome = billing.OutcomeSkipped
	if e.Drifted() {
		e.Outcome = billing.OutcomeSynced
	}
	return e
}

func (o Options) validate() error {
	switch {
	case o.Orgs < 0:
		return fmt.Errorf("%d organizations", o.Orgs)
	case !(o.Drift >= 0 && o.Drift <= 1): // NaN too
		return fmt.Errorf("a share of drift of %v, want 0 to 1", o.Drift)
	case o.Now.IsZero():
		return errors.New("the time is not set")
	}
	return nil
}

// at returns the script of organization i: first come the situations, then those that drifted,
// then the rest. The ids are random, so nothing of that order is seen in the database.
func (o Options) at(i int) script {
	situated := o.situated()
	drifted := o.drifted(situated)
	switch {
	case i < situated:
		return situations[i%len(situations)]
	case i < situated+drifted:
		return drifts[(i-situated)%len(drifts)]
	default:
		return rest[(i-situated-drifted)%len(rest)]
	}
}

func (o Options) situated() int {
	if o.Plain || o.Orgs < EdgeCasesFrom {
		return 0
	}
	return len(situations) * max(1, o.Orgs/situationsEvery)
}

func (o Options) drifted(situated int) int {
	if o.Drift == 0 {
		return 0
	}
	n := int(math.Round(float64(o.Orgs) * o.Drift))
	if o.Orgs >= len(drifts) {
		n = max(n, len(drifts))
	}
	return min(n, o.Orgs-situated)
}

func populateChunk(ctx context.Context, db *sql.DB, stripe *stripetest.Server, o Options, first int, p *Population) error {
	last := min(first+chunk, o.Orgs)
	orgs := make([]appschema.Organization, 0, last-first)
	rows := make([]appschema.Subscription, 0, last-first)
	for i := first; i < last; i++ {
		script := o.at(i)
		s := newSpecimen(o, i)
		script.play(s)
		s.tell(script.event)
		orgs = append(orgs, s.org)
		rows = append(rows, s.rows...)
		s.putInto(stripe)
		p.count(expectation(s.id.org, script), s)
	}
	if err := appschema.InsertOrganizations(ctx, db, orgs); err != nil {
		return err
	}
	return appschema.InsertSubscriptions(ctx, db, rows)
}

func (p *Population) count(e Expectation, s *specimen) {
	p.Organizations++
	p.Subscriptions += len(s.subscriptions)
	if e.Drifted() {
		p.Drifted[e.Kind]++
	} else {
		p.Other[e.Kind]++
	}
	if !e.Listed {
		return
	}
	p.Listed++
	p.Named.count(e, s.event)
	p.Outcomes[e.Outcome]++
	p.Reasons[e.Reason]++
	for _, w := range e.Warnings {
		p.Warnings[w]++
	}
	if e.Lowers {
		p.Downgrades++
	}
}
