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

// window is how long faults strike and the webhook writes.
const window = 2 * time.Second

// longest is how long one fault lasts at most: an outage of half a minute, in the queues' time.
const longest = 1200 * time.Millisecond

// fault is one strike of a round's plan.
type fault struct {
	kind  string
	at    time.Duration // from the round's beginning
	lasts time.Duration
	hard  float64 // 0 to 1: how many, how often, or which
}

func (f fault) String() string {
	return fmt.Sprintf("%4d ms, for %4d ms, %.2f: %s", f.at.Milliseconds(), f.lasts.Milliseconds(), f.hard, f.kind)
}

// strikes are the kinds of fault: each begins one, waits until it is over and ends it. What stands
// here twice comes twice as often.
var strikes = []struct {
	kind   string
	strike func(ctx context.Context, r *round, f fault)
}{
	{"worker killed", func(ctx context.Context, r *round, f fault) { r.killBusy(ctx, f, &r.working, r.cast().workers...) }},
	{"worker killed", func(ctx context.Context, r *round, f fault) { r.killBusy(ctx, f, &r.working, r.cast().workers...) }},
	{"enumerator killed", func(ctx context.Context, r *round, f fault) { r.killBusy(ctx, f, &r.invoking, r.cast().enumerator) }},
	{"aggregator killed", func(ctx context.Context, r *round, f fault) { r.killBusy(ctx, f, &r.aggregating, r.cast().aggregator) }},
	{"worker killed while Stripe answers", killAtStripe},
	{"anybody killed at a COMMIT", killAtCommit},
	{"anybody killed at a COMMIT", killAtCommit},
	{"a minute passes for the lease", func(ctx context.Context, r *round, _ fault) { r.endLeases(ctx) }},
	{"schedule delivered again", func(ctx context.Context, r *round, _ fault) { r.invoke(ctx, r.cast().enumerator, r.startEvent()) }},
	{"run of one beside it", func(ctx context.Context, r *round, f fault) { r.startOne(ctx, f.hard) }},
	{"dry run beside it", func(ctx context.Context, r *round, _ fault) {
		r.invoke(ctx, r.cast().enumerator, `{"dryRun":true,"strategy":"retrieve","scheduledFor":"`+dryRun+`"}`)
	}},

	{"message duplicated", duplicateSome},
	{"batches held and shuffled", func(ctx context.Context, r *round, f fault) {
		r.held.Store(int64(50*time.Millisecond + time.Duration(f.hard*float64(500*time.Millisecond))))
		pause(ctx, f.lasts)
		r.held.Store(0)
	}},
	{"message that cannot be read", sendJunk},
	{"SQS: send refused", queueFault(sqsserver.InternalError, "SendMessage", "SendMessageBatch")},
	{"SQS: throttled", queueFault(sqsserver.Throttled, "SendMessage", "SendMessageBatch", "ChangeMessageVisibilityBatch")},
	{"SQS: answer to a send lost", queueFault(sqsserver.LostAnswer, "SendMessage", "SendMessageBatch")},
	{"SQS: down", queueFault(sqsserver.ServiceUnavailable, "")},
	{"SQS: receive fails", queueFault(sqsserver.Dropped, "ReceiveMessage")},
	{"SQS: part of a batch not sent", entryFault("SendMessageBatch")},
	{"SQS: delete lost", entryFault("DeleteMessageBatch")},
	{"SQS: message not hidden", entryFault("ChangeMessageVisibilityBatch")},

	{"EventBridge: down", busFault(eventserver.InternalException)},
	{"EventBridge: throttled", busFault(eventserver.Throttled)},
	{"EventBridge: answer lost", busFault(eventserver.LostAnswer)},
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
		defer r.stripe.AddFault(stripetest.Fault{Kind: stripetest.Hang, Times: 1 + int(3*f.hard), OnFailure: r.hit(f)})()
		pause(ctx, f.lasts)
	}},
	{"Stripe: down", func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable, OnFailure: r.hit(f)})()
		pause(ctx, f.lasts)
	}},
	{"Stripe: slow", func(ctx context.Context, r *round, f fault) {
		r.stripe.SetLatency(time.Duration(f.hard * float64(400*time.Millisecond)))
		pause(ctx, f.lasts)
		r.stripe.SetLatency(stripeTakes)
	}},
	{"Stripe: key refused", func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: stripetest.Unauthorized, Times: 1, OnFailure: r.hit(f)})()
		pause(ctx, f.lasts)
	}},

	{"database: connections cut", func(_ context.Context, r *round, _ fault) { r.proxy.cutAll() }},
	{"database: COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseCommits.Add(1 + int32(5*f.hard)) }},
	{"database: COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseCommits.Add(1 + int32(5*f.hard)) }},
	{"database: answer to COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseAnswers.Add(1 + int32(5*f.hard)) }},
	{"database: answer to COMMIT lost", func(_ context.Context, r *round, f fault) { r.proxy.loseAnswers.Add(1 + int32(5*f.hard)) }},
	{"database: out of reach", func(ctx context.Context, r *round, f fault) {
		r.proxy.refusing.Store(true)
		r.proxy.cutAll()
		pause(ctx, f.lasts)
		r.proxy.refusing.Store(false)
	}},
	{"database: silent", func(ctx context.Context, r *round, f fault) {
		r.proxy.pausedUntil.Store(time.Now().Add(f.lasts).UnixNano())
		pause(ctx, f.lasts)
	}},
	{"database: slow", func(ctx context.Context, r *round, f fault) {
		r.proxy.slowed.Store(int64(f.hard * float64(20*time.Millisecond)))
		pause(ctx, f.lasts)
		r.proxy.slowed.Store(0)
	}},
	{"database: restarted", func(ctx context.Context, r *round, _ fault) { r.note(r.server.restart(ctx)) }},
	{"database: read-only", func(ctx context.Context, r *round, f fault) {
		r.global(ctx, "read_only", 1)
		pause(ctx, f.lasts)
		r.global(ctx, "read_only", 0)
	}},
	{"database: no connection left", func(ctx context.Context, r *round, f fault) {
		r.global(ctx, "max_connections", 10) // the least there is
		r.proxy.cutAll()
		pause(ctx, f.lasts)
		r.global(ctx, "max_connections", 200)
	}},
	{"database: rows locked", func(ctx context.Context, r *round, f fault) {
		r.lock(ctx, f, 100*time.Millisecond, "organizations", "subscriptions")
	}},
	{"database: rows locked for too long", func(ctx context.Context, r *round, f fault) {
		r.lock(ctx, f, lockWait*9/4, "organizations", "subscriptions") // MySQL looks once a second who waited too long
	}},
	{"database: deadlocks", func(ctx context.Context, r *round, f fault) { // workers lock in the other order
		r.lock(ctx, f, 100*time.Millisecond, "subscriptions", "organizations")
	}},
}

// roughSending fails parts of batches from the first moment on: the messages of a run are sent
// within milliseconds, which a fault at some time would mostly miss.
func roughSending(random *rand.Rand) plannedFault {
	return plannedFault{
		fault:  fault{kind: "SQS: part of a batch not sent", lasts: window, hard: random.Float64() / 2},
		strike: entryFault("SendMessageBatch"),
	}
}

// drawPlan draws what strikes in a round, each entry of strikes at most once: some set what there
// is but one of, and must not end each other.
func drawPlan(random *rand.Rand) []plannedFault {
	var plan []plannedFault
	for _, i := range random.Perm(len(strikes))[:8+random.IntN(11)] {
		s := strikes[i]
		at := time.Duration(random.Int64N(int64(window * 3 / 4)))
		plan = append(plan, plannedFault{
			fault:  fault{kind: s.kind, at: at, lasts: time.Duration(random.Int64N(int64(min(window-at, longest)))), hard: random.Float64()},
			strike: s.strike,
		})
	}
	return plan
}

type plannedFault struct {
	fault

	strike func(ctx context.Context, r *round, f fault)
}

func queueFault(answer sqsserver.Fault, actions ...string) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		hit := r.hit(f)
		defer r.failRequest.add(func(action string) *sqsserver.Fault {
			for _, name := range actions {
				if (name == "" || name == action) && r.chance(0.2+0.8*f.hard) {
					hit()
					return &answer
				}
			}
			return nil
		})()
		pause(ctx, f.lasts)
	}
}

