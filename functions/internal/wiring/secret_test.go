package wiring_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// secretsManager answers GetSecretValue as AWS does: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
func secretsManager(t *testing.T, answer func(id string) (status int, body map[string]any)) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			SecretID string `json:"SecretId"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || r.Header.Get("Authorization") == "" {
			t.Errorf("%s %v: %v", r.Header.Get("X-Amz-Target"), in, err)
		}
		status, body := answer(in.SecretID)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	awsEnvironment(t, server.URL)
}

func awsEnvironment(t *testing.T, endpoint string) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": endpoint, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
}

func TestEnvironmentWinsOverSecret(t *testing.T) {
	secretsManager(t, func(id string) (int, map[string]any) {
		if id != "pixell/prod" {
			t.Errorf("asked for %q", id)
		}
		return http.StatusOK, map[string]any{"Name": id, "SecretString": `{"DB_PASSWORD":"from the secret","DB_USER":"from the secret","COOKIE_KEY":"x"}`}
	})
	got, err := wiring.Environment(t.Context(), map[string]string{"SECRET_NAME": "pixell/prod", "DB_USER": "from here"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"SECRET_NAME": "pixell/prod", "DB_USER": "from here", "DB_PASSWORD": "from the secret"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEnvironmentWithoutSecretNameFetchesNothing(t *testing.T) {
	awsEnvironment(t, "http://127.0.0.1:1")
	environ := map[string]string{"DB_USER": "from here", "SECRET_NAME": " "}
	got, err := wiring.Environment(t.Context(), environ)
	if diff := cmp.Diff(environ, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestSecretErrorSaysWhatToDo(t *testing.T) {
	refused := func(code, message string) (int, map[string]any) {
		return http.StatusBadRequest, map[string]any{"__type": code, "message": message, "Message": message}
	}
	for name, c := range map[string]struct {
		answer func(string) (int, map[string]any)
		wants  []string
	}{
		"missing": {
			func(string) (int, map[string]any) {
				return refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
			}, []string{"does not exist in region eu-central-1", "AWS_REGION"},
		},
		"denied": {
			func(string) (int, map[string]any) {
				return refused("AccessDeniedException", "User: arn:aws:sts::123456789012:assumed-role/x is not authorized")
			}, []string{"may not be read", "secretsmanager:GetSecretValue"},
		},
		"no key to decrypt it": {
			func(string) (int, map[string]any) { return refused("DecryptionFailure", "no") }, []string{"may not be read", "kms:Decrypt"},
		},
		"credentials": {
			func(string) (int, map[string]any) { return refused("UnrecognizedClientException", "no") }, []string{"credentials"},
		},
		"to be deleted": {
			func(string) (int, map[string]any) { return refused("InvalidRequestException", "marked for deletion") }, []string{"marked for deletion", "restore"},
		},
		"outage": {
			func(string) (int, map[string]any) {
				return http.StatusServiceUnavailable, map[string]any{"message": "later"}
			}, []string{"cannot be fetched", "can be reached"},
		},
		"bytes": {
			func(string) (int, map[string]any) {
				return http.StatusOK, map[string]any{"SecretBinary": "aHVudGVyMg=="}
			}, []string{"not text"},
		},
		"not JSON": {
			func(string) (int, map[string]any) { return http.StatusOK, map[string]any{"SecretString": "hunter2"} }, []string{"no JSON object"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			secretsManager(t, c.answer)
			_, err := wiring.Environment(t.Context(), map[string]string{"SECRET_NAME": "pixell/prod"})
			wantSecretError(t, err, c.wants...)
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		awsEnvironment(t, "http://127.0.0.1:1")
		_, err := wiring.Environment(t.Context(), map[string]string{"SECRET_NAME": "pixell/prod"})
		wantSecretError(t, err, "cannot be fetched", "can be reached")
	})
	t.Run("no region", func(t *testing.T) {
		awsEnvironment(t, "")
		t.Setenv("AWS_REGION", "")
		_, err := wiring.Environment(t.Context(), map[string]string{"SECRET_NAME": "pixell/prod"})
		wantSecretError(t, err, "AWS_REGION")
	})
}

func wantSecretError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if _, ok := errors.AsType[*config.Error](err); !ok {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	for _, part := range append(parts, "pixell/prod", ": set ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %q", part, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has a value or more than one line", err)
	}
}
