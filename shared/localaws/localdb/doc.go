// Package localdb starts a throw-away database for a first look at the system and for tests.
//
// [Start] runs a real server, mariadbd or mysqld, where the machine has one; [StartInProcess]
// runs go-mysql-server inside this process where it has none.
//
// Invariants:
//   - It listens on 127.0.0.1 only, for one account with a password made at random at the start.
//     The password is never printed: a Server formats as its Kind.
//   - It never outlives the process that started it, however that process ends. On Linux the
//     kernel kills the server with its parent; on every Unix a small shell waits for the parent's
//     end to kill the server and remove its directory. Close does both at once.
//   - Its data is worth nothing: writes are not flushed and not doubled, so an interrupted server
//     could not be started again. Never point these settings at data that matters.
//   - The in-process server is right with exactly one connection at a time and admits no more:
//     a second one waits for the first to close. Server.Concurrent says which kind it is.
//
// A server cannot run as root. A process of root runs it as the user mysql, or nobody, and gives
// that user the temporary directory.
//
// MariaDB is started from its own SQL files rather than with mariadb-install-db, which takes
// twice as long, and leaves out help texts, time zone names and the accounts it would create.
//
// What go-mysql-server does differently with its one connection, as far as this system could
// notice:
//   - Inserts into a table with a foreign key slow down with the number of rows: a thousand
//     organizations with their subscriptions take some four seconds.
//   - ON UPDATE CURRENT_TIMESTAMP also moves where an UPDATE leaves every value as it was, and
//     does not move in ON DUPLICATE KEY UPDATE.
//   - A UNIQUE key tells upper from lower case though the column's collation does not, and
//     trailing spaces count in comparisons.
//   - A TIMESTAMP ignores the session's time zone, rounds fractions of a second up, and accepts
//     the zero date in strict mode. Out of range dates are refused. A number too large for its
//     INT column is accepted.
//   - Errors: 1062, 1048 and 1452 have their numbers, all other violations have 1105; the SQL
//     state is always HY000. A write in a read-only transaction breaks the connection.
//   - It has no savepoints, no NOWAIT, no INSERT ... SELECT ... ON DUPLICATE KEY UPDATE, no
//     ORDER BY on a UNION of parentheses, no innodb_lock_wait_timeout in a session.
//   - RELEASE_LOCK of a lock that nobody holds returns 0 rather than NULL.
//   - A cancelled statement runs to its end, and the next connection waits for that.
package localdb