func entryFault(action string) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		hit := r.hit(f)
		defer r.failEntry.add(func(e sqsserver.Entry) *sqsserver.Fault {
			if e.Action == action && r.chance(0.2+0.6*f.hard) {
				hit()
				return &sqsserver.InternalError
			}
			return nil
		})()
		pause(ctx, f.lasts)
	}
}

func stripeFault(kind stripetest.Kind) func(context.Context, *round, fault) {
	return func(ctx context.Context, r *round, f fault) {
		defer r.stripe.AddFault(stripetest.Fault{Kind: kind, Probability: 0.1 + 0.9*f.hard, OnFailure: r.hit(f)})()
		pause(ctx, f.lasts)
	}
}

// killBusy kills one of the functions' processes as soon as one has something to do.
func (r *round) killBusy(ctx context.Context, f fault, busy *atomic.Int32, functions ...*runtimeapi.Function) {
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	for busy.Load() == 0 {
		if !pause(ctx, 2*time.Millisecond) {
			return
		}
	}
	pause(ctx, time.Duration(f.hard*float64(20*time.Millisecond))) // somewhere in the middle
	atWork := busy.Load() > 0
	if r.kill(r.share(), functions...) && atWork {
		r.count("  at work: " + f.kind)
	}
}

// kill ends one of the functions' processes, the one at this share of them, if there is one.
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
	var left atomic.Int32
	left.Store(1 + int32(3*f.hard))
	defer r.atStripe.add(func() {
		if take(&left) {
			r.kill(r.share(), r.cast().workers...)
		}
	})()
	pause(ctx, f.lasts)
}

