// Package mysqlstore is the only place with SQL. It reads and repairs the application's
// organizations and subscriptions and keeps this system's own tables: reconciliation_runs, _items,
// _tallies (how many of a run's items were trimmed), _sweeps (how the sweep of a run stands), _ranges
// (what it has yet to read), _snapshots (what it read), _outbox (what is to be announced), _budgets (what
// catch-ups may lower together), _windows (which part of Stripe's log of events a catch-up reads), _events (what it
// read and has yet to look up), _named (the subscriptions that events name for its organizations), _undelivered
// (events that an endpoint had not taken), _repairs (when a run repaired whom), _accepted (errors and warnings that people know), _orders (who asked for a run, and what was approved), _settings and
// _migrations.
//
// Invariants:
//
//   - The application's tables are never altered, and only the columns a plan names are written.
//     application.go names them, and no other file does; what is compared is [billing.Columns].
//   - Whether the tables and the login are as needed is known before a run starts, all that is wrong
//     at once. A NULL that comes later where a value is needed is one record's, never a batch's, and
//     who is not surely deleted counts as not deleted.
//   - A repair and the outcome of its item commit in one transaction, which first locks
//     organization, subscriptions rows (by id), item, run and the catch-ups' budget, in that order, and
//     compares the rows with those the plan was made from. What changed meanwhile is never overwritten:
//     [billing.ErrRecordChanged].
//   - Transactions run at READ COMMITTED, so that they lock no gap in which the application inserts,
//     and write the application's rows first, so that of a deadlock they are the victim. A server
//     with binlog_format=STATEMENT takes no write at READ COMMITTED (error 1665, tried on MySQL 9.7
//     and MariaDB 10.11): no run is opened, and the message says what to set; ROW and MIXED are good.
//   - Behind RDS Proxy, workers and aggregators pin no connection: sessions set what the proxy tracks
//     and, unless the server's is as short already, how long to wait for a lock; nothing is prepared,
//     and the lock of migrations is taken only where there is something to migrate. An enumerator's
//     inserts of many rows pin, by their length.
//   - Connecting takes 4 s at most, and the server ends a session that was idle for as long as the pool
//     would use its connection: what a frozen process holds goes by itself.
//   - What is announced is written into the outbox by the transaction that it tells of, and removed by its id
//     once it was accepted, by who announces on the bus of the database's functions: nothing is announced that was not committed, and nothing committed is forgotten.
//   - What MySQL refuses of one organization's rows for good is that organization's failure; of a
//     statement about many, nobody's.
//   - An outcome moves only from pending or error; changes once recorded as applied are kept.
//     A second delivery finds [billing.ErrAlreadyDecided] and changes nothing.
//   - A run has one enumerator: a lease that no right clock can have set is free, and every write
//     names the lease it is done under.
//   - A page of a sweep is stored with what is left of its range, under the lease; a snapshot is
//     removed only while nobody can be filling or deciding by it. Both lock the run first.
//   - A page of events is stored with the place behind it, under the lease: one row for a subscription, its latest
//     event. It goes in the transaction that lists the organizations it leads to. What leads nowhere by an index is
//     looked up by customers, many at once. An event that an endpoint had not taken is forgotten in the transaction
//     that has its organization looked at. Catch-ups are opened one after another, behind the lock of one row.
//   - The guard is counted in the same transaction, by a conditional UPDATE: never a unit over. Catch-ups
//     share one budget for 24 hours from its first lowering, by the server's clock, counted when a repair is
//     written; what was approved for one of them is counted on it alone.
//   - An event that an endpoint took late is kept until a catch-up that looked after it has ended well: it goes
//     with no run that was stopped, ran out of time or was removed.
//   - An item that is trimmed is counted in the transaction that deletes it.
//   - What is asked for each organization, message or tick reads a number of rows that does not grow
//     with the run; what goes through a run reads each row once (plans_test.go).
//   - Every list is complete or an error. Updates report matched rows (clientFoundRows), so a
//     compare-and-set that hit can be told from one that missed.
//   - The application's tables are in whatever collation it chose, and that decides which ids are the
//     same. Where they meet this system's tables, whose ids are compared by their bytes, the value is
//     converted and not the column; what their character set cannot express is nobody's.
//   - The application's ids may have white space around them and are compared without it. One look-up by an index
//     finds both spellings ([Store.Claims]); what goes through a whole table finds them on its way. Where organizations in
//     sync are looked up, only what is spelled exactly is: a record that is not is to be repaired.
//   - Times are UTC. SQL is what both MySQL 8 and MariaDB 10.11 take; decisions rest on error
//     numbers that both share, or on the number of each.
//   - No method holds a connection while it asks for another, so a pool of one suffices.
//
// Servers, and how they were tested:
//
//	MySQL 9.7        all tests and the fault campaign, in CI (.ci/test-mysql)
//	MariaDB 10.11    all tests and the fault campaign, in CI
//	MySQL 8.0, 8.4   untested: there was none to be had. What a statement uses, their manuals have
//	go-mysql-server  with one connection: what `local` runs on where a machine has no server
package mysqlstore
