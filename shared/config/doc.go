// Package config turns environment variables into a validated Config.
//
// What holds, and the tests hold it to:
//
//   - The environment is a parameter. The package never reads the process's own
//     variables, so a program parses them once, at its start, and a test needs
//     no t.Setenv.
//   - Every problem is reported at once, one line for each variable: what is
//     wrong with it and what to set.
//   - No value is ever repeated in an error. A secret pasted into the wrong
//     variable must not reach a log either, so this goes for all of them.
//   - A Secret renders as [redacted] through fmt, slog and encoding/json, also
//     where it stands in an unexported field of another struct.
//   - An empty variable counts as one that is not set. White space around a
//     value is dropped, except in a password.
//
// A program names the parts it needs (Need); what belongs to other parts may be
// missing, but what is set must be right in every program.
//
// Decisions:
//
//   - STRIPE_MODE, where it is not set, follows from the key's prefix.
//   - DB_PASSWORD may be empty for a database on this machine only.
//   - SECRET_NAME names a JSON secret with further variables, of which the
//     environment wins. This package reads its text; fetching it is left to the
//     program, so that nothing here needs AWS. An empty variable does not win.
//   - DB_TLS is true, false, rds, or a path: a path must contain a slash or end in .pem,
//     .crt or .cer, so that a slip such as "yes" is not taken for a file.
//   - A percentage in MAX_DOWNGRADES is rounded down: the limit never exceeds it.
//   - A price or product id named twice in one tier is harmless, in two tiers an error.
//   - TIERS says which STRIPE_PRICE_ID_<TIER> and STRIPE_PRODUCT_ID_<TIER> there are. One of no tier
//     is an error wherever it stands, in the secret too: what it lists would be lost without a word.
//     Other variables that nothing reads are looked for in .env only, which is this system's own.
//   - DEFAULT_TIER cannot be the lowest: whoever's price is not configured would lose paid access.
//   - EVENT_BUS has no default: a stage over a copied database must not tell another's consumers.
//   - Two queues with one URL are an error: results would be read as work.
package config
