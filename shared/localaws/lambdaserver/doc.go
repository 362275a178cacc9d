// Package lambdaserver answers the Invoke call of AWS Lambda's HTTP API
// (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html) with functions of
// this process, so that whoever invokes functions through the AWS SDK can be
// run and tested without AWS.
//
// What holds at all times:
//
//   - An invocation has a request id of its own, which the function finds in
//     its lambdacontext and the caller in X-Amzn-Requestid. A second request
//     is a second invocation.
//   - A caller that goes away ends nothing: the function goes on, as in Lambda.
//   - A function that returns an error, panics or passes its timeout answers
//     with status 200 and X-Amz-Function-Error, never with an HTTP error.
//   - After Close no function of the server is running.
//
// Where this differs from Lambda: an asynchronous invocation (Event) is tried
// once, where Lambda tries a failing one twice more; a Go function cannot be
// killed, so one that ignores its deadline goes on although its caller was
// told that it timed out; qualifiers are accepted and say nothing; there is no
// signature check beyond that a request must be signed, and no log tail.
package lambdaserver
