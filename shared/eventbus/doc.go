// Package eventbus sends announcements to an Amazon EventBridge bus. Nothing else speaks to EventBridge.
//
// What holds:
//
//   - What is reported as accepted, EventBridge has accepted. What is reported as refused, it refused for itself.
//     Of what is reported as neither nothing is known: it may have been accepted, and is sent again.
//   - A request has at most ten entries and, unless one alone is larger, 256 KB: the limit of what a request
//     may hold was raised to 1 MB, but not for every target of a rule.
//   - An entry that EventBridge cannot read is refused alone, whatever request it was in.
//   - A call ends within 20 s, and with its context.
//   - Nothing is sent to a bus that does not exist: EventBridge would accept it and drop it
//     (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html). It is looked at before the first
//     request and again every 15 minutes: what is sent within that time after a bus was deleted is lost. Who lacks
//     the right to look sends unseen, with a warning.
package eventbus
