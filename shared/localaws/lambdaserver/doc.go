// Package lambdaserver serves the Invoke operation of AWS Lambda
// (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html) with functions of this process, so that a program that
// invokes functions through the AWS SDK can run and be tested without AWS.
//
// Invariants:
//
//   - Each invocation has its own request id, which the function finds in its lambdacontext and the caller in
//     X-Amzn-Requestid. A second request is a second invocation.
//   - If the caller disconnects, the function continues, as in Lambda.
//   - If a function returns an error, panics or exceeds its timeout, the response has status 200 and
//     X-Amz-Function-Error, never an HTTP error.
//   - After Close no function of the server is running.
//
// Differences from Lambda: an asynchronous invocation (Event) is tried once, whereas Lambda retries a failed one
// twice. A Go function cannot be killed, so one that ignores its deadline continues although its caller got a
// timeout. Qualifiers are accepted and ignored. A request must be signed, but the signature is not verified. There
// is no log tail.
package lambdaserver
