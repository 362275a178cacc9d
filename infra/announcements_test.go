package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// announcing is the example with a bus.
func announcing(t *testing.T, bus, stage string) (stackConfig, cloudFormation) {
	t.Helper()
	c, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": bus, "STAGE": stage})
	if err != nil {
		t.Fatal(err)
	}
	made, _ := synthOf(t, c)
	return c, made
}

func TestWithoutABusNothingIsAnnounced(t *testing.T) {
	synthesizeOnce(t)
	if _, has := synthesized.parsed.Outputs["AnnouncementPattern"]; has || strings.Contains(string(synthesized.text), "events:PutEvents") || strings.Contains(string(synthesized.text), "EVENT_BUS") {
		t.Error("the example's stack announces, and its configuration names no bus")
	}
}

func TestOnlyTheAggregatorMaySendAndOnlyToTheBus(t *testing.T) {
	foreign := "arn:aws:events:eu-central-1:000000000000:event-bus/application"
	for bus, want := range map[string]any{
		"application": object{"Fn::Join": []any{"", []any{"arn:", object{"Ref": "AWS::Partition"}, ":events:us-east-1:123456789012:event-bus/application"}}},
		foreign:       foreign,
	} {
		_, made := announcing(t, bus, "")
		text, err := json.Marshal(made.Resources)
		if err != nil || strings.Count(string(text), "events:") != strings.Count(string(text), "events:PutEvents")+strings.Count(string(text), "events:DescribeEventBus")+strings.Count(string(text), ":events:") {
			t.Errorf("other rights on events, %v", err)
		}
		allowed := 0
		for id, r := range made.Resources {
			if r.Type != "AWS::IAM::Policy" {
				continue
			}
			for _, s := range statements(t, r.Properties) {
				if !slices.Contains(s.Action, any("events:PutEvents")) && !slices.Contains(s.Action, any("events:DescribeEventBus")) {
					continue
				}
				allowed++
				if !strings.HasPrefix(id, "AggregatorRole") || s.Effect != "Allow" || len(s.Resource) != 1 || len(s.Action) != 2 {
					t.Errorf("%s: %+v", id, s)
				}
				if diff := cmp.Diff(want, s.Resource[0]); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		}
		if allowed != 1 {
			t.Errorf("%d statements allow it", allowed)
		}
		for function, has := range map[string]bool{"enumerator": false, "worker": true, "aggregator": true} {
			variables := variablesOf(made, prefix+"-"+function)
			if got := strings.Contains(strings.Join(variables, " "), "EVENT_BUS"); got != has {
				t.Errorf("%s gets %v", function, variables)
			}
		}
	}
}

// A pattern without stage or mode would match another deployment's announcements.
func TestThePatternIsOfOneStageAndOneMode(t *testing.T) {
	for stage, mode := range map[string]string{"": "live", "staging": "test"} {
		c, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env", "EVENT_BUS": "application", "STAGE": stage, "STRIPE_MODE": mode})
		if err != nil {
			t.Fatal(err)
		}
		made, _ := synthOf(t, c)
		var got map[string]any
		if err := json.Unmarshal([]byte(made.Outputs["AnnouncementPattern"].Value.(string)), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"source": []any{"subscription-reconciliation"}, "detail-type": []any{"Organization Reconciled"},
			"detail": map[string]any{"stage": []any{stage}, "livemode": []any{mode == "live"}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	c := example(t)
	c.Functions["EVENT_BUS"] = "application"
	delete(c.Functions, "STRIPE_MODE")
	if found := checkConfigured(c.Functions); !strings.Contains(found["STRIPE_MODE"], "EVENT_BUS") {
		t.Errorf("without a mode: %v", found)
	}
}

// checkConfigured returns what is wrong with the functions' variables.
func checkConfigured(functions map[string]string) map[string]string {
	_, problems := checkFunctions(functions)
	found := map[string]string{}
	for _, p := range problems {
		found[p.Variable] = p.Wrong
	}
	return found
}

func TestTheSchemasArePublished(t *testing.T) {
	_, made := announcing(t, "application", "staging")
	found := map[string]bool{}
	for id, r := range made.Resources {
		if r.Type != "AWS::EventSchemas::Schema" {
			continue
		}
		found[r.Properties["SchemaName"].(string)] = true
		var schema map[string]any
		if err := json.Unmarshal([]byte(r.Properties["Content"].(string)), &schema); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		// The newest draft that the registry takes.
		if r.Properties["Type"] != "JSONSchemaDraft4" || schema["$schema"] != "http://json-schema.org/draft-04/schema#" {
			t.Errorf("%s is of type %v, %v", id, r.Properties["Type"], schema["$schema"])
		}
	}
	want := map[string]bool{}
	for _, of := range billing.AnnouncementTypes() {
		want[schemaName(of)] = true
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("(-announced +published):\n%s", diff)
	}
}

func TestCloudFormationMayMakeWhatAnnouncementsNeed(t *testing.T) {
	_, made := announcing(t, "application", "")
	allowed := map[string]bool{}
	for _, s := range policyFile(t, "cloudformation.json") {
		for _, action := range s.Action {
			if text, ok := action.(string); ok {
				allowed[text] = true
			}
		}
	}
	registries, rules := 0, 0
	for _, r := range made.Resources {
		switch r.Type {
		case "AWS::EventSchemas::Registry":
			registries++
			if name := r.Properties["RegistryName"].(string); !strings.HasPrefix(name, prefix) {
				t.Errorf("%s fits no resource of the policy", name)
			}
		case "AWS::Events::Rule":
			rules++
			if name := r.Properties["Name"].(string); !strings.HasPrefix(name, prefix) {
				t.Errorf("%s fits no resource of the policy", name)
			}
		}
	}
	if registries != 1 || !allowed["schemas:*"] {
		t.Errorf("%d registries; schemas:* allowed: %t", registries, allowed["schemas:*"])
	}
	if rules != 1 || !allowed["events:*"] {
		t.Errorf("%d rules; events:* allowed: %t", rules, allowed["events:*"])
	}
}
