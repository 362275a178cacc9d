package main

import (
	_ "embed" // the schemas
	"encoding/json"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventschemas"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// The contract with consumers of the bus; tests compare it with the events that are sent.
var (
	//go:embed schema/organization-reconciled.json
	reconciledSchema string
	//go:embed schema/reconciliation-run-finished.json
	runFinishedSchema string
)

// newAnnouncements lets the aggregator send to the bus, if there is one, and publishes the schemas in EventBridge's
// registry, from which consumers can generate code. The bus belongs to the application; the stack creates none.
func newAnnouncements(stack awscdk.Stack, c stackConfig, f functions) {
	if c.eventBus() == "" {
		return
	}
	allowIf(f.aggregator.Role(), calledBy(stack, c, "aggregator"), []string{"events:PutEvents", "events:DescribeEventBus"}, busArn(stack, c))
	registry := awseventschemas.NewCfnRegistry(stack, jsii.String("Announcements"), &awseventschemas.CfnRegistryProps{
		RegistryName: jsii.String(c.name("announcements")), Description: jsii.String("What the subscription reconciliation announces on " + c.eventBus()),
	})
	for _, schema := range []struct {
		id, content string
		of          billing.AnnouncementType
	}{
		{"Reconciled", reconciledSchema, billing.AnnounceReconciled},
		{"RunFinished", runFinishedSchema, billing.AnnounceRunFinished},
	} {
		awseventschemas.NewCfnSchema(stack, jsii.String(schema.id+"Schema"), &awseventschemas.CfnSchemaProps{
			RegistryName: registry.AttrRegistryName(), SchemaName: jsii.String(schemaName(schema.of)),
			Type: jsii.String("JSONSchemaDraft4"), Content: &schema.content,
		})
	}
}

// schemaName follows EventBridge's convention: source@DetailType.
func schemaName(of billing.AnnouncementType) string {
	return billing.AnnouncementSource + "@" + strings.ReplaceAll(string(of), " ", "")
}

// eventBus is the name or ARN of the bus for announcements; "": nothing is announced.
func (c stackConfig) eventBus() string { return c.Functions[eventBus] }

func busArn(stack awscdk.Stack, c stackConfig) *string {
	if strings.HasPrefix(c.eventBus(), "arn:") {
		return jsii.String(c.eventBus())
	}
	return stack.FormatArn(&awscdk.ArnComponents{Service: jsii.String("events"), Resource: jsii.String("event-bus"), ResourceName: jsii.String(c.eventBus())})
}

// announced is the pattern of a rule for announcements of this type, of this stage and mode only. Otherwise a stage on a
// copied database would change what another stage's users may do. A configuration with a bus always has a mode.
func (c stackConfig) announced(of billing.AnnouncementType) map[string]any {
	return map[string]any{
		"source": []string{billing.AnnouncementSource}, "detail-type": []string{string(of)},
		"detail": map[string]any{"stage": []string{c.Stage}, "livemode": []bool{c.Functions["STRIPE_MODE"] == string(config.ModeLive)}},
	}
}

// announcementPattern is the pattern as JSON.
func (c stackConfig) announcementPattern(of billing.AnnouncementType) string {
	text, err := json.Marshal(c.announced(of))
	if err != nil {
		panic(err) // cannot happen: strings and a bool
	}
	return string(text)
}
