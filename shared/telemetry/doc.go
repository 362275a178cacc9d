// Package telemetry writes what is observed: log lines and metrics, both as one
// JSON object a line, for CloudWatch as well as for a terminal. It also makes other
// people's text fit for a line, a page and a terminal.
//
// What holds, and the tests hold it to:
//
//   - A log line has "time" (UTC), "level" and "message", then its attributes.
//     Attribute keys come from the Key constants, so one thing has one name.
//   - A metrics line follows CloudWatch's embedded metric format. A line that
//     CloudWatch would drop in silence is refused with an error instead.
//   - Each line is one Write, so lines of concurrent goroutines never mix, even
//     where logger and metrics share a writer such as os.Stdout.
package telemetry
