// Package find resolves a Stripe customer, a subscription or a name to an organization's id.
package find

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	// atMost is the number of organizations that are listed if a name is ambiguous.
	atMost = 5
	// patience is how long a search may take.
	patience = 5 * time.Second
)

// Organization returns the id of the organization that the text names: its id, its Stripe customer or subscription, or
// its whole name. It says what it found, unless that was the id. A text that the database does not know is returned as
// it is, and so is one that may be an id where the look-up fails: the enumerator refuses an unknown id.
func Organization(ctx context.Context, store *mysqlstore.Store, progress *output.Progress, text string) (string, error) {
	looking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := store.FindOrganizations(looking, text, atMost)
	switch {
	case err != nil && ctx.Err() == nil && IsID(text):
		return text, nil
	case err != nil:
		return "", err
	case len(found.Organizations) > 1:
		return "", &cli.Error{
			Exit: cli.ExitFailed, Code: "ambiguous_organization", Err: errors.New("several organizations have the " + found.By + " " + telemetry.OneLine(text)),
			Hint: "give the id of one of them:" + listed(found.Organizations),
		}
	case len(found.Organizations) == 0 && isStripeID(text):
		return "", &cli.Error{
			Exit: cli.ExitFailed, Code: string(billing.ReasonUnknownOrganization), Err: errors.New("no organization in the database has " + text),
			Hint: "look in Stripe's dashboard whether metadata.orgId names one",
		}
	case len(found.Organizations) == 0:
		return text, nil
	}
	o := found.Organizations[0]
	switch found.By {
	case mysqlstore.ByID:
	case mysqlstore.ByName:
		progress.Note("%s is organization %s", telemetry.OneLine(o.Name), telemetry.OneLine(o.ID))
	default:
		progress.Note("%s %s is organization %s  %s", found.By, telemetry.OneLine(text), telemetry.OneLine(o.ID), telemetry.OneLine(o.Name))
	}
	return o.ID, nil
}

// Similar adds to the error of an unknown organization those whose id or name is like the text, or why none can be looked
// up: the login may not be allowed to read names.
func Similar(ctx context.Context, store *mysqlstore.Store, text string, unknown error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	similar, err := store.SimilarOrganizations(ctx, text, atMost)
	hint := "no id begins like it and no name contains it"
	switch {
	case err != nil:
		hint = "give its id; names cannot be looked up: " + telemetry.OneLine(err.Error())
	case len(similar) > 0:
		hint = "did you mean one of these?" + listed(similar)
	}
	return &cli.Error{Exit: cli.ExitFailed, Code: string(billing.ReasonUnknownOrganization), Err: errors.New(telemetry.OneLine(unknown.Error())), Hint: hint}
}

// IsID reports whether the text may be an organization's id: those have no blanks and do not begin as Stripe's do.
func IsID(text string) bool { return !isStripeID(text) && !strings.ContainsRune(text, ' ') }

func isStripeID(text string) bool {
	return strings.HasPrefix(text, "cus_") || strings.HasPrefix(text, "sub_")
}

// listed has one organization a line.
func listed(all []mysqlstore.NamedOrganization) string {
	var b strings.Builder
	for _, o := range all {
		b.WriteString("\n    " + telemetry.OneLine(telemetry.Clean(o.ID+"  "+o.Name)))
	}
	return b.String()
}
