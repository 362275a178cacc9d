// Package mysqlstore holds all SQL. It reads and repairs the application's organizations and subscriptions and
// keeps this system's own tables, whose names begin with reconciliation_:
//
//	runs, items     the runs and their organizations
//	tallies         how many of a run's items were trimmed
//	sweeps          the state of a run's sweep
//	ranges          what a sweep has yet to read
//	snapshots       the subscriptions that it has read
//	windows         the part of Stripe's event log that a catch-up reads
//	events          the events that it has read and has yet to look up
//	named           the subscriptions that events name for its organizations
//	undelivered     events that an endpoint has not taken
//	late            events that an endpoint took late
//	unreadable      how many events of a window could not be read in full
//	budgets         how many organizations catch-ups together may lower
//	orders          who started a run, and the limit approved for it
//	repairs         when a run repaired an organization
//	accepted        errors and warnings that people have accepted
//	outbox          announcements to send
//	archives        which revision of a run's reports is archived
//	accounts        the Stripe account that a run reads
//	settings        the functions' stage and event bus
//	migrations      the version of these tables
//
// Invariants:
//
//   - The application's tables are never altered, and only the columns that a plan changes are written. Only
//     application.go names them; [billing.Columns] names the compared columns.
//   - The tables and the login are checked before a run starts, and all problems are reported at once. A NULL found
//     later in a required column fails its organization, not the batch. An organization counts as deleted only if
//     is_deleted is neither 0 nor NULL.
//   - A repair and its item's outcome commit in one transaction. It locks organization, subscriptions rows (by id),
//     item, run and the catch-ups' budget, in this order, and compares the rows with those from which the plan was
//     made. A row that has changed is not overwritten: [billing.ErrRecordChanged].
//   - Transactions run at READ COMMITTED, so that they do not lock the gaps into which the application inserts. They
//     write the application's rows first, so that they are the victim of a deadlock. With binlog_format=STATEMENT the
//     server refuses writes at READ COMMITTED (error 1665): no run is opened, and the error says what to set.
//   - A deleted organization keeps the subscription that its row records: the column is unique, and the subscription
//     is not given to another organization of the customer. Where an organization's own row records it too, because of
//     white space or a missing unique key, the deleted organization's row is no conflict. It is one again if the repair
//     of the white space would make the two ids equal.
//   - Behind RDS Proxy, workers and aggregators pin no connection: sessions set only what the proxy tracks, and the
//     lock wait only if the server's is longer; no statement is prepared, and migrations take their lock only if there
//     is something to migrate. An enumerator's inserts of many rows pin, because of their length.
//   - Connecting takes at most 4 s. The server closes a session that was idle for as long as the pool would use it, so
//     that a frozen process holds no locks for long.
//   - An announcement is written into the outbox by the transaction that it reports and deleted once the bus has
//     accepted it: nothing is announced that was not committed, and nothing committed is lost.
//   - What MySQL will never accept in one organization's rows fails that organization. For a statement about many
//     organizations the same error fails none of them.
//   - An outcome changes only from pending or error; recorded changes are kept. A second delivery gets
//     [billing.ErrAlreadyDecided] and changes nothing.
//   - A run has one enumerator at a time. Every write of it checks the lease; a lease that ends later than a correct
//     clock can have set is free.
//   - A page of a sweep is saved together with the rest of its range, under the lease. A snapshot is deleted only while
//     no enumerator fills it and no worker decides by it. Both lock the run first.
//   - A page of events is saved together with the next cursor, under the lease: for each subscription its latest event,
//     which is deleted in the transaction that lists its organizations. Events that no index leads to an organization
//     are looked up by customer, many at once. An undelivered event is deleted in the transaction that adds it to the
//     events to look up. Catch-ups are opened one at a time, behind the lock of one row.
//   - The guard counts in the repair's transaction with a conditional UPDATE, so that the limit is exact. Catch-ups
//     share a budget for 24 hours from its first downgrade, by the server's clock; downgrades that were approved for a
//     catch-up count against its own limit only.
//   - A late event is kept until a catch-up that looked it up has completed, even if others stop, run out of time or
//     are deleted.
//   - A trimmed item is counted in the transaction that deletes it.
//   - What is read for each organization, message or tick is a number of rows that does not grow with the run; what
//     goes through a run reads each row once (plans_test.go).
//   - Every list is complete or an error. Updates report matched rows (clientFoundRows), so that a compare-and-set
//     knows whether it matched.
//   - The application's collation decides which of its ids are equal; this system's tables compare bytes. Where the two
//     meet, the value is converted, not the column. A value that the column's character set lacks matches nothing.
//   - The application's ids are compared without white space around them. A look-up by index finds both forms
//     ([Store.Claims]), and so does a scan of a whole table. The look-up for organizations in sync finds only exact
//     ids, because a record with a padded one must be repaired.
//   - Times are UTC. The SQL runs on MySQL 8 and MariaDB 10.11; decisions depend on error numbers, and on
//     SQLSTATE 45 of triggers.
//   - No method holds a connection while it asks for another one, so that a pool of one suffices.
//
// Servers, and how they were tested:
//
//	MySQL 9.7        all tests and the fault campaign, in CI (.ci/test-mysql)
//	MariaDB 10.11    all tests and the fault campaign, in CI
//	MySQL 8.0, 8.4   untested, because no server was available; their manuals document every feature used
//	go-mysql-server  with one connection: what `local` runs on if the machine has no server
package mysqlstore
