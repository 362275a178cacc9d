package mysqlstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Error numbers that MySQL and MariaDB share, but for one.
// https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
const (
	errAccessDeniedToDatabase = 1044
	errAccessDenied           = 1045
	errUnknownDatabase        = 1049
	errUnknownColumn          = 1054
	errDuplicateKey           = 1062
	errHostNotAllowed         = 1130
	errTableAccessDenied      = 1142
	errColumnAccessDenied     = 1143
	errNoSuchTable            = 1146
	errLockWaitTimeout        = 1205
	errDeadlock               = 1213
	errMixedCollations        = 1267
	errMixedCollationsOf3     = 1270
	errMixedCollationsOfMany  = 1271
	errNoPasswordLogin        = 1698
	errCannotConvertString    = 3854 // MySQL's, where MariaDB has one of the mixed collations
)

// failure maps an error of the driver to the failure classes; it is the only place that does.
// doing completes the sentence "cannot ...".
func failure(err error, doing string) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*billing.Failure](err); ok {
		return f
	}
	if billing.IsAnswer(err) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	class, reason, hint := billing.Unavailable, billing.ReasonDatabaseUnavailable, "check that the database runs and DB_HOST and DB_PORT name it"
	switch e, ok := errors.AsType[*mysql.MySQLError](err); {
	case ok:
		class, reason, hint = classify(e)
	case isTLS(err):
		hint = "check that DB_TLS fits the server and its certificate"
	}
	return &billing.Failure{Class: class, Reason: reason, Message: fmt.Sprintf("cannot %s (%s)", doing, hint), Err: err}
}

func classify(e *mysql.MySQLError) (billing.Class, billing.Reason, string) {
	switch e.Number {
	case errAccessDenied, errAccessDeniedToDatabase, errTableAccessDenied, errColumnAccessDenied, errHostNotAllowed, errNoPasswordLogin:
		return billing.RunFatal, billing.ReasonDatabaseLogin, "check DB_USER, DB_PASSWORD and the user's grants"
	case errUnknownDatabase:
		return billing.RunFatal, billing.ReasonDatabaseLogin, "check DB_NAME"
	case errNoSuchTable, errUnknownColumn:
		return billing.RunFatal, billing.ReasonDatabaseLogin, "check that DB_NAME is the application's database and that `reconcile migrate` has been run on it"
	case errLockWaitTimeout, errDeadlock:
		return billing.Unavailable, billing.ReasonDatabaseUnavailable, "another transaction was in the way; trying again helps"
	default:
		return billing.Unavailable, billing.ReasonInternal, "MySQL refused the statement"
	}
}

func isTLS(err error) bool {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return untrusted || errors.Is(err, mysql.ErrNoTLS)
}

func isDuplicateKey(err error) bool {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && e.Number == errDuplicateKey
}

// isOtherCharacterSet: a value has a letter that the character set of the column lacks.
func isOtherCharacterSet(err error) bool {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return false
	}
	switch e.Number {
	case errMixedCollations, errMixedCollationsOf3, errMixedCollationsOfMany, errCannotConvertString:
		return true
	default:
		return false
	}
}
