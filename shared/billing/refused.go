package billing

import (
	"sync"
	"time"
)

// RotationGrace is how long refused credentials count as unavailable where new ones can be fetched: Secrets
// Manager's rotation for a single user changes the password before the secret.
// https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotating-secrets_strategies.html
const RotationGrace = 10 * time.Minute

// Refusals remembers since when a program's credentials are refused. Its methods may be called from several
// goroutines.
type Refusals struct {
	mu    sync.Mutex
	since time.Time
}

// Classify returns what a refusal of the credentials means: it passes until [RotationGrace] after the first one,
// and is about the run from then on.
func (r *Refusals) Classify(f *Failure, now time.Time) *Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() {
		r.since = now
	}
	if now.Sub(r.since) >= RotationGrace {
		return f
	}
	passing := *f
	passing.Class = Unavailable
	return &passing
}

// Reset forgets the refusals.
func (r *Refusals) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since = time.Time{}
}
