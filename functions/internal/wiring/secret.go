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

// secretTimeout bounds the fetch with its retries. Lambda allows 10 s for initialization.
const secretTimeout = 5 * time.Second

// Environment returns environ and, where SECRET_NAME is set, the variables of that secret in AWS Secrets Manager;
// environ wins. The AWS settings are the process's. The error is a *config.Error and contains no value.
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
	settings, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithLogger(logging.Nop{})) // its errors are returned
	if err != nil {
		return "", fmt.Errorf("AWS settings: %w", err)
	}
	secret, err := secretsmanager.NewFromConfig(settings).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		return "", secretError(name, settings.Region, err)
	}
	if secret.SecretString == nil {
		return "", config.SecretError(name, "which holds bytes, not text", "a secret with JSON text")
	}
	return aws.ToString(secret.SecretString), nil
}

// secretError says why a secret could not be fetched and what to do.
func secretError(name, region string, err error) error {
	if _, ok := errors.AsType[*types.ResourceNotFoundException](err); ok {
		return config.SecretError(name, "which does not exist in region "+region, "the name or ARN of a secret that exists, or AWS_REGION to its region")
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		switch api.ErrorCode() {
		case "AccessDeniedException", "DecryptionFailure":
			return config.SecretError(name, "which may not be read ("+api.ErrorCode()+")",
				"a secret that may be read, or allow secretsmanager:GetSecretValue on it and kms:Decrypt on its key")
		case "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "InvalidClientTokenId":
			return config.SecretError(name, "but AWS refuses the credentials ("+api.ErrorCode()+")", "AWS credentials that are valid")
		case "InvalidRequestException":
			return config.SecretError(name, "which is marked for deletion", "another secret, or restore it")
		}
	}
	return config.SecretError(name, "which cannot be fetched ("+telemetry.OneLine(err.Error())+")",
		"AWS_REGION and credentials, and check that Secrets Manager can be reached from this network")
}
