package wire

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Queues returns the client of the queues.
func Queues(settings aws.Config) *sqs.Client { return sqs.NewFromConfig(settings) }
