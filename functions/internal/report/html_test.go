package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

func render(t *testing.T, run Run) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := HTML(t.Context(), &b, run); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var markupTag = regexp.MustCompile(`<[^>]+>`)

// seen returns the text of a page, without its markup, scripts and style.
func seen(page string) string {
	page = regexp.MustCompile(`(?s)<(script|style)[^>]*>.*?</(script|style)>`).ReplaceAllString(page, "")
	return strings.Join(strings.Fields(html.UnescapeString(markupTag.ReplaceAllString(page, " "))), " ")
}

func wantSaid(t *testing.T, page string, sentences ...string) {
	t.Helper()
	text := seen(page)
	for _, s := range sentences {
		if !strings.Contains(text, s) {
			t.Errorf("the page does not say %q:\n%s", s, text)
		}
	}
}

// data is what the script reads.
type data struct {
	Entries []entry `json:"entries"`
}

// island returns the data of the page.
func island(t *testing.T, page string) data {
	t.Helper()
	_, rest, found := strings.Cut(page, `<script type="application/json" id="data">`)
	text, _, ended := strings.Cut(rest, "</script>")
	if !found || !ended {
		t.Fatal("there is no data")
	}
	var d data
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	return d
}

const attack = `{"entries":"the entries"}</script><script>alert(1)</script>--><!--<img src=x onerror=alert(1)>{{.}}"'` + "`${1}"

// hostile returns an organization that has the attack in each of its texts.
func hostile() mysqlstore.ReportItem {
	i := item(attack, billing.OutcomeError, billing.ReasonWithheld, billing.Change{Field: attack, From: attack, To: attack})
	i.OrgName, i.OrgCustomerID, i.SubscriptionID, i.Error = attack, attack, attack, attack
	i.Warnings = []billing.Warning{{Code: attack, Message: attack}}
	i.Reason = attack
	i.Cause = &billing.Cause{ID: attack, Type: attack, Created: now}
	return i
}

func hostileRun() Run {
	run := runOf(hostile())
	run.Summary.RunID, run.OrgID, run.Summary.StatusReason, run.Summary.StatusMessage = attack, attack, attack, attack
	run.Summary.Orphans = []billing.Orphan{{SubscriptionID: attack, CustomerID: attack, Status: attack, OrgID: attack}}
	run.Summary.DriftByField = map[string]int{attack: 1}
	run.History = []mysqlstore.PastRun{{Run: billing.Run{ID: attack, StartedAt: now}}, {Run: billing.Run{ID: "b", StartedAt: now}}}
	return run
}

