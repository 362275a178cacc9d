package mysqlstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

// Error numbers of MySQL and MariaDB. Most are the same in both.
// https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
// https://mariadb.com/kb/en/mariadb-error-code-reference/
const (
	errTooManyConnections     = 1040
	errAccessDeniedToDatabase = 1044
	errAccessDenied           = 1045
	errUnknownDatabase        = 1049
	errShuttingDown           = 1053
	errUnknownColumn          = 1054
	errDuplicateKey           = 1062
	errHostBlocked            = 1129
	errHostNotAllowed         = 1130
	errTableAccessDenied      = 1142
	errColumnAccessDenied     = 1143
	errNoSuchTable            = 1146
	errTooManyOfUser          = 1203
	errLockWaitTimeout        = 1205
	errDeadlock               = 1213
	errResourcesOfUser        = 1226
	errMixedCollations        = 1267
	errMixedCollationsOf3     = 1270
	errMixedCollationsOfMany  = 1271
	errTableNotUpdatable      = 1288 // a view
	errServerReadOnly         = 1290
	errInterrupted            = 1317
	errColumnNotUpdatable     = 1348 // of a view
	errNotInsertable          = 1471 // a view
	errStatementLogging       = 1665
	errNoPasswordLogin        = 1698
	errTransactionReadOnly    = 1792
	errPasswordMustChange     = 1820
	errReadOnlyMode           = 1836
	errPasswordExpired        = 1862
	errInnoDBReadOnly         = 1874
	errStatementTimeMariaDB   = 1969
	errStatementTime          = 3024
	errOffline                = 3032
	errGeneratedColumn        = 3105
	errAccountLocked          = 3118
	errTLSRequired            = 3159
	errCannotConvertString    = 3854 // MySQL only; MariaDB reports mixed collations
	errLoginsBlocked          = 3955
	errInactive               = 4031
	errAccountLockedMariaDB   = 4151
)

// rowRefusals are the errors that mean that a row can never be written as it is.
var rowRefusals = []uint16{
	1048, // NULL where none may be
	errDuplicateKey,
	1216, 1217, 1451, 1452, // foreign keys
	1264, 1265, 1292, 1366, 1406, 1411, 1690, // a value that the column cannot hold
	1364,       // no default
	1369,       // a view's condition
	1442,       // a trigger that writes its own table
	1526,       // no partition
	1643, 1644, // a trigger's SIGNAL
	errGeneratedColumn, 1906, // a generated column (MySQL, MariaDB)
	3140,       // no JSON
	3819, 4025, // CHECK (MySQL, MariaDB)
}

// isRowRefusal also recognizes SIGNAL in a trigger, which may set any number, by SQLSTATE class 45,
// "user-defined".
func isRowRefusal(e *mysql.MySQLError) bool {
	return slices.Contains(rowRefusals, e.Number) || string(e.SQLState[:2]) == "45"
}

// failure maps an error of the driver to a failure class; nothing else does. doing completes the sentence
// "cannot ...".
func failure(err error, doing string) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*billing.Failure](err); ok {
		return f
	}
	if billing.IsConflict(err) {
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
	login := func(hint string) (billing.Class, billing.Reason, string) {
		return billing.RunFatal, billing.ReasonDatabaseLogin, hint
	}
	transient := func(hint string) (billing.Class, billing.Reason, string) {
		return billing.Unavailable, billing.ReasonDatabaseUnavailable, hint
	}
	if isReadOnly(e) {
		return transient("this server is read-only; name the writer in DB_HOST, on RDS and Aurora not a reader's endpoint")
	}
	switch e.Number {
	case errAccessDenied, errAccessDeniedToDatabase, errTableAccessDenied, errColumnAccessDenied, errHostNotAllowed, errNoPasswordLogin:
		return login("check DB_USER, DB_PASSWORD and the user's grants, and DB_TLS where the server or the user requires TLS")
	case errPasswordExpired, errPasswordMustChange:
		return login("the password of DB_USER has expired; set a new one with ALTER USER, and DB_PASSWORD to it")
	case errAccountLocked, errAccountLockedMariaDB, errLoginsBlocked:
		return login("the account of DB_USER is locked; unlock it with ALTER USER ... ACCOUNT UNLOCK")
	case errTLSRequired:
		return login("the server wants TLS; set DB_TLS to true, to rds for Amazon RDS, or to the file of its CA")
	case errUnknownDatabase:
		return login("check DB_NAME")
	case errNoSuchTable, errUnknownColumn:
		return login("check that DB_NAME is the application's database and that `reconcile migrate` has been run on it")
	case errStatementLogging:
		return login("with binlog_format=STATEMENT the server takes no write at READ COMMITTED; set binlog_format to ROW or MIXED")
	case errLockWaitTimeout, errDeadlock:
		return transient("another transaction was in the way; trying again helps")
	case errTooManyConnections, errTooManyOfUser, errResourcesOfUser:
		return transient("the server's or the user's limit of connections or statements is reached; raise it, or lower WORKER_CONCURRENCY")
	case errHostBlocked:
		return transient("the server blocks this host after failed connections; empty performance_schema.host_cache, or FLUSH HOSTS")
	case errOffline, errShuttingDown, errInactive:
		return transient("the server is going down, offline, or ended an idle connection")
	case errInterrupted, errStatementTime, errStatementTimeMariaDB:
		return transient("the statement was ended by KILL or by the server's limit of time for one")
	default:
		return billing.Unavailable, billing.ReasonInternal, "MySQL refused the statement"
	}
}

// oneLine returns the error with its message, which a trigger may have written, on one line.
func oneLine(e *mysql.MySQLError) *mysql.MySQLError {
	return &mysql.MySQLError{Number: e.Number, SQLState: e.SQLState, Message: telemetry.OneLine(e.Message)}
}

func isReadOnly(e *mysql.MySQLError) bool {
	return slices.Contains([]uint16{errServerReadOnly, errTransactionReadOnly, errReadOnlyMode, errInnoDBReadOnly}, e.Number)
}

func isDenied(e *mysql.MySQLError) bool {
	return e.Number == errTableAccessDenied || e.Number == errColumnAccessDenied
}

// isNotWritable: no login can write to this table or column.
func isNotWritable(e *mysql.MySQLError) bool {
	return slices.Contains([]uint16{errTableNotUpdatable, errColumnNotUpdatable, errNotInsertable, errGeneratedColumn}, e.Number)
}

func isTLS(err error) bool {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return untrusted || errors.Is(err, mysql.ErrNoTLS)
}

func isDuplicateKey(err error) bool {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && e.Number == errDuplicateKey
}

// isInconvertible: the column's character set lacks a character of the value.
func isInconvertible(err error) bool {
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
