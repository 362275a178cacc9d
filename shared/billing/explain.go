package billing

import (
	"fmt"
	"slices"
)

// Choice explains which subscription governs an organization. [Rules.Plan] decides with the same functions.
type Choice struct {
	GoverningID string // "" if none governs
	Why         string // one line
	Considered  []Considered
}

// Considered is one of the subscriptions that were read.
type Considered struct {
	Subscription Subscription
	Candidate    bool
	Why          string // why it is a candidate, or why not
}

// Explain returns the governing subscription and the reason. The candidates come first, in their precedence.
func Explain(t Truth, rec Record) Choice {
	var c Choice
	if rec.Org.Deleted {
		c.Why = "the organization is deleted: nothing of it is compared"
		return c
	}
	found := candidates(t, rec)
	slices.SortStableFunc(found, comparePrecedence)
	for _, s := range found {
		c.Considered = append(c.Considered, Considered{s, true, whyCandidate(s, t.Claims, rec)})
	}
	c.Considered = append(c.Considered, refused(t, rec)...)
	if len(found) == 0 {
		c.Why = whyNone(t, rec)
		return c
	}
	sub, err := governing(found, rec)
	if err != nil {
		c.Why = err.Error()
		return c
	}
	c.GoverningID, c.Why = sub.ID, whyGoverns(*sub, found, rec)
	return c
}

func whyCandidate(s Subscription, c Claims, rec Record) string {
	switch {
	case rec.Records(s.ID):
		return "a subscriptions row records it"
	case c.Names(s, rec.Org.ID):
		return "its metadata.orgId names this organization"
	default:
		return "it is of customer " + s.CustomerID
	}
}

// refused returns the subscriptions that are no candidates, by id and each once.
func refused(t Truth, rec Record) []Considered {
	var all []Considered
	for _, s := range t.Subscriptions {
		if t.isCandidate(&s, rec) {
			continue
		}
		all = append(all, Considered{s, false, t.whyRefused(s, rec)})
	}
	slices.SortStableFunc(all, func(a, b Considered) int { return compareIDs(a.Subscription, b.Subscription) })
	return slices.CompactFunc(all, func(a, b Considered) bool { return a.Subscription.ID == b.Subscription.ID })
}

func (t Truth) whyRefused(s Subscription, rec Record) string {
	switch owner := t.Claims.otherOwner(s, rec.Org.ID); {
	case owner != "":
		return "the row of another organization records it: " + owner
	case t.Claims.namesOther(s, rec.Org.ID):
		return "its metadata.orgId names organization " + t.Claims.Named[s.NamedID()]
	case t.isUnrelated(s, rec):
		return fmt.Sprintf("its metadata.orgId is %q, which is not this organization's id, and its customer is not this organization's either", s.OrgID)
	default:
		return fmt.Sprintf("it is %s, and organization %s is known under its customer too: it is left to neither", s.Status, t.Claims.sharedWith(&s, rec))
	}
}

func whyNone(t Truth, rec Record) string {
	_, others := allOfOthers(t, rec)
	switch {
	case others:
		return "every subscription there is belongs to another organization"
	case len(t.Subscriptions) > 0:
		return "no subscription is certain to be this organization's, and those in doubt grant nothing"
	case len(t.OtherMode) > 0:
		return "recorded ids exist in Stripe's other mode only, and there is no other subscription"
	case len(rec.RecordedIDs()) > 0:
		return "Stripe does not know the recorded subscription, and there is no other"
	case !rec.HasStripeIdentity():
		return "the record names neither a subscription nor a customer"
	case t.CustomerMissing:
		return "the customer does not exist in Stripe, or was deleted there"
	default:
		return "the customer has no subscription"
	}
}

func whyGoverns(s Subscription, found []Subscription, rec Record) string {
	preferred := preferredStatus(found, rec)
	found = slices.DeleteFunc(slices.Clone(found), func(other Subscription) bool { return !other.competes(preferred, rec) })
	if preferred != "" && len(found) == 1 {
		return fmt.Sprintf("it is recorded and %s: nothing competes with that", s.Status)
	}
	if len(found) == 1 {
		return "it is the only candidate"
	}
	next := found[slices.IndexFunc(found, func(other Subscription) bool { return other.ID != s.ID })]
	switch {
	case precedence[s.Status] != precedence[next.Status]:
		return fmt.Sprintf("of %d candidates, %s comes before %s", len(found), s.Status, next.Status)
	case !s.Created.Equal(next.Created):
		return fmt.Sprintf("of %d candidates, those that are %s come first, and it is the newest of them", len(found), s.Status)
	default:
		return fmt.Sprintf("of %d candidates, those that are %s come first; of those created last it has the lowest id", len(found), s.Status)
	}
}
