package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// The settings of database and Stripe may be in the secret only; then they are not missing.
func TestSettingsMayComeFromASecret(t *testing.T) {
	p := newPlace(t, mysqltest.New(t))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text, err := json.Marshal(p.environ)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if err := json.NewEncoder(w).Encode(map[string]string{"SecretString": string(text)}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": server.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
		"AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	environ := map[string]string{"SECRET_NAME": "pixell/prod"}
	if code, a := local(t.Context(), t, environ, "--dry-run"); code != cli.ExitOK && code != cli.ExitNotOK || a.Result.TotalOrganizations == 0 {
		t.Errorf("exit %d, %+v", code, a)
	}
	if runs := mysqltest.Value[int](t, p.db, `SELECT COUNT(*) FROM reconciliation_runs WHERE status NOT IN (?, ?)`, billing.RunEnumerating, billing.RunRunning); runs != 1 {
		t.Errorf("%d runs in the secret's database", runs)
	}
	server.Close()
	if code, a := local(t.Context(), t, environ, "--dry-run"); code != cli.ExitUsage || a.Error.Code != "configuration" {
		t.Errorf("without a response: exit %d, %+v", code, a.Error)
	}
}
