package lambdaserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/lambdaserver"
)

// start serves one function, called f, and returns a client without retries.
func start(t *testing.T, f lambdaserver.Function, timeout time.Duration) (*lambdaserver.Server, *lambda.Client) {
	t.Helper()
	s, err := lambdaserver.Start(map[string]lambdaserver.Function{"f": f}, timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, lambda.NewFromConfig(s.AWSConfig(), func(o *lambda.Options) { o.Retryer = aws.NopRetryer{} })
}

func invoke(t *testing.T, client *lambda.Client, name, event string) *lambda.InvokeOutput {
	t.Helper()
	out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: []byte(event)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFunctionGetsTheEventAndTheCallersRequestID(t *testing.T) {
	_, client := start(t, func(ctx context.Context, event json.RawMessage) (any, error) {
		invocation, _ := lambdacontext.FromContext(ctx)
		return map[string]string{"event": string(event), "id": invocation.AwsRequestID}, nil
	}, time.Minute)
	seen := map[string]bool{}
	for _, name := range []string{"f", "f:7", "arn:aws:lambda:eu-central-1:123456789012:function:f", "arn:aws:lambda:eu-central-1:123456789012:function:f:live"} {
		out := invoke(t, client, name, `{"a":1}`)
		var answer struct{ Event, ID string }
		if err := json.Unmarshal(out.Payload, &answer); err != nil {
			t.Fatal(err)
		}
		id, _ := middleware.GetRequestIDMetadata(out.ResultMetadata)
		if out.StatusCode != http.StatusOK || out.FunctionError != nil || answer.Event != `{"a":1}` || answer.ID == "" || answer.ID != id || seen[id] {
			t.Errorf("%s: status %d, %+v, request id %s", name, out.StatusCode, answer, id)
		}
		seen[id] = true
	}
}

func TestFunctionErrorIsAResponseWithStatus200(t *testing.T) {
	release := make(chan struct{})
	for name, c := range map[string]struct {
		f    lambdaserver.Function
		want messages.InvokeResponse_Error
	}{
		"error": {
			func(context.Context, json.RawMessage) (any, error) { return nil, &json.SyntaxError{Offset: 3} },
			messages.InvokeResponse_Error{Type: "SyntaxError"},
		},
		"error with its own type": {
			func(context.Context, json.RawMessage) (any, error) {
				return nil, messages.InvokeResponse_Error{Type: "unknown_run", Message: "there is no run x"}
			},
			messages.InvokeResponse_Error{Type: "unknown_run", Message: "there is no run x"},
		},
		"panic": {
			func(context.Context, json.RawMessage) (any, error) { panic("on fire") },
			messages.InvokeResponse_Error{Type: "Runtime.Panic", Message: "on fire"},
		},
		"answer that is no JSON": {
			func(context.Context, json.RawMessage) (any, error) { return make(chan int), nil },
			messages.InvokeResponse_Error{Type: "UnsupportedTypeError", Message: "json: unsupported type: chan int"},
		},
		"deadline": {
			func(context.Context, json.RawMessage) (any, error) {
				<-release
				return nil, nil
			},
			messages.InvokeResponse_Error{Type: "Sandbox.Timedout", Message: "Task timed out after 0.01 seconds"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := time.Minute
			if name == "deadline" {
				timeout = 10 * time.Millisecond
			}
			_, client := start(t, c.f, timeout)
			if name == "deadline" {
				t.Cleanup(func() { close(release) })
			}
			out := invoke(t, client, "f", `{}`)
			var got messages.InvokeResponse_Error
			if err := json.Unmarshal(out.Payload, &got); err != nil {
				t.Fatal(err)
			}
			if out.StatusCode != http.StatusOK || aws.ToString(out.FunctionError) != "Unhandled" || got.Type != c.want.Type || got.Message != c.want.Message {
				t.Errorf("status %d, function error %q, %+v; want %+v", out.StatusCode, aws.ToString(out.FunctionError), got, c.want)
			}
		})
	}
}

func TestInvalidInvocationIsRefusedAsInLambda(t *testing.T) {
	_, client := start(t, func(context.Context, json.RawMessage) (any, error) { return "called", nil }, time.Minute)
	for name, c := range map[string]struct {
		input lambda.InvokeInput
		code  string
	}{
		"unknown function":        {lambda.InvokeInput{FunctionName: aws.String("g")}, "ResourceNotFoundException"},
		"no JSON":                 {lambda.InvokeInput{FunctionName: aws.String("f"), Payload: []byte("{")}, "InvalidRequestContentException"},
		"too large":               {lambda.InvokeInput{FunctionName: aws.String("f"), Payload: fmt.Appendf(nil, "%q", strings.Repeat("x", 6<<20))}, "RequestTooLargeException"},
		"unknown invocation type": {lambda.InvokeInput{FunctionName: aws.String("f"), InvocationType: "Maybe"}, "InvalidParameterValueException"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.Invoke(t.Context(), &c.input)
			apiErr, ok := errors.AsType[smithy.APIError](err)
			if !ok || apiErr.ErrorCode() != c.code || apiErr.ErrorMessage() == "" {
				t.Errorf("%v; want %s", err, c.code)
			}
		})
	}
	anonymous := lambda.New(lambda.Options{Region: "us-east-1", BaseEndpoint: client.Options().BaseEndpoint, Credentials: aws.AnonymousCredentials{}, Retryer: aws.NopRetryer{}})
	if _, err := anonymous.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f")}); err == nil || !strings.Contains(err.Error(), "MissingAuthenticationToken") {
		t.Errorf("unsigned: %v", err)
	}
}

