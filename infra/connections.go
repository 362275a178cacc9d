package main

import (
	"fmt"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// connections says how many database connections the functions hold at most. A tick may run an aggregator and an
// enumerator beside those that their queues feed; each start by hand adds an enumerator.
func connections(c stackConfig) string {
	aggregators, enumerators := aggregators+1, enumerators+1
	total := c.WorkerConcurrency*config.WorkerConnections + aggregators*config.AggregatorConnections + enumerators*config.EnumeratorConnections
	return fmt.Sprintf("connections to the database, at most: %d (WORKER_CONCURRENCY %d x %d, aggregators %d x %d, enumerators %d x %d)",
		total, c.WorkerConcurrency, config.WorkerConnections, aggregators, config.AggregatorConnections, enumerators, config.EnumeratorConnections)
}
