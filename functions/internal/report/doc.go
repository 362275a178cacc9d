// Package report writes one run as a page for people (HTML) and as a table for finance (CSV).
//
// Invariants:
//
//   - The page is one file that asks the network for nothing. Its policy (CSP) names the digests
//     of the one style sheet and the one script in it, so nothing in the data can run.
//   - Data reaches the page as escaped text or inside one block of JSON that the script reads; the
//     script makes text nodes of it, never markup. [clean] replaces control characters and those
//     that change the direction of text.
//   - The page says how many organizations it leaves out. The CSV leaves out none.
//   - A link to Stripe is made only of what looks like one of its ids, and only where it is known
//     whether that is in live or test mode.
//   - The CSV is written as it is read. The page holds at most maxShown organizations of each
//     outcome, errors and all, because a browser must hold them too.
//   - A change is listed whether it was written or not; "applied" tells which. Times are UTC.
package report
