// Package lambdasource invokes a Lambda handler in this process with the messages of an SQS queue, as Lambda's event
// source mapping does (docs.aws.amazon.com/lambda/latest/dg/with-sqs.html), for local and for tests.
//
// Invariants:
//
//   - A message is deleted only after a handler returned before its deadline without an error and did not list the
//     message as failed.
//   - A failed message is not changed: it becomes visible when its visibility timeout ends, which the handler may have
//     changed.
//   - At most MaxConcurrency invocations run at a time.
//   - After the context of Run ends nothing more is received, running invocations are not interrupted, and messages
//     that were received but not passed to the handler become visible at once.
//
// A batch fails as a whole ("Implementing partial batch responses") if the handler returns an error, panics, exceeds its
// deadline, or reports an itemIdentifier that is empty or not in the batch.
//
// Differences from Lambda:
//
//   - A Go function cannot be killed. A handler that ignores its deadline counts as running until it returns, and its
//     result is ignored.
//   - The handler's response is a Go value, so it cannot be invalid JSON.
//   - Failing invocations do not reduce concurrency, and the payload limit of 6 MB is not enforced.
//   - A receive that is running when the context ends is abandoned. If the queue had already responded, its messages
//     wait for their visibility timeout.
package lambdasource
