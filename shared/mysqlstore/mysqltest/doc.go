// Package mysqltest gives each test a database of its own, with the application's tables in it.
//
// The server is, in this order: the one that TEST_MYSQL_DSN names (a go-sql-driver DSN over TCP
// whose user may create databases), or the program that MYSQLD names, or a mariadbd or mysqld of
// this machine, started once for the test binary in a temporary directory. [New] skips the test where there is neither, and
// fails it where CI=true; [NewAny] then runs it on go-mysql-server in this process, one
// connection; [InProcess] always does. [WithOwnServer] starts a server for one test.
//
// Invariants:
//   - No two tests share a database, also not two test binaries on one server: names are random.
//   - A database is dropped when its test ends.
//   - The server ends with the test binary, however that ends, and takes its directory with it.
//     [Main] does both before the binary ends and is not needed for it.
//   - A pool that is [DB.Intercepted] shows a test each call to the server, before and after its effect: none
//     passes by it, whatever method of the store it comes from.
//   - A session is strict, in UTC and in utf8mb4; rows matched count as affected, as they do for
//     the programs.
package mysqltest
