// Package demo fills an application's database and a fake Stripe with organizations, some of
// which differ between the two, for a first look, for tests and for benchmarks.
//
// Invariants:
//   - The same [Options] give the same rows and the same objects, to the last id. Organization i
//     depends on the seed, i and the kind that its place gives it, so [Expect] can tell what a
//     run must find there without anything being kept.
//   - What is expected is what retrieving finds. A sweep tells no customer that is missing from
//     one without subscriptions, and so says no_subscription for both.
//   - No organization ends in error, and after one repair everything is in sync.
//   - Nothing is held beyond a chunk of organizations, except by the fake Stripe.
//   - Times lie around [Options.Now], in whole seconds; no row takes the database's clock.
//
// Kinds of drift. Each is a webhook that the application missed; (-) marks those whose repair
// lowers access. Any number of drifted organizations has at most 5 in 20 of them.
//
//	missed_upgrade          tier lower in the record
//	payment_recovered       record past_due, Stripe active
//	renewal_missed          record a billing period behind
//	missed_downgrade        (-) tier higher in the record
//	cancel_at_period_end    cancellation at the period's end not noted
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
// Situations that are no drift, present from [EdgeCasesFrom] organizations on, every thousand
// organizations once:
//
//	no_stripe_identity          a row without any id of Stripe
//	customer_deleted            the customer was deleted in Stripe
//	customer_missing            Stripe never had the customer
//	paid_without_subscription   warning: a paid tier, and a customer without a subscription
//	shared_customer             two organizations, one customer, a subscription for each
//	two_live                    warning: the customer pays for two subscriptions
//	two_rows                    warning: two subscriptions rows, the older one of a canceled one
//	tier_mismatch               warning: price and metadata name different tiers
//	deleted                     never listed: soft-deleted, though its row differs from Stripe
//	no_trace                    never listed, and an orphan: a live subscription that leads to no organization
//
// Every drift but subscription_missing, and one in ten of those that are in sync, has left an event of the last
// day in Stripe's log, so that a catch-up finds it. Of the webhooks that were missed about half are pending at
// an endpoint; those of organization_stale and org_customer_missing were taken and half handled.
//
// All others are in sync: of ten, three customers without_subscription, two canceled, five live
// (active, some trialing, some past_due).
//
// Decisions: the two subscriptions of two_live are both past_due, because a reader that finds
// the recorded one active need not look for others, and then no warning is due. A share of drift
// that leaves no room for the situations is cut. Where there are enough organizations, each kind
// of drift is there at least once, even if the share is lower than that.
package demo
