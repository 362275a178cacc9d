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
//     costs nothing. They are listed for 30 days by type (a star stands for any text), types (at most
//     20), created and delivery_success, the last ones first. Webhooks are not sent: an event says
//     how many endpoints have not taken it ([Server.FailWebhooks], [Server.SetPendingWebhooks]).
//   - Lists: newest first, limit 1 to 100 (default 10), has_more, starting_after, ending_before, and
//     the filters customer, status and created. Without a status, canceled subscriptions are left
//     out. A cursor is an object: one that has gone away is an error, not an empty page.
//   - Errors: status, code, param, message and the headers Request-Id and Stripe-Rate-Limited-Reason.
//     An id in the path that names nothing is a 404, one in the query a 400, both resource_missing.
//   - Keys: Bearer and Basic, 401 with the key redacted. Every object lives in one mode, that of
//     [Options.LiveMode]. The accepted key's twin of the other mode (sk_test_x and sk_live_x) is let
//     in and finds nothing: ids are answered with "a similar object exists in live mode, but a test
//     mode key was used", lists are empty. [Server.PutInOtherMode] does the same for single ids: of
//     such an object the fake knows nothing else, and the twin does not see it.
//   - Customers: a deleted one stays retrievable with deleted: true, its subscriptions are canceled
//     and remain listable. A subscription always has a customer, so [Server.PutSubscription] makes
//     the one it names, and [Server.RemoveCustomer] takes the customer's subscriptions along.
//   - Limits: a token bucket for the account and one for each endpoint, both of which hold one
//     second's worth of requests. Stripe documents the rates but not the burst; a bucket that starts
//     full lets through at most twice the rate in the first second and the rate from then on.
//     A request that the endpoint's limit refuses has counted against the account's. Search has 20 a
//     second at most.
//   - Failures, on request: see [Fault].
//
// It does not imitate: writes (405), expansion, other searches and list filters and other API versions
// (all 400, so that a reader who relies on one finds out), the sending of webhooks, events of other
// objects, the previous_attributes of an event, the concurrency limits, idempotency keys, compression,
// connected accounts, test clocks, and the passing of time (no subscription renews, ends its trial or
// expires by itself). The wording of the messages for
// limits out of range is Stripe's as far as it is known; depend on their code and param.
//
// Objects that Stripe should never send can be served with [Subscription.Override] and
// [Subscription.Raw]. Filters and order go by the fields of [Subscription], whatever is served.
package stripetest
