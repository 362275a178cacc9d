// Package stripesource reads Stripe. It is the only package that knows Stripe's types, and it
// sends GET requests only: nothing here changes anything in Stripe.
//
// Invariants:
//
//   - Every error is a [billing.Failure] with its class, in one line. An object that does not exist is a
//     result, not an error. Only errors.go maps Stripe's errors to classes.
//   - A list is complete or an error: a page that failed never looks like the end of the list.
//   - An object whose livemode is not the key's mode stops the run: test data would be written to real
//     organizations. An id that exists in the other mode only is an error of the organization that
//     records it.
//   - A subscription that is retrieved has all of its items. In a sweep it has the first ten, and
//     says whether there are more.
//   - No request is retried here: the caller retries, because it knows its deadline.
//   - Each request waits for the limiter of its endpoint, obeys its context and has a short timeout.
//
// The API version is 2023-10-16, which stripe-go v76 pins; it has current_period_start and
// current_period_end on the subscription. If the items have different intervals, these are the shortest
// item's period.
// https://docs.stripe.com/changelog/basil/2025-07-30/support-mixed-intervals
//
// Events have the API version that the account had when they were created. So only fields that are the
// same in all versions are read from them: id, customer and metadata. See [Client.EventsPage].
//
// Search is eventually consistent and not for every account: see [Client.SearchByOrgID].
package stripesource
