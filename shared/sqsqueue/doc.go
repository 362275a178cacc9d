// Package sqsqueue is the wire between the steps: the format of messages, sending them, and
// what a worker tells Amazon SQS about a message it could not finish.
//
// Invariants:
//
//   - Messages carry ids, never customer data.
//   - A send is accepted as a whole or an error: entries that SQS refused are sent again, and
//     those alone. Sending twice is harmless, so an unclear answer is sent again too.
//   - What cannot be decoded is an error with its reason; it never stops its batch.
package sqsqueue
