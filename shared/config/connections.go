package config

// How many connections to the database a process of a function holds at most. Those of a deployment add up
// to what the server must bear.
const (
	EnumeratorConnections = 4
	// WorkerConnections is less than the organizations that a worker has in hand at once: these wait for
	// Stripe for most of their time.
	WorkerConnections     = 4
	AggregatorConnections = 2
)
