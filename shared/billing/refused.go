package billing

import (
	"sync"
	"time"
)

// RotationGrace is how long a refusal of credentials that can be fetched again counts as temporary: Secrets Manager's
// single-user rotation changes the password before the secret.
// https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotating-secrets_strategies.html
const RotationGrace = 10 * time.Minute

// Refusals remembers since when the credentials are refused. It is safe for concurrent use.
type Refusals struct {
	mu    sync.Mutex
	since time.Time
}

// Classify returns the failure as temporary during [RotationGrace] after the first refusal, and unchanged afterwards.
func (r *Refusals) Classify(f *Failure, now time.Time) *Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		r.since = now
	}
	if now.Sub(r.since) >= RotationGrace {
		return f
	}
	temporary := *f
	temporary.Class = Unavailable
	return &temporary
}

// Reset ends the grace period, once credentials were accepted.
func (r *Refusals) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since = time.Time{}
}
