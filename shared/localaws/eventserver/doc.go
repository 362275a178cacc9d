// Package eventserver is an Amazon EventBridge for one machine, as far as this system speaks to it: it answers
// PutEvents and DescribeEventBus in the AWS JSON 1.1 protocol over HTTP. Tests and the fault campaign run it; in production the same
// code talks to Amazon EventBridge.
//
// Point an AWS SDK at it with the environment variable AWS_ENDPOINT_URL_EVENTBRIDGE=URL, any credentials and any
// region, or use [Server.AWSConfig]. A request without an Authorization header is refused; signatures are not
// verified.
//
// As EventBridge does, it
//
//   - refuses a request with no entry, with more than ten, or with more than 1 MB of them
//     (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html), as a whole;
//   - refuses an entry without source, detail-type or detail, or whose detail is no JSON object, alone, unless
//     all are such;
//   - accepts events for a bus that does not exist, and drops them
//     (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html): only DescribeEventBus tells;
//   - gives each accepted event an id of its own, one that is sent twice too.
//
// It has no rules and no targets: events are handed to [Options.OnEvent], or kept, as a target gets them.
package eventserver
