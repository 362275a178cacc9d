// Package chaos is the fault campaign: its tests run the deployed programs on a real MariaDB, the SQS server and the
// fake Stripe while everything around them fails, and check after each round that nothing was lost.
//
//	go test ./functions/internal/chaos                        # three rounds, a deployment and a little load
//	task chaos                                                # 100 rounds, 10 deployments, a minute of load
//	CHAOS_ROUNDS=500 CHAOS_LOAD=10m task chaos
//
// To repeat the round of seed 7:
//
//	CHAOS_SEED=7 CHAOS_ROUNDS=1 go test -count=1 -v -run TestNothingIsLost ./functions/internal/chaos
//
// Each round has its own database, Stripe, queues and plan. The plan says which faults are injected, when, for how long
// and how severe; it is drawn from the seed before the round begins. The same seed gives the same organizations and the
// same plan, but which process meets a fault depends on the machine. Workers, enumerators and aggregators are processes,
// killed with SIGKILL. A round has three phases:
//
//  1. For two seconds the faults are injected, while a run is enumerated and reconciled, the application's webhook
//     writes, and catch-ups run over the same organizations. Then the faults and the webhook end, and the run finishes.
//  2. The dead-letter queue is redriven.
//  3. One more run follows, without faults.
//
// After each phase its invariants are checked; each is a function.
//
// The table at the end counts the planned faults and, indented, how often each took effect. A fault's number, 0 to 1,
// is its severity.
//
// Triggers write a journal of every write to the application's tables, in order, with the account that wrote. A
// rolled-back write leaves no entry.
//
// The queues' clock runs twenty times as fast as real time, which scales visibility timeouts and backoffs. The campaign
// ends the enumerators' leases itself. A proxy in front of the database injects the network's faults; it recognizes
// COMMIT, and shortens lock waits from five seconds to one.
package chaos
