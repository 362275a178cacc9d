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

// acceptOptions are the command's flags.
type acceptOptions struct {
	why, until   string
	list, remove bool
}

// accepted is the JSON that accept prints.
type accepted struct {
	Accepted []acceptance `json:"accepted"`
	Removed  int          `json:"removed"`
}

type acceptance struct {
	billing.Acceptance

	Name  string `json:"name"`  // the organization's; "" if it is unknown
	Holds bool   `json:"holds"` // false: it has expired
}

func (c *command) accept(ctx context.Context) *cobra.Command {
	var o acceptOptions
	cmd := &cobra.Command{
		Use:   "accept ORGANIZATION [CODE] --reason TEXT [--until DATE]",
		Short: "Accept a known error or warning about an organization",
		Long: `Records that an error or a warning about an organization is known, for example
paid_without_subscription of a complimentary account. Later runs count it separately and
list it in the report. It raises no alarm, its message leaves the dead-letter queue, and a
run without other errors ends completed. A later run still repairs what it can.

CODE is a reason or a warning (reconcile help reasons lists them). Without CODE, everything
that the last run reported about the organization is accepted. Temporary errors and what a
guard withheld cannot be accepted. On the day of --until it counts again. Who accepted what,
when and why is recorded.`,
		Example: `  reconcile accept cus_NffrFeUfNV2Hib paid_without_subscription \
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
	f.StringVar(&o.why, "reason", "", "why it is accepted, as `TEXT` that reports show")
	f.StringVar(&o.until, "until", "", "the `DATE` on which it counts again (2027-01-31, or a time such as 2027-01-31T12:00:00Z)")
	f.BoolVar(&o.list, "list", false, "list what is accepted")
	f.BoolVar(&o.remove, "remove", false, "no longer accept the code, or everything about the organization")
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
		return cli.Usage("give --list or --remove, not both")
	case o.list && (len(args) > 0 || o.why != "" || o.until != ""):
		return cli.Usage("--list takes no organization and no other flag")
	case o.list:
		return nil
	case len(args) > 2:
		return cli.Usage("give an organization and at most one code, not %d arguments; a name of several words needs quotes", len(args))
	case len(args) == 0:
		return cli.Usage("give an organization, or --list")
	case o.remove && (o.why != "" || o.until != ""):
		return cli.Usage("--remove takes no --reason and no --until")
	case !o.remove && strings.TrimSpace(o.why) == "":
		return cli.Usage("give --reason TEXT: the report shows why it is accepted")
	case second(args) != "" && !billing.Acceptable(second(args)):
		return cli.Usage("%q cannot be accepted; these can: %s", second(args), strings.Join(billing.AcceptableCodes(), ", "))
	default:
		return nil
	}
}

// endOf parses --until; nil if it is not given.
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

// codesToAccept returns the code, or if it is empty the codes that the last run reported about the organization.
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
	codes := item.AcceptableCodes()
	if !found || len(codes) == 0 {
		return nil, &cli.Error{
			Exit: cli.ExitFailed, Code: "nothing_to_accept", Err: errors.New("the last run reported nothing about organization " + orgID + " that can be accepted"),
			Hint: "give the code: " + strings.Join(billing.AcceptableCodes(), ", "),
		}
	}
	return codes, nil
}

func (c *command) removeAccepted(ctx context.Context, text, code string) error {
	orgID, err := c.organization(ctx, text)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		n, err := store.DeleteAccepted(ctx, orgID, code)
		if err != nil {
			return err
		}
		if n == 0 {
			return &cli.Error{
				Exit: cli.ExitFailed, Code: "nothing_accepted", Err: errors.New("organization " + orgID + " has no such acceptance"),
				Hint: "reconcile accept --list shows what is accepted",
			}
		}
		if c.json {
			return json.NewEncoder(c.out).Encode(accepted{Accepted: []acceptance{}, Removed: n})
		}
		return say(c.out, "removed: %d; the next run counts it again", n)
	})
}

func (c *command) listAccepted(ctx context.Context) error {
	return c.withDatabase(ctx, func(store *mysqlstore.Store, _ config.Config) error {
		all, err := store.Accepted(ctx)
		if err != nil {
			return err
		}
		if len(all) == 0 && !c.json {
			return say(c.errs, "nothing is accepted; reconcile accept ORGANIZATION [CODE] --reason TEXT accepts something")
		}
		return c.showAccepted(ctx, store, all, time.Now().UTC())
	})
}

// showAccepted writes each acceptance with what its code means. Organizations without a readable name have their id only.
func (c *command) showAccepted(ctx context.Context, store *mysqlstore.Store, all []billing.Acceptance, now time.Time) error {
	names := namesOf(ctx, store, all)
	response := accepted{Accepted: []acceptance{}}
	for _, a := range all {
		response.Accepted = append(response.Accepted, acceptance{a, names[a.OrgID], a.InForce(now)})
	}
	if c.json {
		return json.NewEncoder(c.out).Encode(response)
	}
	p := output.NewPage(c.out)
	for _, a := range response.Accepted {
		p.Line(0, "%s  %s", telemetry.OneLine(a.OrgID), telemetry.OneLine(a.Name))
		p.Line(2, "%s", output.Accepted(a.Acceptance))
		p.Line(2, "%s", adviceOn(a.Code).Means)
		if !a.Holds {
			p.Line(2, "expired: it counts again")
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
	if err != nil { // the login may not read names
		return nil
	}
	return names
}
