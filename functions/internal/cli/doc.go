// Package cli holds what the command lines reconcile and local share: running a command, its flags, errors and
// exit codes, the settings of .env, and following a run in the database.
package cli
