package main

import "testing"

func TestConnectionsAddUpWorkersAggregatorsAndEnumerators(t *testing.T) {
	c := stackConfig{WorkerConcurrency: 25}
	if got, want := connections(c), "connections to the database, at most: 118 (WORKER_CONCURRENCY 25 x 4, aggregators 3 x 2, enumerators 3 x 4)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
