// Package sqsserver is an Amazon SQS server for one machine: it serves the
// AWS JSON 1.0 protocol over HTTP, keeps standard queues in memory and
// behaves as the SQS documentation says. The local program and tests run it;
// in production the same code calls Amazon SQS.
//
// Point an AWS SDK at it with the environment variable
// AWS_ENDPOINT_URL_SQS=URL, any credentials and any region, or use
// [Server.AWSConfig]. A request without an Authorization header is refused
// with MissingAuthenticationToken, as Amazon refuses it; signatures are not
// verified.
//
// Invariants:
//
//   - A message is in exactly one queue and in one state there: ready (it can
//     be received), delayed, or in flight. Every operation locks the whole
//     server, so counts are exact although SQS calls them approximate.
//   - Sending, receiving, deleting and changing visibility cost O(log n) in
//     the number of messages in the queue.
//   - Time comes from [Options.Clock]. A long poll ends with a message, its
//     wait time, the request's context, or Close.
//
// Behaviour that the documentation does not define:
//
//   - Order: messages are received in the order in which they became ready.
//   - Receipt handles: only the handle of the latest receive counts.
//     DeleteMessage with an older one, or for a deleted message,
//     succeeds and deletes nothing ("the request will succeed, but the
//     message might not be deleted", API reference of DeleteMessage). The
//     latest handle still deletes after its visibility timeout ended.
//     A string that is not a handle of that queue is ReceiptHandleIsInvalid.
//   - ChangeMessageVisibility with the latest handle of a message that is
//     not in flight is MessageNotInflight; with an older handle, or for a
//     deleted message, it is InvalidParameterValue ("Message does not
//     exist or is not available for visibility timeout change").
//   - Dead-letter queues: the receive that would exceed maxReceiveCount moves
//     the message instead of returning it. It keeps its id, its first enqueue
//     time and its ApproximateReceiveCount ("across all queues"), and the
//     count towards maxReceiveCount starts again. If the dead-letter queue
//     has been deleted, the message is delivered.
//   - Message move tasks move the visible messages of the dead-letter queue:
//     all at once, or with a rate that many at the start of each second. A
//     task is COMPLETED when no message is visible. Moved messages are new
//     messages: new id, new enqueue time, receive count 0.
//   - Queue URLs are matched by account and name; the host is ignored.
//   - Attributes of policies, encryption and FIFO queues are refused.
//   - Only the actions that this project uses exist: no listing or purging of
//     queues, no FIFO queues, tags or permissions.
package sqsserver