func TestEventReturnsAtOnceAndDryRunInvokesNothing(t *testing.T) {
	called, goOn := make(chan string, 2), make(chan struct{})
	_, client := start(t, func(_ context.Context, event json.RawMessage) (any, error) {
		called <- string(event)
		<-goOn
		return "done", nil
	}, time.Minute)
	for kind, status := range map[types.InvocationType]int32{types.InvocationTypeDryRun: 204, types.InvocationTypeEvent: 202} {
		out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f"), InvocationType: kind, Payload: fmt.Appendf(nil, "%q", kind)})
		if err != nil || out.StatusCode != status {
			t.Errorf("%s: status %d, %v; want %d", kind, out.StatusCode, err, status)
		}
	}
	if event := <-called; event != `"Event"` {
		t.Errorf("called with %s", event)
	}
	close(goOn)
}

func TestInvocationContinuesIfItsCallerDisconnects(t *testing.T) {
	began, gone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	_, client := start(t, func(ctx context.Context, _ json.RawMessage) (any, error) {
		close(began)
		<-gone
		ended <- ctx.Err()
		return "done", nil
	}, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if _, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("f")}); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	close(gone)
	if err := <-ended; err != nil {
		t.Errorf("the function was ended: %v", err)
	}
}

func TestCloseCancelsAndAwaitsInvocations(t *testing.T) {
	began, ended := make(chan struct{}), false
	s, client := start(t, func(ctx context.Context, _ json.RawMessage) (any, error) {
		close(began)
		<-ctx.Done()
		ended = true
		return "saved", nil
	}, time.Minute)
	answer := make(chan string, 1)
	go func() {
		out, err := client.Invoke(context.WithoutCancel(t.Context()), &lambda.InvokeInput{FunctionName: aws.String("f")})
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(out.Payload)
	}()
	<-began
	if err := s.Close(); err != nil || !ended {
		t.Errorf("%v, the function ended: %t", err, ended)
	}
	if got := <-answer; got != `"saved"` {
		t.Errorf("the caller got %s", got)
	}
	if _, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("f")}); err == nil {
		t.Error("a closed server answered")
	}
}
