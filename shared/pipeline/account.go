package pipeline

import (
	"context"
	"fmt"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

type accountReader interface {
	Account(ctx context.Context) (string, error)
}

// CheckAccount insists that the key belongs to the wanted account, "" being any: with the key of
// another one every subscription would seem to be missing. The consequence ends the message.
func CheckAccount(ctx context.Context, stripe accountReader, want, consequence string) error {
	if want == "" {
		return nil
	}
	got, err := stripe.Account(ctx)
	if err != nil {
		return fmt.Errorf("check the Stripe account: %w", err)
	}
	if got != want {
		return &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonWrongAccount, Message: fmt.Sprintf(
			"STRIPE_SECRET_KEY belongs to account %s but STRIPE_ACCOUNT_ID is %s; correct one of them%s", got, want, consequence)}
	}
	return nil
}
