package lambdabuild_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/lambdabuild"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// platformLines are examples of Lambda's own log lines.
// https://docs.aws.amazon.com/lambda/latest/dg/golang-logging.html
const platformLines = `REPORT RequestId: 8f507cfc-xmpl-4697-b07a-ac58fc914c95	Duration: 100.00 ms	Billed Duration: 100 ms	Memory Size: 256 MB	Max Memory Used: 50 MB
2026-11-22T03:05:00.000Z 8f507cfc-xmpl-4697-b07a-ac58fc914c95 Task timed out after 300.00 seconds
RequestId: 8f507cfc-xmpl-4697-b07a-ac58fc914c95 Error: Runtime exited with error: exit status 1
`

// Every filter in the README and the runbooks is tried on the programs' output during an incident: a refused event, an
// unreadable message, an unavailable Stripe, and the end of a run.
func TestEveryRunbookFilterMatchesALogLine(t *testing.T) {
	s := newStack(t, demo.Options{Orgs: 5, Drift: 1, Plain: true, Seed: 5, Now: time.Now().UTC().Truncate(time.Second)})
	orgID := s.incident()
	for _, name := range lambdabuild.Functions() {
		s.awaitPrinted(name, "the invocation failed")
	}
	s.awaitPrinted("aggregator", "Reconciliation completed")
	for name, printed := range s.printed {
		wantRequestIDs(t, name, printed.String())
	}
	filters := filtersOfTheDocumentation(t)
	if len(filters) < 10 {
		t.Fatalf("only %d filters found", len(filters))
	}
	for _, f := range filters {
		pattern := strings.ReplaceAll(f.pattern, `"ID"`, `"`+orgID+`"`)
		if !matchesAny(t, pattern, s.printed[f.function].String()+platformLines) {
			t.Errorf("%s: the filter %s matches no line of the output of %s:\n%s", f.file, f.pattern, f.function, s.printed[f.function])
		}
	}
}

// incident makes every function fail, and returns an organization whose message was returned to the queue.
func (s *stack) incident() (orgID string) {
	s.Helper()
	enumerator, worker, aggregator := s.function("enumerator"), s.function("worker"), s.function("aggregator")
	for _, f := range []*runtimeapi.Function{enumerator, worker, aggregator} {
		if answer, err := f.Invoke(s.Context(), []byte(`[]`)); err == nil {
			s.Errorf("an invalid event was answered with %s", answer)
		}
	}
	s.invoke(enumerator, `{"scheduledFor":"`+scheduledRun+`"}`)
	batch := s.receive(s.work)
	end := s.stripe.AddFault(stripetest.Fault{Kind: stripetest.Unavailable})
	answer, err := worker.HandleSQS(s.Context(), batch)
	end()
	if err != nil || len(answer.BatchItemFailures) == 0 {
		s.Fatalf("%+v, %v", answer, err)
	}
	if _, err := worker.HandleSQS(s.Context(), batch); err != nil {
		s.Fatal(err)
	}
	s.archiveRefuses.Store(true)
	s.bus.SetFail(func() *eventserver.Fault { return &eventserver.AccessDenied })
	if _, err := aggregator.HandleSQS(s.Context(), s.receive(s.results)); err != nil {
		s.Fatal(err)
	}
	var work struct{ OrgID string }
	if err := json.Unmarshal([]byte(batch.Records[0].Body), &work); err != nil {
		s.Fatal(err)
	}
	return work.OrgID
}

// wantRequestIDs checks that every log line has the request's id, except the one about the upgrade of the tables.
func wantRequestIDs(t *testing.T, name, printed string) {
	t.Helper()
	for line := range strings.Lines(printed) {
		var members map[string]any
		if json.Unmarshal([]byte(line), &members) != nil || members["level"] == nil || strings.Contains(line, "tables were upgraded") {
			continue // a metric, or a line of aws-lambda-go
		}
		if id, _ := members[telemetry.KeyRequestID].(string); id == "" {
			t.Errorf("%s printed a line without the request's id: %s", name, line)
		}
	}
}

type filter struct{ file, function, pattern string }

// filtersOfTheDocumentation returns the filters of all `aws logs tail` commands.
func filtersOfTheDocumentation(t *testing.T) (all []filter) {
	t.Helper()
	root, err := lambdabuild.Root()
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`aws logs tail \S*/(\w+) .*--filter-pattern '([^']*)'`)
	for _, pattern := range []string{"README.md", "infra/*.md", "infra/runbooks/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range command.FindAllStringSubmatch(string(text), -1) {
				all = append(all, filter{filepath.Base(file), found[1], found[2]})
			}
		}
	}
	return all
}

// matchesAny reports whether the pattern matches a line. It implements the parts of CloudWatch's patterns that are used
// here: the value of one member of a JSON line, or texts. All texts must be in the line, or with question marks at least
// one.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
func matchesAny(t *testing.T, pattern, printed string) bool {
	t.Helper()
	member := regexp.MustCompile(`^\{ \$\.(\w+) = "([^"]*)" \}$`).FindStringSubmatch(pattern)
	terms := regexp.MustCompile(`(\??)"([^"]*)"`).FindAllStringSubmatch(pattern, -1)
	if member == nil && (strings.HasPrefix(pattern, "{") || len(terms) == 0) {
		t.Fatalf("this test does not implement the pattern %s", pattern)
	}
	for line := range strings.Lines(printed) {
		if member != nil {
			var members map[string]any
			if json.Unmarshal([]byte(line), &members) == nil && members[member[1]] == member[2] {
				return true
			}
			continue
		}
		found := 0
		for _, term := range terms {
			if strings.Contains(line, term[2]) {
				found++
			}
		}
		if found == len(terms) || (found > 0 && terms[0][1] == "?") {
			return true
		}
	}
	return false
}
