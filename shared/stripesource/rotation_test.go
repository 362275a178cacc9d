package stripesource_test

import (
	"context"
	"errors"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

func TestRequestWithARolledKeyIsSentAgainWithTheNewKey(t *testing.T) {
	server := serve(t, stripetest.Options{})
	asked := 0
	client := newClient(server, func(c *stripesource.Config) {
		c.Renew = func(context.Context, string) (string, error) {
			asked++
			return server.Key(), nil
		}
	})
	for range 2 {
		server.RollKey()
		for range 2 {
			if _, err := client.Account(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times for a new key, there were two", asked)
	}
	if got := client.TakeUsage().Other; got != 6 {
		t.Errorf("%d requests counted, 6 were sent", got)
	}
}

func TestRolledKeyIsUnavailableUntilThereIsAnother(t *testing.T) {
	for name, renew := range map[string]func(context.Context, string) (string, error){
		"the secret has the old one": func(_ context.Context, refused string) (string, error) { return refused, nil },
		"the secret cannot be read":  func(context.Context, string) (string, error) { return "", errors.New("throttled") },
		"the new one is refused too": func(_ context.Context, refused string) (string, error) { return refused + "-other", nil },
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, stripetest.Options{})
			client := newClient(server, func(c *stripesource.Config) { c.Renew = renew })
			server.RollKey()
			_, err := client.Account(t.Context())
			if f := billing.AsFailure(err); f.Class != billing.Unavailable || f.Reason != billing.ReasonStripeUnauthorized {
				t.Errorf("%v, %s: %v", f.Class, f.Reason, err)
			}
		})
	}
}
