// Package eventserver is the part of Amazon EventBridge that this system uses, for tests and the chaos tests: it
// serves PutEvents and DescribeEventBus in the AWS JSON 1.1 protocol over HTTP.
//
// Point an AWS SDK at it with the environment variable AWS_ENDPOINT_URL_EVENTBRIDGE=URL, any credentials and any
// region, or use [Server.AWSConfig]. A request without an Authorization header is refused; signatures are not
// verified.
//
// As EventBridge does, it
//
//   - refuses a request with no entry, with more than ten, or with more than 1 MB of them, as a whole
//     (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html);
//   - refuses an entry without source, detail-type or detail, or whose detail is not a JSON object: only that
//     entry, unless all entries of the request are invalid;
//   - accepts events for a bus that does not exist, and drops them
//     (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html): only DescribeEventBus fails;
//   - gives each accepted event its own id, also if it was sent before.
//
// It has no rules and no targets: [Options.OnEvent] receives the events, or the server keeps them.
package eventserver
