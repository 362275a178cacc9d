package telemetry

// The keys of log attributes.
const (
	KeyMessage = "message" // of the line itself

	KeyBus               = "bus"
	KeyCount             = "count"
	KeyDelayMs           = "delayMs"
	KeyEndpoint          = "endpoint"
	KeyError             = "error"
	KeyEvent             = "event"
	KeyMessageID         = "messageId"
	KeyOdd               = "odd"
	KeyOrgID             = "orgId"
	KeyQueue             = "queue"
	KeyRateLimitedReason = "rateLimitedReason"
	KeyReason            = "reason"
	KeyReceiveCount      = "receiveCount"
	KeyRequestID         = "requestId"
	KeyRequestsPerSecond = "requestsPerSecond"
	KeyResult            = "result"
	KeyRunID             = "runId"
	KeyStack             = "stack"
)
