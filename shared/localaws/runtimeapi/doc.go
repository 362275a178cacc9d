// Package runtimeapi runs a Lambda function's built bootstrap on this machine, as a process of its
// own that talks to Lambda's Runtime API
// (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html). Tests use it to run, and to kill, what
// is deployed.
//
// What holds at all times:
//
//   - A process handles one event at a time; a [Function] starts another one for each concurrent
//     invocation and uses those that are idle again, the latest first.
//   - A process sees the environment that its [Program] gives it and what Lambda sets, with made-up
//     credentials, and nothing of this process's own.
//   - An invocation ends with the function's answer, its error, the end of its process or its
//     timeout, at which the process is killed, as Lambda does it. Should it answer and end at the
//     same time, the answer counts.
//   - A process whose Runtime API is gone ends, so none outlives a test that was killed.
//
// Where this differs from Lambda: memory and payload are not limited, a process is not frozen
// between invocations, and a start that fails is not tried a second time.
package runtimeapi
