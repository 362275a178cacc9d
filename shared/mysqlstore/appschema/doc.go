// Package appschema holds the web application's tables, organizations and subscriptions, for tests and for a first
// look on one machine, where no application has created them.
//
// Invariants:
//   - The tables are exactly the application's.
//   - Times are UTC, to the second. The *sql.DB must be opened with parseTime, loc=UTC and time_zone '+00:00'.
//   - After an error, rows inserted before it remain.
//
// Production code does not import this package.
package appschema
