package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssns"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssnssubscriptions"
	"github.com/aws/jsii-runtime-go"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

const (
	digestEmail = "DIGEST_EMAIL"
	eventBus    = "EVENT_BUS"
	// eventsService is the principal that publishes for a rule.
	eventsService = "events.amazonaws.com"
)

// newDigest sends people the digest of each announced run, to the alarms' topic or to a separate one. The rule is on the
// application's bus, so a deployment fails if the bus does not exist. A digest that cannot be delivered for a day goes
// to the queue of failed invocations, which has an alarm.
func newDigest(stack awscdk.Stack, c stackConfig, q queues, alarms awssns.ITopic) {
	if !c.sendsDigests() {
		return
	}
	topic := alarms
	if c.DigestEmail != "" {
		own := awssns.NewTopic(stack, jsii.String("DigestTopic"), &awssns.TopicProps{
			TopicName: jsii.String(c.name("digests")), EnforceSSL: jsii.Bool(true),
			DisplayName: jsii.String(strings.TrimSpace("Subscription reconciliation " + c.Stage)), // the sender of the mails
		})
		own.AddSubscription(awssnssubscriptions.NewEmailSubscription(&c.DigestEmail, nil))
		newOutput(stack, "DigestTopic", "Where digests go, to subscribe to", own.TopicArn())
		topic = own
	}
	rule := awsevents.NewCfnRule(stack, jsii.String("Digest"), &awsevents.CfnRuleProps{
		Name: jsii.String(c.name("digest")), Description: jsii.String("Sends people how a run of the subscription reconciliation ended"),
		EventBusName: jsii.String(c.eventBus()), EventPattern: c.announced(billing.AnnounceRunFinished),
		Targets: []any{&awsevents.CfnRule_TargetProperty{
			Id: jsii.String("topic"), Arn: topic.TopicArn(), InputTransformer: digestTransformer(),
			DeadLetterConfig: &awsevents.CfnRule_DeadLetterConfigProperty{Arn: q.failed.QueueArn()},
		}},
	})
	topic.AddToResourcePolicy(ofRule(rule, "DigestsOfThisStack", "sns:Publish", topic.TopicArn()))
	q.failed.AddToResourcePolicy(ofRule(rule, "UndeliveredDigests", "sqs:SendMessage", q.failed.QueueArn()))
	newOutput(stack, "DigestRule", "Who publishes digests, for the policy of a topic that the stack did not make", rule.AttrArn())
}

// ofRule allows EventBridge the action, for this rule only. An existing topic ignores it and keeps its policy.
func ofRule(rule awsevents.CfnRule, sid, action string, resource *string) awsiam.PolicyStatement {
	return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid: &sid, Principals: &[]awsiam.IPrincipal{awsiam.NewServicePrincipal(jsii.String(eventsService), nil)},
		Actions: jsii.Strings(action), Resources: &[]*string{resource},
		Conditions: &map[string]any{"ArnEquals": map[string]any{"aws:SourceArn": rule.AttrArn()}},
	})
}

// digestTransformer puts each line of the digest on a separate line. A template of strings needs double quotes, which
// stay in the mail, and one quoted string for each line; whether a line break inside a value is kept is not documented.
// A line that the digest does not have leaves an empty pair of quotes:
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html#eb-transform-input-issues
// and, recorded from AWS, https://github.com/localstack/localstack/blob/main/tests/aws/services/events/test_events_inputs.snapshot.json
func digestTransformer() *awsevents.CfnRule_InputTransformerProperty {
	paths := map[string]*string{}
	var template []string
	for i := range billing.MaxDigestLines {
		name := fmt.Sprintf("line%d", i)
		paths[name] = jsii.String(fmt.Sprintf("$.detail.lines[%d]", i))
		template = append(template, fmt.Sprintf(`"<%s>"`, name))
	}
	return &awsevents.CfnRule_InputTransformerProperty{InputPathsMap: paths, InputTemplate: jsii.String(strings.Join(template, "\n"))}
}

// sendsDigests reports whether the stack can have a rule on the bus. It cannot on a bus of another account or region,
// because a rule and its targets must be in the same place.
func (c stackConfig) sendsDigests() bool {
	return c.eventBus() != "" && isBusOf(c.eventBus(), c.Region, c.Account)
}

// isBusOf reports whether the bus, a name or an ARN, is in the region and account.
func isBusOf(bus, region, account string) bool {
	parts := strings.Split(bus, ":")
	return len(parts) < 6 || slices.Equal(parts[3:5], []string{region, account})
}

// checkDigest reports a DIGEST_EMAIL that would never receive a digest.
func checkDigest(values map[string]string) []config.Problem {
	bus := strings.TrimSpace(values[eventBus])
	switch {
	case values[digestEmail] == "":
		return nil
	case bus == "":
		return []config.Problem{{Variable: digestEmail, Wrong: "is set without EVENT_BUS, on which digests are announced", Remedy: "EVENT_BUS too, or leave it out"}}
	case !isBusOf(bus, values["DEPLOY_REGION"], values["DEPLOY_ACCOUNT"]):
		return []config.Problem{{
			Variable: digestEmail, Wrong: "is set, but EVENT_BUS is in another account or region, where this stack cannot create a rule",
			Remedy: "the name of a bus of DEPLOY_ACCOUNT and DEPLOY_REGION in EVENT_BUS, or leave it out and create the rule there",
		}}
	default:
		return nil
	}
}
