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
//   - What is compared stands in one table, [Columns]: a column's name and kind, where it is in a record,
//     and what a subscription and its tier make of it. Plans, what is read, checked, compared under the
//     lock and written, explanations and reports follow from it. A value has one type wherever it goes:
//     see [Change].
//   - A subscription that is active, trialing or past_due yields the lowest tier only where its price
//     or product is listed for it, one that has ended or is paused never another.
//   - What is not known never lowers a tier: see [Rules].
//   - What cannot be decided safely (a status or price nobody configured, a date MySQL cannot
//     hold, a subscription that belongs to somebody else) is a [Failure], never a guess.
//
// Decisions where Stripe's documentation leaves room:
//
//   - metadata.tier counts after trimming, whatever its case, and only when it names a tier above the
//     lowest: that on a subscription somebody pays for is a mistake, not an instruction.
//   - A price that is listed decides before its product: one price of a product may be another tier's.
//   - Of several items the highest tier counts, whatever their order: Stripe does not say which is the plan.
//     One that is paid by use is none.
//   - A recorded subscription on trial gives way to any that is active: who pays for more gets it.
//   - A deleted organization keeps the subscription that its row records: it is not given to another
//     organization of the customer. Against an organization whose own row records it too, the deleted one's row
//     does not count.
//   - A subscription that the rows of two organizations record, which a table without a unique key allows, is
//     its whom metadata.orgId names; for any other of them it is a conflict, and neither's access is lowered by it
//     until a person decides.
//   - A recorded id of Stripe's other mode counts as missing where another recorded id is of the key's and a
//     subscription is found; else the organization is left alone.
//   - A subscription whose metadata.orgId names the organization is its candidate however it was
//     found, so that reading one by one and reading the sweep come to the same plan.
//   - metadata.orgId names the organization whose id is spelled like that; if there is none, the one
//     with that id in small letters or in capitals, for it is typed by hand. Two organizations whose
//     ids differ in case only are two wherever the database tells them apart: what is only like an
//     organization's id leads a worker to look, and gives it nothing.
//   - A subscription that no row records and no metadata explains, under a customer that two
//     organizations are known by, could be either's. Where it grants something nobody gets it until
//     its metadata.orgId says whose it is: whoever came first would get it, and the other, perhaps
//     the one who pays, would be cut off. Where it grants nothing it does not matter.
//   - Where several subscriptions rows belong to an organization, the subscription of each of
//     them is a recorded one; nobody is cut off because the wrong row was looked at.
//   - Where rows and organization name different customers, or a recorded subscription belongs to
//     yet another, the subscriptions of all of them compete.
//   - An organization on a paid tier that Stripe knows nothing of is not changed (it may be
//     complimentary), but always carries the warning paid_without_subscription.
package billing
