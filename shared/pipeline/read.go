package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// hints are what is known of an organization before Stripe is asked, beyond its record. They say
// what to ask for, never what the answer is.
type hints struct {
	named     []string // subscriptions that may be its: the metadata may name it, or an event led there
	told      []string // those of them that events name: they are read whatever else is settled
	unsettled bool     // its recorded subscriptions will not settle which one governs
	// sweptBy is the run in whose snapshot, begun at sweptFrom, named are all that name the organization;
	// "" without one.
	sweptBy   string
	sweptFrom time.Time
}

// read asks Stripe afresh for what may govern the organization, and the database whose else it may
// be, but for what [Reconciler.share] looks up.
func (r *reading) read(ctx context.Context) (billing.Truth, error) {
	if r.record.Org.Deleted {
		return billing.Truth{ReadAt: r.at}, nil
	}
	if err := r.ask(ctx); err != nil {
		return billing.Truth{}, err
	}
	return r.truth(ctx)
}

// readAll asks whatever endpoint could still name a candidate: before access is lowered, none may be left out.
// The subscriptions whose metadata names the organization are in the run's snapshot; without one Stripe's search
// finds them, but for those that changed within about a minute. searched is false where the account has no search.
// https://docs.stripe.com/search#data-freshness
func (r *reading) readAll(ctx context.Context) (truth billing.Truth, searched bool, err error) {
	swept, err := r.snapshotStands(ctx)
	if err != nil {
		return truth, false, err
	}
	searched = true
	named := r.known.named
	if !swept {
		var found []string
		if found, searched, err = r.Stripe.SearchByOrgID(ctx, r.record.Org.ID); err != nil {
			return truth, false, err
		}
		named = append(slices.Clone(named), found...)
	}
	if err = r.askAll(ctx, named); err == nil {
		truth, err = r.truth(ctx)
	}
	return truth, searched, err
}

// snapshotStands reports whether the run still has the snapshot that was looked at: while one is removed, it may
// have been read with holes.
func (r *reading) snapshotStands(ctx context.Context) (bool, error) {
	if r.known.sweptBy == "" {
		return false, nil
	}
	runs, err := r.Store.Runs(ctx, []string{r.known.sweptBy})
	run := runs[r.known.sweptBy]
	return err == nil && run.HasSnapshot(r.now()) && run.SweptFrom.Equal(r.known.sweptFrom), err
}

// truth is what was seen so far.
func (r *reading) truth(ctx context.Context) (billing.Truth, error) {
	truth := billing.Truth{ReadAt: r.at}
	missing, err := r.customerMissing(ctx)
	if err != nil {
		return truth, err
	}
	truth.CustomerMissing, truth.Subscriptions = missing, r.found
	truth.OtherMode, truth.InKeyMode = r.otherMode, r.inMode
	if r.found.onlyOf(r.record) && len(r.record.OtherOwners) == 0 {
		return truth, nil
	}
	truth.Claims, err = r.Store.Claims(ctx, r.found)
	return truth, err
}

// share looks up who else is known under the customers of what is in doubt, if anything is. That
// goes through whole tables.
func (r *Reconciler) share(ctx context.Context, truth *billing.Truth, record billing.Record) (err error) {
	if customers := billing.AmbiguousCustomers(*truth, record); len(customers) > 0 {
		truth.Claims.SharedCustomers, err = r.Store.SharedCustomers(ctx, customers)
	}
	return err
}

// reading is a fresh look at one organization in Stripe; nothing is asked for twice.
type reading struct {
	*batch

	record    billing.Record
	known     hints
	at        time.Time
	found     subscriptions
	retrieved map[string]bool // subscriptions asked for singly
	customers map[string]bool // asked for, and whether Stripe has them
	otherMode []string        // recorded ids that are in Stripe's other mode
	inMode    bool            // a recorded id is in the key's
}

func (b *batch) newReading(record billing.Record, known hints) *reading {
	return &reading{batch: b, record: record, known: known, at: b.now(), retrieved: map[string]bool{}, customers: map[string]bool{}}
}

// ask reads the recorded subscriptions and, unless they settle it, all of the customers' and
// those whose metadata names the organization. A customer's list has the recorded ones too: where
// it is needed anyway, it comes first.
func (r *reading) ask(ctx context.Context) error {
	if !r.known.unsettled {
		if err := r.readRecorded(ctx); err != nil {
			return err
		}
		if billing.RecordedSuffice(r.found) {
			return r.readTold(ctx)
		}
	}
	return r.askAll(ctx, r.known.named)
}

// readTold reads what events name of an organization that is settled without it.
func (r *reading) readTold(ctx context.Context) error {
	if own := r.customerIDs(); len(r.known.told) > readSingly {
		for _, customer := range own {
			if err := r.readNamedOf(ctx, customer, own); err != nil {
				return err
			}
		}
	}
	return r.readNamed(ctx, r.known.told)
}

func (r *reading) askAll(ctx context.Context, named []string) error {
	for _, step := range []func(context.Context) error{r.readCustomers, r.readRecorded, r.readCustomers} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return r.readNamed(ctx, named)
}

