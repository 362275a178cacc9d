// Package present shows runs to people and machines, the same way in every command: progress on
// standard error, results on standard output, exit codes that scripts can rely on.
package present
