package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/sqsserver"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// window is how long faults are injected and the webhook writes.
const window = 2 * time.Second

// longest is the longest duration of a fault: half a minute on the queues' clock.
const longest = 1200 * time.Millisecond

// fault is one fault of a round's plan.
type fault struct {
	kind     string
	at       time.Duration // after the round's beginning
	duration time.Duration
	severity float64 // 0 to 1: how many, how often, or which
}

func (f fault) String() string {
	return fmt.Sprintf("%4d ms, for %4d ms, %.2f: %s", f.at.Milliseconds(), f.duration.Milliseconds(), f.severity, f.kind)
}

// faultKinds are the kinds of fault. inject begins a fault, waits for its duration and ends it. A kind that is listed
// twice is drawn twice as often.
var faultKinds = []struct {
	kind   string
	inject func(ctx context.Context, r *round, f fault)
}{
	{"worker killed", func(ctx context.Context, r *round, f fault) {
		r.killBusy(ctx, f, &r.working, r.deployment().workers...)
	}},
	{"worker killed", func(ctx context.Context, r *round, f fault) {
		r.killBusy(ctx, f, &r.working, r.deployment().workers...)
	}},
	{"enumerator killed", func(ctx context.Context, r *round, f fault) {
		r.killBusy(ctx, f, &r.enumerating, r.deployment().enumerator)
	}},
	{"aggregator killed", func(ctx context.Context, r *round, f fault) {
		r.killBusy(ctx, f, &r.aggregating, r.deployment().aggregator)
	}},
	{"worker killed while Stripe answers", killAtStripe},
	{"process killed at a COMMIT", killAtCommit},
	{"process killed at a COMMIT", killAtCommit},
	{"leases end", func(ctx context.Context, r *round, _ fault) { r.endLeases(ctx) }},
	{"schedule delivered again", func(ctx context.Context, r *round, _ fault) { r.enumerate(ctx, r.startEvent()) }},
	{"run over one organization beside it", func(ctx context.Context, r *round, f fault) { r.startOne(ctx, f.severity) }},
	{"dry run beside it", func(ctx context.Context, r *round, _ fault) {
		r.enumerate(ctx, `{"dryRun":true,"strategy":"retrieve","scheduledFor":"`+dryRun+`"}`)
	}},

	{"message duplicated", duplicateSome},
	{"batches held and shuffled", func(ctx context.Context, r *round, f fault) {
		r.maxBatchDelay.Store(int64(50*time.Millisecond + time.Duration(f.severity*float64(500*time.Millisecond))))
		pause(ctx, f.duration)
		r.maxBatchDelay.Store(0)
	}},
	{"message that cannot be read", sendJunk},
	{"SQS: send refused", queueFault(sqsserver.InternalError, "SendMessage", "SendMessageBatch")},
	{"SQS: throttled", queueFault(sqsserver.Throttled, "SendMessage", "SendMessageBatch", "ChangeMessageVisibilityBatch")},
	{"SQS: answer to a send lost", queueFault(sqsserver.LostResponse, "SendMessage", "SendMessageBatch")},
	{"SQS: down", queueFault(sqsserver.ServiceUnavailable, "")},
	{"SQS: receive fails", queueFault(sqsserver.Dropped, "ReceiveMessage")},
	{"SQS: part of a batch not sent", entryFault("SendMessageBatch")},
	{"SQS: delete lost", entryFault("DeleteMessageBatch")},
	{"SQS: message not hidden", entryFault("ChangeMessageVisibilityBatch")},

	{"EventBridge: down", busFault(eventserver.InternalException)},
	{"EventBridge: throttled", busFault(eventserver.Throttled)},
	{"EventBridge: answer lost", busFault(eventserver.LostResponse)},
	{"EventBridge: hangs", busFault(eventserver.Hanging)},
	{"EventBridge: events refused", refuseEvents},

	{"Stripe: 429", stripeFault(stripetest.RateLimited)},
	{"Stripe: lock timeout", stripeFault(stripetest.LockTimeout)},
	{"Stripe: 500", stripeFault(stripetest.InternalError)},
	{"Stripe: connection cut", stripeFault(stripetest.CutConnection)},
	{"Stripe: body truncated", stripeFault(stripetest.TruncatedBody)},
	{"Stripe: not JSON", stripeFault(stripetest.NotJSON)},
	{"Stripe: value of another type", stripeFault(stripetest.WrongType)},
	{"Stripe: hangs", func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: stripetest.Hang, Times: 1 + int(3*f.severity), OnFailure: r.hitCounter(f)})()
		pause(ctx, f.duration)
	}},
	{"Stripe: down", func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable, OnFailure: r.hitCounter(f)})()
		pause(ctx, f.duration)
	}},
	{"Stripe: slow", func(ctx context.Context, r *round, f fault) {
		r.stripe.SetLatency(time.Duration(f.severity * float64(400*time.Millisecond)))
		pause(ctx, f.duration)
		r.stripe.SetLatency(stripeLatency)
	}},
	{"Stripe: key refused", func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized, Times: 1, OnFailure: r.hitCounter(f)})()
		pause(ctx, f.duration)
	}},

	{"database: connections cut", func(_ context.Context, r *round, _ fault) { r.proxy.cutAll() }},
	{"database: COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseCommits.Add(1 + int32(5*f.severity)) }},
	{"database: COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseCommits.Add(1 + int32(5*f.severity)) }},
	{"database: answer to COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseAnswers.Add(1 + int32(5*f.severity)) }},
	{"database: answer to COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseAnswers.Add(1 + int32(5*f.severity)) }},
	{"database: unreachable", func(ctx context.Context, r *round, f fault) {
		r.proxy.refusing.Store(true)
		r.proxy.cutAll()
		pause(ctx, f.duration)
		r.proxy.refusing.Store(false)
	}},
	{"database: silent", func(ctx context.Context, r *round, f fault) {
		r.proxy.pausedUntil.Store(time.Now().Add(f.duration).UnixNano())
		pause(ctx, f.duration)
	}},
	{"database: slow", func(ctx context.Context, r *round, f fault) {
		r.proxy.slowed.Store(int64(f.severity * float64(20*time.Millisecond)))
		pause(ctx, f.duration)
		r.proxy.slowed.Store(0)
	}},
	{"database: restarted", func(ctx context.Context, r *round, _ fault) { r.note(r.server.restart(ctx)) }},
	{"database: read-only", func(ctx context.Context, r *round, f fault) {
		r.setGlobal(ctx, "read_only", 1)
		pause(ctx, f.duration)
		r.setGlobal(ctx, "read_only", 0)
	}},
	{"database: no connection left", func(ctx context.Context, r *round, f fault) {
		r.setGlobal(ctx, "max_connections", 10) // the least that the server allows
		r.proxy.cutAll()
		pause(ctx, f.duration)
		r.setGlobal(ctx, "max_connections", 200)
	}},
	{"database: rows locked", func(ctx context.Context, r *round, f fault) {
		r.lock(ctx, f, 100*time.Millisecond, "organizations", "subscriptions")
	}},
	{"database: rows locked beyond the lock wait timeout", func(ctx context.Context, r *round, f fault) {
		r.lock(ctx, f, lockWait*9/4, "organizations", "subscriptions") // MySQL checks the timeouts once a second
	}},
	{"database: deadlocks", func(ctx context.Context, r *round, f fault) { // workers lock in the other order
		r.lock(ctx, f, 100*time.Millisecond, "subscriptions", "organizations")
	}},
}

// partialSends fails parts of batches from the beginning. A run's messages are sent within milliseconds, so a later fault
// would mostly miss them.
func partialSends(random *rand.Rand) plannedFault {
	return plannedFault{
		fault:  fault{kind: "SQS: part of a batch not sent", duration: window, severity: random.Float64() / 2},
		inject: entryFault("SendMessageBatch"),
	}
}

// drawPlan draws the faults of a round, each entry of faultKinds at most once. Some faults set a global state: of two
// such faults, the first to end would also end the other.
func drawPlan(random *rand.Rand) []plannedFault {
	var plan []plannedFault
	for _, i := range random.Perm(len(faultKinds))[:8+random.IntN(11)] {
		s := faultKinds[i]
		at := time.Duration(random.Int64N(int64(window * 3 / 4)))
		plan = append(plan, plannedFault{
			fault:  fault{kind: s.kind, at: at, duration: time.Duration(random.Int64N(int64(min(window-at, longest)))), severity: random.Float64()},
			inject: s.inject,
		})
	}
	return plan
}

type plannedFault struct {
	fault

	inject func(ctx context.Context, r *round, f fault)
}

func queueFault(answer sqsserver.Fault, actions ...string) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		countHit := r.hitCounter(f)
		defer r.failRequest.add(func(action string) *sqsserver.Fault {
			for _, name := range actions {
				if (name == "" || name == action) && r.chance(0.2+0.8*f.severity) {
					countHit()
					return &answer
				}
			}
			return nil
		})()
		pause(ctx, f.duration)
	}
}

func entryFault(action string) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		countHit := r.hitCounter(f)
		defer r.failEntry.add(func(e sqsserver.Entry) *sqsserver.Fault {
			if e.Action == action && r.chance(0.2+0.6*f.severity) {
				countHit()
				return &sqsserver.InternalError
			}
			return nil
		})()
		pause(ctx, f.duration)
	}
}

