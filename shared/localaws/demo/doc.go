// Package demo fills an application's database and a fake Stripe with organizations, some of
// which differ between the two, for a first look, for tests and for benchmarks.
//
// Invariants:
//   - The same [Options] give the same rows, objects and ids. Organization i depends only on the seed, i and its
//     kind, so that [Expect] can compute the expected result.
//   - Expectations are those of strategy retrieve. A sweep cannot distinguish a missing customer from one without
//     subscriptions, and reports no_subscription for both.
//   - No organization ends in error, and after one repair everything is in sync.
//   - Memory is limited to a chunk of organizations, except in the fake Stripe.
//   - Times are near [Options.Now], in whole seconds; no row uses the database's clock.
//
// Kinds of drift. Each is a webhook that the application missed; (-) marks those whose repair lowers access. They are
// at most 5 in 20 of any number of drifted organizations.
//
//	missed_upgrade          tier lower in the record
//	payment_recovered       record past_due, Stripe active
//	renewal_missed          record a billing period behind
//	missed_downgrade        (-) tier higher in the record
//	cancel_at_period_end    record without the cancellation at the period's end
//	trial_ended             record trialing, Stripe active
//	trial_extended          trial made longer in the Stripe dashboard
//	payment_failed          record active, Stripe past_due
//	canceled_in_stripe      (-) record active, Stripe canceled
//	replaced                record names the canceled subscription, the customer has a new one
//	row_missing             checkout missed: the organization has its customer id and no row
//	org_customer_missing    the row names the customer, the organization does not
//	unpaid                  (-) record active, Stripe unpaid
//	abandoned_checkout      record names an incomplete subscription, the customer has an active one
//	interval_changed        monthly to yearly within the tier
//	organization_stale      the row is right, the organizations table is not
//	paused                  (-) record active, Stripe paused
//	checkout_expired        record incomplete, Stripe incomplete_expired
//	resumed                 record canceled, Stripe active
//	subscription_missing    (-) Stripe does not know the recorded subscription
//
// Edge cases without drift. There is one set of them from [EdgeCasesFrom] organizations on, then one for each thousand
// organizations:
//
//	no_stripe_identity          a row without any id of Stripe
//	customer_deleted            the customer was deleted in Stripe
//	customer_missing            Stripe never had the customer
//	paid_without_subscription   warning: a paid tier, and a customer without a subscription
//	shared_customer             two organizations, one customer, a subscription for each
//	two_live                    warning: the customer pays for two subscriptions
//	two_rows                    warning: two subscriptions rows, the older of a canceled subscription
//	tier_mismatch               warning: price and metadata name different tiers
//	deleted                     never listed: soft-deleted, though its row differs from Stripe
//	no_trace                    never listed, and an orphan: a live subscription that leads to no organization
//
// Every drift except subscription_missing, and one in ten organizations in sync, has a Stripe event of the last day,
// so that a catch-up finds it. About half of the missed webhooks are pending at an endpoint; those of
// organization_stale and org_customer_missing were delivered, and the application applied half of them.
//
// All others are in sync: of ten, three customers without_subscription, two canceled, five live (active, some
// trialing, some past_due).
//
// Decisions: both subscriptions of two_live are past_due, because a reader that finds the recorded one active does not
// look for others, and no warning is expected then. The share of drift is reduced if it leaves no room for the edge
// cases. If there are enough organizations, each kind of drift occurs at least once, even if the share is lower.
package demo
