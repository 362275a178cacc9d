package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// CheckApplication checks the server and the application's tables: columns, types, NULLs, statuses, tiers, and
// the login's privileges, those to write only if writes is true. The error names every problem and is about the
// run. The warnings name missing keys, without which a run can work.
//
// It only reads the schema. It tests privileges by preparing statements: the server refuses to prepare what it
// would refuse to execute, wherever a privilege comes from (table, column, role, view), and preparing takes no
// locks, fires no triggers and is not logged.
func (s *Store) CheckApplication(ctx context.Context, writes bool) (warnings []string, err error) {
	problems, err := s.problems(ctx, writes)
	if err == nil && len(problems) > 0 {
		return nil, &billing.Failure{
			Class: billing.RunFatal, Reason: billing.ReasonDatabaseSchema,
			Message: "the database is not as this system needs it: " + strings.Join(problems, "; "),
		}
	}
	if err == nil {
		warnings, err = s.missingKeys(ctx, writes)
	}
	return warnings, failure(err, "check the application's tables")
}

func (s *Store) problems(ctx context.Context, writes bool) ([]string, error) {
	if err := s.checkWritable(ctx); err != nil {
		return nil, err
	}
	var problems []string
	for _, table := range []string{organizationsTable, subscriptionsTable} {
		found, err := s.columns(ctx, table)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			problems = append(problems, "there is no table "+table+", or DB_USER has no right to it: check DB_NAME")
			continue
		}
		problems = append(problems, columnProblems(table, found, s.tiers)...)
		missing, err := s.missingPrivileges(ctx, table, found, writes)
		if err != nil {
			return nil, err
		}
		problems = append(problems, missing...)
	}
	return problems, nil
}

// checkWritable fails on a read-only server as a write would. Dry runs write too, to this system's own tables.
// The connection is discarded: after a failover it leads to a reader.
func (s *Store) checkWritable(ctx context.Context) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	var readOnly error
	err = query(ctx, conn, func(r *sql.Rows) error {
		var name, value string
		err := r.Scan(&name, &value)
		if value != "OFF" && value != "0" {
			readOnly = &mysql.MySQLError{Number: errServerReadOnly, Message: name + " is " + value}
		}
		return err
	}, `SHOW GLOBAL VARIABLES WHERE variable_name IN ('read_only', 'innodb_read_only')`)
	if err != nil || readOnly == nil {
		return errors.Join(err, conn.Close())
	}
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // closes it, and the pool discards it
	return readOnly
}

// column is a column of a table.
type column struct {
	kind     string // type without parameters: VARCHAR
	declared string // type with parameters: varchar(36)
	width    sql.NullInt64
	null     bool
}

// columns returns the table's columns on which the login has any privilege, by name.
func (s *Store) columns(ctx context.Context, table string) (map[string]column, error) {
	found := map[string]column{}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var name, null string
		var c column
		err := r.Scan(&name, &c.kind, &c.declared, &c.width, &null)
		c.kind, c.null = strings.ToUpper(c.kind), null == "YES"
		found[strings.ToLower(name)] = c // MySQL ignores the case
		return err
	}, `SELECT column_name, data_type, column_type, character_maximum_length, is_nullable
		FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?`, table)
	return found, err
}

// columnProblems returns what is wrong with the table's columns.
func columnProblems(table string, found map[string]column, tiers billing.Tiers) (problems []string) {
	for _, c := range applicationColumns(tiers) {
		if c.Table() != table {
			continue
		}
		have, ok := found[c.Name()]
		if !ok {
			problems = append(problems, c.Field+" is missing, or DB_USER has no right to it")
			continue
		}
		if wrong := wrongType(c, have); wrong != "" {
			problems = append(problems, c.Field+" "+wrong)
		}
		switch {
		case c.Required && have.null:
			problems = append(problems, c.Field+" may be NULL but must be NOT NULL")
		case c.Null && !have.null:
			problems = append(problems, c.Field+" is NOT NULL but must allow NULL")
		}
	}
	return problems
}

var integers = []string{"TINYINT", "INT", "SMALLINT", "MEDIUMINT", "BIGINT"}

