// Package billing is the domain of subscription reconciliation: what Stripe holds for an
// organization (Truth), what the application's database holds (Record), and the one function
// that compares them, [Rules.Plan].
//
// Invariants:
//
//   - Pure: standard library only, no clock, no SDK, no SQL. The same truth, record and rules
//     always give the same plan, and an organization's plan depends on nothing else.
//   - Stripe wins. A plan only ever moves the record towards the truth; applying it makes the
//     next plan of the same truth empty.
//   - One table, [Columns], lists the compared columns: a column's name and kind, its place in a record,
//     and the value that follows from a subscription and its tier. Plans, explanations, reports, and the
//     columns that are read, checked, compared under the lock and written all follow from it. A value
//     has one type everywhere: see [Change].
//   - A subscription that is active, trialing or past_due yields the lowest tier only if its price or
//     product is listed for that tier. A subscription that has ended or is paused yields only the lowest tier.
//   - Uncertain evidence (DEFAULT_TIER, metadata.tier although lists are configured, a listed item beside an
//     unlisted one) never lowers a tier.
//   - A case that cannot be decided safely (a status or price that is not configured, a date that MySQL
//     cannot hold, a subscription that belongs to another organization) is a [Failure], never a guess.
//
// Decisions where Stripe's documentation leaves room:
//
//   - metadata.tier counts after trimming, in any case, and only if it names a tier above the lowest: the
//     lowest tier on a paid subscription is a mistake, not an instruction.
//   - A listed price decides before its product: one price of a product may belong to another tier.
//   - The highest tier of several items counts, in any order: Stripe does not say which item is the plan.
//     An unlisted usage-based item is ignored.
//   - An active subscription governs before a recorded one on trial: a customer who pays for more gets it.
//   - A deleted organization keeps the subscription that its row records: it is not given to another
//     organization of the customer. If another organization's row records it too, the deleted organization's row
//     does not count.
//   - The rows of two organizations may record the same subscription, if the table has no unique key. Then it
//     belongs to the organization that metadata.orgId names. For every other organization it is a conflict, and it
//     lowers the access of none of them until a person decides.
//   - A recorded id of Stripe's other mode counts as missing if another recorded id is of the key's mode and a
//     subscription is found. Otherwise the organization is not changed.
//   - A subscription whose metadata.orgId names the organization is its candidate however it was
//     found, so the strategies sweep and retrieve lead to the same plan.
//   - metadata.orgId names the organization with exactly this id. If there is none, it names the one with
//     this id in lower case or in upper case, because people type it by hand. Two ids that differ only in
//     case are two organizations if the database distinguishes them. An id that is only similar makes a
//     worker read the organization, and gives the organization nothing.
//   - A subscription that no row records and no metadata explains may be under a customer that two
//     organizations have. It could belong to either. If it grants a tier, neither gets it until its
//     metadata.orgId names one: otherwise the first to be reconciled would get it, and the other, perhaps
//     the one that pays, would lose access. If it grants nothing, this does not matter.
//   - If an organization has several subscriptions rows, the subscription of each row is a recorded one.
//     So no organization loses access because the wrong row was read.
//   - If rows and organization name different customers, or a recorded subscription belongs to
//     a third one, the subscriptions of all of them are candidates.
//   - An organization on a paid tier that has nothing in Stripe is not changed (it may be
//     complimentary), but always carries the warning paid_without_subscription.
package billing
