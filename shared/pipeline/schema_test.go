package pipeline_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

// schemaFolder has a schema for each type of announcement, as consumers get it.
const schemaFolder = "../../infra/schema"

// schemas are the published ones, by the detail-type of their events, but they allow no key that they do not name.
var schemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	files, err := filepath.Glob(schemaFolder + "/*.json")
	if err != nil {
		return nil, err
	}
	all := map[string]*jsonschema.Schema{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		closed(document)
		compiler := jsonschema.NewCompiler()
		compiler.AssertFormat()
		if err := compiler.AddResource(file, document); err != nil {
			return nil, err
		}
		schema, err := compiler.Compile(file)
		if err != nil {
			return nil, err
		}
		of := document.(map[string]any)["properties"].(map[string]any)["detail-type"].(map[string]any)["enum"].([]any)
		all[of[0].(string)] = schema
	}
	return all, nil
})

// closed has every object of the schema refuse keys that it does not name: consumers ignore such, but what is sent
// is to be published.
func closed(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, named := s["properties"]; named && s["additionalProperties"] == nil {
			s["additionalProperties"] = false
		}
		for _, part := range s {
			closed(part)
		}
	case []any:
		for _, part := range s {
			closed(part)
		}
	}
}

// wantAsPublished holds an event to its schema.
func wantAsPublished(t testing.TB, e eventserver.Event) {
	t.Helper()
	if err := againstSchema(e); err != nil {
		t.Errorf("%s is not as published: %v\n%s", e.DetailType, err, e.Detail)
	}
}

func againstSchema(e eventserver.Event) error {
	all, err := schemas()
	if err != nil {
		return err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return all[e.DetailType].Validate(value)
}

func TestAnnouncementsMatchThePublishedSchema(t *testing.T) {
	f := newFixture(t)
	server := f.startBus()
	var ids []string
	for _, s := range situations {
		ids = append(ids, s.id)
	}
	ids = f.announcing(ids...)
	f.deliver(f.Reconciler(nil), runID, ids...)
	for id, change := range map[string]func(*billing.Run){
		"dry": testworld.DryRun, "stopped": func(r *billing.Run) { r.Status = billing.RunStopped }, "incomplete": func(*billing.Run) {},
	} {
		f.OpenRun(id, numbered(1), change)
	}
	f.decide("dry", billing.OutcomeDrifted, "org-000")
	f.Exec(`UPDATE reconciliation_runs SET status_reason = 'stopped_by_operator', status_message = 'for a test' WHERE id = 'stopped'`)
	f.Clock.Advance(billing.LeaseTTL * 60 * 13)
	if _, err := f.announcer(server, nil).Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := server.Events()
	for _, e := range events {
		wantAsPublished(t, e)
	}
	got := heard(t, events)
	if len(got.repairs) < 5 || len(got.ends) != 4 {
		t.Errorf("only %d repairs and %v", len(got.repairs), got.ends)
	}

	// The schemas would notice.
	for name, spoil := range map[string]func(string) string{
		"an unknown key":      func(d string) string { return strings.Replace(d, `"version":1`, `"version":1,"name":"Somebody"`, 1) },
		"another version":     func(d string) string { return strings.Replace(d, `"version":1`, `"version":2`, 1) },
		"a key that is gone":  func(d string) string { return strings.Replace(d, `"stage":"",`, "", 1) },
		"a value of its type": func(d string) string { return strings.Replace(d, `"livemode":false`, `"livemode":"false"`, 1) },
	} {
		for _, e := range events[:1] {
			e.Detail = json.RawMessage(spoil(string(e.Detail)))
			if againstSchema(e) == nil {
				t.Errorf("%s is as published", name)
			}
		}
	}
	for _, e := range events {
		if strings.Contains(string(e.Detail), "Name of org-") || strings.Contains(string(e.Detail), "Name of upgraded") {
			t.Errorf("it names an organization: %s", e.Detail)
		}
	}
}
