package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// accepted runs accept with --json and returns its response.
func (h held) accepted(args ...string) accepted {
	h.Helper()
	var out, errs bytes.Buffer
	code := realMain(h.Context(), append(append([]string{"accept"}, args...), "--json"), h.environ, &out, &errs)
	var a accepted
	if err := json.Unmarshal(out.Bytes(), &a); err != nil || code != cli.ExitOK {
		h.Fatalf("%v: exit %d, %v: %s%s", args, code, err, &out, &errs)
	}
	return a
}

func TestAcceptedErrorIsCountedSeparatelyUntilItExpires(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-known", price("price_of_nothing"))
	h.Subscriber("org-drifted", price("price_max"))
	if first := h.run(cli.ExitNotOK, "start", "--watch").Result; first.Status != billing.RunCompletedWithErrors {
		t.Fatalf("%+v", first)
	}
	// Without a code, accept takes the error of the last run.
	a := h.accepted("Name of org-known", "--reason", "a contract of its own", "--until", time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	if len(a.Accepted) != 1 || a.Accepted[0].Code != "tier_unresolved" || a.Accepted[0].OrgID != "org-known" || a.Accepted[0].By != cli.Operator() || !a.Accepted[0].Holds {
		t.Fatalf("%+v", a)
	}
	h.run(cli.ExitOK, "redrive", "--watch") // takes the message out of the queue, and sums the run up again
	second := h.run(cli.ExitOK, "start", "--watch").Result
	if second.Status != billing.RunCompleted || second.Errors != 1 || second.AcceptedErrors != 1 || second.Accepted["tier_unresolved"] != 1 || second.TotalOrganizations != 2 {
		t.Errorf("%+v", second)
	}
	if again := h.run(cli.ExitOK, "redrive", "--watch"); again.Status != "empty" {
		t.Errorf("a known error waits in the dead-letter queue: %+v", again)
	}
	text := h.prints("status", second.RunID)
	for _, want := range []string{"accepted, counted apart", "a contract of its own", "by " + cli.Operator()} {
		if !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, billing.ReasonTierUnresolved.Advice().Do) {
		t.Errorf("it asks to mend what is known:\n%s", text)
	}
	if page := h.prints("report", second.RunID, "--html", "-"); !strings.Contains(page, "Known and accepted") || !strings.Contains(page, "a contract of its own") {
		t.Error("the page does not name it")
	}
	if list := h.prints("accept", "--list"); !strings.Contains(list, "org-known  Name of org-known") || !strings.Contains(list, billing.ReasonTierUnresolved.Advice().Means) {
		t.Errorf("%s", list)
	}

	h.Exec(`UPDATE reconciliation_accepted SET until_at = UTC_TIMESTAMP(6)`)
	if third := h.run(cli.ExitNotOK, "start", "--watch").Result; third.Status != billing.RunCompletedWithErrors || len(third.Accepted) != 0 {
		t.Errorf("its time has passed: %+v", third)
	}
	if list := h.accepted("--list"); len(list.Accepted) != 1 || list.Accepted[0].Holds {
		t.Errorf("%+v", list)
	}
	if removed := h.accepted("--remove", "Name of org-known"); removed.Removed != 1 {
		t.Errorf("%+v", removed)
	}
	// What can be repaired is repaired, accepted or not.
	h.accepted("org-known", "tier_unresolved", "--reason", "known")
	h.Sub("org-known", price("price_max"))
	h.run(cli.ExitOK, "start", "--watch")
	if tier := mysqltest.Value[string](t, h.DB, `SELECT subscription_tier FROM organizations WHERE id = 'org-known'`); tier != "max" {
		t.Errorf("the tier is %s", tier)
	}
}

func TestAcceptRefusesInvalidRequests(t *testing.T) {
	h := hold(t)
	h.Subscriber("org-1")
	for name, c := range map[string]struct {
		args []string
		exit int
		code string
		says string
	}{
		"nothing":                 {nil, cli.ExitUsage, "usage", "--list"},
		"no reason":               {[]string{"org-1", "other_mode"}, cli.ExitUsage, "usage", "--reason"},
		"what passes":             {[]string{"org-1", "stripe_unavailable", "--reason", "x"}, cli.ExitUsage, "usage", "paid_without_subscription"},
		"unknown code":            {[]string{"org-1", "x", "--reason", "x"}, cli.ExitUsage, "usage", `"x"`},
		"no date":                 {[]string{"org-1", "other_mode", "--reason", "x", "--until", "soon"}, cli.ExitUsage, "usage", "2027-01-31"},
		"a date that passed":      {[]string{"org-1", "other_mode", "--reason", "x", "--until", "2020-01-01"}, cli.ExitUsage, "usage", "passed"},
		"a name without quotes":   {[]string{"Name", "of", "org-1", "--reason", "x"}, cli.ExitUsage, "usage", "quotes"},
		"unknown organization":    {[]string{"org-2", "other_mode", "--reason", "x"}, cli.ExitFailed, "unknown_organization", "org-2"},
		"no run said anything":    {[]string{"org-1", "--reason", "x"}, cli.ExitFailed, "nothing_to_accept", "org-1"},
		"nothing to remove":       {[]string{"--remove", "org-1"}, cli.ExitFailed, "nothing_accepted", "org-1"},
		"list and remove":         {[]string{"--remove", "--list"}, cli.ExitUsage, "usage", "--list"},
		"list of an organization": {[]string{"--list", "org-1"}, cli.ExitUsage, "usage", "--list"},
	} {
		t.Run(name, func(t *testing.T) {
			code, a := run(t.Context(), t, h.environ, append([]string{"accept"}, c.args...)...)
			if code != c.exit || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) {
				t.Errorf("exit %d, %+v; want exit %d, code %s, a message with %q", code, a.Error, c.exit, c.code, c.says)
			}
		})
	}
	if n := h.Count(`SELECT COUNT(*) FROM reconciliation_accepted`); n != 0 {
		t.Errorf("%d were noted", n)
	}
}
