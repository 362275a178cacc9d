// Package runtimeapi runs the bootstrap of a Lambda function as a process on this machine and serves Lambda's Runtime
// API to it (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html). Tests use it to run, and to kill, the program that
// is deployed.
//
// Invariants:
//
//   - A process handles one event at a time. A [Function] starts another process for each concurrent invocation and
//     reuses idle ones, the latest first.
//   - A process has the environment of its [Program] and the variables that Lambda sets, with made-up credentials, and
//     no variable of this process.
//   - An invocation ends with the function's response, its error, the end of its process or its timeout, which kills
//     the process, as in Lambda. If a response arrives when the process ends, the response counts.
//   - A process ends when its Runtime API ends, so that none outlives a killed test.
//
// Differences from Lambda: memory and payload are not limited, a process is not frozen between invocations, and a failed
// start is not retried.
package runtimeapi
