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

// What the workers need of the database.
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

// Stripe is what the workers read there.
type Stripe interface {
	accountReader
	Subscription(ctx context.Context, id string) (sub billing.Subscription, exists bool, err error)
	CustomerSubscriptions(ctx context.Context, customerID string) (subs []billing.Subscription, exists bool, err error)
	CustomerExists(ctx context.Context, customerID string) (bool, error)
	SearchByOrgID(ctx context.Context, orgID string) (ids []string, available bool, err error)
	Renewals() int64
	TakeUsage() billing.Usage
}

// Disposition is what becomes of an organization's messages.
type Disposition int

const (
	// Acknowledge: the work is done, or not to be done.
	Acknowledge Disposition = iota
	// Return: the queue is to deliver it again later.
	Return
	// DeadLetter: given up; a person looks at it.
	DeadLetter
)

// Result is what becomes of an organization's messages, and why.
type Result struct {
	Disposition Disposition
	Failure     *billing.Failure // why they are returned or given up
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
	Reserve  time.Duration // kept of the deadline
	Retry    Retry
	Now      func() time.Time
	Log      *slog.Logger

	stripeBreaker breaker
	noSearch      sync.Map // ids of runs of which it was said
	accounts      accounts
}

const (
	defaultParallel = 8
	// maxRounds bounds how often an organization that changes under our hands is read anew.
	maxRounds = 3
	// breakerThreshold is how many organizations must fail in a row to open the circuit breaker for Stripe.
	breakerThreshold = 3
)

// task is one organization of a batch.
type task struct {
	work   billing.Work
	run    billing.Run
	item   billing.Item
	record billing.Record
	told   []string       // subscriptions that events name for the organization
	exists bool           // the organization does
	swept  *billing.Truth // what the run's snapshot says; nil where there is none to go by
	last   bool
	asked  bool // Stripe was, for this organization
	// lowered: a write that lowers access was sent, whatever became of it.
	lowered bool
	// doubt is what was read where a subscription may be another organization's as well. Who else is
	// known under its customer is looked up for all such of the batch at once, and once only: alone is
	// for what is read after that.
	doubt  *billing.Truth
	alone  bool
	truth  billing.Truth // that was planned on last
	result Result
}

// Reconcile handles the work of a batch of messages and returns the result of each. lastReceive tells of each
// whether one of its messages was received for the last time: the queue gives it up after this.
func (r *Reconciler) Reconcile(ctx context.Context, lastReceive map[billing.Work]bool) map[billing.Work]Result {
	ctx, cancel := withReserve(ctx, r.Reserve)
	defer cancel()
	tasks := make(map[billing.Work]*task, len(lastReceive))
	for work, last := range lastReceive {
		tasks[work] = &task{work: work, last: last}
	}
	b := &batch{Reconciler: r}
	if err := r.Retry.do(ctx, func() error { return r.load(ctx, tasks) }); err != nil {
		b.failBatch(ctx, tasks, billing.AsFailure(err))
	} else {
		b.process(ctx, open(tasks))
	}
	countRequests(ctx, r.Store, r.Stripe.TakeUsage(), mainRun(tasks), r.Log)
	results := make(map[billing.Work]Result, len(tasks))
	for work, t := range tasks {
		results[work] = t.result
	}
	return results
}

