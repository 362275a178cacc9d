package report

import (
	"regexp"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

var (
	subscriptionID = regexp.MustCompile(`^sub_[A-Za-z0-9_]+$`)
	customerID     = regexp.MustCompile(`^cus_[A-Za-z0-9_]+$`)
)

// dashboard returns the address of Stripe's dashboard, or "" if the mode is unknown.
func dashboard(mode config.Mode) string {
	switch mode {
	case config.ModeLive:
		return "https://dashboard.stripe.com/"
	case config.ModeTest:
		return "https://dashboard.stripe.com/test/"
	default:
		return ""
	}
}

// stripeLink is an id and, where it looks like one, the address at which the dashboard shows it.
type stripeLink struct {
	ID  string `json:"id"`
	URL string `json:"url,omitempty"`
}

func linkSubscription(mode config.Mode, id string) stripeLink {
	return link(mode, "subscriptions/", subscriptionID, id)
}

func linkCustomer(mode config.Mode, id string) stripeLink {
	return link(mode, "customers/", customerID, id)
}

func link(mode config.Mode, path string, form *regexp.Regexp, id string) stripeLink {
	l := stripeLink{ID: clean(id)}
	if base := dashboard(mode); base != "" && form.MatchString(id) {
		l.URL = base + path + id
	}
	return l
}
