// Package testworld has everything that tests of the pipeline need: a database with all tables, a fake Stripe and queues
// over HTTP, and a clock that only the test advances. Only tests may import it.
//
// [New] returns a [World]. Its methods create organizations and runs, build the pipeline's steps, and read the results.
// A step calls its [Hooks] before and after each call to the outside. A [Killer] ends a step at its n-th call.
package testworld
