package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// The parts of the database that the workers use.
type (
	runsReader interface {
		Runs(ctx context.Context, ids []string) (map[string]billing.Run, error)
	}
	recordReader interface {
		Items(ctx context.Context, work []billing.Work) (map[billing.Work]billing.Item, error)
		EventSubscriptions(ctx context.Context, work []billing.Work) (map[billing.Work][]string, error)
		Records(ctx context.Context, orgIDs []string) (map[string]billing.Record, error)
	}
	ownerFinder interface {
		Claims(ctx context.Context, subs []billing.Subscription) (billing.Claims, error)
		SharedCustomers(ctx context.Context, customers []string) (map[string][]string, error)
	}
	decider interface {
		Decide(ctx context.Context, item billing.Item, countDowngrade bool, now time.Time) error
		Apply(ctx context.Context, before billing.Record, plan billing.Plan, item billing.Item, followUp bool, now time.Time) error
		OnlyOtherMode(ctx context.Context, runID string, more int) (bool, error)
		IsAccepted(ctx context.Context, run billing.Run, orgID, code string) (bool, error)
	}
)

// Stripe is the part of the Stripe client that the workers use.
type Stripe interface {
	accountReader
	Subscription(ctx context.Context, id string) (sub billing.Subscription, exists bool, err error)
	CustomerSubscriptions(ctx context.Context, customerID string) (subs []billing.Subscription, exists bool, err error)
	CustomerExists(ctx context.Context, customerID string) (bool, error)
	SearchByOrgID(ctx context.Context, orgID string) (ids []string, available bool, err error)
	KeyVersion() int64
	TakeUsage() billing.Usage
}

// Disposition says what happens to an organization's messages.
type Disposition int

const (
	// Redeliver: SQS delivers it again later. It is the zero value: a message without a result is not lost.
	Redeliver Disposition = iota
	// Acknowledge: delete the message.
	Acknowledge
	// DeadLetter: move it to the dead-letter queue for a person.
	DeadLetter
)

// Result says what happens to an organization's messages, and why.
type Result struct {
	Disposition Disposition
	Failure     *billing.Failure // why they are delivered again or dead-lettered
}

// Reconciler compares organizations with Stripe and repairs them.
type Reconciler struct {
	Store interface {
		runsReader
		runStopper
		requestCounter
		recordReader
		snapshotReader
		ownerFinder
		guardReader
		decider
	}
	Stripe   Stripe
	Rules    billing.Rules
	Parallel int           // organizations at once; 0 means 8
	Reserve  time.Duration // part of the deadline that is kept for the end
	Retry    Retry
	Now      func() time.Time
	Log      *slog.Logger

	stripeBreaker  breaker
	warnedNoSearch sync.Map // ids of the runs whose missing search was logged
	accounts       accounts
}

const (
	defaultParallel = 8
	// maxRounds is how often an organization is read again because it changed meanwhile.
	maxRounds = 3
	// breakerThreshold is how many organizations must fail in a row to open the circuit breaker for Stripe.
	breakerThreshold = 3
)

// task is one organization of a batch.
type task struct {
	work      billing.Work
	run       billing.Run
	item      billing.Item
	record    billing.Record
	eventSubs []string       // the organization's subscriptions that events name
	exists    bool           // whether the organization exists
	swept     *billing.Truth // what the run's snapshot says; nil if there is no usable one
	// soleOwners are the organizations that alone had a customer when the run was listed, by customer.
	soleOwners   map[string]string
	lastReceive  bool // the queue does not deliver the message again
	calledStripe bool // whether this organization made a Stripe request
	// sentDowngrade: a write that lowers access was sent; it may have failed.
	sentDowngrade bool
	// ambiguous is what was read from Stripe, if one of its subscriptions may also belong to another organization. The
	// batch looks up once, for all such tasks, which organizations share their customers.
	ambiguous *billing.Truth
	// lookUpAlone: the batch's look-ups are too old for what the task read since, so the task makes its own.
	lookUpAlone bool
	truth       billing.Truth // what the last plan was made from
	result      Result
}

