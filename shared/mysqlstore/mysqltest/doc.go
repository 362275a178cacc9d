// Package mysqltest gives each test a database of its own with the application's tables.
//
// The server is the one that TEST_MYSQL_DSN names (a go-sql-driver DSN over TCP whose user may create databases),
// else the program that MYSQLD names, else a mariadbd or mysqld on this machine; a program is started once for each
// test binary, in a temporary directory. Without any, [New] skips the test, or fails it if CI=true, and [NewAny] uses
// go-mysql-server in this process, with one connection. [InProcess] always uses that; [WithOwnServer] starts a server
// for one test.
//
// Invariants:
//   - No two tests share a database, even across test binaries on one server: names are random.
//   - A database is dropped when its test ends.
//   - The server ends with the test binary, however that ends, and removes its directory. [Main] stops it a little
//     earlier and is optional.
//   - Every call of a pool from [DB.Intercepted] to the server goes through the interceptor.
//   - A session is strict, in UTC and in utf8mb4, and reports matched rows, as in the programs.
package mysqltest
