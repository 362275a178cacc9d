// Package stripesource reads Stripe. It is the only package that knows Stripe's types, and it
// only ever sends GET requests: nothing here changes anything in Stripe.
//
// Invariants:
//
//   - Every error is a [billing.Failure] with its class, one line long; what does not exist is an
//     answer, not an error. The mapping stands in errors.go and nowhere else.
//   - A list is complete or an error: a page that failed never looks like the list's end.
//   - Objects carry livemode, and one of the other mode than the key's is a failure of the
//     whole run: it would reconcile real organizations with somebody's tests. An id that exists in
//     the other mode only is a failure of whoever has it recorded.
//   - A subscription that is read singly has all of its items; in a sweep it has the first ten, and
//     says whether there are more.
//   - No request is tried again here (the caller owns the retries, and knows its deadline);
//     each waits for the limiter of its endpoint first.
//   - Every request obeys its context and has short timeouts of its own.
//
// The API version is 2023-10-16, the one stripe-go v76 pins; it has current_period_start and
// current_period_end on the subscription. Of one whose items have different intervals they are those
// of the smallest item's period.
// https://docs.stripe.com/changelog/basil/2025-07-30/support-mixed-intervals
//
// Events are rendered at the API version that the account had when they were made. So of their objects
// only what no version has changed is read: id, customer and metadata. See [Client.EventsPage].
//
// Search is eventually consistent and not for every account: see [Client.SearchByOrgID].
package stripesource
