package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// acceptOptions are the command line's.
type acceptOptions struct {
	why, until   string
	list, remove bool
}

// accepted is what accept answers machines.
type accepted struct {
	Accepted []acceptance `json:"accepted"`
	Removed  int          `json:"removed"`
}

type acceptance struct {
	billing.Acceptance

	Name  string `json:"name"`  // the organization's, as far as it is known
	Holds bool   `json:"holds"` // false: its time has passed
}

func (c *command) accept(ctx context.Context) *cobra.Command {
	var o acceptOptions
	cmd := &cobra.Command{
		Use:   "accept ORGANIZATION [CODE] --reason TEXT [--until DATE]",
		Short: "Note that an error or a warning about an organization is known",
		Long: `Notes that an error or a warning about an organization is known: a complimentary account
that has paid_without_subscription, say. Runs count it apart from then on and name it in
the report; it raises no alarm, its message does not wait in the dead-letter queue, and a
run with no other errors ends completed. It changes nothing that is written: what a later
run can repair, it repairs.

CODE is one reason or warning (reconcile help reasons lists them); without it, it is all
that the last run said about the organization. What passes by itself cannot be accepted.
On the day of --until it counts as before again. Who accepted what, when and why is kept.`,
		Example: `  reconcile accept 0a4f6c1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f paid_without_subscription \
      --reason "complimentary, agreed with sales" --until 2027-01-01
  reconcile accept "Acme GmbH" --reason "moves to a new contract"
  reconcile accept --list
  reconcile accept --remove 0a4f6c1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f`,
		Args:              cobra.ArbitraryArgs, // they are checked with the flags
		ValidArgsFunction: completeCodes,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return err
			}
			switch {
			case o.list:
				return c.listAccepted(ctx)
			case o.remove:
				return c.removeAccepted(ctx, strings.TrimSpace(args[0]), second(args))
			default:
				return c.noteAccepted(ctx, args, o)
			}
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.why, "reason", "", "why it is all right, as `TEXT` that reports show")
	f.StringVar(&o.until, "until", "", "the `DATE` on which it counts again (2027-01-31, or a time such as 2027-01-31T12:00:00Z)")
	f.BoolVar(&o.list, "list", false, "list what is accepted")
	f.BoolVar(&o.remove, "remove", false, "accept it no longer: the code, or all of the organization")
	return cmd
}

func completeCodes(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return billing.AcceptableCodes(), cobra.ShellCompDirectiveNoFileComp
}

func second(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return strings.TrimSpace(args[1])
}

func (o acceptOptions) check(args []string) error {
	switch {
	case o.list && o.remove:
		return cli.Usage("--list and --remove are two commands: give one of them")
	case o.list && (len(args) > 0 || o.why != "" || o.until != ""):
		return cli.Usage("--list lists all that is accepted: leave out the rest")
	case o.list:
		return nil
	case len(args) > 2:
		return cli.Usage("give an organization and at most one code, not %d arguments; a name of several words needs quotes", len(args))
	case len(args) == 0:
		return cli.Usage("name the organization, or say --list")
	case o.remove && (o.why != "" || o.until != ""):
		return cli.Usage("--remove needs no --reason and no --until")
	case !o.remove && strings.TrimSpace(o.why) == "":
		return cli.Usage("--reason must say why it is all right, for whoever reads the report")
	case second(args) != "" && !billing.Acceptable(second(args)):
		return cli.Usage("%q cannot be accepted; these can: %s", second(args), strings.Join(billing.AcceptableCodes(), ", "))
	default:
		return nil
	}
}

// endOf reads the time from which on it counts again; nil where none is given.
func endOf(until string, now time.Time) (*time.Time, error) {
	if until == "" {
		return nil, nil //nolint:nilnil // no end
	}
	at, err := time.Parse(time.DateOnly, until)
	if err != nil {
		at, err = time.Parse(time.RFC3339, until)
	}
	if err != nil {
		return nil, cli.Usage("--until %q is no date: write 2027-01-31, or a time such as 2027-01-31T12:00:00Z", until)
	}
	if !at.After(now) {
		return nil, cli.Usage("--until %s has passed already", until)
	}
	at = at.UTC()
	return &at, nil
}

