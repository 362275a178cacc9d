// Package chaos is the fault campaign: its tests run the deployed programs on a real MariaDB, the
// SQS server and the fake Stripe, over and over, while everything around them fails, and check
// after each round that nothing was lost. It holds tests only.
//
//	go test ./functions/internal/chaos                        # three rounds, a deployment and a little load
//	task chaos                                                # 100 rounds, 10 deployments, a minute of load
//	CHAOS_ROUNDS=500 CHAOS_LOAD=10m task chaos
//
// The round of seed 7 again:
//
//	CHAOS_SEED=7 CHAOS_ROUNDS=1 go test -count=1 -v -run TestNothingIsLost ./functions/internal/chaos
//
// A round has a database, a Stripe and queues of its own, and a plan: which faults strike when, for
// how long and how hard, all drawn from its seed before it begins. The same seed gives the same
// organizations and the same plan; which process meets a fault is up to the machine. Workers,
// enumerators and aggregators are processes, killed with SIGKILL. An enumerator lists and workers
// reconcile through the two seconds of the plan while the application's webhook writes beside them and
// catch-ups are started over the same organizations; then
// the faults and the webhook end, and what is left of the first run comes to its end. The
// dead-letter queue is redriven, and one further run follows. After each of the three the invariants
// that hold there are checked, each a function of its own.
//
// What struck is a table at the end: faults as often as they were planned, and, indented, how often
// each was seen to strike. A fault's number, 0 to 1, says how hard it is.
//
// How the invariants see what happened: triggers keep a journal of every write to the application's
// tables, in order, with the account that made it. A write that is rolled back leaves nothing in it.
//
// Time: the queues' clock runs twenty times as fast as ours, so their seconds of visibility and
// backoff are scaled; a lease of the enumerator's ends when the campaign says that a minute passed.
// Faults of the database's network are those of a small proxy that knows COMMIT when it sees it, and
// makes one second of the five that a statement waits for a row.
package chaos
