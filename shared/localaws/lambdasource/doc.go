// Package lambdasource feeds a Lambda handler from an SQS queue, in this
// process, the way Lambda's event source mapping does in AWS
// (docs.aws.amazon.com/lambda/latest/dg/with-sqs.html). The local program and
// tests use it; in production Lambda itself does this work.
//
// What holds at all times:
//
//   - A message is deleted only after a handler returned without an error,
//     before its deadline, and did not list the message as failed.
//   - A failed message is not touched: it becomes visible again when its
//     visibility timeout ends, or when the handler set it to.
//   - At most MaxConcurrency invocations run at a time.
//   - Once the context of Run ends nothing more is received, running
//     invocations end in their own time, and messages that were received but
//     not handed to the handler are made visible again at once.
//
// A batch fails as a whole ("Implementing partial batch responses") when the
// handler returns an error, panics, passes its deadline, or reports an
// itemIdentifier that is empty or not in the batch.
//
// Where this differs from Lambda:
//
//   - A Go function cannot be killed. A handler that ignores its deadline
//     keeps its place until it returns, and its result is then ignored.
//   - The handler's answer is a Go value, so the case of an answer that is no
//     JSON does not arise.
//   - Failing invocations do not reduce concurrency, and the 6 MB limit of an
//     invocation's payload is not enforced.
//   - A receive that is under way when the context ends is abandoned. Should
//     the queue have answered in that moment, its messages wait for their
//     visibility timeout.
package lambdasource
