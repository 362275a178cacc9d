package main

import (
	"maps"
	"slices"
	"strconv"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// The variables that each function reads; the worker also reads every list of a tier's prices or products.
// SECRET_NAME, the queues, MAX_RECEIVE_COUNT and REPORT_BUCKET come from the stack itself.
var (
	databaseVariables   = []string{"DB_HOST", "DB_PORT", "DB_USER", "DB_NAME", "DB_TLS", "TIERS"} // TIERS: columns are checked against them
	stripeVariables     = []string{"STRIPE_MODE", "STRIPE_RPS"}
	enumeratorVariables = []string{"STRIPE_ACCOUNT_ID", "MAX_DOWNGRADES", "RUN_DEADLINE", "EVENTS_SETTLE"}
	workerVariables     = []string{"DEFAULT_TIER", "WORKER_CONCURRENCY", "RETRY_BACKOFF"}
	aggregatorVariables = []string{"RETENTION_DAYS"}
	announceVariables   = []string{"EVENT_BUS"} // of the worker and the aggregator
	commonVariables     = []string{"LOG_LEVEL", "STAGE"}
)

// configurable returns the functions' variables that a deployment may set, and the tier lists among names.
func configurable(names []string) []string {
	return slices.Concat(databaseVariables, stripeVariables, enumeratorVariables, workerVariables, aggregatorVariables, announceVariables, commonVariables, tierLists(names))
}

// tierLists returns the names that are lists of a tier's prices or products. Their number depends on TIERS.
func tierLists(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !config.IsTierList(name) })
}

// pair is a variable in a function's environment.
type pair struct{ name, value string }

// environment returns the secret's name and the variables that are set, always in the same order.
func environment(c stackConfig, names ...[]string) []pair {
	pairs := []pair{{"SECRET_NAME", c.SecretName}}
	for _, name := range slices.Concat(names...) {
		if value, set := c.Functions[name]; set {
			pairs = append(pairs, pair{name, value})
		}
	}
	return pairs
}

func enumeratorEnvironment(c stackConfig, q queues) []pair {
	return append(environment(c, databaseVariables, stripeVariables, enumeratorVariables, commonVariables),
		pair{"WORK_QUEUE_URL", *q.work.QueueUrl()}, pair{"RESULTS_QUEUE_URL", *q.results.QueueUrl()})
}

func workerEnvironment(c stackConfig, q queues) []pair {
	lists := tierLists(slices.Sorted(maps.Keys(c.Functions)))
	return append(environment(c, databaseVariables, stripeVariables, workerVariables, lists, announceVariables, commonVariables),
		pair{"MAX_RECEIVE_COUNT", strconv.Itoa(c.WorkReceives)},
		pair{"WORK_QUEUE_URL", *q.work.QueueUrl()}, pair{"RESULTS_QUEUE_URL", *q.results.QueueUrl()},
		pair{"DEAD_LETTER_QUEUE_URL", *q.deadLetter.QueueUrl()})
}

func aggregatorEnvironment(c stackConfig, reports *archive) []pair {
	mode := []string{"STRIPE_MODE"} // is part of each announcement
	pairs := environment(c, databaseVariables, aggregatorVariables, mode, announceVariables, commonVariables)
	if reports != nil {
		pairs = append(pairs, pair{reportBucket, *reports.name})
	}
	return pairs
}
