package main

import (
	"context"
	"errors"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/find"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// organization returns the id of the organization that the text names. Without a database that answers, only an id
// will do, and the enumerator refuses one that it does not know.
func (c *command) organization(ctx context.Context, text string) (id string, err error) {
	if !c.hasDatabase() {
		if !find.IsID(text) {
			return "", cli.Usage("%s is no organization's id; to find the organization, set DB_HOST and the other database settings of .env.example", text)
		}
		return text, nil
	}
	err = c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) (err error) {
		id, err = find.Organization(ctx, store, output.NewProgress(c.errs), text)
		return err
	})
	_, explained := errors.AsType[*cli.Error](err)
	_, misconfigured := errors.AsType[*config.Error](err)
	if err != nil && !explained && !misconfigured && find.IsID(text) { // the database could not be opened
		return text, nil
	}
	return id, err
}

// withSimilar adds to the error of an unknown organization those that may have been meant, if the database answers.
func (c *command) withSimilar(ctx context.Context, id string, err error) error {
	if err == nil || !c.hasDatabase() || reasonOf(err) != string(billing.ReasonUnknownOrganization) {
		return err
	}
	similar := c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error { return find.Similar(ctx, store, id, err) })
	if _, found := errors.AsType[*cli.Error](similar); found {
		return similar
	}
	return err
}

func reasonOf(err error) string {
	if e, ok := errors.AsType[*cli.Error](err); ok {
		return e.Code
	}
	return string(billing.AsFailure(err).Reason)
}
