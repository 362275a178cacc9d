// Package report writes one run as a page for people (HTML) and as a table for finance (CSV).
//
// Invariants:
//
//   - The page is one file and sends no request. Its policy (CSP) names the digests of its style sheet
//     and its script, so nothing in the data can run.
//   - The page has data as escaped text or in one block of JSON. The script turns that JSON into text
//     nodes, never into markup. [clean] replaces control characters and those that change the direction
//     of text.
//   - The page says how many organizations it leaves out. The CSV leaves out none.
//   - The page links to Stripe only from texts that look like Stripe's ids, and only if the mode (live or
//     test) is known.
//   - The CSV is written while it is read from the database. The page has at most maxShown organizations of
//     each outcome, including errors, because a browser must hold them all.
//   - Changes are listed whether they were written or not; the column "applied" says which. Times are UTC.
package report
