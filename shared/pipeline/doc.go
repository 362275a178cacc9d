// Package pipeline implements the three steps of a run. The [Enumerator] lists the organizations and sends one message
// for each. The [Reconciler], which runs in the workers, compares one organization with Stripe and repairs it. The
// [Aggregator] closes the run and sums it up. The steps share only the database and the queues.
//
// Invariants. They hold even if messages arrive twice, late or out of order, and if a process dies between any two
// lines:
//
//   - No organization is left out, except those of the lowest tier that nothing connects with Stripe. The list cursor
//     moves in the transaction that stores the page. The send cursor moves only after the queue accepted every message
//     of the page. A message that was sent twice finds its item decided and changes nothing. The enumerator lists the
//     database and sweeps Stripe at the same time. It sends the first message only after both have ended, and after it
//     listed the organizations to which only a swept subscription leads.
//   - A run starts or resumes only if the Stripe account and the application's tables pass all checks. One error
//     message lists every problem of the tables. If Stripe does not answer, a scheduled run is opened all the same; the
//     next tick checks the account before anything else.
//   - A run reads one Stripe account: the one that its enumerator recorded (none, if the key may not read the
//     account). A worker with a key of another account stops the run before it writes anything for it. If the key is
//     replaced while a worker reads, the worker compares the accounts again before it writes.
//   - The worker lowers access only after it read every source that can name a subscription of the organization: the
//     recorded subscriptions, all subscriptions of every customer of the organization, and the subscriptions whose
//     metadata names it. The worker finds the last ones in the snapshot or with Stripe's search. The search lags by
//     about a minute. If the account has no search, the item has a warning.
//   - One enumerator works on a run at a time: each of its writes checks its lease.
//   - The worker reads the record first, then Stripe. It writes only if the record has not changed since and the item
//     is still undecided, in one transaction. So it never overwrites what a webhook wrote since.
//   - After a write that lowered access, the worker reads Stripe again. If a subscription changed and changed back
//     between the first read and the write, this follow-up restores the newer state.
//   - If something undid a repair within 24 hours, a run makes the same change again only if it does not lower access,
//     and adds a warning. The same change has the same old and new values. A repair and its follow-up count as one
//     repair. The worker reads the recent repairs once for a batch, when the first organization has something to
//     write. A run over one organization does not lower access while the latest run over several organizations
//     withholds its repair. For an hour after the other run was approved, a redriven one is tried again instead. A
//     person can override both rules for a run over one organization (allow the downgrade).
//   - An accepted error is recorded like any other, but its message is deleted, not dead-lettered. If all errors of a
//     run are accepted, the run ends as completed. Only the acceptances that are valid when the run starts count, so
//     its summary is the same whenever it is made.
//   - A snapshot is complete or does not exist. It can only decide that an organization is in sync. It is valid for
//     two hours, only in its own run, only while the run is open, and only for organizations that no worker tried
//     before. The statement that stores the decision checks that the run was not closed or swept again. Every write
//     follows a fresh read.
//   - A catch-up fixes its event window when it opens. The window starts shortly before the end of the last window that
//     was fully listed, so that the two overlap. It starts earlier if a catch-up was stopped and no run covered its
//     window since. The window ends early enough for the webhook to have handled the events. The enumerator stores
//     each page of events together with the next cursor, one row for each subscription.
//   - Events only select organizations; every write follows a fresh read. One catch-up lists at a time; a second one
//     leaves the window as it is. If an endpoint received an event late, its old payload may have overwritten a
//     repair, so the next catch-up selects the organization again. The age of the last run and the counts to compare
//     with come from full runs only.
//   - Only the class of an error decides what happens: a retry in place, a retry through the queue, a dead letter for
//     the organization, or the end of the run.
//   - The Enumerator and the Reconciler reserve a part of their deadline: they do not start what cannot finish. The
//     Aggregator can be cut off anywhere, and its work can be repeated.
//   - A compare-and-set closes a run exactly once. The run is reported at most once: if the response to the
//     compare-and-set is lost, the run's row has the summary and the log does not. A later repair amends the summary.
//
// Three races remain. The next run repairs their effects:
//
//   - A webhook writes an old payload after the worker wrote.
//   - A subscription changes and changes back between one read and the next write.
//   - A subscription comes back while a worker dies between a write that lowered access and its follow-up.
//
// # What is guaranteed
//
// The guarantees hold if processes are killed at any moment; if messages arrive late, twice and in any order; if
// Stripe, SQS and MySQL refuse requests, hang, cut connections and lose responses; and if the application writes at the
// same time. The fault campaign (task chaos; functions/internal/chaos) does all of this to the deployed programs. Each
// guarantee names the check or the test that verifies it:
//
//   - Every eligible organization has exactly one outcome, or its message is in the dead-letter queue because the
//     worker crashed at the last receive: everyOrganizationHasAnOutcome. After a redrive, and after a run without
//     faults, nothing is pending: nothingIsPending.
//   - The summary equals the counts of the items: totalsAddUp.
//   - No write replaces a value that changed after the worker read it. Every recorded change was made, and every change
//     made is recorded: auditReplays and noStaleWrites. TestNoInterleavingLosesANewerState in this package
//     interleaves the calls of two workers in random orders.
//   - No run lowers the access of more organizations than its limit allows, and no run withholds a repair below its
//     limit: downgradeLimitHolds. The limit follows MAX_DOWNGRADES: limitsFollowTheSetting.
//   - The dead-letter queues have every error of a run that writes, and every message that cannot be read:
//     deadLettersAreTheErrors, unreadableProgressIsKept. After the faults end, a redrive leaves only the
//     organizations in error that cannot be reconciled, and leaves their messages, with the reason, in the queue:
//     onlyUnreconcilableAreInError, deadLettersAreExactlyTheErrors.
//   - The client refuses a response from Stripe that has a value of another type; it does not guess:
//     TestValueOfAnotherTypeNeverChangesTheResult in stripesource.
//   - After the faults and the webhooks end, one more run makes the record equal to Stripe: recordsMatchStripe. No
//     organization that pays is on the free tier: payingOrganizationsAreNotFree.
//   - No log, response, error, table, report, message or command line has a secret. Names with HTML run no script in
//     the report: secretsStaySecret. Names with SQL change no row: auditReplays. Messages, events and Stripe's objects
//     may have any content: FuzzDecodeWork in sqsqueue, FuzzEnumeratorEvent in handler, FuzzDecode in stripesource.
//   - A clock that jumps by up to a day can cost requests, messages, a resume by an operator, and the sweep. Without
//     the sweep, a run does not find organizations that only metadata names. The jump costs nothing else:
//     TestClockJumpsLoseNothing in this package. A clock that is years ahead does not delete the history:
//     TestClockYearsAheadPrunesNoHistory.
//   - The guarantees hold while a deployment replaces programs and tables: TestDeploymentDuringARunLosesNothing. The
//     workers' use of resources does not grow: TestLoadLeavesNothingBehind.
//
// The guarantees assume the following:
//
//   - MySQL keeps what it committed and locks rows as InnoDB does.
//   - SQS keeps an accepted message until somebody deletes it or its retention ends.
//   - Stripe answers a request for one object with its present state.
//   - The schedules keep running, and RunDeadline is longer than the faults.
//   - A wrong clock is corrected. While it is wrong, the times that it writes are wrong: those of a run and its items,
//     so also which run is shown as the last, and the end of a subscription that Stripe does not have. A run may be
//     closed before its deadline, and a snapshot may decide for longer than two hours that organizations are in sync.
//     The next run checks again.
package pipeline