// Reconcile handles the work of a batch of messages and returns the result of each. lastReceive says for each whether
// the queue delivers one of its messages for the last time.
func (r *Reconciler) Reconcile(ctx context.Context, lastReceive map[billing.Work]bool) map[billing.Work]Result {
	ctx, cancel := withReserve(ctx, r.Reserve)
	defer cancel()
	tasks := make(map[billing.Work]*task, len(lastReceive))
	for work, last := range lastReceive {
		tasks[work] = &task{work: work, lastReceive: last}
	}
	b := &batch{Reconciler: r}
	if err := r.Retry.do(ctx, func() error { return r.load(ctx, tasks) }); err != nil {
		b.failBatch(ctx, tasks, billing.AsFailure(err))
	} else {
		b.process(ctx, openTasks(tasks))
	}
	countRequests(ctx, r.Store, r.Stripe.TakeUsage(), mainRun(tasks), r.Log)
	results := make(map[billing.Work]Result, len(tasks))
	for work, t := range tasks {
		results[work] = t.result
	}
	return results
}

// load reads everything that a batch needs. The number of queries does not depend on the size of the batch. It reads
// the records last, because they should be as fresh as possible, but older than what Stripe answers.
func (r *Reconciler) load(ctx context.Context, tasks map[billing.Work]*task) error {
	orgIDs, runIDs := map[string]bool{}, map[string]bool{}
	for w := range tasks {
		orgIDs[w.OrgID], runIDs[w.RunID] = true, true
	}
	runs, err := r.Store.Runs(ctx, slices.Collect(maps.Keys(runIDs)))
	if err != nil {
		return err
	}
	for w, t := range tasks {
		t.run = runs[w.RunID]
	}
	items, err := r.Store.Items(ctx, slices.Collect(maps.Keys(tasks)))
	if err != nil {
		return err
	}
	for w, t := range tasks {
		t.item = items[w]
	}
	if err := r.loadEventSubs(ctx, tasks); err != nil {
		return err
	}
	records, err := r.Store.Records(ctx, slices.Collect(maps.Keys(orgIDs)))
	if err != nil {
		return err
	}
	for w, t := range tasks {
		t.record, t.exists = records[w.OrgID]
	}
	return r.loadSnapshots(ctx, tasks)
}

// loadEventSubs reads the subscriptions that events name. Only catch-ups have any.
func (r *Reconciler) loadEventSubs(ctx context.Context, tasks map[billing.Work]*task) error {
	var work []billing.Work
	for w, t := range tasks {
		if t.run.Kind() == billing.KindCatchUp {
			work = append(work, w)
		}
	}
	if len(work) == 0 {
		return nil
	}
	eventSubs, err := r.Store.EventSubscriptions(ctx, work)
	for w, t := range tasks {
		t.eventSubs = eventSubs[w]
	}
	return err
}

// openTasks returns the tasks that need work and gives the others their result.
func openTasks(tasks map[billing.Work]*task) []*task {
	var todo []*task
	for _, t := range tasks {
		switch {
		case t.run.ID == "":
			t.result = Result{DeadLetter, billing.AsFailure(billing.UnknownRun(t.work.RunID))}
		case t.item.OrgID == "" && t.run.Trimmed: // its item had an outcome and was trimmed
			t.result = Result{Disposition: Acknowledge}
		case t.item.OrgID == "":
			t.result = Result{DeadLetter, &billing.Failure{
				Class: billing.Permanent, Reason: billing.ReasonUnknownItem,
				Message: "organization " + t.work.OrgID + " is not part of run " + t.work.RunID,
			}}
		case t.item.Final():
			t.result = Result{Disposition: Acknowledge}
		case t.run.Status == billing.RunStopped:
			t.result = t.onStopped(nil)
		default:
			todo = append(todo, t)
		}
	}
	return todo
}

// onStopped returns the result of a task whose run is stopped. If this task met the failure that stopped the run, f is
// that failure. The message is acknowledged, because a resumed run sends a new message for each pending organization. It
// sends none for an organization in error, whose message came from the dead-letter queue: that message goes back there.
func (t *task) onStopped(f *billing.Failure) Result {
	switch {
	case t.item.OrgID == "": // the item could not be read, so it may be pending or in error
		return Result{Redeliver, f}
	case t.item.Outcome == billing.OutcomeError && !t.run.DryRun:
		return Result{DeadLetter, &billing.Failure{Class: billing.Permanent, Reason: t.item.Reason, Message: t.item.Error}}
	default:
		return Result{Acknowledge, f}
	}
}

