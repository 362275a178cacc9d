package billing

import "time"

// capFactor bounds the backoff: 30 s grows to 30 min.
const capFactor = 60

// Backoff is how long a message stays hidden at least after its n-th receive failed: base, doubling up to sixty
// times base.
func Backoff(base time.Duration, receives int) time.Duration {
	doubled := base
	for i := 1; i < receives && doubled < base*capFactor; i++ {
		doubled *= 2
	}
	return min(doubled, base*capFactor)
}

// Receives is how often a message is to be received so that its backoffs add up to the time until a run's deadline:
// an outage that the run survives dead-letters nothing.
func Receives(base, deadline time.Duration) int {
	receives := 1
	for waited := time.Duration(0); waited < deadline && receives < MaxReceives; receives++ {
		waited += Backoff(base, receives)
	}
	return receives
}

// MaxReceives is the most that SQS counts in a redrive policy.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
const MaxReceives = 1000