// types are the column types for each kind of value. An ENUM is accepted too if all its values are known.
var types = map[billing.Kind][]string{
	billing.KindText:   {"VARCHAR", "CHAR", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT"},
	billing.KindTime:   {"TIMESTAMP", "DATETIME"},
	billing.KindFlag:   append(integers, "BIT"),
	billing.KindNumber: integers,
}

// wrongType says why the column cannot hold its values; "" if it can.
func wrongType(c applicationColumn, have column) string {
	if have.kind == "ENUM" && c.Values != nil {
		return wrongValues(c, enumValues(have.declared))
	}
	if !slices.Contains(types[c.Kind], have.kind) {
		return fmt.Sprintf("is %s but must be %s", have.declared, strings.Join(types[c.Kind][:2], " or "))
	}
	if c.most > 0 && have.width.Int64 > c.most {
		return fmt.Sprintf("is %s but must be no wider than this system's own %d characters", have.declared, c.most)
	}
	if have.width.Valid && have.width.Int64 < c.least {
		return fmt.Sprintf("is %s but must hold %d characters", have.declared, c.least)
	}
	return ""
}

// wrongValues says which values the ENUM lacks, or that it orders the tiers differently.
func wrongValues(c applicationColumn, have []string) string {
	lacks := slices.DeleteFunc(slices.Clone(c.Values), func(v string) bool { return slices.Contains(have, v) })
	if len(lacks) > 0 {
		return "is an ENUM that lacks " + strings.Join(lacks, ", ")
	}
	ranked := slices.DeleteFunc(slices.Clone(have), func(v string) bool { return !slices.Contains(c.Values, v) })
	if c.Group == billing.GroupTier && !slices.Equal(ranked, c.Values) {
		return "is an ENUM that ranks " + strings.Join(ranked, ", ") + " but must rank " + strings.Join(c.Values, ", ") + " (the lowest first)"
	}
	return ""
}

// enumValues parses a column_type of information_schema: enum('free','pro'). A quote within a value stays
// doubled; our values contain none.
func enumValues(declared string) []string {
	inner := strings.TrimSuffix(declared[strings.Index(declared, "(")+1:], ")")
	return strings.Split(strings.Trim(inner, "'"), "','")
}

// missingPrivileges says which privileges the login lacks on the existing columns.
func (s *Store) missingPrivileges(ctx context.Context, table string, found map[string]column, writes bool) (problems []string, err error) {
	all := func(applicationColumn) bool { return true }
	privileges := []privilege{{"SELECT", namesIn(table, found, all), func(names []string) string {
		return `SELECT ` + strings.Join(names, ", ") + ` FROM ` + table
	}}}
	if writes {
		updated := func(c applicationColumn) bool { return c.updated }
		inserted := func(c applicationColumn) bool { return c.inserted }
		privileges = append(privileges, privilege{"UPDATE", namesIn(table, found, updated), func(names []string) string {
			return `UPDATE ` + table + ` SET ` + strings.Join(names, " = ?, ") + ` = ? WHERE FALSE`
		}}, privilege{"INSERT", namesIn(table, found, inserted), func(names []string) string {
			return `INSERT INTO ` + table + ` (` + strings.Join(names, ", ") + `) VALUES ` + placeholders(len(names))
		}})
	}
	for _, p := range privileges {
		missing, err := s.missingPrivilege(ctx, table, p)
		if err != nil {
			return nil, err
		}
		problems = append(problems, missing...)
	}
	return problems, nil
}

// namesIn returns the existing columns of the table that fit.
func namesIn(table string, found map[string]column, fits func(applicationColumn) bool) (names []string) {
	for _, c := range applicationColumns(nil) {
		if _, exists := found[c.Name()]; exists && c.Table() == table && fits(c) {
			names = append(names, c.Name())
		}
	}
	return names
}

// privilege is the privilege to execute a statement on each of the columns.
type privilege struct {
	name      string
	columns   []string
	statement func(columns []string) string
}

// missingPrivilege tests all columns at once and, if that is refused, each of them.
func (s *Store) missingPrivilege(ctx context.Context, table string, p privilege) ([]string, error) {
	if len(p.columns) == 0 {
		return nil, nil
	}
	refusal, err := s.tryPrepare(ctx, p.statement(p.columns))
	if refusal == nil {
		return nil, err
	}
	if !isDenied(refusal) {
		return []string{"MySQL refuses " + p.name + " on " + table + ": " + refusal.Message}, nil
	}
	var denied []string
	for _, name := range p.columns {
		if refusal, err = s.tryPrepare(ctx, p.statement([]string{name})); err != nil {
			return nil, err
		}
		if refusal != nil {
			denied = append(denied, name)
		}
	}
	return []string{fmt.Sprintf("DB_USER lacks %s (%s) on %s: grant it", p.name, strings.Join(denied, ", "), table)}, nil
}

// tryPrepare has the server prepare a statement and returns its refusal, if any.
func (s *Store) tryPrepare(ctx context.Context, stmt string) (refusal *mysql.MySQLError, err error) {
	prepared, err := s.db.PrepareContext(ctx, stmt)
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && (isDenied(e) || isNotWritable(e)) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prepared.Close()) }()
	return nil, nil //nolint:nilnil // nothing is refused
}

// missingKeys warns of missing unique and foreign keys.
func (s *Store) missingKeys(ctx context.Context, writes bool) (warnings []string, err error) {
	for _, key := range uniqueKeys {
		table, name, _ := strings.Cut(key.field, ".")
		unique, err := selectStrings(ctx, s.db, `SELECT LOWER(MIN(column_name)) FROM information_schema.statistics
			WHERE table_schema = DATABASE() AND table_name = ? GROUP BY index_name
			HAVING COUNT(*) = 1 AND MAX(non_unique) = 0 AND MIN(column_name) IS NOT NULL`, table)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(unique, name) {
			warnings = append(warnings, key.field+" has no unique key: "+key.risk)
		}
	}
	missing, err := s.lacksForeignKey(ctx, writes)
	if missing {
		warnings = append(warnings, subscriptionsTable+" has no foreign key to "+organizationsTable+": rows of organizations that are gone keep their subscription's id, "+
			"and whose it becomes is in conflict with them")
	}
	return warnings, err
}

// lacksForeignKey returns true only if it is certain. In information_schema MariaDB shows foreign keys only to
// a login that may write single columns or the whole database; SHOW CREATE TABLE shows them to a login with any
// privilege on the table.
func (s *Store) lacksForeignKey(ctx context.Context, writes bool) (bool, error) {
	keys, err := selectStrings(ctx, s.db, selectForeignKeys)
	if err != nil || len(keys) > 0 {
		return false, err
	}
	lacks := true
	err = query(ctx, s.db, func(r *sql.Rows) error {
		names, err := r.Columns() // a view returns more of them
		if err != nil {
			return err
		}
		shown, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range shown {
			into[i] = &shown[i]
		}
		err = r.Scan(into...)
		for _, text := range shown {
			lacks = lacks && !strings.Contains(text.String, aForeignKey)
		}
		return err
	}, showForeignKeys)
	if _, refused := errors.AsType[*mysql.MySQLError](err); refused {
		return writes, nil
	}
	return lacks, err
}
