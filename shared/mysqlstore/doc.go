// Package mysqlstore is the only place with SQL. It reads and repairs the application's
// organizations and subscriptions and keeps this system's own tables: reconciliation_runs, _items,
// _sweeps (how the sweep of a run stands), _ranges (what it has yet to read), _snapshots (what it
// read) and _migrations.
//
// Invariants:
//
//   - The application's tables are never altered, and only the columns a plan names are written.
//   - A repair and the outcome of its item commit in one transaction, which first locks
//     organization, subscriptions rows (by id), item and run, in that order, and compares the
//     rows with those the plan was made from. What changed meanwhile is never overwritten:
//     [billing.ErrRecordChanged].
//   - An outcome moves only from pending or error; changes once recorded as applied are kept.
//     A second delivery finds [billing.ErrAlreadyDecided] and changes nothing.
//   - A run has one enumerator: a lease that no right clock can have set is free, and every write
//     names the lease it is done under.
//   - A page of a sweep is stored with what is left of its range, under the lease; a snapshot is
//     removed only while nobody can be filling or deciding by it.
//   - The guard is counted in the same transaction, by a conditional UPDATE: never a unit over.
//   - Every list is complete or an error. Updates report matched rows (clientFoundRows), so a
//     compare-and-set that hit can be told from one that missed.
//   - Times are UTC. SQL is what both MySQL 8 and MariaDB 10.11 take; decisions rest on error
//     numbers both share.
//   - No method holds a connection while it asks for another, so a pool of one suffices.
//
// Servers, and how they were tested:
//
//	MySQL 9.7        all tests and the fault campaign, in CI (.ci/test-mysql)
//	MariaDB 10.11    all tests and the fault campaign, in CI
//	MySQL 8.0, 8.4   untested: there was none to be had. What a statement uses, their manuals have
//	go-mysql-server  with one connection: what `local` runs on where a machine has no server
package mysqlstore
