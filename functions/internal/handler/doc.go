// Package handler maps Lambda's events to the steps of the pipeline, and their results to
// Lambda's answers. It stands apart from the programs that start it because two need it: the
// Lambda function, and local, which runs all three in one process.
package handler