// failBatch concludes a batch whose data could not be loaded. A failure of the whole run stops the run. Any other
// failure returns the messages, except those that were received for the last time: they become dead letters.
func (b *batch) failBatch(ctx context.Context, tasks map[billing.Work]*task, f *billing.Failure) {
	ctx, cancel := detached(ctx) // one timeout for all tasks: a hanging database must not use up the time for the response
	defer cancel()
	for _, t := range tasks {
		if _, stopped := b.stopped.Load(t.work.RunID); stopped || t.run.Status == billing.RunStopped {
			t.result = t.onStopped(f)
			continue
		}
		t.result = b.concludeWithin(ctx, t, f, billing.Plan{})
	}
}

// batch is the state that the organizations of one batch share.
type batch struct {
	*Reconciler

	orgs    []string // the organizations of all tasks that need work
	recent  repairCache
	stopped sync.Map // ids of the runs that a task of the batch stopped
}

func (b *batch) process(ctx context.Context, todo []*task) {
	for _, t := range todo {
		b.orgs = append(b.orgs, t.work.OrgID)
	}
	todo = b.decideFromSnapshot(ctx, todo)
	if len(todo) == 0 {
		return
	}
	b.each(b.probe(ctx, todo), func(t *task) Result { return b.reconcileUnlessOpen(ctx, t) })
	b.resolve(ctx, todo)
}

// each sets the result of every task. It runs several tasks at once.
func (b *batch) each(todo []*task, result func(*task) Result) {
	var group errgroup.Group
	group.SetLimit(b.parallel())
	for _, t := range todo {
		group.Go(func() error {
			t.result = result(t)
			return nil
		})
	}
	_ = group.Wait() // no error is lost: each task has its result
}

// resolve finishes the ambiguous tasks: it looks up which organizations share their customers. The query scans whole
// tables, so it runs once per batch. It must run after Stripe was read: an organization's customer is recorded before
// its subscription exists, so the query finds every possible owner.
func (b *batch) resolve(ctx context.Context, todo []*task) {
	todo = slices.DeleteFunc(slices.Clone(todo), func(t *task) bool { return t.ambiguous == nil })
	customers := map[string]bool{}
	for _, t := range todo {
		for _, id := range billing.AmbiguousCustomers(*t.ambiguous, t.record) {
			customers[id] = true
		}
	}
	if len(customers) == 0 {
		return
	}
	known, err := retry(ctx, b.Retry, func() (map[string][]string, error) {
		return b.Store.SharedCustomers(ctx, slices.Sorted(maps.Keys(customers)))
	})
	b.each(todo, func(t *task) Result {
		if err != nil {
			return b.conclude(ctx, t, billing.AsFailure(err), billing.Plan{})
		}
		t.ambiguous.Claims.SharedCustomers = known
		return b.reconcileOne(ctx, t)
	})
}

// probe tests Stripe while the circuit breaker is open: it reconciles one organization (half-open) and returns the rest.
// If that organization made no Stripe request, probe takes the next one.
func (b *batch) probe(ctx context.Context, todo []*task) []*task {
	for len(todo) > 0 && b.stripeBreaker.open() {
		t := todo[0]
		todo = todo[1:]
		t.result = b.reconcileOne(ctx, t)
		if t.calledStripe {
			break
		}
	}
	return todo
}

func (r *Reconciler) parallel() int {
	if r.Parallel > 0 {
		return r.Parallel
	}
	return defaultParallel
}

// reconcileUnlessOpen reconciles one organization, or fails it at once if the circuit breaker is open.
func (b *batch) reconcileUnlessOpen(ctx context.Context, t *task) Result {
	if b.stripeBreaker.open() {
		return b.conclude(ctx, t, &billing.Failure{
			Class: billing.Unavailable, Reason: billing.ReasonStripeUnavailable,
			Message: "Stripe did not answer for other organizations just now",
		}, billing.Plan{})
	}
	return b.reconcileOne(ctx, t)
}

