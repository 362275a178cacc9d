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

// EdgeCasesFrom is the number of organizations from which there are edge cases.
const EdgeCasesFrom = 60

const (
	// edgeCasesEvery is the number of organizations for each further set of edge cases.
	edgeCasesEvery = 1000
	// chunk is the number of organizations that are generated and inserted at a time.
	chunk = 1000
)

// Options define a population.
type Options struct {
	Orgs  int     // number of organizations
	Drift float64 // share of organizations with drift, 0 to 1
	Seed  uint64
	Now   time.Time // dates are near it
	Plain bool      // no edge cases
	// Unnamed: no subscription's metadata names its organization. An [Expectation] does not know it.
	Unnamed bool
}

// Population counts what was created and what a reconciliation must find.
type Population struct {
	Organizations int
	Listed        int          // organizations that a run lists
	Drifted       map[Kind]int // by kind of drift
	Other         map[Kind]int // edge cases and organizations in sync
	Outcomes      map[billing.Outcome]int
	Reasons       map[billing.Reason]int
	Warnings      map[billing.WarningCode]int
	Downgrades    int // repairs that lower access
	Subscriptions int // objects in Stripe
	Named         Named
}

// Named counts the organizations that have a Stripe event of the last day.
type Named struct {
	Organizations       int
	Pending, NotPending int // those with drift, by whether the event is pending at an endpoint
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

// Expectation is the expected result of the first reconciliation of one organization.
type Expectation struct {
	OrgID    string
	Kind     Kind
	Listed   bool // the fields below are empty unless it is
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

// Expect returns the expectation for organization i of 0 to Orgs-1.
func Expect(o Options, i int) Expectation {
	return expectation(identityOf(o.Seed, i).org, o.at(i))
}

func expectation(orgID string, s scenario) Expectation {
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

// at returns the scenario of organization i: first the edge cases, then drift, then organizations in sync. The ids are
// random, so that the database does not show this order.
func (o Options) at(i int) scenario {
	edgeCaseCount := o.edgeCaseCount()
	drifted := o.drifted(edgeCaseCount)
	switch {
	case i < edgeCaseCount:
		return edgeCases[i%len(edgeCases)]
	case i < edgeCaseCount+drifted:
		return drifts[(i-edgeCaseCount)%len(drifts)]
	default:
		return inSync[(i-edgeCaseCount-drifted)%len(inSync)]
	}
}

func (o Options) edgeCaseCount() int {
	if o.Plain || o.Orgs < EdgeCasesFrom {
		return 0
	}
	return len(edgeCases) * max(1, o.Orgs/edgeCasesEvery)
}

func (o Options) drifted(edgeCaseCount int) int {
	if o.Drift == 0 {
		return 0
	}
	n := int(math.Round(float64(o.Orgs) * o.Drift))
	if o.Orgs >= len(drifts) {
		n = max(n, len(drifts))
	}
	return min(n, o.Orgs-edgeCaseCount)
}

func populateChunk(ctx context.Context, db *sql.DB, stripe *stripetest.Server, o Options, first int, p *Population) error {
	last := min(first+chunk, o.Orgs)
	orgs := make([]appschema.Organization, 0, last-first)
	rows := make([]appschema.Subscription, 0, last-first)
	for i := first; i < last; i++ {
		scenario := o.at(i)
		s := newOrganization(o, i)
		scenario.build(s)
		if o.Unnamed {
			for _, sub := range s.subscriptions {
				delete(sub.Metadata, "orgId")
			}
		}
		s.addEvent(scenario.event)
		orgs = append(orgs, s.org)
		rows = append(rows, s.rows...)
		s.putInto(stripe)
		p.count(expectation(s.id.org, scenario), s)
	}
	if err := appschema.InsertOrganizations(ctx, db, orgs); err != nil {
		return err
	}
	return appschema.InsertSubscriptions(ctx, db, rows)
}

func (p *Population) count(e Expectation, s *organization) {
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