func TestHostileDataStaysText(t *testing.T) {
	page := render(t, hostileRun())
	if n := strings.Count(page, "<script"); n != 2 {
		t.Errorf("%d script elements, want 2", n)
	}
	for _, bad := range []string{"<img", "<!--", "-->", "onerror=alert(1)>", "javascript:", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	e := island(t, page).Entries[0]
	if e.Name != attack || *e.Changes[0].From != attack || e.Warnings[0].Message != attack || e.Subscription != (stripeLink{ID: attack}) {
		t.Errorf("the data lost something: %+v", e)
	}
	if !strings.Contains(html.UnescapeString(page), attack) {
		t.Error("the page does not show what stands in the database")
	}
}

func TestUnprintableCharactersAreShownAsSuch(t *testing.T) {
	i := item("a", billing.OutcomeError, billing.ReasonInternal)
	i.OrgName, i.Error = "\x1b[31mred\x00", "user\u202Egpj.exe\u2066 \xff line\nbreak"
	e := island(t, render(t, runOf(i))).Entries[0]
	if e.Name != "\uFFFD[31mred\uFFFD" || e.Error != "user\uFFFDgpj.exe\uFFFD \uFFFD line break" {
		t.Errorf("name %q, error %q", e.Name, e.Error)
	}
}

func TestPolicyNamesTheStyleAndTheScriptOfThePage(t *testing.T) {
	page := render(t, runOf())
	policy := html.UnescapeString(regexp.MustCompile(`Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(page)[1])
	for _, element := range []string{"style", "script"} {
		inner := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindStringSubmatch(page)[1]
		if want := element + "-src '" + digest(inner) + "'"; !strings.Contains(policy, want) {
			t.Errorf("%s: the policy %s lacks %s", element, policy, want)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %s", policy)
	}
	for _, remote := range []string{"src=\"http", "@import", "url(", "<link"} {
		if strings.Contains(page, remote) {
			t.Errorf("the page asks for something: %s", remote)
		}
	}
}

func TestLinksAreMadeOfIDsInAKnownModeOnly(t *testing.T) {
	for name, c := range map[string]struct {
		mode config.Mode
		id   string
		want string
	}{
		"test":         {config.ModeTest, "sub_1", "https://dashboard.stripe.com/test/subscriptions/sub_1"},
		"live":         {config.ModeLive, "sub_1", "https://dashboard.stripe.com/subscriptions/sub_1"},
		"unknown mode": {"", "sub_1", ""},
		"a path":       {config.ModeLive, "sub_../../x", ""},
		"a query":      {config.ModeLive, "sub_1?x", ""},
		"another kind": {config.ModeLive, "cus_1", ""},
		"a script":     {config.ModeLive, "javascript:alert(1)", ""},
		"nothing":      {config.ModeLive, "", ""},
	} {
		if got := linkSubscription(c.mode, c.id); got.URL != c.want || got.ID != c.id {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
	if got := linkCustomer(config.ModeTest, "cus_1").URL; got != "https://dashboard.stripe.com/test/customers/cus_1" {
		t.Errorf("customer: %s", got)
	}
}

func TestPageSaysWhatItLeavesOut(t *testing.T) {
	run := runOf(many(100)...)
	var b bytes.Buffer
	n, err := writeHTML(t.Context(), &b, run, 7)
	if err != nil || n != (Written{Organizations: 100, Changes: 200}) {
		t.Fatalf("wrote %+v, %v", n, err)
	}
	wantSaid(t, b.String(), "Of 10 organizations with outcome error, only the first 7 (by organization id) are listed here.",
		"Of 90 organizations with outcome synced, only the first 7 (by organization id) are listed here.",
		"200 changes of 100 organizations", "at most 200 organizations are shown")
	if entries := island(t, b.String()).Entries; len(entries) != 14 || entries[0].Outcome != "error" {
		t.Errorf("%d entries, the first %+v; want 14, errors first", len(entries), entries[0])
	}
	if text := seen(render(t, run)); strings.Contains(text, "only the first") {
		t.Error("a page that has everything says it has not")
	}

	run.Summary.Orphans, run.Summary.OrphansTotal = []billing.Orphan{{SubscriptionID: "sub_1"}}, 250
	wantSaid(t, render(t, run), "Orphans: 250 live subscriptions that no organization accounts for", "Only the first 1 of 250 orphans are listed here.")

	run = runOf(many(1)...)
	run.Summary.SweepAbandoned = true
	wantSaid(t, render(t, run), "The sweep of Stripe’s list failed")
}

func TestErrorsComeWithTheCommandThatRepairsThem(t *testing.T) {
	withheld := item("a", billing.OutcomeError, billing.ReasonWithheld, tierChange("pro", "free"))
	conflict := item("b", billing.OutcomeError, billing.ReasonSubscriptionConflict)
	run := runOf(withheld, conflict)
	run.Summary.Downgrades, run.Summary.DowngradeLimit = 10, 10
	wantSaid(t, render(t, run), "reconcile approve run-1 --limit 11 reconcile redrive --watch",
		"Decide which organization owns it; correct metadata.orgId in Stripe, or the row in the database. reconcile redrive --watch",
		"Look at it first: reconcile org a --explain", "Try it again: reconcile org b", "Access lowered: 10 organizations, the run's limit is 10; withheld: 1.")

	run.Summary.DryRun = true // whose errors reach no dead-letter queue
	page := render(t, run)
	wantSaid(t, page, "reconcile start --dry-run", "Try it again: reconcile org a --dry-run")
	if strings.Contains(seen(page), "redrive") {
		t.Error("a dry run has nothing to redrive")
	}

	run = runOf(conflict)
	run.OrgID = "b; rm -rf ~"
	wantSaid(t, render(t, run), "reconcile org 'b; rm -rf ~'")

	run = runOf()
	run.Summary.Status, run.Summary.StatusReason, run.Summary.StatusMessage = billing.RunStopped, billing.ReasonWrongMode, "the key is of live mode"
	wantSaid(t, render(t, run), "wrong_mode the key is of live mode", billing.ReasonWrongMode.Advice().Means, "reconcile start --resume run-1")
}

func TestDryRunPageSaysWhatWouldBeRepairedAndWithheld(t *testing.T) {
	run := runOf(item("a", billing.OutcomeDrifted, billing.ReasonRepaired, tierChange("pro", "free")), item("b", billing.OutcomeDrifted, billing.ReasonRepaired, tierChange("pro", "free")))
	run.Summary.DryRun, run.Summary.TotalOrganizations, run.Summary.Synchronized = true, 2, 2
	run.Summary.Downgrades, run.Summary.DowngradeLimit, run.Summary.Access.Lowered.Organizations = 2, 1, 2
	page := render(t, run)
	wantSaid(t, page, "1 would be repaired, 50.0 %", "1 would be withheld, 50.0 %",
		"Access would be lowered for 2 organizations: a run that writes lowers 1 and withholds 1. Which ones is not known in advance. Changes",
		"Would change A dry run writes nothing. 2 2 0 0 0 2", "Would change: 2 organizations", "would change, or be withheld lowers access",
		"From which tier to which, with those that would be withheld",
		"Access would be lowered for 2 organizations; a run's limit is 1, so it would withhold 1.",
		"1 organization would be withheld. A run that writes would lower access beyond its limit", "reconcile org ORG --explain reconcile start",
		"Whose tier, period or access would change")
	if text := seen(page); strings.Contains(text, "access changed") || strings.Contains(text, "would be written") {
		t.Error("the dry run says that something changed, or that all of it would be written")
	}

	run.Summary.Downgrades = 1
	run.Summary.Access.Lowered.Organizations = 1
	wantSaid(t, render(t, run), "0 would be withheld", "Access would be lowered for 1 organization, within a run's limit of 1.")
}

func TestDryRunCatchUpSaysWhatWouldBeWithheld(t *testing.T) {
	run := runOf(item("a", billing.OutcomeDrifted, billing.ReasonRepaired, tierChange("pro", "free")), item("b", billing.OutcomeDrifted, billing.ReasonRepaired, tierChange("pro", "free")))
	run.Summary.DryRun, run.Summary.LimitShared, run.Summary.TotalOrganizations, run.Summary.Synchronized = true, true, 2, 2
	run.Summary.Downgrades, run.Summary.DowngradeLimit, run.Summary.Access.Lowered.Organizations = 2, 1, 2
	page := render(t, run)
	wantSaid(t, page, "1 would be withheld", "Access would be lowered for 2 organizations; the limit of all catch-ups together within 24 hours is 1, so it would withhold 1.")
	if strings.Contains(seen(page), "withheld: 0") {
		t.Error("the page also says that nothing is withheld")
	}

	run.Summary.DryRun, run.Summary.Downgrades, run.Summary.Access.Lowered.Organizations = false, 1, 1
	wantSaid(t, render(t, run), "Access lowered: 1 organization, the limit of all catch-ups together within 24 hours is 1; withheld: 0.")
}

// A run over one organization has its own limit, so running a withheld organization alone would bypass the guard.
func TestWithheldOrganizationIsNeverOfferedARunOfItsOwn(t *testing.T) {
	lowered := tierChange("pro", "free")
	for _, reason := range []billing.Reason{billing.ReasonWithheld, billing.ReasonStripeUnavailable} { // that it met when it was tried again
		run := runOf(item("a", billing.OutcomeError, reason, lowered))
		run.OrgID = "a"
		page := render(t, run)
		wantSaid(t, page, "reconcile org a --explain reconcile approve run-1 --limit", "Look at it first: reconcile org a --explain")
		text := seen(page) + island(t, page).Entries[0].Next
		if n, looks := strings.Count(text, "reconcile org a"), strings.Count(text, "reconcile org a --explain"); n != looks {
			t.Errorf("%s: %d of %d commands only look", reason, looks, n)
		}
	}
}

func TestPageListsOrganizationsWhoseTierPeriodOrAccessChanged(t *testing.T) {
	page := render(t, runOf(
		item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("pro", "free")),
		item("b", billing.OutcomeError, billing.ReasonWithheld, tierChange("pro", "free")),
		item("c", billing.OutcomeSynced, billing.ReasonRepaired, billing.Change{Field: billing.FieldCurrentPeriodEnd, To: december}),
		item("d", billing.OutcomeSynced, billing.ReasonRepaired, billing.Change{Field: billing.FieldCanceledAt, To: december}),
		item("e", billing.OutcomeSynced, billing.ReasonRepaired, billing.Change{Field: billing.FieldStatus, From: "active", To: "unpaid"}, billing.Change{Field: billing.FieldCanceledAt, To: december}),
	))
	wantSaid(t, page, "4 organizations. Quotas", "Written The database has them. 3 1 1 1 0 2", "Withheld Not written by this run. If right, approve them; if wrong, correct the cause: the next run lowers up to its own limit. 1 1 0 0 0 1",
		"Written: 3 organizations", "Withheld: 1 organization",
		"subscriptions.current_period_end NULL → 2026-12-01 00:00:00", "subscriptions.status active → unpaid sub_e")
	_, section, _ := strings.Cut(page, `<section id="finance">`)
	section, _, _ = strings.Cut(section, "</section>")
	for org, want := range map[string]bool{"a": true, "b": true, "c": true, "d": false, "e": true} {
		if got := strings.Contains(seen(section), "Name of "+org); got != want {
			t.Errorf("%s in the section: %v", org, got)
		}
	}
}

func TestFinanceSeparatesWrittenFromUnwrittenChanges(t *testing.T) {
	up := func(org string, outcome billing.Outcome, reason billing.Reason) mysqlstore.ReportItem {
		return item(org, outcome, reason, tierChange("free", "max"))
	}
	run := runOf(up("a", billing.OutcomeDrifted, billing.ReasonRepaired), up("b", billing.OutcomeError, billing.ReasonStripeUnavailable))
	wantSaid(t, render(t, run), "Would change A dry run writes nothing. 1 1 0 0 1 0", "Not written An error prevented it. 1 1 0 0 1 0",
		"would change raises access", "not written raises access")
	groups := map[string]state{}
	for _, e := range island(t, render(t, run)).Entries {
		groups[e.Org] = e.Group
	}
	if groups["a"] != stateWouldBe || groups["b"] != stateUnwritten {
		t.Errorf("groups: %v", groups)
	}
}

func TestMatrixCountsFromTierToTier(t *testing.T) {
	page := render(t, runOf(
		item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("free", "pro")),
		item("b", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("free", "pro")),
		item("c", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("", "max")),
		item("d", billing.OutcomeError, billing.ReasonWithheld, tierChange("max", "free")),
		item("e", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("max", "free")),
		item("f", billing.OutcomeSynced, billing.ReasonRepaired, billing.Change{Field: billing.FieldCurrentPeriodEnd, To: december}),
	))
	wantSaid(t, page, "From to free to pro to max none 1 free 2 max 1 and 1 not written")

	var odd []mysqlstore.ReportItem
	for i := range 100 {
		odd = append(odd, item(fmt.Sprint(i), billing.OutcomeSynced, billing.ReasonRepaired, tierChange(fmt.Sprint("tier-", i), "pro")))
	}
	f := newFinance()
	for _, i := range odd {
		f.add(i)
	}
	if m := f.matrix(); len(m.Rows) != maxTiers || m.Rows[0].From != otherTiers || m.Rows[0].Cells[0].N != 100-maxTiers+1 {
		t.Errorf("a hundred tiers make %+v", m)
	}
}

func TestPageSaysSinceWhenAccessWasWrong(t *testing.T) {
	up, down := tierChange("free", "pro"), tierChange("pro", "free")
	ended := billing.Change{Field: billing.FieldEndedAt, To: now.Add(-90 * time.Minute)}
	canceled := billing.Change{Field: billing.FieldCanceledAt, To: now.Add(-2 * time.Hour)}
	const synced, held = billing.OutcomeSynced, billing.OutcomeError
	at := func(ago, right time.Duration, i mysqlstore.ReportItem) mysqlstore.ReportItem {
		if ago > 0 {
			i.Cause = &billing.Cause{ID: "evt_1", Type: "customer.subscription.updated", Created: now.Add(-ago)}
		}
		if right > 0 {
			i.RightAt = now.Add(-right)
		}
		return i
	}
	missing := item("missing", synced, billing.ReasonSubscriptionMissing, down, ended)
	missing.SubscriptionID = ""
	for name, c := range map[string]struct {
		item mysqlstore.ReportItem
		want string
	}{
		"an event":               {at(3*time.Hour+5*time.Minute, 0, item("a", synced, billing.ReasonRepaired, up)), "too little access since the event of 21 November 2026, 23:55 UTC (3 h 5 min when it was repaired)"},
		"withheld":               {at(72*time.Hour, 0, item("a", held, billing.ReasonWithheld, down)), "too much access since the event of 19 November 2026, 03:00 UTC (3 days 0 h when it was looked at)"},
		"right after the event":  {at(20*time.Hour, 11*time.Minute, item("a", synced, billing.ReasonRepaired, up)), "too little access after another run left it right, 22 November 2026, 02:49 UTC (11 min when it was repaired)"},
		"right before the event": {at(time.Hour, 11*time.Hour, item("a", synced, billing.ReasonRepaired, up)), "too little access since the event of 22 November 2026, 02:00 UTC (1 h 0 min when it was repaired)"},
		"ended after the event":  {at(20*time.Hour, 0, item("a", synced, billing.ReasonRepaired, down, ended, canceled)), "too much access since the subscription’s end of 22 November 2026, 01:30 UTC (1 h 30 min when it was repaired)"},
		"ended, without events":  {at(0, 0, item("a", synced, billing.ReasonRepaired, down, ended)), "too much access since the subscription’s end of 22 November 2026, 01:30 UTC (1 h 30 min when it was repaired)"},
		"canceled after it":      {at(20*time.Hour, 0, item("a", synced, billing.ReasonRepaired, down, canceled)), "too much access since the cancellation of 22 November 2026, 01:00 UTC (2 h 0 min when it was repaired)"},
		"missing in Stripe":      {missing, ""},
		"access is the same":     {at(time.Hour, 0, item("a", synced, billing.ReasonRepaired, billing.Change{Field: billing.FieldCurrentPeriodEnd, To: december})), ""},
		"nothing is known":       {item("a", synced, billing.ReasonRepaired, up), ""},
	} {
		t.Run(name, func(t *testing.T) {
			page := render(t, runOf(c.item))
			if got := island(t, page).Entries[0].Wrong; got != c.want {
				t.Errorf("the script is told %q, want %q", got, c.want)
			}
			wantSaid(t, page, c.want)
			if known := strings.Contains(seen(page), "longest known"); known != (c.want != "") {
				t.Errorf("a column for it: %v", known)
			}
		})
	}
}

func TestCatchUpSaysWhatItLookedAt(t *testing.T) {
	run := runOf(item("a", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("free", "pro")), item("b", billing.OutcomeSkipped, billing.ReasonInSync))
	run.Kind, run.Window = billing.KindCatchUp, &billing.Window{From: now.Add(-2 * time.Hour), To: now}
	run.History = []mysqlstore.PastRun{{Run: billing.Run{ID: "run-0", StartedAt: now}}, {Run: billing.Run{ID: "run-z", StartedAt: now}}}
	page := render(t, run)
	wantSaid(t, page, "Catch-up, 22 November 2026, 03:00 UTC", "Stripe’s events from 22 November 2026, 01:00 UTC to 22 November 2026, 03:00 UTC name",
		"so there are no percentages", "2 organizations that events name 1 repaired differed", "This catch-up is not among them.")
	_, tiles, _ := strings.Cut(page, `<ul class="tiles">`)
	tiles, _, _ = strings.Cut(tiles, "</ul>")
	if strings.Contains(tiles, "%") {
		t.Errorf("a share of all organizations: %s", seen(tiles))
	}
	run.Summary.TotalOrganizations, run.Summary.Synchronized, run.Items = 0, 0, these()
	wantSaid(t, render(t, run), "No event names an organization.")
	if text := seen(render(t, runOf())); strings.Contains(text, "catch-up looks") || strings.Contains(text, "Catch-up,") {
		t.Error("another run is called a catch-up")
	}
}

func TestPageSaysThatItWasAmended(t *testing.T) {
	run := runOf()
	run.AmendedAt = now.Add(26 * time.Hour)
	wantSaid(t, render(t, run), "Amended 23 November 2026, 05:00 UTC, by a redrive")
	if strings.Contains(seen(render(t, runOf())), "Amended") {
		t.Error("nothing was amended")
	}
}

func TestErrorsAndWarningsNameTheFirstOrganizations(t *testing.T) {
	var items []mysqlstore.ReportItem
	for n := range maxNamed + 2 {
		i := item(fmt.Sprintf("%02d", n), billing.OutcomeError, billing.ReasonUnknownStatus)
		i.Warnings = []billing.Warning{{Code: billing.WarnMultipleRows}}
		items = append(items, i)
	}
	items[1].OrgName = ""
	items[2].OrgName = attack
	page := render(t, runOf(items...))
	const names = "Name of 00 , 01 , " + attack + " , Name of 03"
	wantSaid(t, page, billing.ReasonUnknownStatus.Advice().Means+" "+names, billing.WarnMultipleRows.Advice().Means+" "+names, "Name of 09 and 2 more", "(no name) 01")
	if n := strings.Count(page, "<script"); n != 2 {
		t.Errorf("%d script elements, want 2", n)
	}
}

func TestHistoryIsDrawnEarliestFirst(t *testing.T) {
	past := func(id string, week, drifted, total int, dry bool) mysqlstore.PastRun {
		return mysqlstore.PastRun{
			Run: billing.Run{ID: id, StartedAt: now.AddDate(0, 0, -7*week), Status: billing.RunCompleted, DryRun: dry},
			Totals: billing.Summary{
				Synchronized: drifted, TotalOrganizations: total, Errors: 3 * drifted, Reasons: map[billing.Reason]int{billing.ReasonWithheld: drifted},
			},
		}
	}
	run := runOf()
	run.History = []mysqlstore.PastRun{past("run-1", 0, 1, 100, false), past("run-0", 1, 4, 100, true), past("run-z", 2, 0, 0, false)}
	h := chart(run.History, "run-1")
	highest := chartBottom - chartTop
	for i, want := range []float64{0, highest, highest / 4} {
		bars, top := h.Columns[i].Bars, chartBottom
		if want == 0 && len(bars) == 0 {
			continue
		}
		for j, part := range []struct {
			key  string
			part float64
		}{{"synced", 1}, {"withheld", 1}, {"error", 2}} {
			height := want * part.part / 4
			top -= height
			if got := bars[j]; got.Key != part.key || math.Abs(got.Height-height) > 1e-9 || math.Abs(got.Y-top) > 1e-9 {
				t.Errorf("run %d: %+v, want %s of %v at %v", i, got, part.key, height, top)
			}
		}
	}
	wantSaid(t, render(t, run), "4 would be repaired, 4 would be withheld, 8 other errors of 100 organizations", "none 8 Nov", "8.0 % 15 Nov dry run", "2.0 % 22 Nov this run",
		"2026-11-22 03:00 run-1 this run completed 100 1 1 2.0 % 2 2026-11-15 03:00 run-0 completed, dry run 100 4 4 8.0 % 8")

	if chart(run.History[:1], "run-1") != nil {
		t.Error("one run makes no history")
	}
	for i := range 20 {
		run.History = append(run.History, past("older", 3+i, 1, 1, false))
	}
	if n := len(chart(run.History, "run-1").Columns); n != maxColumns {
		t.Errorf("%d columns, want %d", n, maxColumns)
	}
}

// A wave of withheld downgrades must be visible among many other errors.
func TestOutcomesSeparateWithheldFromOtherErrors(t *testing.T) {
	page := render(t, runOf(
		item("a", billing.OutcomeError, billing.ReasonWithheld, tierChange("pro", "free")),
		item("b", billing.OutcomeError, billing.ReasonNotRepeated, tierChange("pro", "free")),
		item("c", billing.OutcomeError, billing.ReasonUnknownStatus),
		item("d", billing.OutcomeSynced, billing.ReasonRepaired, tierChange("free", "pro")),
	))
	wantSaid(t, page, "1 repaired, 25.0 %", "2 withheld, 50.0 %", "1 other errors, 25.0 %")
}

func TestSectionLinksLeadToSections(t *testing.T) {
	for name, run := range map[string]Run{"empty": runOf(), "errors": runOf(many(20)...)} {
		page := render(t, run)
		for _, link := range regexp.MustCompile(`href="#([a-z]+)"`).FindAllStringSubmatch(page, -1) {
			if !strings.Contains(page, `<section id="`+link[1]+`">`) {
				t.Errorf("%s: a link leads to #%s, which is not there", name, link[1])
			}
		}
	}
}

func TestPageThatCannotBeReadOrWrittenIsAnError(t *testing.T) {
	if _, err := HTML(t.Context(), brokenPipe{}, runOf(many(10)...)); !errors.Is(err, errBroken) {
		t.Errorf("writing: %v", err)
	}
	run := runOf()
	for _, outcome := range []billing.Outcome{billing.OutcomeError, billing.OutcomeSynced} {
		run.Items = func(_ context.Context, _ func(mysqlstore.ReportItem) error, outcomes ...billing.Outcome) error {
			if slices.Contains(outcomes, outcome) {
				return errBroken
			}
			return nil
		}
		var b bytes.Buffer
		if _, err := HTML(t.Context(), &b, run); !errors.Is(err, errBroken) || b.Len() > 0 {
			t.Errorf("reading %s: %v, wrote %d bytes", outcome, err, b.Len())
		}
	}
}

func TestPageSaysWhoDecided(t *testing.T) {
	run := runOf(item("a", billing.OutcomeError, billing.ReasonUnknownStatus))
	run.Summary.By, run.Summary.AcceptedErrors = attack, 1
	wantSaid(t, render(t, run), "0 other errors, 0.0 % need a person 1 accepted errors, 100.0 % known, need nobody")
	run.Summary.Approval = &billing.Approval{Limit: 12, By: "ops@desk", At: november}
	wantSaid(t, render(t, run), "Asked for by "+attack+". Approved: 12 downgrades in all, by ops@desk, 1 November 2026, 00:00 UTC. Accepted as known: 1 error.")
	if n := strings.Count(render(t, run), "<script"); n != 2 {
		t.Errorf("%d script elements, want 2", n)
	}
}

func TestAcceptedErrorsAndWarningsHaveTheirOwnSection(t *testing.T) {
	known := item("known", billing.OutcomeError, billing.ReasonTierUnresolved)
	until := december
	known.Warnings = []billing.Warning{{Code: billing.WarnMultipleRows, Message: "two rows"}, {Code: billing.WarnSeveralTiers, Message: "several"}}
	known.Accepted = []billing.Acceptance{
		{OrgID: "known", Code: string(billing.ReasonTierUnresolved), Why: attack, By: "ops@desk", At: november, Until: &until},
		{OrgID: "known", Code: string(billing.WarnMultipleRows), Why: "both are needed", By: "ops@desk", At: november},
	}
	page := render(t, runOf(known, item("new", billing.OutcomeError, billing.ReasonUnknownStatus)))
	wantSaid(t, page, "Known and accepted", "both are needed ops@desk on 1 November 2026, 00:00 UTC, until it is removed", "until 1 December 2026, 00:00 UTC")
	_, errors, _ := strings.Cut(page, `<section id="errors">`)
	errors, rest, _ := strings.Cut(errors, "</section>")
	if strings.Contains(errors, "tier_unresolved") || !strings.Contains(errors, "unknown_status") {
		t.Errorf("errors that need a person: %s", seen(errors))
	}
	warnings, _, _ := strings.Cut(rest, `<section id="accepted">`)
	if strings.Contains(warnings, "multiple_subscription_rows") || !strings.Contains(warnings, "several_tiers") {
		t.Errorf("warnings: %s", seen(warnings))
	}
	for _, e := range island(t, page).Entries {
		if (e.Next == "") != (e.Org == "known") {
			t.Errorf("%s: next %q", e.Org, e.Next)
		}
	}
}