func (c *command) noteAccepted(ctx context.Context, args []string, o acceptOptions) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	until, err := endOf(o.until, now)
	if err != nil {
		return err
	}
	orgID, err := c.organization(ctx, strings.TrimSpace(args[0]))
	if err != nil {
		return err
	}
	return c.withSimilar(ctx, orgID, c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		codes, err := codesToAccept(ctx, store, orgID, second(args))
		if err != nil {
			return err
		}
		var all []billing.Acceptance
		for _, code := range codes {
			all = append(all, billing.Acceptance{OrgID: orgID, Code: code, Why: strings.TrimSpace(o.why), By: cli.Operator(), At: now, Until: until})
		}
		if err := store.Accept(ctx, all); err != nil {
			return err
		}
		return c.showAccepted(ctx, store, all, now)
	}))
}

// codesToAccept is the code, or without one what the last run said about the organization.
func codesToAccept(ctx context.Context, store *mysqlstore.Store, orgID, code string) ([]string, error) {
	exists, err := store.OrganizationExists(ctx, orgID)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, &billing.Failure{
			Class: billing.Permanent, Reason: billing.ReasonUnknownOrganization, Message: "there is no organization " + orgID + ", or it is deleted; check the id",
		}
	}
	if code != "" {
		return []string{code}, nil
	}
	item, found, err := store.LatestItem(ctx, orgID)
	if err != nil {
		return nil, err
	}
	codes := item.Codes()
	if !found || len(codes) == 0 {
		return nil, &cli.Error{
			Exit: cli.ExitFailed, Code: "nothing_to_accept", Err: errors.New("the last run said nothing about organization " + orgID + " that can be accepted"),
			Hint: "name the code: " + strings.Join(billing.AcceptableCodes(), ", "),
		}
	}
	return codes, nil
}

func (c *command) removeAccepted(ctx context.Context, orgID, code string) error {
	return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		n, err := store.DeleteAccepted(ctx, orgID, code)
		if err != nil {
			return err
		}
		if n == 0 {
			return &cli.Error{
				Exit: cli.ExitFailed, Code: "nothing_accepted", Err: errors.New("nothing of that is accepted for organization " + orgID),
				Hint: "reconcile accept --list shows what is, with the ids",
			}
		}
		if c.json {
			return json.NewEncoder(c.out).Encode(accepted{Accepted: []acceptance{}, Removed: n})
		}
		return say(c.out, "removed: %d; from the next run on it counts again", n)
	})
}

func (c *command) listAccepted(ctx context.Context) error {
	return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		all, err := store.Accepted(ctx)
		if err != nil {
			return err
		}
		if len(all) == 0 && !c.json {
			return say(c.errs, "nothing is accepted; reconcile accept ORGANIZATION [CODE] --reason TEXT notes what is known")
		}
		return c.showAccepted(ctx, store, all, time.Now().UTC())
	})
}

// showAccepted writes each with what it means. Whose names cannot be read are shown by their id alone.
func (c *command) showAccepted(ctx context.Context, store *mysqlstore.Store, all []billing.Acceptance, now time.Time) error {
	names := namesOf(ctx, store, all)
	answer := accepted{Accepted: []acceptance{}}
	for _, a := range all {
		answer.Accepted = append(answer.Accepted, acceptance{a, names[a.OrgID], a.Holds(now)})
	}
	if c.json {
		return json.NewEncoder(c.out).Encode(answer)
	}
	p := output.NewPage(c.out)
	for _, a := range answer.Accepted {
		p.Line(0, "%s  %s", telemetry.OneLine(a.OrgID), telemetry.OneLine(a.Name))
		p.Line(2, "%s", output.Accepted(a.Acceptance))
		p.Line(2, "%s", adviceOn(a.Code).Means)
		if !a.Holds {
			p.Line(2, "its time has passed: it counts again")
		}
	}
	return p.Flush()
}

// adviceOn a reason or a warning.
func adviceOn(code string) billing.Advice { return billing.Reason(code).Advice() }

func namesOf(ctx context.Context, store *mysqlstore.Store, all []billing.Acceptance) map[string]string {
	ids := make([]string, 0, len(all))
	for _, a := range all {
		ids = append(ids, a.OrgID)
	}
	names, err := store.OrganizationNames(ctx, ids)
	if err != nil { // a login may read no names
		return nil
	}
	return names
}
