// Package sqsqueue defines the messages between the steps, sends them through Amazon SQS, and delays, dead-letters and
// redrives those that a worker could not finish.
//
// Invariants:
//
//   - Messages contain ids, never customer data.
//   - A send succeeds for all messages or is an error. Only entries that SQS did not accept are sent again, also if
//     the response was lost: a duplicate is harmless.
//   - A message that cannot be decoded is an error with a reason. It never fails its batch.
package sqsqueue
