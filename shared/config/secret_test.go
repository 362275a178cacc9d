package config_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// renderings returns the value in every form in which it could reach a log.
func renderings(t *testing.T, value any) string {
	t.Helper()
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		fmt.Fprintf(&out, verb+"\n", value)
	}
	fmt.Fprintln(&out, value)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("loaded", "config", value)
	slog.New(slog.NewTextHandler(&out, nil)).Info("loaded", "config", value)
	if err := json.NewEncoder(&out).Encode(value); err != nil {
		t.Errorf("json: %v", err)
	}
	return out.String()
}

// contains reports whether the text contains the secret, quoted or in hexadecimal too.
func contains(text, secret string) bool {
	quoted := fmt.Sprintf("%q", secret)
	asJSON, _ := json.Marshal(secret) //nolint:errchkjson // a string always marshals
	for _, form := range []string{
		secret, quoted[1 : len(quoted)-1], string(asJSON[1 : len(asJSON)-1]),
		fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret),
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestSecretIsRedactedUnlessRevealed(t *testing.T) {
	const value = "correct horse battery staple"
	secret := config.NewSecret(value)
	// Unexported on purpose: fmt does not call the methods of such a field.
	holder := struct{ secret config.Secret }{secret}
	texts := renderings(t, secret) + renderings(t, &secret) + renderings(t, map[string]any{"secret": secret}) +
		renderings(t, holder)
	asXML, err := xml.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	if contains(texts+string(asXML), value) {
		t.Errorf("the secret is printed: %s", texts)
	}
	if !strings.Contains(texts, "[redacted]") {
		t.Errorf("no placeholder in %s", texts)
	}
	if secret.Reveal() != value || secret.IsZero() {
		t.Errorf("Reveal() = %q", secret.Reveal())
	}
}

func TestSecretsAreEqualByValue(t *testing.T) {
	if !config.NewSecret("a").Equal(config.NewSecret("a")) || config.NewSecret("a").Equal(config.NewSecret("b")) {
		t.Error("Equal does not compare the values")
	}
	var none config.Secret
	if !none.IsZero() || none.Reveal() != "" || !none.Equal(config.NewSecret("")) {
		t.Error("a secret that was not set has a value")
	}
}

func TestConfigRendersWithoutItsSecrets(t *testing.T) {
	const password, key = "correct horse battery staple", "sk_live_placeholder"
	loaded := mustLoad(t, complete("DB_PASSWORD", password, "STRIPE_SECRET_KEY", key), everyNeed...)
	texts := renderings(t, loaded) + renderings(t, &loaded)
	if contains(texts, password) || contains(texts, key) {
		t.Errorf("a secret is printed: %s", texts)
	}
	if !strings.Contains(texts, "db.example.internal") {
		t.Errorf("the rest is not printed: %s", texts)
	}
}

// FuzzNoSecretIsPrinted sets a secret in its own variable and in a wrong one: no rendering of the configuration
// and no error may contain it.
func FuzzNoSecretIsPrinted(f *testing.F) {
	names := variableNames(f)
	for i := range names {
		f.Add("correct horse battery staple", uint8(i))
	}
	f.Add("sk_live_placeholder", uint8(5))
	f.Add("%s%d\x00\n\"'`", uint8(4))
	f.Add("https://user:secret@stripe.example.com", uint8(7))
	f.Fuzz(func(t *testing.T, secret string, index uint8) {
		name := names[int(index)%len(names)]
		if len(secret) < 8 {
			t.Skip("too short to be told from the text around it")
		}
		_, err := config.Load(complete(name, secret), everyNeed...)
		if _, unset := config.Load(complete(name, "an other"), everyNeed...); err != nil &&
			contains(err.Error()+renderings(t, err), secret) && !contains(fmt.Sprint(unset), secret) {
			t.Errorf("as %s it is in the error: %v", name, err)
		}

		const keyPrefix = "rk_test_"
		loaded, err := config.Load(complete("DB_PASSWORD", secret, "STRIPE_SECRET_KEY", keyPrefix+secret))
		baseline := renderings(t, mustLoad(t, complete()))
		if contains(baseline, secret) {
			t.Skip("the rest of the configuration contains it")
		}
		text := renderings(t, loaded)
		if err != nil {
			text = renderings(t, err) + err.Error()
		}
		if contains(text, secret) {
			t.Errorf("printed: %s", text)
		}
		if err == nil && loaded.Database.Password.Reveal() != secret {
			t.Errorf("Reveal() = %q, want %q", loaded.Database.Password.Reveal(), secret)
		}
	})
}