// load reads everything a batch needs, in a number of queries that does not depend on its size.
// Records come last: they are read before Stripe is, and as late as possible.
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
	if err := r.loadTold(ctx, tasks); err != nil {
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

// loadTold reads which subscriptions events name, where the run is a catch-up.
func (r *Reconciler) loadTold(ctx context.Context, tasks map[billing.Work]*task) error {
	var work []billing.Work
	for w, t := range tasks {
		if t.run.Kind() == billing.KindCatchUp {
			work = append(work, w)
		}
	}
	if len(work) == 0 {
		return nil
	}
	told, err := r.Store.EventSubscriptions(ctx, work)
	for w, t := range tasks {
		t.told = told[w]
	}
	return err
}

// open returns the tasks that need work and gives the others their result.
func open(tasks map[billing.Work]*task) []*task {
	var todo []*task
	for _, t := range tasks {
		switch {
		case t.run.ID == "":
			t.result = Result{DeadLetter, billing.AsFailure(billing.UnknownRun(t.work.RunID))}
		case t.item.OrgID == "" && t.run.Trimmed: // it had its outcome
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

// onStopped decides about a message whose run is stopped; f is why, if it was met just now. It is
// acknowledged: resuming the run sends what is pending anew. What was given up before came from the
// dead-letter queue and is not sent anew, so it goes back there.
func (t *task) onStopped(f *billing.Failure) Result {
	switch {
	case t.item.OrgID == "": // it could not be read, so it may be either
		return Result{Return, f}
	case t.item.Outcome == billing.OutcomeError && !t.run.DryRun:
		return Result{DeadLetter, &billing.Failure{Class: billing.Permanent, Reason: t.item.Reason, Message: t.item.Error}}
	default:
		return Result{Acknowledge, f}
	}
}

// failBatch concludes a batch that could not be read: what concerns the whole run stops it,
// anything else returns the messages, or gives up those received for the last time.
func (b *batch) failBatch(ctx context.Context, tasks map[billing.Work]*task, f *billing.Failure) {
	ctx, cancel := detached(ctx) // one for all of them: a database that hangs must not take the time to answer
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

	orgs    []string // of all that is to be done
	recent  recent
	stopped sync.Map // ids of runs that met a failure of the whole run
}

func (b *batch) process(ctx context.Context, todo []*task) {
	for _, t := range todo {
		b.orgs = append(b.orgs, t.work.OrgID)
	}
	todo = b.decideFromSnapshot(ctx, todo)
	if len(todo) == 0 {
		return
	}
	b.each(b.probe(ctx, todo), func(t *task) Result { return b.oneUnlessOpen(ctx, t) })
	b.resolve(ctx, todo)
}

// each gives the tasks their result, several at once.
func (b *batch) each(todo []*task, result func(*task) Result) {
	var group errgroup.Group
	group.SetLimit(b.parallel())
	for _, t := range todo {
		group.Go(func() error {
			t.result = result(t)
			return nil
		})
	}
	_ = group.Wait() // every result, failures too, stands in its task
}

// resolve goes on with those that were left in doubt. The look-up goes through whole tables, so it is
// one for all of them. It comes after Stripe was read for each: who subscribes is known under the
// customer before, so whoever may own one of the subscriptions is found.
func (b *batch) resolve(ctx context.Context, todo []*task) {
	todo = slices.DeleteFunc(slices.Clone(todo), func(t *task) bool { return t.doubt == nil })
	customers := map[string]bool{}
	for _, t := range todo {
		for _, id := range billing.AmbiguousCustomers(*t.doubt, t.record) {
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
		t.doubt.Claims.SharedCustomers = known
		return b.one(ctx, t)
	})
}

// probe tries one organization while Stripe is down, to see whether it is back, and returns the
// others. One that needs nothing of Stripe tells nothing, so the next is tried.
func (b *batch) probe(ctx context.Context, todo []*task) []*task {
	for len(todo) > 0 && b.stripeBreaker.open() {
		t := todo[0]
		todo = todo[1:]
		t.result = b.one(ctx, t)
		if t.asked {
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

func (b *batch) oneUnlessOpen(ctx context.Context, t *task) Result {
	if b.stripeBreaker.open() {
		return b.conclude(ctx, t, &billing.Failure{
			Class: billing.Unavailable, Reason: billing.ReasonStripeUnavailable,
			Message: "Stripe did not answer for other organizations just now",
		}, billing.Plan{})
	}
	return b.one(ctx, t)
}

// one brings an organization to its outcome and says what becomes of its message.
func (b *batch) one(ctx context.Context, t *task) Result {
	if _, stopped := b.stopped.Load(t.work.RunID); stopped {
		return t.onStopped(nil)
	}
	if err := ctx.Err(); err != nil {
		return b.conclude(ctx, t, billing.AsFailure(err), billing.Plan{})
	}
	again := b.Retry
	if b.stripeBreaker.failing() {
		again.Tries = 1
	}
	plan, err := retry(ctx, again, func() (plan billing.Plan, err error) {
		defer func() { err = b.recovered(ctx, t, recover(), err) }()
		return b.round(ctx, t)
	})
	b.recordAnswer(t, err)
	if errors.Is(err, billing.ErrAlreadyDecided) && t.lowered {
		b.confirm(ctx, t) // our write was committed although its answer was lost
	}
	if t.doubt != nil {
		return Result{Disposition: Return} // unless resolve goes on with it
	}
	if err == nil || errors.Is(err, billing.ErrAlreadyDecided) {
		return Result{Disposition: Acknowledge}
	}
	return b.conclude(ctx, t, billing.AsFailure(err), plan)
}

// recovered makes a panic the failure of its organization alone: the others of the batch are done.
func (b *batch) recovered(ctx context.Context, t *task, panicked any, err error) error {
	if panicked == nil {
		return err
	}
	b.Log.ErrorContext(ctx, "a fault of this program", telemetry.KeyRunID, t.work.RunID, telemetry.KeyOrgID, t.work.OrgID,
		telemetry.KeyError, fmt.Sprint(panicked), telemetry.KeyStack, string(debug.Stack()))
	return &billing.Failure{
		Class: billing.Permanent, Reason: billing.ReasonInternal,
		Message: fmt.Sprintf("a fault of this program, its log has the details: %v; nothing was written", panicked),
	}
}

// conclude maps a failure's class to what becomes of the message, and records it where the
// organization is given up. Its own time may be over by then.
func (b *batch) conclude(ctx context.Context, t *task, f *billing.Failure, plan billing.Plan) Result {
	ctx, cancel := detached(ctx)
	defer cancel()
	return b.concludeWithin(ctx, t, f, plan)
}

func (b *batch) concludeWithin(ctx context.Context, t *task, f *billing.Failure, plan billing.Plan) Result {
	if f.Class == billing.RunFatal && t.run.Status.Open() {
		return b.stop(ctx, t, f)
	}
	// A closed run can neither be stopped nor resumed: what was redriven to it waits in the queue.
	if f.Class != billing.Permanent && !t.last {
		return Result{Return, f}
	}
	item := billing.Item{
		RunID: t.work.RunID, OrgID: t.work.OrgID, Outcome: billing.OutcomeError, Reason: f.Reason, SubscriptionID: cmp.Or(plan.GoverningID, t.item.SubscriptionID),
		Error: f.Error(), Warnings: plan.Warnings,
	}
	if f.Reason.Withholds() || t.run.DryRun { // else they would read as if they had been made
		item.Changes = plan.Changes
	}
	err := b.Store.Decide(ctx, item, false, b.now())
	switch {
	case errors.Is(err, billing.ErrAlreadyDecided) && t.item.OrgID == "":
		return Result{Return, f} // its item could not be read; it may not have one
	case errors.Is(err, billing.ErrAlreadyDecided):
		return Result{Disposition: Acknowledge}
	case err != nil:
		return Result{Return, billing.AsFailure(err)}
	}
	if f.Reason == billing.ReasonOtherMode && t.run.Status.Open() {
		b.stopIfOtherMode(ctx, t)
	}
	if t.run.DryRun || b.accepted(ctx, t, f) {
		return Result{Disposition: Acknowledge, Failure: f}
	}
	return Result{DeadLetter, f}
}

// accepted reports whether the failure is known about its organization: then its message need not wait for anybody.
// If that cannot be told, it waits.
func (b *batch) accepted(ctx context.Context, t *task, f *billing.Failure) bool {
	if f.Class != billing.Permanent {
		return false
	}
	known, err := b.Store.IsAccepted(ctx, t.run, t.work.OrgID, string(f.Reason))
	if err != nil {
		b.Log.WarnContext(ctx, "it could not be told whether the error is accepted", telemetry.KeyRunID, t.work.RunID, telemetry.KeyOrgID, t.work.OrgID, telemetry.KeyError, err.Error())
	}
	return known && err == nil
}

// stopIfOtherMode stops the run once so many organizations have ids of the other mode, and none one of the key's,
// that it is the key which is wrong. What fails here is tried with the next such organization.
func (b *batch) stopIfOtherMode(ctx context.Context, t *task) {
	wrong, err := b.Store.OnlyOtherMode(ctx, t.work.RunID, billing.MaxOtherMode)
	if err == nil && wrong {
		_ = b.stop(ctx, t, billing.AllOtherMode()) // a failure to stop is repeated with the next organization
		return
	}
	if err != nil {
		b.Log.WarnContext(ctx, "it could not be told whether the key is of the wrong mode", telemetry.KeyRunID, t.work.RunID, telemetry.KeyError, err.Error())
	}
}

// stop ends the run.
func (b *batch) stop(ctx context.Context, t *task, f *billing.Failure) Result {
	stopped, err := b.Store.StopRun(ctx, t.work.RunID, f.Reason, f.Error(), b.now())
	if err != nil {
		return Result{Return, billing.AsFailure(err)}
	}
	b.stopped.Store(t.work.RunID, true)
	if stopped {
		b.Log.ErrorContext(ctx, "the run is stopped; repair the cause, then resume it", telemetry.KeyRunID, t.work.RunID,
			telemetry.KeyReason, f.Reason, telemetry.KeyError, f.Error())
	}
	return t.onStopped(f)
}

// round reads, plans and applies, again as long as somebody writes in between.
func (b *batch) round(ctx context.Context, t *task) (plan billing.Plan, err error) {
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

func (b *batch) reload(ctx context.Context, t *task) error {
	records, err := b.Store.Records(ctx, []string{t.work.OrgID})
	if err == nil {
		t.record, t.exists = records[t.work.OrgID]
		t.alone = true
	}
	return err
}

func (b *batch) attempt(ctx context.Context, t *task) (billing.Plan, error) {
	plan, err := b.plan(ctx, t)
	if err != nil || t.doubt != nil {
		return plan, err
	}
	item := t.planned(plan)
	if len(plan.Changes) == 0 {
		return plan, b.Store.Decide(ctx, item, false, b.now())
	}
	if err := b.stillSameAccount(ctx, t); err != nil {
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
	t.lowered = t.lowered || lowers
	if err := b.Store.Apply(ctx, t.record, plan, item, false, b.now()); err != nil {
		return plan, err
	}
	if lowers {
		b.confirm(ctx, t)
	}
	return plan, nil
}

// planned is the organization's item once the plan is carried out.
func (t *task) planned(plan billing.Plan) billing.Item {
	return billing.Item{
		RunID: t.work.RunID, OrgID: t.work.OrgID, Outcome: plan.Outcome, Reason: plan.Reason, SubscriptionID: plan.GoverningID,
		Changes: plan.Changes, Warnings: plan.Warnings,
	}
}

// plan compares what Stripe holds with the record read before. It leaves the task in doubt where
// the batch is to be asked first who shares a customer: then there is no plan yet.
func (b *batch) plan(ctx context.Context, t *task) (billing.Plan, error) {
	if !t.exists {
		return billing.Plan{Outcome: billing.OutcomeSkipped, Reason: billing.ReasonOrganizationDeleted}, nil
	}
	if t.doubt != nil { // and resolved
		t.truth, t.doubt = *t.doubt, nil
		plan, err := b.Rules.Plan(t.truth, t.record)
		if err != nil || !b.lowers(plan) {
			return plan, err
		}
		// Not on what was seen before others were asked for.
	}
	known := t.hints()
	t.asked = t.asked || (t.record.HasStripeIdentity() || len(known.named) > 0) && !t.record.Org.Deleted
	if err := b.stillSameAccount(ctx, t); err != nil {
		return billing.Plan{}, err
	}
	reading := b.newReading(t.record, known)
	truth, err := reading.read(ctx)
	if err != nil {
		return billing.Plan{}, err
	}
	plan, err := b.planFor(ctx, t, truth)
	if err != nil || t.doubt != nil || !b.lowers(plan) {
		return plan, err
	}
	truth, searched, err := reading.readAll(ctx)
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

func (r *Reconciler) lowers(plan billing.Plan) bool {
	return r.Rules.Tiers.LowersAccess(plan.Changes)
}

// warnNoSearch says so once for each run, as far as this process knows.
func (r *Reconciler) warnNoSearch(ctx context.Context, runID string) {
	if _, said := r.noSearch.LoadOrStore(runID, true); !said {
		r.Log.WarnContext(ctx, "the Stripe account has no search: access is lowered without looking for subscriptions that only metadata.orgId connects", telemetry.KeyRunID, runID)
	}
}

// planFor leaves the task in doubt where it has to be known first who shares a customer.
func (b *batch) planFor(ctx context.Context, t *task, truth billing.Truth) (billing.Plan, error) {
	if !t.alone && len(billing.AmbiguousCustomers(truth, t.record)) > 0 {
		t.doubt, t.alone = &truth, true
		return billing.Plan{}, nil
	}
	if err := b.share(ctx, &truth, t.record); err != nil {
		return billing.Plan{}, err
	}
	t.truth = truth
	return b.Rules.Plan(truth, t.record)
}

// confirm reads Stripe once more after access was lowered: what came back between our read and
// our write is given back. The outcome is committed, so a failure here, of whatever kind, is only
// logged.
func (b *batch) confirm(ctx context.Context, t *task) {
	err := b.Retry.do(ctx, func() error {
		for range maxRounds {
			if err := b.followUp(ctx, t); !errors.Is(err, billing.ErrRecordChanged) {
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

func (b *batch) followUp(ctx context.Context, t *task) error {
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
	if err := b.stillSameAccount(ctx, t); err != nil {
		return err
	}
	item := items[t.work]
	if plan.Reason != billing.ReasonRepaired { // which says less than any other
		item.Reason = plan.Reason
	}
	item.SubscriptionID, item.Warnings = plan.GoverningID, plan.Warnings // as things stand now
	item.Changes = append(item.Changes, plan.Changes...)
	return b.Store.Apply(ctx, t.record, plan, item, true, b.now())
}

// recordAnswer counts whether Stripe answered for the organization in the circuit breaker.
func (r *Reconciler) recordAnswer(t *task, err error) {
	if !t.asked {
		return
	}
	if err == nil {
		r.stripeBreaker.reset()
		return
	}
	switch billing.AsFailure(err).Reason {
	case billing.ReasonStripeUnavailable, billing.ReasonStripeUnauthorized: // the same for every organization
		r.stripeBreaker.fail(t.work.OrgID)
	case billing.ReasonDatabaseUnavailable, billing.ReasonOutOfTime, billing.ReasonInternal:
		// says nothing about Stripe
	default:
		r.stripeBreaker.reset()
	}
}

// breaker is a circuit breaker. It holds the organizations that Stripe failed for since its last answer. One
// that always fails counts once.
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

// countRequests counts requests to Stripe on the run. They are figures, not facts that anything
// rests on: a failure is only logged.
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

// mainRun is the run with the most organizations of the batch, of several the first by id.
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