// reconcileOne reconciles one organization and returns what happens to its message.
func (b *batch) reconcileOne(ctx context.Context, t *task) Result {
	if _, stopped := b.stopped.Load(t.work.RunID); stopped {
		return t.onStopped(nil)
	}
	if err := ctx.Err(); err != nil {
		return b.conclude(ctx, t, billing.AsFailure(err), billing.Plan{})
	}
	policy := b.Retry
	if b.stripeBreaker.failing() {
		policy.Tries = 1
	}
	plan, err := retry(ctx, policy, func() (plan billing.Plan, err error) {
		defer func() { err = b.recovered(ctx, t, recover(), err) }()
		return b.retryOnChange(ctx, t)
	})
	b.updateBreaker(t, err)
	if errors.Is(err, billing.ErrAlreadyDecided) && t.sentDowngrade {
		b.followUp(ctx, t) // our write was committed, but its response was lost
	}
	if t.ambiguous != nil {
		return Result{Disposition: Redeliver} // resolve replaces this result
	}
	if err == nil || errors.Is(err, billing.ErrAlreadyDecided) {
		return Result{Disposition: Acknowledge}
	}
	return b.conclude(ctx, t, billing.AsFailure(err), plan)
}

// recovered turns a panic into the failure of one organization. The rest of the batch is not affected.
func (b *batch) recovered(ctx context.Context, t *task, panicked any, err error) error {
	if panicked == nil {
		return err
	}
	b.Log.ErrorContext(ctx, "internal error (panic)", telemetry.KeyRunID, t.work.RunID, telemetry.KeyOrgID, t.work.OrgID,
		telemetry.KeyError, fmt.Sprint(panicked), telemetry.KeyStack, string(debug.Stack()))
	return &billing.Failure{
		Class: billing.Permanent, Reason: billing.ReasonInternal,
		Message: fmt.Sprintf("internal error (panic): %v; nothing was written; the worker's log has the stack", panicked),
	}
}

// conclude returns what happens to the message after a failure. If the organization ends in error, conclude stores the
// failure. It has its own timeout, because ctx may have expired.
func (b *batch) conclude(ctx context.Context, t *task, f *billing.Failure, plan billing.Plan) Result {
	ctx, cancel := detached(ctx)
	defer cancel()
	return b.concludeWithin(ctx, t, f, plan)
}

func (b *batch) concludeWithin(ctx context.Context, t *task, f *billing.Failure, plan billing.Plan) Result {
	if f.Class == billing.RunFatal && t.run.Status.Open() {
		return b.stop(ctx, t, f)
	}
	// A closed run cannot be stopped or resumed, so a message that was redriven to it returns to the queue.
	if f.Class != billing.Permanent && !t.lastReceive {
		return Result{Redeliver, f}
	}
	item := billing.Item{
		RunID: t.work.RunID, OrgID: t.work.OrgID, Outcome: billing.OutcomeError, Reason: f.Reason, SubscriptionID: cmp.Or(plan.GoverningID, t.item.SubscriptionID),
		Error: f.Error(), Warnings: plan.Warnings,
	}
	if f.Reason.Withholds() || t.run.DryRun { // otherwise the changes would look as if they had been made
		item.Changes = plan.Changes
	}
	err := b.Store.Decide(ctx, item, false, b.now())
	switch {
	case errors.Is(err, billing.ErrAlreadyDecided) && t.item.OrgID == "":
		return Result{Redeliver, f} // the item could not be read; it may not exist
	case errors.Is(err, billing.ErrAlreadyDecided):
		return Result{Disposition: Acknowledge}
	case err != nil:
		return Result{Redeliver, billing.AsFailure(err)}
	}
	if f.Reason == billing.ReasonOtherMode && t.run.Status.Open() {
		b.stopIfOtherMode(ctx, t)
	}
	if t.run.DryRun || b.isAccepted(ctx, t, f) {
		return Result{Disposition: Acknowledge, Failure: f}
	}
	return Result{DeadLetter, f}
}

// isAccepted reports whether somebody accepted this error for this organization. Then no dead letter is needed. If the
// query fails, the message becomes a dead letter.
func (b *batch) isAccepted(ctx context.Context, t *task, f *billing.Failure) bool {
	if f.Class != billing.Permanent {
		return false
	}
	known, err := b.Store.IsAccepted(ctx, t.run, t.work.OrgID, string(f.Reason))
	if err != nil {
		b.Log.WarnContext(ctx, "it could not be told whether the error is accepted", telemetry.KeyRunID, t.work.RunID, telemetry.KeyOrgID, t.work.OrgID, telemetry.KeyError, err.Error())
	}
	return known && err == nil
}