func stripeFault(kind stripetest.Kind) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: kind, Probability: 0.1 + 0.9*f.severity, OnFailure: r.hitCounter(f)})()
		pause(ctx, f.duration)
	}
}

// killBusy kills one of the functions' processes as soon as one is busy.
func (r *round) killBusy(ctx context.Context, f fault, busy *atomic.Int32, functions ...*runtimeapi.Function) {
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	for busy.Load() == 0 {
		if !pause(ctx, 2*time.Millisecond) {
			return
		}
	}
	pause(ctx, time.Duration(f.severity*float64(20*time.Millisecond))) // so that the invocation is in the middle
	atWork := busy.Load() > 0
	if r.kill(r.randomFraction(), functions...) && atWork {
		r.count("  at work: " + f.kind)
	}
}

// kill kills the process at this share of the functions' processes, if there is one.
func (r *round) kill(share float64, functions ...*runtimeapi.Function) bool {
	var all []*runtimeapi.Process
	for _, f := range functions {
		all = append(all, f.Processes()...)
	}
	if len(all) == 0 {
		return false
	}
	all[int(share*float64(len(all)))].Kill()
	r.count("  processes killed")
	return true
}

func killAtStripe(ctx context.Context, r *round, f fault) {
	var kills atomic.Int32
	kills.Store(1 + int32(3*f.severity))
	defer r.atStripe.add(func() {
		if takeOne(&kills) {
			r.kill(r.randomFraction(), r.deployment().workers...)
		}
	})()
	pause(ctx, f.duration)
}

