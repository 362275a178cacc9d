package cli

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// StrategyFlags are the flags that say how a run reads Stripe.
type StrategyFlags struct {
	Strategy string
	Since    SinceFlag // where a catch-up begins
}

// Bind adds the flags.
func (r *StrategyFlags) Bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.Strategy, "strategy", "", "how to read Stripe, as `S`: sweep (list all subscriptions first, the default), retrieve (ask for each organization) or events (a catch-up: only the organizations that recent events name)")
	f.Var(&r.Since, "since", "with --strategy events: begin at this `TIME` or so long ago (2h, 3d) instead of where the last catch-up ended")
	if err := cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions(strategies(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

func strategies() []string {
	var names []string
	for _, s := range billing.Strategies() {
		names = append(names, string(s))
	}
	return names
}

// Check refuses flags that contradict each other, the given organization or the given run to resume.
func (r *StrategyFlags) Check(orgID, resume string) error {
	catchUp := r.Strategy == string(billing.StrategyEvents)
	switch {
	case r.Strategy != "" && !slices.Contains(strategies(), r.Strategy):
		return Usage("--strategy %q is unknown; there are %s", r.Strategy, strings.Join(strategies(), ", "))
	case catchUp && orgID != "":
		return Usage("--strategy events is over the organizations that Stripe's events name; leave it out for one organization")
	case r.Since.At.IsZero():
		return nil
	case !catchUp:
		return Usage("--since is the start of a catch-up; add --strategy events")
	case time.Since(r.Since.At) > longestSince && resume == "":
		return Usage("--since is too long ago: Stripe keeps events for 30 days; %.0fh is the most, or start a run over all organizations, without --strategy events", longestSince.Hours())
	case resume != "":
		return Usage("a resumed run keeps its --since; leave out --since")
	default:
		return nil
	}
}

// longestSince is how far back a catch-up may begin. An hour is left for the enumerator to read the oldest events
// before Stripe deletes them.
const longestSince = billing.EventRetention - time.Hour

// BindView adds the flags that choose what is listed of a run.
func BindView(cmd *cobra.Command, v *output.View) {
	cmd.Flags().BoolVar(&v.OnlyErrors, "errors", false, "of the organizations, list only those in error")
	cmd.Flags().BoolVar(&v.OnlyFigures, "summary", false, "list no organization: only the figures and what to do")
}

// CheckView refuses flags that contradict each other.
func CheckView(v output.View) error {
	if v.OnlyErrors && v.OnlyFigures {
		return Usage("--errors lists organizations and --summary lists none: give one of them")
	}
	return nil
}

// SinceFlag is the value of a flag that takes a time, or a duration before now.
type SinceFlag struct {
	At time.Time // zero if the flag was not given

	text string
}

// Set reads the value.
func (s *SinceFlag) Set(text string) error {
	at, err := parseTime(text, time.Now())
	if err != nil {
		return err
	}
	s.At, s.text = at, text
	return nil
}

// String returns the flag's text.
func (s *SinceFlag) String() string { return s.text }

// Type names the kind of value in the help.
func (s *SinceFlag) Type() string { return "TIME" }

// timeError says why a value is not a time.
type timeError string

func (e timeError) Error() string { return string(e) }

// parseTime parses a time, or a duration before now, in which d is a day.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, ok := parseDuration(text); ok {
		return now.Add(-ago).UTC().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			if at.After(now) {
				return time.Time{}, timeError(text + " is in the future")
			}
			return at.UTC(), nil
		}
	}
	return time.Time{}, timeError(strconv.Quote(text) + " is neither a duration, such as 2h or 3d, nor a time, such as 2026-11-22T03:00:00Z or 2026-11-22")
}

func parseDuration(text string) (time.Duration, bool) {
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > 0
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}
