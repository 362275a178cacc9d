package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

func (c *command) migrate(ctx context.Context) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Create or upgrade this system's own tables",
		Long: `Creates or upgrades the tables reconciliation_* in the database DB_NAME. The application's
tables are not touched, and running it again does nothing. Each function migrates when it
starts; run this command if the functions' database user may not create tables.`,
		Example:           `  DB_USER=admin DB_PASSWORD=... reconcile migrate`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			return c.withDatabase(ctx, func(store *mysqlstore.Store, settings config.Config) error {
				steps, err := store.Migrate(ctx)
				if err != nil {
					return err
				}
				return c.showMigration(settings.Database.Name, steps)
			})
		},
	}
}

func (c *command) showMigration(database string, steps int) error {
	switch {
	case c.json:
		return json.NewEncoder(c.out).Encode(map[string]any{"database": database, "steps": steps})
	case steps == 0:
		return say(c.out, "this system's own tables in %s are up to date", database)
	default:
		return say(c.out, "created or upgraded this system's own tables in %s, steps taken: %d", database, steps)
	}
}
