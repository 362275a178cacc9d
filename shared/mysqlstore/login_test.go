package mysqlstore_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

func TestConnectUsesARotatedLogin(t *testing.T) {
	f := onServer(t)
	config := f.userConfig(t, "rotated")
	f.addPaying(t, "a")
	next := mysqlstore.Login{User: "rotated", Password: "Secret-2-secret"} // secret-scan:allow of a server that the test stops
	renewals := 0
	config.MaxConns = 1
	config.Renew = func(_ context.Context, refused mysqlstore.Login) (mysqlstore.Login, error) {
		renewals++
		if refused.Password != config.Password {
			t.Errorf("the refused password is %q", refused.Password)
		}
		return next, nil
	}
	store := open(t, config)
	f.MustExec(t, `ALTER USER rotated IDENTIFIED BY '`+next.Password+`'`)
	for range 2 {
		f.endConnections(t, store)
		if exists, err := store.OrganizationExists(t.Context(), "a"); !exists || err != nil {
			t.Fatal(exists, err)
		}
	}
	if renewals != 1 {
		t.Errorf("the store renewed its login %d times, want once", renewals)
	}
}

func TestRefusedLoginIsUnavailableWithoutAnotherLogin(t *testing.T) {
	user := 0
	for name, renew := range map[string]func(context.Context, mysqlstore.Login) (mysqlstore.Login, error){
		"the secret has the old login": func(_ context.Context, refused mysqlstore.Login) (mysqlstore.Login, error) { return refused, nil },
		"the secret cannot be read": func(_ context.Context, refused mysqlstore.Login) (mysqlstore.Login, error) {
			return refused, errors.New("throttled")
		},
		"the new login is refused too": func(_ context.Context, refused mysqlstore.Login) (mysqlstore.Login, error) {
			return mysqlstore.Login{User: refused.User, Password: "other"}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := onServer(t)
			user++
			config := f.userConfig(t, "refused"+strconv.Itoa(user))
			config.MaxConns, config.Renew = 1, renew
			store := open(t, config)
			f.MustExec(t, `ALTER USER `+config.User+` IDENTIFIED BY 'Secret-3-secret'`)
			f.endConnections(t, store)
			_, err := store.OrganizationExists(t.Context(), "a")
			wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseLogin)
		})
	}
}

// endConnections closes the store's idle connections, so that its next statement opens one.
func (f *fixture) endConnections(t *testing.T, store *mysqlstore.Store) {
	t.Helper()
	store.DB().SetMaxIdleConns(0)
	store.DB().SetMaxIdleConns(1)
}
