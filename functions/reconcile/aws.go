package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Codes of errors from AWS.
const (
	codeCredentials = "aws_credentials"
	codeDenied      = "access_denied"
	codeNotFound    = "not_found"
	codeThrottled   = "aws_throttled"
	codeUnreachable = "aws_unreachable"
	codeRefused     = "aws_refused"
	codeInterrupted = cli.CodeInterrupted
)

// awsSettings loads the SDK's settings from the environment and ~/.aws, and retrieves the credentials once: an error is
// easier to explain here than in the middle of a request.
func awsSettings(ctx context.Context) (aws.Config, error) {
	settings, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithLogger(logging.Nop{})) // problems are returned as errors
	if err != nil {
		return settings, &cli.Error{
			Exit: cli.ExitUsage, Code: "configuration", Err: errors.New("AWS settings: " + telemetry.OneLine(err.Error())), Hint: "check AWS_PROFILE and ~/.aws/config",
		}
	}
	if settings.Region == "" {
		return settings, &cli.Error{
			Exit: cli.ExitUsage, Code: "configuration", Err: errors.New("AWS_REGION is not set"), Hint: "set it to the region of the stack, or use a profile that has one (AWS_PROFILE)",
		}
	}
	if _, err := settings.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return settings, ctx.Err()
		}
		return settings, noCredentials(err)
	}
	return settings, nil
}

func noCredentials(err error) error {
	why := telemetry.OneLine(err.Error())
	if last, ok := errors.AsType[*smithy.OperationError](err); ok && last.ServiceID == "ec2imds" {
		why = "none are set" // the SDK asks the instance metadata last
	}
	return &cli.Error{
		Exit: cli.ExitFailed, Code: codeCredentials, Err: errors.New("there are no AWS credentials: " + why),
		Hint: "sign in (aws sso login) and set AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	}
}

// identityTime bounds the call that names the caller, which is recorded only.
const identityTime = 3 * time.Second

// caller is the ARN of the credentials, or user@host if AWS does not answer or the enumerator is that of local.
func (c *command) caller(ctx context.Context, settings aws.Config) string {
	if c.environ["AWS_ENDPOINT_URL_LAMBDA"] != "" && c.environ["AWS_ENDPOINT_URL_STS"] == "" {
		return cli.Operator()
	}
	ctx, cancel := context.WithTimeout(ctx, identityTime)
	defer cancel()
	out, err := sts.NewFromConfig(settings).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || aws.ToString(out.Arn) == "" {
		return cli.Operator()
	}
	return aws.ToString(out.Arn)
}

// target is the subject of a request to AWS.
type target struct {
	what     string // such as "function reconciliation-enumerator"
	variable string // that names it
	region   string
}

// awsError explains an error of AWS in one line and says what to do. No other function reads AWS's error codes. It
// returns nil and errors of type [cli.Error] unchanged.
func awsError(ctx context.Context, err error, about target) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if _, explained := errors.AsType[*cli.Error](err); explained {
		return err
	}
	e := &cli.Error{Exit: cli.ExitFailed}
	refused, answered := errors.AsType[smithy.APIError](err)
	if !answered {
		e.Code, e.Err = codeUnreachable, errors.New("no answer from AWS for "+about.what+" in region "+about.region+": "+rootCause(err))
		e.Hint = "check the network and AWS_REGION, and AWS_ENDPOINT_URL_* where they are set"
		return e
	}
	message := telemetry.OneLine(refused.ErrorMessage())
	switch refused.ErrorCode() {
	case "ResourceNotFoundException", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist":
		e.Code, e.Err = codeNotFound, errors.New("there is no "+about.what+" in region "+about.region)
		e.Hint = "check " + about.variable + ", AWS_REGION and the account of the credentials"
	case "AccessDenied", "AccessDeniedException":
		e.Code, e.Err = codeDenied, errors.New("AWS denies access to "+about.what+": "+message)
		e.Hint = "use credentials with this permission, or grant it"
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "MissingAuthenticationToken", "MissingAuthenticationTokenException":
		e.Code, e.Err = codeCredentials, errors.New("AWS refuses the credentials: "+message)
		e.Hint = "sign in again (aws sso login), or check AWS_PROFILE and AWS_ACCESS_KEY_ID"
	case "TooManyRequestsException", "RequestThrottled", "ThrottlingException", "Throttling":
		e.Code, e.Err = codeThrottled, errors.New("AWS throttles requests for "+about.what+": "+message)
		e.Hint = "try again in a minute"
	default:
		e.Code, e.Err = codeRefused, errors.New("AWS refused a request for "+about.what+": "+refused.ErrorCode()+": "+message)
	}
	return e
}

// rootCause is the text of a network error without the SDK's words around it.
func rootCause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return telemetry.OneLine(op.Error())
	}
	return telemetry.OneLine(err.Error())
}