func (r *reading) readRecorded(ctx context.Context) error {
	for _, id := range r.record.RecordedIDs() {
		sub, exists, err := r.retrieve(ctx, id)
		if err := r.note(id, exists, err); err != nil {
			return err
		}
		if exists {
			r.found.add(sub)
		}
	}
	return nil
}

// note keeps in which mode a recorded id exists. That it is the other one is an answer: [billing.Rules.Plan] says what
// follows from it.
func (r *reading) note(id string, exists bool, err error) error {
	r.inMode = r.inMode || exists
	if err == nil || billing.AsFailure(err).Reason != billing.ReasonOtherMode {
		return err
	}
	r.otherMode = append(r.otherMode, id)
	return nil
}

// readSingly is how many subscriptions that name an organization are read one by one. Of more the customers' lists are
// read too, a hundred at a time: a worker has few reads a second, and must come to an end.
const readSingly = 20

// readNamed adds those of the subscriptions whose metadata may still name the organization, or that are of one
// of its customers.
func (r *reading) readNamed(ctx context.Context, named []string) error {
	own := r.customerIDs()
	ofCustomer := map[string]int{}
	for i, id := range named {
		sub, exists, err := r.retrieve(ctx, id)
		if err != nil {
			return err
		}
		if !exists {
			continue
		}
		r.addNamed(sub, own)
		ofCustomer[sub.CustomerID]++
		if ofCustomer[sub.CustomerID] == 2 && len(named)-i > readSingly {
			if err := r.readNamedOf(ctx, sub.CustomerID, own); err != nil {
				return err
			}
		}
	}
	return nil
}

// readNamedOf adds those of the customer's subscriptions that may name the organization, and has none of them read
// singly any more. A list that cannot be used, because of a subscription that is none of the organization's perhaps,
// saves nothing: then they are read singly.
func (r *reading) readNamedOf(ctx context.Context, customerID string, own []string) error {
	subs, _, err := r.Stripe.CustomerSubscriptions(ctx, customerID)
	if err != nil && billing.AsFailure(err).Class == billing.Permanent {
		return nil // each is asked for by itself
	}
	for _, sub := range subs {
		r.retrieved[sub.ID] = true
		r.addNamed(sub, own)
	}
	return err
}

func (r *reading) addNamed(sub billing.Subscription, own []string) {
	if sub.MayName(r.record.Org.ID) || slices.Contains(own, sub.CustomerID) {
		r.found.add(sub)
	}
}

// retrieve returns a subscription that was not seen before.
func (r *reading) retrieve(ctx context.Context, id string) (billing.Subscription, bool, error) {
	if r.retrieved[id] || r.found.has(id) {
		return billing.Subscription{}, false, nil
	}
	r.retrieved[id] = true
	return r.Stripe.Subscription(ctx, id)
}

// readCustomers adds the subscriptions of every customer the organization is known under: those
// that the record names and those of its recorded subscriptions.
func (r *reading) readCustomers(ctx context.Context) error {
	for _, id := range r.customerIDs() {
		if _, asked := r.customers[id]; asked {
			continue
		}
		subs, exists, err := r.Stripe.CustomerSubscriptions(ctx, id)
		if err := r.note(id, exists, err); err != nil {
			return err
		}
		r.customers[id] = exists
		r.found.addAll(subs)
	}
	return nil
}

func (r *reading) customerIDs() []string {
	ids := r.record.CustomerIDs()
	for _, sub := range r.found {
		if r.record.Records(sub.ID) && sub.CustomerID != "" && !slices.Contains(ids, sub.CustomerID) {
			ids = append(ids, sub.CustomerID)
		}
	}
	return ids
}

// customerMissing reports whether Stripe has none of the organization's customers (any more),
// where that makes a difference.
func (r *reading) customerMissing(ctx context.Context) (bool, error) {
	if len(r.customers) == 0 || len(r.found) > 0 || len(r.record.RecordedIDs()) > 0 {
		return false, nil
	}
	for _, id := range r.customerIDs() {
		if !r.customers[id] {
			continue
		}
		// A deleted customer has an empty list too.
		if exists, err := r.Stripe.CustomerExists(ctx, id); err != nil || exists {
			return false, err
		}
	}
	return true, nil
}

// subscriptions seen, the latest reading of each.
type subscriptions []billing.Subscription

func (s *subscriptions) add(sub billing.Subscription) {
	for i := range *s {
		if (*s)[i].ID == sub.ID {
			(*s)[i] = sub
			return
		}
	}
	*s = append(*s, sub)
}

func (s *subscriptions) addAll(subs []billing.Subscription) {
	for _, sub := range subs {
		s.add(sub)
	}
}

func (s *subscriptions) has(id string) bool {
	return slices.ContainsFunc(*s, func(sub billing.Subscription) bool { return sub.ID == id })
}

// onlyOf: the record names all of them, spelled as they are, so that whoever else does stands in it.
func (s *subscriptions) onlyOf(record billing.Record) bool {
	named := map[string]bool{}
	for _, row := range record.Rows {
		if row.SubscriptionID != nil {
			named[*row.SubscriptionID] = true
		}
	}
	return !slices.ContainsFunc(*s, func(sub billing.Subscription) bool { return !named[sub.ID] })
}
