package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func TestSecretReturnsKnownVariablesOnly(t *testing.T) {
	got, err := config.FromSecret("pixell/prod", ` {"DB_PASSWORD":"päss \"word\" ","DB_PORT":3307,"STRIPE_RPS":12.50,"DB_TLS":true,
		"STRIPE_MODE":"","SECRET_NAME":"other","AWS_REGION":"x","SESSION_KEYS":["of the application"],"db_host":"x","TIERS":"none,gold","STRIPE_PRODUCT_ID_GOLD":"prod_1"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"DB_PASSWORD": `päss "word" `, "DB_PORT": "3307", "STRIPE_RPS": "12.50", "DB_TLS": "true", "STRIPE_MODE": "",
		"TIERS": "none,gold", "STRIPE_PRODUCT_ID_GOLD": "prod_1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnreadableSecretIsAnErrorWithoutItsValue(t *testing.T) {
	for name, c := range map[string]struct{ text, wants string }{
		"text":     {`hunter2`, "no JSON object"},
		"empty":    {``, "no JSON object"},
		"null":     {`null`, "no JSON object"},
		"list":     {`["hunter2"]`, "no JSON object"},
		"torn":     {`{"DB_PASSWORD":"hunter2"`, "no JSON object"},
		"two":      {`{"DB_PASSWORD":"hunter2"}{}`, "no JSON object"},
		"nested":   {`{"DB_PASSWORD":{"value":"hunter2"}}`, "DB_PASSWORD"},
		"a list":   {`{"STRIPE_PRICE_ID_PRO":["hunter2"]}`, "STRIPE_PRICE_ID_PRO"},
		"no value": {`{"DB_PASSWORD":null,"OTHER":"hunter2"}`, "DB_PASSWORD"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.FromSecret("pixell/prod", c.text)
			if _, ok := errors.AsType[*config.Error](err); !ok || got != nil {
				t.Fatalf("FromSecret() = %v, %v", got, err)
			}
			for _, part := range []string{"pixell/prod", c.wants, ": set "} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in %q", part, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has a value or more than one line", err)
			}
		})
	}
}

func TestNonEmptyVariableWinsOverTheSecret(t *testing.T) {
	secret := map[string]string{"DB_USER": "secret", "DB_PASSWORD": "secret", "STRIPE_ACCOUNT_ID": "acct_1"}
	environ := map[string]string{"DB_USER": "environment", "DB_HOST": "localhost", "STRIPE_ACCOUNT_ID": "", "STRIPE_MODE": ""}
	want := map[string]string{"DB_USER": "environment", "DB_HOST": "localhost", "DB_PASSWORD": "secret", "STRIPE_ACCOUNT_ID": "acct_1", "STRIPE_MODE": ""}
	if diff := cmp.Diff(want, config.Merge(environ, secret)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(environ, config.Merge(environ, nil)); diff != "" {
		t.Errorf("without a secret (-want +got):\n%s", diff)
	}
	if len(secret) != 3 || len(environ) != 4 {
		t.Error("an argument was changed")
	}
}

func TestSecretNameIsTrimmed(t *testing.T) {
	for value, want := range map[string]string{"": "", "  ": "", " pixell/prod ": "pixell/prod"} {
		if got := config.SecretName(map[string]string{"SECRET_NAME": value}); got != want {
			t.Errorf("%q: %q", value, got)
		}
	}
}
