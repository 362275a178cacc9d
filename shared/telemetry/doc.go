// Package telemetry writes log lines and metrics, one JSON object a line, for CloudWatch and for a terminal. It also
// makes foreign text safe for a log line, a page and a terminal.
//
// Invariants, which the tests check:
//
//   - A log line has "time" (UTC), "level" and "message", then its attributes. Attribute keys are the Key
//     constants, so that each thing has one name.
//   - A metrics line follows CloudWatch's embedded metric format. A line that CloudWatch would drop silently is an
//     error.
//   - Each line is one Write, so that lines of concurrent goroutines never mix, even if logger and metrics share a
//     writer such as os.Stdout.
package telemetry
