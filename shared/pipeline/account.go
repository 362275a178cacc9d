package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

type accountReader interface {
	Account(ctx context.Context) (string, error)
}

// CheckAccount returns the account that the key belongs to. It fails if want is another account, because with a wrong
// key every subscription would seem to be missing. If want is "", any account is right, and the result is "" if the key
// may not read its account. The consequence is the end of the error message.
func CheckAccount(ctx context.Context, stripe accountReader, want, consequence string) (string, error) {
	got, err := stripe.Account(ctx)
	if err != nil && want == "" && accountUnreadable(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("check the Stripe account: %w", err)
	}
	if want != "" && got != want {
		return "", &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonWrongAccount, Message: fmt.Sprintf(
			"STRIPE_SECRET_KEY belongs to account %s but STRIPE_ACCOUNT_ID is %s; correct one of them%s", got, want, consequence)}
	}
	return got, nil
}

// accountUnreadable reports whether the error means that the account cannot be read at all: a restricted key may lack
// the permission, and a server in Stripe's place may lack the endpoint.
func accountUnreadable(err error) bool {
	f := billing.AsFailure(err)
	return f.Reason == billing.ReasonStripeForbidden || f.Class == billing.Permanent
}

func otherAccount(run billing.Run, got string) error {
	return &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonWrongAccount, Message: fmt.Sprintf(
		"STRIPE_SECRET_KEY belongs to account %s, but run %s reads account %s; give all functions the same key, and set STRIPE_ACCOUNT_ID", got, run.ID, run.AccountID)}
}

// accounts remembers which keys were compared with which run's account and matched.
type accounts struct {
	mu       sync.Mutex
	compared map[comparison]bool
}

// comparison holds for one key and for one account of the run: a resumed run may read another account.
type comparison struct {
	runID, account string
	keyVersion     int64
}

// checkTaskAccount checks the account before Stripe is read for the task, and again before the result is written,
// because the key may have been replaced in between.
func (b *batch) checkTaskAccount(ctx context.Context, t *task) error {
	if !t.calledStripe {
		return nil
	}
	return b.checkRunAccount(ctx, t.run)
}

// checkRunAccount fails if the key belongs to another account than the one that the run reads. An unknown account of
// the run or of the key passes. It asks Stripe once for each key and run; concurrent callers wait for the response.
func (r *Reconciler) checkRunAccount(ctx context.Context, run billing.Run) error {
	if run.AccountID == "" {
		return nil
	}
	r.accounts.mu.Lock()
	defer r.accounts.mu.Unlock()
	current := comparison{run.ID, run.AccountID, r.Stripe.KeyVersion()}
	if r.accounts.compared[current] {
		return nil
	}
	got, err := CheckAccount(ctx, r.Stripe, "", "")
	if err != nil {
		return err
	}
	if got != "" && got != run.AccountID {
		return otherAccount(run, got)
	}
	if got == "" {
		r.Log.WarnContext(ctx, "the Stripe key may not read its account, so it is not compared with that of the run", telemetry.KeyRunID, run.ID)
	}
	if r.accounts.compared == nil {
		r.accounts.compared = map[comparison]bool{}
	}
	r.accounts.compared[current] = true
	return nil
}
