// Package pipeline is the three steps of a run: [Enumerator] lists the organizations and sends
// one message for each, [Reconciler] compares one organization with Stripe and repairs it,
// [Aggregator] closes the run and sums it up. They meet only in the database and the queues.
//
// Invariants, all under messages that come twice, late or out of order, and processes that die
// between any two lines:
//
//   - Nobody who is to be listed is left out: a cursor moves in the transaction that lists a page, and the other
//     one only after the queue accepted every message of its page. What was sent twice finds
//     its outcome decided and changes nothing. Listing goes on beside the sweep; nothing is sent
//     before both have ended and those are listed whom a swept subscription alone leads to.
//   - A run begins, and is gone on with, only where the Stripe account and the application's tables
//     are as they must be: whoever is refused finds all that is wrong in one message.
//   - A run is read from one Stripe account: it keeps the one that its enumerator saw, unless the key may not tell, and
//     a worker whose key is of another stops it before it writes anything for it. A key that is replaced while it
//     works is compared again before what was read is written.
//   - Access is lowered only after everything that could name a candidate answered: the recorded subscriptions, all
//     subscriptions of every customer, and what metadata names, by the snapshot or by Stripe's search. Search lags by
//     about a minute; where the account has none, the lowering says so.
//   - One enumerator at a time: every write of its run names the lease it holds.
//   - The record is read before Stripe, and written only if it is still the one that was read
//     and the item undecided; both in one transaction. So a newer webhook is never overwritten.
//   - After a write that lowered access Stripe is read once more: where a change went to Stripe
//     and back between read and write, the newer state wins.
//   - What a run wrote within a day and something undid is written again only if it lowers nothing, and is
//     warned of: the same change, from and to the same values. A repair and its second look are one, and what
//     was repaired lately is asked for once a batch, when the first of it has something to write. A run over
//     one organization does not lower what the latest run over several holds back. Both yield to a person, who
//     allows a run over one organization to lower it.
//   - An error that somebody accepted is decided like any other, but its message is acknowledged: nobody has to
//     look at it. A run whose every error is accepted ends completed. What is accepted is what holds when the run
//     starts, so that its summary stays the same whenever it is made.
//   - A snapshot is complete or there is none. It decides only that nothing is to be done, only for
//     organizations not tried before, in its own run while that is open, and for two hours; the
//     decision is refused by the statement that records it if the run was closed or swept anew
//     since. What is written always rests on a fresh read.
//   - A catch-up's window of Stripe's log of events is fixed when it is opened: from where the last one ended that
//     listed to its end (and from where one began that was stopped since), with an overlap, to a time by which the
//     webhook has had its chance. Each page is stored with the place behind it, one row for a subscription. Events
//     say whom to look at, and nothing else: what is written rests on a fresh read. One catch-up lists at a time;
//     who finds another listing leaves the window where it is. An organization of an event that an endpoint took
//     late, so that an old payload may stand over a repair, is looked at once more. What is said of the last run,
//     its age and what it saw is said of full runs.
//   - Only the error's class decides between trying again here, trying again through the queue,
//     giving up one organization and stopping the run.
//   - Enumerator and Reconciler keep a reserve of their deadline: what cannot finish is not
//     started. The Aggregator's work can be cut off anywhere and done again.
//   - A run is closed once, by compare-and-set, and reported at most once: if the answer to closing
//     it is lost, its row has the summary and the log has not. A later repair amends the summary.
//
// What remains: a webhook that writes an old payload after us, a change that went to Stripe and
// back inside one window, and what came back while a worker died between a write that lowered
// access and its second look, are repaired by the next run.
//
// # What is guaranteed
//
// Processes may be killed at any moment; messages may come late, twice and in any order; Stripe, SQS
// and MySQL may refuse, hang, cut off and lose answers; the application may write all the while. The
// fault campaign (task chaos; functions/internal/chaos) does all of it to the deployed programs and
// checks, by the name that stands behind each guarantee:
//
//   - Every eligible organization has exactly one outcome, or its message waits in the dead-letter
//     queue because the last receive crashed: everyOrganizationHasAnOutcome. After a redrive, and after a run
//     without faults, nothing is pending: nothingIsPending.
//   - The summary is what the items say: totalsAddUp.
//   - No write replaces what changed since it was read, and every change that is recorded was made,
//     every one that was made is recorded: auditReplays and noStaleWrites; for two workers
//     and every order of their calls, TestNoInterleavingLosesANewerState here.
//   - No run lowers more than its limit allows, to the unit, nor withholds before: downgradeLimitHolds; and its
//     limit is what MAX_DOWNGRADES says: limitsFollowTheSetting.
//   - The errors of a run that writes are in the dead-letter queue, and so is what nobody can read:
//     deadLettersAreTheErrors, unreadableProgressIsKept. Once the faults are over, a redrive leaves in
//     error, and in the queue with the reason, those whom nobody can reconcile, and only those:
//     onlyUnreconcilableAreInError, deadLettersAreExactlyTheErrors.
//   - An answer of Stripe's with a value of another type is refused, not guessed at:
//     TestValueOfAnotherTypeNeverChangesTheResult in stripesource.
//   - Once faults and webhook are quiet, one further run leaves the record as Stripe has it:
//     recordsMatchStripe; and nobody who pays on the free tier: payingOrganizationsAreNotFree.
//   - Secrets stand in no log, answer, error, table, report, message or command line, and names that are
//     HTML run no script in the report: secretsStaySecret. What is SQL changes no row: auditReplays.
//     Messages, events and Stripe's objects may be anything: FuzzDecodeWork in sqsqueue,
//     FuzzEnumeratorEvent in handler, FuzzDecode in stripesource.
//   - A clock that jumps, by up to a day, may cost requests, messages, an operator's resume and the
//     sweep, without which a run does not find organizations that metadata alone names, and nothing
//     else: TestClockJumpsLoseNothing here. Nor does one that is years ahead empty the history:
//     TestClockYearsAheadPrunesNoHistory.
//   - All of it while a deployment replaces programs and tables:
//     TestDeploymentDuringARunLosesNothing. Workers do not grow: TestLoadLeavesNothingBehind.
//
// Assumed: MySQL keeps what it said was committed and locks rows as InnoDB does; SQS keeps a message
// that it accepted until it is deleted or its retention ends; Stripe answers with its present state
// to a request for one object; the schedules go on ticking; RunDeadline is longer than the faults; and
// clocks come right again. While one is wrong, the times it writes are wrong: a run's and its items', and
// so which run is shown as the last, and the end of a subscription that Stripe does not have. A run may
// be closed before its deadline, and a snapshot may say for longer than two hours that nothing is to be
// done: the next run looks again.
package pipeline
