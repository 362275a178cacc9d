package startup

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/wiring"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource"
)

// fetchPause is the least time between two fetches of the secret: all of a worker's requests may be refused at once.
const fetchPause = time.Second

// rotation has the configuration, and fetches it again when the secret's credentials are refused: a secret may be
// rotated during the life of a process. Its methods may be called concurrently.
type rotation struct {
	needs   []config.Need
	log     *slog.Logger
	account string // the Stripe account that the key must belong to; "" for any

	mu      sync.Mutex
	config  config.Config
	fetched time.Time
}

// refresh returns the configuration. It fetches the configuration again if that still has the refused credentials.
func (r *rotation) refresh(ctx context.Context, stillRefused func(config.Config) bool) (config.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !stillRefused(r.config) || time.Since(r.fetched) < fetchPause {
		return r.config, nil
	}
	r.fetched = time.Now()
	environ, err := wiring.Environment(ctx, config.Environ(os.Environ()))
	if err != nil {
		return r.config, err
	}
	fresh, err := config.Load(environ, r.needs...)
	if err != nil {
		return r.config, err
	}
	r.config = fresh
	return fresh, nil
}

// databaseLogin returns the login that replaces a refused one, for [mysqlstore.Config].
func (r *rotation) databaseLogin(ctx context.Context, refused mysqlstore.Login) (mysqlstore.Login, error) {
	login := func(c config.Config) mysqlstore.Login {
		return mysqlstore.Login{User: c.Database.User, Password: c.Database.Password.Reveal()}
	}
	c, err := r.refresh(ctx, func(c config.Config) bool { return login(c) == refused })
	return login(c), err
}

// stripeKey returns the key that replaces a refused one, for [stripesource.Config]. It refuses a key of another
// account: every subscription would seem to be deleted.
func (r *rotation) stripeKey(ctx context.Context, refused string) (string, error) {
	c, err := r.refresh(ctx, func(c config.Config) bool { return c.Stripe.SecretKey.Reveal() == refused })
	key := c.Stripe.SecretKey.Reveal()
	if err != nil || key == refused || r.account == "" {
		return key, err
	}
	account, err := stripesource.New(stripesource.Config{Key: key, BaseURL: c.Stripe.APIBase, Log: r.log}).Account(ctx)
	if err != nil {
		return refused, err
	}
	if account != r.account {
		return refused, fmt.Errorf("the new key belongs to account %s, this function was started for account %s", account, r.account)
	}
	return key, nil
}
