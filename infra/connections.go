package main

import (
	"fmt"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// enumerators are a run's and the tick's; each start by hand at the same time adds one.
const enumerators = 2

// connections says how many connections to the database the functions hold at a time. An aggregator may
// have its tick beside what the queue feeds.
func connections(c stackConfig) string {
	ticking := aggregators + 1
	total := c.WorkerConcurrency*config.WorkerConnections + ticking*config.AggregatorConnections + enumerators*config.EnumeratorConnections
	return fmt.Sprintf("connections to the database, at most: %d (WORKER_CONCURRENCY %d x %d, aggregators %d x %d, enumerators %d x %d)",
		total, c.WorkerConcurrency, config.WorkerConnections, ticking, config.AggregatorConnections, enumerators, config.EnumeratorConnections)
}
