// Package config turns environment variables into a validated Config.
//
// Invariants, which the tests check:
//
//   - The environment is a parameter. The package never reads the process's own variables, so that a test needs
//     no t.Setenv.
//   - Every problem is reported at once, one line for each variable: what is wrong and what to set.
//   - No error contains a value: a secret in the wrong variable must not reach a log.
//   - A Secret renders as [redacted] through fmt, slog and encoding/json, also in an unexported field of
//     another struct.
//   - An empty variable counts as not set. White space around a value is dropped, except in a password.
//
// A program names the parts that it needs (Need). Variables of other parts may be missing, but those that are
// set must be valid in every program.
//
// Decisions:
//
//   - STRIPE_MODE defaults to the mode of the key's prefix.
//   - DB_PASSWORD may be empty for a database on this machine only.
//   - SECRET_NAME names a JSON secret with further variables; the environment wins, unless it has an empty
//     value. This package parses the secret's text. The program fetches it, so that this package needs no AWS.
//   - DB_TLS is true, false, rds or a path. A path must contain a slash or end in .pem, .crt or .cer, so that a
//     typo such as "yes" is not taken for a file.
//   - A percentage in MAX_DOWNGRADES is rounded down: the limit never exceeds it.
//   - A price or product id may be twice in the list of one tier, but not in the lists of two.
//   - TIERS defines which STRIPE_PRICE_ID_<TIER> and STRIPE_PRODUCT_ID_<TIER> exist. A list of another tier is an
//     error, also in the secret: its ids would be ignored. Other unknown variables are an error in .env only,
//     which belongs to this system alone.
//   - DEFAULT_TIER cannot be the lowest: every customer whose price is not configured would lose paid access.
//   - EVENT_BUS has no default: a stage with a copy of the database must not announce to another stage's
//     consumers.
//   - Two queues with one URL are an error: results would be read as work.
//   - A value that contains replace-me is an error: the example files have it where a value is required.
package config
