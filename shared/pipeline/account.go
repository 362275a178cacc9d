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

// CheckAccount returns the account that the key belongs to, and insists that it is the wanted one, "" being any: with
// the key of another one every subscription would seem to be missing. Where any will do, "" stands for one that the key
// may not read. The consequence ends the message.
func CheckAccount(ctx context.Context, stripe accountReader, want, consequence string) (string, error) {
	got, err := stripe.Account(ctx)
	if err != nil && want == "" && mayNotTell(err) {
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

// mayNotTell: a restricted key need not have the permission to read its account, nor need what answers in Stripe's
// place have that endpoint.
func mayNotTell(err error) bool {
	f := billing.AsFailure(err)
	return f.Reason == billing.ReasonStripeForbidden || f.Class == billing.Permanent
}

func otherAccount(run billing.Run, got string) error {
	return &billing.Failure{Class: billing.RunFatal, Reason: billing.ReasonWrongAccount, Message: fmt.Sprintf(
		"STRIPE_SECRET_KEY belongs to account %s, but run %s reads account %s; give all functions the same key, and set STRIPE_ACCOUNT_ID", got, run.ID, run.AccountID)}
}

// accounts remembers which comparisons of the key's account with a run's came out well.
type accounts struct {
	mu       sync.Mutex
	compared map[comparison]bool
}

// comparison is good for one key, and for the account that the run reads: a run that is resumed may read another.
type comparison struct {
	runID, account string
	renewals       int64
}

// stillSameAccount is asked before Stripe is read for the task and before what was read is written, for the key may
// have been replaced in between.
func (b *batch) stillSameAccount(ctx context.Context, t *task) error {
	if !t.asked {
		return nil
	}
	return b.sameAccount(ctx, t.run)
}

// sameAccount insists that the key is of the account that the run reads, where that is known: what another account
// does not have is no truth. It asks Stripe once for each key and run. Whoever comes meanwhile waits for the answer.
func (r *Reconciler) sameAccount(ctx context.Context, run billing.Run) error {
	if run.AccountID == "" {
		return nil
	}
	r.accounts.mu.Lock()
	defer r.accounts.mu.Unlock()
	asked := comparison{run.ID, run.AccountID, r.Stripe.Renewals()}
	if r.accounts.compared[asked] {
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
	r.accounts.compared[asked] = true
	return nil
}