// stopIfOtherMode stops the run if more than [billing.MaxOtherMode] organizations have ids of the other Stripe mode and
// none has an id of the key's mode: then the key is wrong. If this fails, the next such organization tries again.
func (b *batch) stopIfOtherMode(ctx context.Context, t *task) {
	wrong, err := b.Store.OnlyOtherMode(ctx, t.work.RunID, billing.MaxOtherMode)
	if err == nil && wrong {
		_ = b.stop(ctx, t, billing.AllOtherMode()) // the next such organization tries again
		return
	}
	if err != nil {
		b.Log.WarnContext(ctx, "it could not be told whether the key is of the wrong mode", telemetry.KeyRunID, t.work.RunID, telemetry.KeyError, err.Error())
	}
}

// stop stops the run: it can be resumed.
func (b *batch) stop(ctx context.Context, t *task, f *billing.Failure) Result {
	stopped, err := b.Store.StopRun(ctx, t.work.RunID, f.Reason, f.Error(), b.now())
	if err != nil {
		return Result{Redeliver, billing.AsFailure(err)}
	}
	b.stopped.Store(t.work.RunID, true)
	if stopped {
		b.Log.ErrorContext(ctx, "the run is stopped; fix the cause, then resume it", telemetry.KeyRunID, t.work.RunID,
			telemetry.KeyReason, f.Reason, telemetry.KeyError, f.Error())
	}
	return t.onStopped(f)
}

// retryOnChange reads, plans and writes. If the record changed meanwhile, it starts again, maxRounds times at most.
func (b *batch) retryOnChange(ctx context.Context, t *task) (plan billing.Plan, err error) {
	for range maxRounds {
		plan, err = b.attempt(ctx, t)
		if !errors.Is(err, billing.ErrRecordChanged) {
			return plan, err
		}
		if err := b.reload(ctx, t); err != nil {
			return plan, err
		}
	}
	return plan, keptChanging(t)
}

func keptChanging(t *task) error {
	return &billing.Failure{
		Class: billing.Unavailable, Reason: billing.ReasonChangedConcurrently,
		Message: "organization " + t.work.OrgID + " kept changing while it was reconciled", Err: billing.ErrRecordChanged,
	}
}

// reload reads the record again. From then on the task's look-ups are not those of the batch, which are older.
func (b *batch) reload(ctx context.Context, t *task) error {
	records, err := b.Store.Records(ctx, []string{t.work.OrgID})
	if err == nil {
		t.record, t.exists = records[t.work.OrgID]
		t.lookUpAlone = true
	}
	return err
}

// attempt reads, plans and writes once.
func (b *batch) attempt(ctx context.Context, t *task) (billing.Plan, error) {
	plan, err := b.plan(ctx, t)
	if err != nil || t.ambiguous != nil {
		return plan, err
	}
	item := t.planned(plan)
	if len(plan.Changes) == 0 {
		return plan, b.Store.Decide(ctx, item, false, b.now())
	}
	if err := b.checkTaskAccount(ctx, t); err != nil {
		return plan, err
	}
	plan, held, err := b.guard(ctx, t, plan)
	if err != nil {
		return plan, err
	}
	item.Warnings = plan.Warnings
	lowers := b.lowers(plan)
	if t.run.DryRun {
		item.Outcome = billing.OutcomeDrifted
		return plan, b.Store.Decide(ctx, item, lowers && held == nil, b.now())
	}
	if held != nil {
		return plan, held
	}
	t.sentDowngrade = t.sentDowngrade || lowers
	if err := b.Store.Apply(ctx, t.record, plan, item, false, b.now()); err != nil {
		return plan, err
	}
	if lowers {
		b.followUp(ctx, t)
	}
	return plan, nil
}

// planned returns the organization's item after the plan is carried out.
func (t *task) planned(plan billing.Plan) billing.Item {
	return billing.Item{
		RunID: t.work.RunID, OrgID: t.work.OrgID, Outcome: plan.Outcome, Reason: plan.Reason, SubscriptionID: plan.GoverningID,
		Changes: plan.Changes, Warnings: plan.Warnings,
	}
}

