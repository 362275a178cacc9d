// Package stripetest is a fake Stripe: a real HTTP server with state, for tests and for programs
// that run without an account. It speaks API version 2023-10-16, serves reads only, and answers as
// Stripe does where a reader of subscriptions can tell the difference.
//
// It imitates:
//
//   - GET /v1/subscriptions/{id}, GET /v1/subscriptions, GET /v1/subscriptions/search,
//     GET /v1/subscription_items, GET /v1/customers/{id}, GET /v1/account and GET /v1/events, with
//     whole objects, as Stripe sends them when nothing is expanded (templates in objects/; the
//     undocumented plan and quantity at a subscription's top level are left out).
//   - Items: a subscription's own list has ten of them and says has_more; the endpoint has all.
//   - Search: the clause metadata['key']:'value' alone, compared without case, newest first, with page
//     and next_page. It may lag, on the server's clock, and then serves what it finds as it was
//     ([Server.SetSearch]); an account may have none.
//   - Events: every change of a subscription that is made with a method of the server leaves one, with the
//     object as it then was; [Server.PutSubscription] of a new one does not, so that a large population
//     costs nothing. They are listed for 30 days by type (a star matches any text), types (at most 20),
//     created and delivery_success, newest first. Webhooks are not sent: an event has the number of
//     endpoints that have not accepted it ([Server.FailWebhooks], [Server.SetPendingWebhooks]).
//   - Lists: newest first, limit 1 to 100 (default 10), has_more, starting_after, ending_before, and
//     the filters customer, status and created. Without a status, canceled subscriptions are left
//     out. A cursor whose object no longer exists is an error, not an empty page.
//   - Errors: status, code, param, message and the headers Request-Id and Stripe-Rate-Limited-Reason.
//     An unknown id is a 404 in the path and a 400 in the query, both resource_missing.
//   - Keys: Bearer and Basic, 401 with the key redacted. Every object lives in one mode, that of
//     [Options.LiveMode]. The accepted key's twin of the other mode (sk_test_x and sk_live_x) is valid
//     and finds nothing: ids return "a similar object exists in live mode, but a test mode key was
//     used", lists are empty. [Server.PutInOtherMode] does the same for single ids: the fake has no
//     object of such an id, and the twin does not see it.
//   - Customers: a deleted one stays retrievable with deleted: true, its subscriptions are canceled
//     and remain listable. A subscription always has a customer, so [Server.PutSubscription] creates
//     a missing one, and [Server.RemoveCustomer] removes the customer's subscriptions too.
//   - Limits: a token bucket for the account and one for each endpoint, each with the tokens of one
//     second. Stripe documents the rates but not the burst; a bucket that starts full allows at most
//     twice the rate in the first second and the rate from then on. A request that exceeds the
//     endpoint's limit counts against the account's. Search has at most 20 a second.
//   - Failures, on request: see [Fault].
//
// Not implemented: writes (405), expansion, other searches, list filters and API versions (all 400, so that
// using one fails), webhooks, events of other objects, previous_attributes of events, concurrency limits,
// idempotency keys, compression, connected accounts, test clocks, and time (no subscription renews, ends
// its trial or expires). The messages for limits out of range are Stripe's as far as they are known; rely
// on their code and param.
//
// [Subscription.Override] and [Subscription.Raw] serve objects that Stripe should never send. Filters and
// order use the fields of [Subscription], whatever is served.
package stripetest
