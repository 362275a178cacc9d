// Package handler maps the events of the Lambda functions to the steps of the pipeline, and their results to the
// functions' responses. The Lambda functions use it, and local, which runs all three in one process.
package handler