func killAtCommit(ctx context.Context, r *round, f fault) {
	var left atomic.Int32
	left.Store(1 + int32(3*f.hard))
	defer r.proxy.beforeCommits.add(func() {
		if take(&left) {
			r.kill(r.share(), r.cast().all()...)
		}
	})()
	pause(ctx, f.lasts)
}

// duplicateSome has messages that a worker is at delivered once more.
func duplicateSome(ctx context.Context, r *round, f fault) {
	for range 1 + int(15*f.hard) {
		if id := r.someMessage(); id != "" && r.sqs.Duplicate(r.urls.work, id) {
			r.count("  messages delivered once more")
		}
		if !pause(ctx, f.lasts/20) {
			return
		}
	}
}

// junk is what somebody may put into a queue.
var junk = []string{
	"\t", "null", "[]", "{", hostile, strings.Repeat("[", 10_000), `{"version":2,"runId":"x","orgId":"y"}`,
	`{"version":1,"runId":"no-such-run","orgId":"0dd00000-0000-4000-8000-000000000000"}`,
	`{"version":1,"runId":"` + firstRun + `","orgId":"no-such-organization"}`,
	`{"version":1,"runId":"` + strings.Repeat("x", 100_000) + `","orgId":"y"}`, strings.Repeat("y", 1<<20-4096), // with the reason that it is given up for, about the most that SQS takes
	"\ufeff{\"version\":1}", `{"version":1e400,"runId":"x","orgId":"y"}`,
}

func sendJunk(ctx context.Context, r *round, f fault) {
	ctx, cancel := context.WithTimeout(ctx, longest) // without the database each function takes all its time
	defer cancel()
	for i := range 1 + int(4*f.hard) {
		body := junk[(i+int(100*f.hard))%len(junk)]
		if i%2 == 1 {
			body = r.mangled(`{"version":1,"runId":"` + firstRun + `","orgId":"` + r.people.lives[0].org + `"}`)
		}
		for url, kept := range map[string]map[string]bool{r.urls.work: r.junk, r.urls.results: r.resultsJunk} {
			r.noteJunk(kept, body, false) // an error does not say that it was not sent
			if _, err := r.queues.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err == nil {
				r.noteJunk(kept, body, true)
			}
		}
		for _, function := range r.cast().all() {
			r.invoke(ctx, function, body)
		}
	}
}

func (r *round) noteJunk(kept map[string]bool, body string, surely bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept[body] = kept[body] || surely
}

// mangled is a message that was cut off, with a character of it replaced.
func (r *round) mangled(body string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	mangled := []byte(body[:r.random.IntN(len(body))] + " ")
	mangled[r.random.IntN(len(mangled))] = byte(' ' + r.random.IntN(95))
	return string(mangled)
}

// startOne has an operator reconcile one organization.
func (r *round) startOne(ctx context.Context, hard float64) {
	org := r.people.lives[int(hard*float64(len(r.people.lives)))].org
	r.invoke(ctx, r.cast().enumerator, `{"orgId":"`+org+`"}`)
}

// lock has somebody else lock many rows of the tables, one table after the other, each time for so
// long, until the fault is over.
func (r *round) lock(ctx context.Context, f fault, each time.Duration, tables ...string) {
	for until := time.Now().Add(f.lasts); ; {
		if r.lockOnce(ctx, 1+int(f.hard*float64(r.Orgs)), each/2, tables) {
			r.count("  rows locked by others")
		}
		if !pause(ctx, 20*time.Millisecond) || time.Now().After(until) {
			return
		}
	}
}

// lockOnce reports whether it got all locks. Of a deadlock it is not the victim as long as it has
// changed more rows than a worker: https://mariadb.com/kb/en/innodb-lock-modes/
func (r *round) lockOnce(ctx context.Context, rows int, between time.Duration, tables []string) bool {
	tx, err := r.app.db.BeginTx(ctx, nil)
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