// plan reads Stripe and compares it with the record, which was read before. If it must first be known who shares a
// customer, it sets t.ambiguous and returns no plan.
func (b *batch) plan(ctx context.Context, t *task) (billing.Plan, error) {
	if !t.exists {
		return billing.Plan{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonOrganizationDeleted}, nil
	}
	if t.ambiguous != nil { // resolve has looked up who shares the customers
		t.truth, t.ambiguous = *t.ambiguous, nil
		plan, err := b.Rules.Plan(t.truth, t.record)
		if err != nil || !b.lowers(plan) {
			return plan, err
		}
		// Access is not lowered on a reading that is older than the look-up: Stripe is read again.
	}
	known := b.hints(t)
	t.calledStripe = t.calledStripe || (t.record.HasStripeIdentity() || len(known.named) > 0) && !t.record.Org.Deleted
	if err := b.checkTaskAccount(ctx, t); err != nil {
		return billing.Plan{}, err
	}
	reading := b.newReading(t.record, known)
	truth, err := reading.read(ctx)
	if err != nil {
		return billing.Plan{}, err
	}
	plan, err := b.planFor(ctx, t, truth)
	if err != nil || t.ambiguous != nil || !b.lowers(plan) {
		return plan, err
	}
	truth, searched, err := reading.readForDowngrade(ctx)
	if err != nil {
		return billing.Plan{}, err
	}
	plan, err = b.planFor(ctx, t, truth)
	if err == nil && !searched && b.lowers(plan) {
		b.warnNoSearch(ctx, t.work.RunID)
		plan.Warnings = append(plan.Warnings, billing.SearchUnavailable())
	}
	return plan, err
}

// lowers reports whether the plan lowers access.
func (r *Reconciler) lowers(plan billing.Plan) bool {
	return r.Rules.Tiers.LowersAccess(plan.Changes)
}

// warnNoSearch logs once for each run, in this process, that the account has no search.
func (r *Reconciler) warnNoSearch(ctx context.Context, runID string) {
	if _, warned := r.warnedNoSearch.LoadOrStore(runID, true); !warned {
		r.Log.WarnContext(ctx, "the Stripe account has no search: access is lowered without looking for subscriptions that only metadata.orgId connects", telemetry.KeyRunID, runID)
	}
}

// planFor plans with what was read. If it must first be known who shares a customer, it sets t.ambiguous and returns no
// plan.
func (b *batch) planFor(ctx context.Context, t *task, truth billing.Truth) (billing.Plan, error) {
	if !t.lookUpAlone && len(billing.AmbiguousCustomers(truth, t.record)) > 0 {
		if plan, ok := b.planAsListed(t, truth); ok {
			return plan, nil
		}
		t.ambiguous, t.lookUpAlone = &truth, true
		return billing.Plan{}, nil
	}
	if err := b.loadSharedCustomers(ctx, &truth, t.record); err != nil {
		return billing.Plan{}, err
	}
	t.truth = truth
	return b.Rules.Plan(truth, t.record)
}

// planAsListed plans with the owners that the customers had when the run was listed, which saves the look-up. It does not
// suffice, ok is false, if one of the customers had several, or has subscriptions that Stripe did not have at the sweep: an
// organization's customer is recorded before its subscription exists, so a later subscription may have a later owner.
// Access is not lowered without the look-up. A customer that moves to another organization during the two hours of a
// snapshot is noticed by the next run.
func (b *batch) planAsListed(t *task, truth billing.Truth) (plan billing.Plan, ok bool) {
	for _, customer := range billing.AmbiguousCustomers(truth, t.record) {
		if t.soleOwners[customer] != t.record.Org.ID || !t.sweptAllOf(customer, truth.Subscriptions) {
			return plan, false
		}
	}
	plan, err := b.Rules.Plan(truth, t.record)
	if err != nil || b.lowers(plan) {
		return plan, false
	}
	t.truth = truth
	return plan, true
}

// sweptAllOf reports whether the snapshot has all of the customer's subscriptions.
func (t *task) sweptAllOf(customer string, subs []billing.Subscription) bool {
	return !slices.ContainsFunc(subs, func(s billing.Subscription) bool {
		return s.CustomerID == customer && !slices.ContainsFunc(t.swept.Subscriptions, func(swept billing.Subscription) bool { return swept.ID == s.ID })
	})
}

