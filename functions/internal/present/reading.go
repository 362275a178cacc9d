package present

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Reading is how a run reads Stripe, as the flags say.
type Reading struct {
	Strategy string
	Since    Since // where a catch-up begins
}

// Bind adds the flags.
func (r *Reading) Bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.Strategy, "strategy", "", "how to read Stripe, as `S`: sweep (list everything first, the default), retrieve (ask for each organization) or events (only whom the latest events name: a catch-up)")
	f.Var(&r.Since, "since", "with --strategy events: begin at this `TIME` or so long ago (2h, 3d) and not where the last catch-up ended")
	if err := cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions(strategies(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not the one above
	}
}

func strategies() []string {
	var names []string
	for _, s := range billing.Strategies() {
		names = append(names, string(s))
	}
	return names
}

// Check refuses what no run could be started with. The organization is the only one of the run, and the run
// one to go on with; "" is none.
func (r *Reading) Check(orgID, resume string) error {
	catchUp := r.Strategy == string(billing.StrategyEvents)
	switch {
	case r.Strategy != "" && !slices.Contains(strategies(), r.Strategy):
		return Usage("--strategy %q is unknown; there are %s", r.Strategy, strings.Join(strategies(), ", "))
	case catchUp && orgID != "":
		return Usage("--strategy events is over those whom Stripe's events name; for one organization leave it out")
	case r.Since.At.IsZero():
		return nil
	case !catchUp:
		return Usage("--since says where a catch-up begins; add --strategy events")
	case resume != "":
		return Usage("--resume goes on with a run as it was started; leave out --since")
	default:
		return nil
	}
}

// Since is a flag's value: when something begins, as so long before now or as a time.
type Since struct {
	At time.Time // zero: nothing was given

	text string
}

// Set reads the value.
func (s *Since) Set(text string) error {
	at, err := moment(text, time.Now())
	if err != nil {
		return err
	}
	s.At, s.text = at, text
	return nil
}

// String is what was given.
func (s *Since) String() string { return s.text }

// Type is what the help calls it.
func (s *Since) Type() string { return "TIME" }

// noMoment says why a value is none.
type noMoment string

func (e noMoment) Error() string { return string(e) }

// moment reads a duration, in which d is a day, or a time.
func moment(text string, now time.Time) (time.Time, error) {
	if ago, ok := duration(text); ok {
		return now.Add(-ago).UTC().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			if at.After(now) {
				return time.Time{}, noMoment(text + " is still to come")
			}
			return at.UTC(), nil
		}
	}
	return time.Time{}, noMoment(strconv.Quote(text) + " is neither so long ago, such as 2h or 3d, nor a time, such as 2026-11-22T03:00:00Z or 2026-11-22")
}

func duration(text string) (time.Duration, bool) {
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > 0
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}
