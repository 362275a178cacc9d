// Package testworld is what tests run the pipeline in: a database with all tables, a fake Stripe and queues over HTTP,
// and a clock that moves only when the test says so. Tests only may import it.
//
// [New] makes a [World]; its methods create organizations and runs, build the pipeline's steps, and read what is left.
// [Hooks] stand between a step and all that it calls; a [Killer] ends a step at its n-th call.
package testworld
