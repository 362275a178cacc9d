package wiring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// secretTimeout bounds the fetch with its retries. Lambda ends a start after 10 s.
const secretTimeout = 5 * time.Second

// Environment returns the variables that a program starts with: those given and, beneath them,
// those of the secret that SECRET_NAME names, fetched from AWS Secrets Manager; without it, those
// given. AWS_* settings are the process's. The error is a *config.Error and holds no value.
func Environment(ctx context.Context, environ map[string]string) (map[string]string, error) {
	name := config.SecretName(environ)
	if name == "" {
		return environ, nil
	}
	text, err := fetchSecret(ctx, name)
	if err != nil {
		return nil, err
	}
	values, err := config.FromSecret(name, text)
	if err != nil {
		return nil, err
	}
	return config.Merge(environ, values), nil
}

func fetchSecret(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	settings, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithLogger(logging.Nop{})) // what matters comes as an error
	if err != nil {
		return "", fmt.Errorf("AWS settings: %w", err)
	}
	secret, err := secretsmanager.NewFromConfig(settings).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		return "", secretError(name, settings.Region, err)
	}
	if secret.SecretString == nil {
		return "", config.SecretError(name, "which holds bytes and no text", "a secret with JSON text")
	}
	return aws.ToString(secret.SecretString), nil
}

// secretError says what to do about a secret that could not be fetched.
func secretError(name, region string, err error) error {
	if _, ok := errors.AsType[*types.ResourceNotFoundException](err); ok {
		return config.SecretError(name, "which does not exist in region "+region, "the name or ARN of one that does, or AWS_REGION to where it is")
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		switch api.ErrorCode() {
		case "AccessDeniedException", "DecryptionFailure":
			return config.SecretError(name, "which may not be read ("+api.ErrorCode()+")",
				"one that may, or allow secretsmanager:GetSecretValue on it and kms:Decrypt on its key")
		case "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "InvalidClientTokenId":
			return config.SecretError(name, "but AWS does not take the credentials ("+api.ErrorCode()+")", "AWS credentials that are valid")
		case "InvalidRequestException":
			return config.SecretError(name, "which is marked for deletion", "another, or restore it")
		}
	}
	return config.SecretError(name, "which cannot be fetched ("+telemetry.OneLine(err.Error())+")",
		"AWS_REGION and credentials, and see that Secrets Manager can be reached from this network")
}
