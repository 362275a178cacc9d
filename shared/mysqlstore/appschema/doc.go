// Package appschema holds the web application's own tables, organizations and subscriptions, for
// the places where no application has created them: tests, and a first look on one machine.
//
// Invariants:
//   - The tables are exactly the application's; nothing is added to them here.
//   - Times are UTC, to the second. The *sql.DB must be opened with parseTime, loc=UTC and
//     time_zone '+00:00'.
//   - An error leaves what was inserted before it.
//
// Nothing in production imports this package.
package appschema
