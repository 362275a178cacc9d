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

// fetchPause is how long a secret that had nothing new is not fetched again: each of a worker's requests may be
// refused.
const fetchPause = time.Second

// rotation is the configuration of a function that may outlive what its secret said when it started. Its
// methods may be called from several goroutines.
type rotation struct {
	needs   []config.Need
	log     *slog.Logger
	account string // that the function was started for; "" for any

	mu      sync.Mutex
	config  config.Config
	fetched time.Time
}

// since returns the configuration, fetched anew where it still has what was refused.
func (r *rotation) since(ctx context.Context, stillRefused func(config.Config) bool) (config.Config, error) {
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

// databaseLogin is what [mysqlstore.Config] asks for a new login.
func (r *rotation) databaseLogin(ctx context.Context, refused mysqlstore.Login) (mysqlstore.Login, error) {
	login := func(c config.Config) mysqlstore.Login {
		return mysqlstore.Login{User: c.Database.User, Password: c.Database.Password.Reveal()}
	}
	c, err := r.since(ctx, func(c config.Config) bool { return login(c) == refused })
	return login(c), err
}

// stripeKey is what [stripesource.Config] asks for a new key. One of another account would make every
// subscription look as if it were gone.
func (r *rotation) stripeKey(ctx context.Context, refused string) (string, error) {
	c, err := r.since(ctx, func(c config.Config) bool { return c.Stripe.SecretKey.Reveal() == refused })
	key := c.Stripe.SecretKey.Reveal()
	if err != nil || key == refused || r.account == "" {
		return key, err
	}
	account, err := stripesource.New(stripesource.Config{Key: key, BaseURL: c.Stripe.APIBase, Log: r.log}).Account(ctx)
	if err != nil {
		return refused, err
	}
	if account != r.account {
		return refused, fmt.Errorf("the new key is of account %s, this function was started for %s", account, r.account)
	}
	return key, nil
}
