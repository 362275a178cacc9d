package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// hints are what is known about an organization, besides its record, before Stripe is read. They say what to read;
// nothing is decided from them.
type hints struct {
	named     []string // subscriptions that may belong to it: their metadata may name it, or an event named them
	eventSubs []string // those that events name: they are always read
	unsettled bool     // its recorded subscriptions do not suffice to choose the governing one, or to lower access
	// sweptBy is the run whose snapshot, started at sweptFrom, was read: named has every subscription in it that names
	// the organization. "" means that there is no snapshot.
	sweptBy   string
	sweptFrom time.Time
}

// read reads from Stripe the subscriptions that may govern the organization, and from the database who else may own
// them. [Reconciler.loadSharedCustomers] looks up who shares their customers.
func (r *reading) read(ctx context.Context) (billing.Truth, error) {
	if r.record.Org.Deleted {
		return billing.Truth{ReadAt: r.at}, nil
	}
	if err := r.readNeeded(ctx); err != nil {
		return billing.Truth{}, err
	}
	return r.truth(ctx)
}

// readForDowngrade reads every source that can name a subscription of the organization, because access is lowered only
// after all of them were read. The run's snapshot has the subscriptions whose metadata names the organization. Without
// a snapshot, Stripe's search finds them, except those that changed within about a minute. searched is false if the
// account has no search.
// https://docs.stripe.com/search#data-freshness
func (r *reading) readForDowngrade(ctx context.Context) (truth billing.Truth, searched bool, err error) {
	swept, err := r.snapshotUsable(ctx)
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
	if err = r.readSources(ctx, named); err == nil {
		truth, err = r.truth(ctx)
	}
	return truth, searched, err
}

// snapshotUsable reports whether the run still has the snapshot that was read. If the snapshot was being deleted, the
// worker may have read only a part of it.
func (r *reading) snapshotUsable(ctx context.Context) (bool, error) {
	if r.known.sweptBy == "" {
		return false, nil
	}
	runs, err := r.Store.Runs(ctx, []string{r.known.sweptBy})
	run := runs[r.known.sweptBy]
	return err == nil && run.HasSnapshot(r.now()) && run.SweptFrom.Equal(r.known.sweptFrom), err
}

// truth returns what was read so far, and who claims it.
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

// loadSharedCustomers looks up which other organizations share the customers of ambiguous subscriptions, if there are
// any. The query scans whole tables.
func (r *Reconciler) loadSharedCustomers(ctx context.Context, truth *billing.Truth, record billing.Record) (err error) {
	if customers := billing.AmbiguousCustomers(*truth, record); len(customers) > 0 {
		truth.Claims.SharedCustomers, err = r.Store.SharedCustomers(ctx, customers)
	}
	return err
}

// reading reads one organization from Stripe. It makes no request twice.
type reading struct {
	*batch

	record    billing.Record
	known     hints
	at        time.Time
	found     subscriptions
	retrieved map[string]bool // subscriptions that were read one by one, or need not be
	customers map[string]bool // the customers that were read, and whether Stripe has them
	otherMode []string        // recorded ids that exist in Stripe's other mode
	inMode    bool            // a recorded id exists in the key's mode
}

func (b *batch) newReading(record billing.Record, known hints) *reading {
	return &reading{batch: b, record: record, known: known, at: b.now(), retrieved: map[string]bool{}, customers: map[string]bool{}}
}

// readNeeded reads the recorded subscriptions. If they do not suffice, it also reads the customers' subscriptions and
// those whose metadata names the organization. A customer's list has the recorded ones too, so if it is known to be
// needed, it is read first.
func (r *reading) readNeeded(ctx context.Context) error {
	if !r.known.unsettled {
		if err := r.readRecorded(ctx); err != nil {
			return err
		}
		if billing.RecordedSuffice(r.found) {
			return r.readEventSubs(ctx)
		}
	}
	return r.readSources(ctx, r.known.named)
}

// readEventSubs reads the subscriptions that events name, if the recorded ones suffice to choose.
func (r *reading) readEventSubs(ctx context.Context) error {
	if own := r.customerIDs(); len(r.known.eventSubs) > readSingly {
		for _, customer := range own {
			if err := r.readNamedOf(ctx, customer, own); err != nil {
				return err
			}
		}
	}
	return r.readNamed(ctx, r.known.eventSubs)
}

// readSources reads the customers' lists, then the recorded subscriptions that are in none of them, then the lists of
// the customers that these name, and last the named subscriptions.
func (r *reading) readSources(ctx context.Context, named []string) error {
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
		if err := r.recordMode(id, exists, err); err != nil {
			return err
		}
		if exists {
			r.found.add(sub)
		}
	}
	return nil
}

// recordMode notes in which Stripe mode a recorded id exists. The other mode is no error here: [billing.Rules.Plan]
// decides what follows from it.
func (r *reading) recordMode(id string, exists bool, err error) error {
	r.inMode = r.inMode || exists
	if err == nil || billing.AsFailure(err).Reason != billing.ReasonOtherMode {
		return err
	}
	r.otherMode = append(r.otherMode, id)
	return nil
}

// readSingly is how many named subscriptions are read one by one. If there are more, the customers' lists are read too,
// with a hundred subscriptions a page: a worker may make only a few requests a second, and must finish.
const readSingly = 20

// readNamed reads the subscriptions and adds those whose metadata may still name the organization and those of its
// customers.
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

// readNamedOf reads a customer's list and adds the subscriptions that may name the organization. None of the list is
// read one by one later. If the list cannot be used, perhaps because of another organization's subscription, its
// subscriptions are read one by one.
func (r *reading) readNamedOf(ctx context.Context, customerID string, own []string) error {
	subs, _, err := r.Stripe.CustomerSubscriptions(ctx, customerID)
	if err != nil && billing.AsFailure(err).Class == billing.Permanent {
		return nil // each subscription is read in its own request
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

// retrieve reads a subscription. If it was read before, retrieve returns false.
func (r *reading) retrieve(ctx context.Context, id string) (billing.Subscription, bool, error) {
	if r.retrieved[id] || r.found.has(id) {
		return billing.Subscription{}, false, nil
	}
	r.retrieved[id] = true
	return r.Stripe.Subscription(ctx, id)
}

// readCustomers adds the subscriptions of every customer of the organization: the customers that the record names, and
// those of the recorded subscriptions.
func (r *reading) readCustomers(ctx context.Context) error {
	for _, id := range r.customerIDs() {
		if _, asked := r.customers[id]; asked {
			continue
		}
		subs, exists, err := r.Stripe.CustomerSubscriptions(ctx, id)
		if err := r.recordMode(id, exists, err); err != nil {
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

// customerMissing reports whether Stripe has none of the organization's customers, or deleted them. It checks only if
// no subscription was found or recorded.
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

// subscriptions are those that were read, each as it was read last.
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

// onlyOf reports whether the record names all of them, in the same spelling. Then the record also has every other
// organization that names one.
func (s *subscriptions) onlyOf(record billing.Record) bool {
	named := map[string]bool{}
	for _, row := range record.Rows {
		if row.SubscriptionID != nil {
			named[*row.SubscriptionID] = true
		}
	}
	return !slices.ContainsFunc(*s, func(sub billing.Subscription) bool { return !named[sub.ID] })
}
