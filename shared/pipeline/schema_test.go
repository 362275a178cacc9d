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

// schemas returns the published schemas by the detail-type of their events. Unlike the published ones, they refuse
// unknown keys.
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
		refuseUnknownKeys(document)
		compiler := jsonschema.NewCompiler()
		compiler.AssertFormat()
		if err := compiler.AddResource(file, document); err != nil {
			return nil, err
		}
		schema, err := compiler.Compile(file)
		if err != nil {
			return nil, err
		}
		types := document.(map[string]any)["properties"].(map[string]any)["detail-type"].(map[string]any)["enum"].([]any)
		all[types[0].(string)] = schema
	}
	return all, nil
})

// refuseUnknownKeys makes every object of the schema refuse keys that it does not name. Consumers ignore unknown keys,
// but every key that is sent must be published.
func refuseUnknownKeys(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, named := s["properties"]; named && s["additionalProperties"] == nil {
			s["additionalProperties"] = false
		}
		for _, part := range s {
			refuseUnknownKeys(part)
		}
	case []any:
		for _, part := range s {
			refuseUnknownKeys(part)
		}
	}
}

// wantPublishedSchema checks that the event matches its schema.
func wantPublishedSchema(t testing.TB, e eventserver.Event) {
	t.Helper()
	if err := validate(e); err != nil {
		t.Errorf("%s does not match its published schema: %v\n%s", e.DetailType, err, e.Detail)
	}
}

func validate(e eventserver.Event) error {
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
	ids = f.openRunOver(ids...)
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
		wantPublishedSchema(t, e)
	}
	got := consume(t, events)
	if len(got.repairs) < 5 || len(got.ends) != 4 {
		t.Errorf("%d repairs were announced, want at least 5; the ends are %v, want 4", len(got.repairs), got.ends)
	}

	// The schemas refuse each of these mistakes.
	for name, spoil := range map[string]func(string) string{
		"an unknown key":          func(d string) string { return strings.Replace(d, `"version":1`, `"version":1,"name":"Somebody"`, 1) },
		"another version":         func(d string) string { return strings.Replace(d, `"version":1`, `"version":2`, 1) },
		"a missing key":           func(d string) string { return strings.Replace(d, `"stage":"",`, "", 1) },
		"a value of another type": func(d string) string { return strings.Replace(d, `"livemode":false`, `"livemode":"false"`, 1) },
	} {
		for _, e := range events[:1] {
			e.Detail = json.RawMessage(spoil(string(e.Detail)))
			if validate(e) == nil {
				t.Errorf("the schema accepts %s", name)
			}
		}
	}
	for _, e := range events {
		if strings.Contains(string(e.Detail), "Name of org-") || strings.Contains(string(e.Detail), "Name of upgraded") {
			t.Errorf("an event has the name of an organization: %s", e.Detail)
		}
	}
}