func killAtCommit(ctx context.Context, r *round, f fault) {
	var kills atomic.Int32
	kills.Store(1 + int32(3*f.severity))
	defer r.proxy.beforeCommits.add(func() {
		if takeOne(&kills) {
			r.kill(r.randomFraction(), r.deployment().all()...)
		}
	})()
	pause(ctx, f.duration)
}

// duplicateSome delivers messages again that a worker has received.
func duplicateSome(ctx context.Context, r *round, f fault) {
	for range 1 + int(15*f.severity) {
		if id := r.someMessage(); id != "" && r.sqs.Duplicate(r.urls.work, id) {
			r.count("  messages delivered once more")
		}
		if !pause(ctx, f.duration/20) {
			return
		}
	}
}

// junk are bodies that a queue should not contain.
var junk = []string{
	"\t", "null", "[]", "{", hostile, strings.Repeat("[", 10_000), `{"version":2,"runId":"x","orgId":"y"}`,
	`{"version":1,"runId":"no-such-run","orgId":"0dd00000-0000-4000-8000-000000000000"}`,
	`{"version":1,"runId":"` + firstRun + `","orgId":"no-such-organization"}`,
	`{"version":1,"runId":"` + strings.Repeat("x", 100_000) + `","orgId":"y"}`, strings.Repeat("y", 1<<20-4096), // with the reason, almost as large as SQS allows
	"\ufeff{\"version\":1}", `{"version":1e400,"runId":"x","orgId":"y"}`,
}

func sendJunk(ctx context.Context, r *round, f fault) {
	ctx, cancel := context.WithTimeout(ctx, longest) // without the database each invocation lasts until its timeout
	defer cancel()
	for i := range 1 + int(4*f.severity) {
		body := junk[(i+int(100*f.severity))%len(junk)]
		if i%2 == 1 {
			body = r.mangled(`{"version":1,"runId":"` + firstRun + `","orgId":"` + r.population.subscriptions[0].org + `"}`)
		}
		for url, bodies := range map[string]map[string]bool{r.urls.work: r.junk, r.urls.results: r.resultsJunk} {
			r.noteJunk(bodies, body, false) // if the send fails, the message may have been sent all the same
			if _, err := r.queues.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err == nil {
				r.noteJunk(bodies, body, true)
			}
		}
		for _, function := range r.deployment().all() {
			r.invoke(ctx, function, body)
		}
	}
}

func (r *round) noteJunk(bodies map[string]bool, body string, sent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bodies[body] = bodies[body] || sent
}

// mangled cuts the message off and replaces a character.
func (r *round) mangled(body string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	mangled := []byte(body[:r.random.IntN(len(body))] + " ")
	mangled[r.random.IntN(len(mangled))] = byte(' ' + r.random.IntN(95))
	return string(mangled)
}

// startOne starts a run over one organization.
func (r *round) startOne(ctx context.Context, severity float64) {
	org := r.population.subscriptions[int(severity*float64(len(r.population.subscriptions)))].org
	r.enumerate(ctx, `{"orgId":"`+org+`"}`)
}

// lock locks many rows of the tables as the application, one table after the other, again and again until the fault is
// over.
func (r *round) lock(ctx context.Context, f fault, each time.Duration, tables ...string) {
	for until := time.Now().Add(f.duration); ; {
		if r.lockOnce(ctx, 1+int(f.severity*float64(r.Orgs)), each/2, tables) {
			r.count("  rows locked by others")
		}
		if !pause(ctx, 20*time.Millisecond) || time.Now().After(until) {
			return
		}
	}
}

// lockOnce reports whether it got all locks. It changes more rows than a worker, so that the worker is the victim of a
// deadlock: https://mariadb.com/kb/en/innodb-lock-modes/
func (r *round) lockOnce(ctx context.Context, rows int, between time.Duration, tables []string) bool {
	tx, err := r.app.handler.DB.BeginTx(ctx, nil)
	if err != nil {
		return false
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `INSERT INTO ballast VALUES (0)`+strings.Repeat(`,(0)`, 200)); err != nil {
		return false
	}
	for _, table := range tables {
		if _, err := tx.ExecContext(ctx, `SELECT id FROM `+table+` ORDER BY id LIMIT ? FOR UPDATE`, rows); err != nil {
			return false
		}
		pause(ctx, between)
	}
	return true
}
