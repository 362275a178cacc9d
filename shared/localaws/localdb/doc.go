// Package localdb starts a temporary database for a first look at the system and for tests.
//
// [Start] runs mariadbd or mysqld if the machine has one. Otherwise [StartInProcess] runs go-mysql-server in this
// process.
//
// Invariants:
//   - The server listens on 127.0.0.1 only, for one account with a random password. The password is never printed: a
//     Server formats as its Kind.
//   - The server ends with the process that started it. On Linux the kernel kills it with its parent; on every Unix a
//     shell, the watchdog, waits for the parent's end, kills the server and removes its directory. Close does both at
//     once.
//   - The data is temporary: writes are not flushed and there is no doublewrite buffer, so that an interrupted server
//     cannot be started again. Never use these settings for data that matters.
//   - The in-process server is correct only with one connection at a time, and accepts no more: a second one waits for
//     the first to close. Server.Concurrent tells the two kinds apart.
//
// A server cannot run as root. A process of root runs it as the user mysql, or nobody, and makes that user the owner
// of the temporary directory.
//
// MariaDB's tables are created from its SQL files, without help texts, time zones and default accounts:
// mariadb-install-db takes twice as long.
//
// Differences of go-mysql-server with one connection that this system could notice:
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
//   - RELEASE_LOCK of a free lock returns 0 rather than NULL.
//   - A canceled statement runs to its end, and the next connection waits for it.
package localdb