// followUp reads Stripe again after a write that lowered access. If a subscription came back between the read and the
// write, it restores the access. The outcome is already committed, so a failure here is only logged.
func (b *batch) followUp(ctx context.Context, t *task) {
	err := b.Retry.do(ctx, func() error {
		for range maxRounds {
			if err := b.followUpOnce(ctx, t); !errors.Is(err, billing.ErrRecordChanged) {
				return err
			}
		}
		return keptChanging(t)
	})
	if err != nil && !errors.Is(err, billing.ErrAlreadyDecided) {
		b.Log.WarnContext(ctx, "access was lowered and could not be compared with Stripe once more; the next run does", telemetry.KeyRunID, t.work.RunID,
			telemetry.KeyOrgID, t.work.OrgID, telemetry.KeyReason, billing.AsFailure(err).Reason, telemetry.KeyError, err.Error())
	}
}

func (b *batch) followUpOnce(ctx context.Context, t *task) error {
	items, err := b.Store.Items(ctx, []billing.Work{t.work})
	if err != nil {
		return err
	}
	if err := b.reload(ctx, t); err != nil {
		return err
	}
	plan, err := b.plan(ctx, t)
	if err != nil || len(plan.Changes) == 0 {
		return err
	}
	if err := b.checkTaskAccount(ctx, t); err != nil {
		return err
	}
	item := items[t.work]
	if plan.Reason != billing.ReasonRepaired { // the least specific reason
		item.Reason = plan.Reason
	}
	item.SubscriptionID, item.Warnings = plan.GoverningID, plan.Warnings // the present state
	item.Changes = append(item.Changes, plan.Changes...)
	return b.Store.Apply(ctx, t.record, plan, item, true, b.now())
}

// updateBreaker tells the circuit breaker whether Stripe answered for the organization.
func (r *Reconciler) updateBreaker(t *task, err error) {
	if !t.calledStripe {
		return
	}
	if err == nil {
		r.stripeBreaker.reset()
		return
	}
	switch billing.AsFailure(err).Reason {
	case billing.ReasonStripeUnavailable, billing.ReasonStripeUnauthorized: // these affect every organization
		r.stripeBreaker.fail(t.work.OrgID)
	case billing.ReasonDatabaseUnavailable, billing.ReasonOutOfTime, billing.ReasonInternal:
		// says nothing about Stripe
	default:
		r.stripeBreaker.reset()
	}
}

// breaker is a circuit breaker. It has the organizations for which Stripe failed since it last answered. An
// organization that fails again counts once.
type breaker struct {
	mu   sync.Mutex
	orgs map[string]bool
}

func (s *breaker) fail(orgID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orgs == nil {
		s.orgs = map[string]bool{}
	}
	if len(s.orgs) < breakerThreshold {
		s.orgs[orgID] = true
	}
}

func (s *breaker) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.orgs)
}

func (s *breaker) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.orgs)
}

func (s *breaker) failing() bool { return s.count() > 0 }

func (s *breaker) open() bool { return s.count() >= breakerThreshold }

// countRequests adds the requests to Stripe to the run's counts. Nothing depends on the counts, so a failure is only
// logged.
func countRequests(ctx context.Context, store requestCounter, usage billing.Usage, runID string, log *slog.Logger) {
	if usage == (billing.Usage{}) {
		return
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := store.AddUsage(ctx, runID, usage); err != nil {
		log.WarnContext(ctx, "Stripe requests were not counted", telemetry.KeyRunID, runID, telemetry.KeyError, err.Error())
	}
}

// mainRun returns the run with the most organizations in the batch. Of several such runs it returns the first by id.
func mainRun(tasks map[billing.Work]*task) (runID string) {
	size := map[string]int{}
	for _, t := range tasks {
		size[t.run.ID]++
	}
	delete(size, "") // unknown runs
	for _, id := range slices.Sorted(maps.Keys(size)) {
		if size[id] > size[runID] {
			runID = id
		}
	}
	return runID
}

func (r *Reconciler) now() time.Time { return clock(r.Now) }
