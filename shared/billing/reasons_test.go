package billing_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// codes returns the code of each constant of Reason and WarningCode, by the constant's name.
func codes(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found[spec.Names[0].Name] = code
		return true
	})
	return found
}

func TestEachCodeHasOneAdvice(t *testing.T) {
	var declared, advised []string
	for _, code := range codes(t) {
		declared = append(declared, code)
	}
	for _, a := range billing.AllAdvice() {
		advised = append(advised, a.Code)
	}
	slices.Sort(declared)
	slices.Sort(advised)
	if diff := cmp.Diff(declared, advised); diff != "" {
		t.Errorf("constants and entries (-constants +entries):\n%s", diff)
	}
}

func TestEachAdviceSaysWhatItMeansAndWhatToDo(t *testing.T) {
	for _, a := range billing.AllAdvice() {
		if !strings.HasSuffix(a.Means, ".") || strings.Contains(a.Means, ". ") {
			t.Errorf("%s: %q is not one sentence", a.Code, a.Means)
		}
		settled := a.Concern == billing.ConcernPending || a.Concern == billing.ConcernSkipped || a.Concern == billing.ConcernSynced
		if (a.Do == "") != settled || a.Do == "" && len(a.Commands) > 0 {
			t.Errorf("%s (%s): do %q, commands %q", a.Code, a.Concern, a.Do, a.Commands)
		}
		inError := a.Concern == billing.ConcernPerson || a.Concern == billing.ConcernPassing
		if want := inError && !billing.Reason(a.Code).Withholds(); slices.Equal(a.Commands, []string{"reconcile redrive --watch"}) != want {
			t.Errorf("%s (%s): commands %q", a.Code, a.Concern, a.Commands)
		}
	}
	if a := billing.Reason("unheard_of").Advice(); a.Code != "unheard_of" || a.Concern != "" || a.Means != "" {
		t.Errorf("%+v", a)
	}
}

// source returns what the programs and their SQL say, without tests, the demonstration and the list itself.
func source(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, root := range []string{"../../shared", "../../functions"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && d.Name() != "localaws" {
				return err
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			program := filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") && d.Name() != "reasons.go"
			if !program && filepath.Ext(path) != ".sql" {
				return nil
			}
			text, err := os.ReadFile(path) //nolint:gosec // G122: nobody races with the tests
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

func TestEachCodeIsGivenSomewhere(t *testing.T) {
	text := source(t)
	for name, code := range codes(t) {
		if !regexp.MustCompile(`\b`+name+`\b`).MatchString(text) && !strings.Contains(text, "DEFAULT '"+code+"'") {
			t.Errorf("nothing gives %s", name)
		}
	}
	if literal := regexp.MustCompile(`\b(Reason|WarningCode)(:\s*|\()"[a-z_]+"`).FindString(text); literal != "" {
		t.Errorf("%s is no constant", literal)
	}
}

func TestCommandsForAWithheldOrganizationExplainAndApproveIt(t *testing.T) {
	s := billing.Summary{RunID: "run 1", Downgrades: 10, Reasons: map[billing.Reason]int{billing.ReasonWithheld: 3}}
	got := billing.ReasonWithheld.Advice().RetryCommands(s, "it's")
	want := []string{`reconcile org 'it'\''s' --explain`, "reconcile approve 'run 1' --limit 13", "reconcile redrive --watch"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := billing.ReasonWithheld.Advice().RetryCommands(billing.Summary{}, ""); got[0] != "reconcile org ORG --explain" || got[1] != "reconcile approve RUN --limit N" {
		t.Errorf("what is not known: %q", got)
	}
}

func TestCommandsForAnErrorRetryIt(t *testing.T) {
	for _, c := range []struct {
		reason billing.Reason
		dryRun bool
		orgID  string
		want   string
	}{
		{billing.ReasonTierUnresolved, false, "", "reconcile redrive --watch"},
		{billing.ReasonTierUnresolved, false, "a", "reconcile org a"},
		{billing.ReasonTierUnresolved, true, "", "reconcile start --dry-run"},
		{billing.ReasonTierUnresolved, true, "a", "reconcile org a --dry-run"},
		{billing.ReasonStripeUnauthorized, false, "", "reconcile redrive --watch"}, // met by a redrive into a closed run
		{"unheard_of", false, "", "reconcile redrive --watch"},
	} {
		if got := c.reason.Advice().RetryCommands(billing.Summary{RunID: "r", DryRun: c.dryRun}, c.orgID); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestCommandsForARunResumeItOrStartAnother(t *testing.T) {
	for _, c := range []struct {
		reason billing.Reason
		dryRun bool
		want   []string
	}{
		{billing.ReasonWrongMode, true, []string{"reconcile start --resume r"}},
		{billing.ReasonNoOrganizations, false, []string{"reconcile start"}},
		{billing.ReasonNoOrganizations, true, []string{"reconcile start --dry-run"}},
		{"", false, []string{}},
	} {
		if got := c.reason.Advice().RunCommands(billing.Summary{RunID: "r", DryRun: c.dryRun}); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// section returns the part of a page from this heading to the next one.
func section(t *testing.T, path, heading string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", path, heading)
	}
	part, _, _ := strings.Cut(rest, "\n#")
	return part
}

func TestEveryStatusIsExplained(t *testing.T) {
	for _, status := range billing.RunStatuses() {
		if means, _ := (billing.Summary{RunID: "r", Status: status}).ExplainStatus(); means == "" {
			t.Errorf("%s is not explained", status)
		}
	}
}

func TestTheREADMEsTableIsThisList(t *testing.T) {
	want := []string{"| code | goes with | means | do, and then run |", "|---|---|---|---|"}
	for _, a := range billing.AllAdvice() {
		do := a.Do
		for _, c := range a.Commands {
			do += " `" + c + "`"
		}
		want = append(want, fmt.Sprintf("| %#q | %s | %s | %s |", a.Code, a.Concern, a.Means, do))
	}
	var got []string
	for line := range strings.Lines(section(t, "../../README.md", "### Reasons and warnings")) {
		if strings.HasPrefix(line, "|") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the README's table (-want +got):\n%s\nwhole:\n%s", diff, strings.Join(want, "\n"))
	}
}

// noCodes returns words of the pages that look like codes.
func noCodes() []string {
	words := []string{"binlog_format", string(billing.RunCompletedWithErrors)}
	for _, field := range billing.Fields() {
		_, column, _ := strings.Cut(field, ".")
		words = append(words, column)
	}
	return words
}

func TestTheRunbooksNameEachReasonThatNeedsAPersonAndNoOther(t *testing.T) {
	pages, err := filepath.Glob("../../infra/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no runbooks: %v", err)
	}
	named := map[string]bool{}
	check := func(page, text string) {
		for _, match := range regexp.MustCompile("`([a-z]+(?:_[a-z]+)*)`").FindAllStringSubmatch(text, -1) {
			code := match[1]
			named[code] = named[code] || strings.Contains(page, "/runbooks/")
			if strings.Contains(code, "_") && billing.Reason(code).Advice().Concern == "" && !slices.Contains(noCodes(), code) {
				t.Errorf("%s: there is no %s", page, code)
			}
		}
	}
	for _, page := range append(pages, "../../infra/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		check(page, string(text))
	}
	check("README.md", section(t, "../../README.md", "### What a run ends as"))
	for _, a := range billing.AllAdvice() {
		if (a.Concern == billing.ConcernPerson || a.Concern == billing.ConcernPassing || a.Concern == billing.ConcernRun) && !named[a.Code] {
			t.Errorf("no runbook says what to do about %s", a.Code)
		}
	}
}
