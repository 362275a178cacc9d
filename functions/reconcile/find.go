package main

import (
	"context"
	"errors"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// organization returns the id of the organization that the text means: its id, or what else people have
// at hand, its Stripe customer or subscription, or its name. What was found is said. A text that
// nothing in the database fits is taken for an id, of which the enumerator knows whether there is one.
func (c *command) organization(ctx context.Context, text string) (string, error) {
	if !c.hasDatabase() {
		if isNoID(text) {
			return "", cli.Usage("%s is no organization's id; to find the organization, set DB_HOST and what else .env.example names for the database", text)
		}
		return text, nil
	}
	settings, err := config.Load(c.environ, config.NeedDatabase)
	if err != nil {
		return "", err
	}
	looking, cancel := context.WithTimeout(ctx, nearestTime)
	defer cancel()
	var found mysqlstore.Found
	err = onStore(looking, settings, func(store *mysqlstore.Store) (err error) {
		found, err = store.FindOrganizations(looking, text, nearest)
		return err
	})
	switch {
	case err != nil && isNoID(text):
		return "", err
	case err != nil:
		return text, nil // whoever needs the database says what is wrong with it
	case len(found.Organizations) > 1:
		return "", &cli.Error{
			Exit: cli.ExitUsage, Code: "ambiguous_organization", Err: errors.New("several organizations have the " + found.By + " " + telemetry.OneLine(text)),
			Hint: "say which one, by its id:" + named(found.Organizations),
		}
	case len(found.Organizations) == 0 && isStripeID(text):
		return "", &cli.Error{
			Exit: cli.ExitFailed, Code: string(billing.ReasonUnknownOrganization), Err: errors.New("no organization is known under " + text + " in the database"),
			Hint: "Stripe's metadata.orgId may name one: look at it in the dashboard",
		}
	case len(found.Organizations) == 0:
		return text, nil
	}
	if o := found.Organizations[0]; found.By == mysqlstore.ByName {
		output.NewProgress(c.errs).Note("%s is organization %s", telemetry.OneLine(o.Name), telemetry.OneLine(o.ID))
	} else if found.By != mysqlstore.ByID {
		output.NewProgress(c.errs).Note("%s %s is organization %s  %s", found.By, telemetry.OneLine(text), telemetry.OneLine(o.ID), telemetry.OneLine(o.Name))
	}
	return found.Organizations[0].ID, nil
}

// isNoID: ids have no blanks, and do not begin as Stripe's do.
func isNoID(text string) bool { return isStripeID(text) || strings.ContainsRune(text, ' ') }

func isStripeID(text string) bool {
	return strings.HasPrefix(text, "cus_") || strings.HasPrefix(text, "sub_")
}
