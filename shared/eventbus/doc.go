// Package eventbus sends announcements to an Amazon EventBridge bus. No other package calls EventBridge.
//
// Invariants:
//
//   - Send reports an announcement as accepted or refused only if EventBridge did. The state of all others is
//     unknown: they may have been accepted, and are sent again.
//   - A request has at most ten entries and at most 256 KB, unless one entry alone is larger. The limit of a request
//     was raised to 1 MB, but not for every target of a rule.
//   - If EventBridge cannot parse an entry, only that entry is refused, not the others of its request.
//   - A call ends within 20 s, and when its context ends.
//   - Nothing is sent to a bus that does not exist: EventBridge would accept and drop it
//     (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html). The bus is checked before the
//     first request and again every 15 minutes, so events are lost for at most 15 minutes after a bus was deleted.
//     Without the permission to check, events are sent unchecked, with a warning.
package eventbus
