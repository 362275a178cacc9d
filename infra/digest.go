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
	// eventsService is who publishes for a rule.
	eventsService = "events.amazonaws.com"
)

// newDigest sends people the digest of each run that is announced: the announcer decides which are. It goes to the
// alarms' topic, or to one of its own. The rule is on the application's bus, so a deployment fails where there is
// no such bus. What could not be delivered for a day ends beside the invocations that failed, with their alarm.
func newDigest(stack awscdk.Stack, c stackConfig, q queues, alarms awssns.ITopic) {
	if !c.sendsDigests() {
		return
	}
	topic := alarms
	if c.DigestEmail != "" {
		own := awssns.NewTopic(stack, jsii.String("DigestTopic"), &awssns.TopicProps{
			TopicName: jsii.String(c.name("digests")), EnforceSSL: jsii.Bool(true),
			DisplayName: jsii.String(strings.TrimSpace("Subscription reconciliation " + c.Stage)), // the sender of its mails
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

// ofRule lets EventBridge do it for the rule alone. A topic that exists already keeps the policy that it has.
func ofRule(rule awsevents.CfnRule, sid, action string, resource *string) awsiam.PolicyStatement {
	return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid: &sid, Principals: &[]awsiam.IPrincipal{awsiam.NewServicePrincipal(jsii.String(eventsService), nil)},
		Actions: jsii.Strings(action), Resources: &[]*string{resource},
		Conditions: &map[string]any{"ArnEquals": map[string]any{"aws:SourceArn": rule.AttrArn()}},
	})
}

// digestTransformer puts each line of the digest on a line of its own. A string's template must stand in double quotes, which
// arrive with it, and one of several lines is a quoted string for each; a line break within a value is not
// documented to arrive as one. Of a line that the digest does not have an empty pair of quotes is left:
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html#eb-transform-input-issues
// and, recorded of AWS, https://github.com/localstack/localstack/blob/main/tests/aws/services/events/test_events_inputs.snapshot.json
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

// sendsDigests reports whether the stack can have a rule on the bus: on that of another account or region it has
// none, for a rule's targets are where the rule is.
func (c stackConfig) sendsDigests() bool {
	return c.eventBus() != "" && isBusOf(c.eventBus(), c.Region, c.Account)
}

// isBusOf reports whether the bus, a name or an ARN, is one of the region and account.
func isBusOf(bus, region, account string) bool {
	parts := strings.Split(bus, ":")
	return len(parts) < 6 || slices.Equal(parts[3:5], []string{region, account})
}

// checkDigest looks for digests that nobody would get.
func checkDigest(values map[string]string) []config.Problem {
	bus := strings.TrimSpace(values[eventBus])
	switch {
	case values[digestEmail] == "":
		return nil
	case bus == "":
		return []config.Problem{{Variable: digestEmail, Wrong: "is set without EVENT_BUS, and digests are announced on that bus", Remedy: "EVENT_BUS too, or leave it out"}}
	case !isBusOf(bus, values["DEPLOY_REGION"], values["DEPLOY_ACCOUNT"]):
		return []config.Problem{{
			Variable: digestEmail, Wrong: "is set, and EVENT_BUS is a bus of another account or region, where this stack can make no rule",
			Remedy: "the name of a bus of DEPLOY_ACCOUNT and DEPLOY_REGION in EVENT_BUS, or leave it out and make the rule there",
		}}
	default:
		return nil
	}
}
