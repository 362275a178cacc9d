package billing

import "time"

// capFactor bounds the backoff: 30 s grows to 30 min.
const capFactor = 60

// Backoff returns the minimum visibility timeout after the n-th failed receive: base, doubling up to sixty times base.
func Backoff(base time.Duration, receives int) time.Duration {
	doubled := base
	for i := 1; i < receives && doubled < base*capFactor; i++ {
		doubled *= 2
	}
	return min(doubled, base*capFactor)
}

// Receives returns the number of receives whose backoffs add up to the run's deadline: an outage shorter than that
// dead-letters nothing.
func Receives(base, deadline time.Duration) int {
	receives := 1
	for waited := time.Duration(0); waited < deadline && receives < MaxReceives; receives++ {
		waited += Backoff(base, receives)
	}
	return receives
}

// MaxReceives is the highest maxReceiveCount that SQS allows.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
const MaxReceives = 1000
