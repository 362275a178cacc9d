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

// CheckApplication compares the server and the application's tables with what this system needs
// of them: columns, types, NULLs, statuses and tiers, and what the login may do; rights to write
// only where a run writes. All problems stand in the one error, which is about the run. warnings
// are what is missed and can be done without.
//
// It executes nothing but looks at the schema. Rights are tried by statements that the server
// prepares only: that refuses what executing would, whatever a right comes from (table, column,
// role, view), and takes no lock, fires no trigger and reaches no log.
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
	if err := s.writable(ctx); err != nil {
		return nil, err
	}
	var problems []string
	for _, table := range []string{orgTable, rowTable} {
		found, err := s.columns(ctx, table)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			problems = append(problems, "there is no table "+table+", or DB_USER has no right to it: check DB_NAME")
			continue
		}
		problems = append(problems, misfits(table, found, s.tiers)...)
		refused, err := s.refusals(ctx, table, found, writes)
		if err != nil {
			return nil, err
		}
		problems = append(problems, refused...)
	}
	return problems, nil
}

// writable fails on a read-only server as a write would, before anything is written. Dry runs write
// too: to this system's own tables. After a failover the connection leads to what is a reader now, so
// it is not used again.
func (s *Store) writable(ctx context.Context) (err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
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
		return err
	}
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // which is how the pool is told
	return readOnly
}

// column is one that a table has.
type column struct {
	kind     string // without its parameters: VARCHAR
	declared string // with them: varchar(36)
	width    sql.NullInt64
	null     bool
}

// columns returns those of the table that the login has any right to, by name.
func (s *Store) columns(ctx context.Context, table string) (map[string]column, error) {
	found := map[string]column{}
	err := query(ctx, s.db, func(r *sql.Rows) error {
		var name, null string
		var c column
		err := r.Scan(&name, &c.kind, &c.declared, &c.width, &null)
		c.kind, c.null = strings.ToUpper(c.kind), null == "YES"
		found[strings.ToLower(name)] = c // MySQL does not tell them apart by case
		return err
	}, `SELECT column_name, data_type, column_type, character_maximum_length, is_nullable
		FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?`, table)
	return found, err
}

// misfits says what is wrong with the columns that are there and which are not.
func misfits(table string, found map[string]column, tiers billing.Tiers) (problems []string) {
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

// types that hold a kind of value as this system reads and writes it. An ENUM does too where every
// value is known.
var types = map[billing.Kind][]string{
	billing.KindText:   {"VARCHAR", "CHAR", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT"},
	billing.KindTime:   {"TIMESTAMP", "DATETIME"},
	billing.KindFlag:   append(integers, "BIT"),
	billing.KindNumber: integers,
}

// wrongType says why the column cannot hold what stands in it by its purpose; "" where it can.
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

// wrongValues says what an ENUM lacks, or that it ranks its values otherwise than this system.
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

// enumValues reads them from what information_schema says: enum('free','pro'). A quote in a value
// stays doubled; none of ours has one.
func enumValues(declared string) []string {
	inner := strings.TrimSuffix(declared[strings.Index(declared, "(")+1:], ")")
	return strings.Split(strings.Trim(inner, "'"), "','")
}

// refusals says what the login may not do with the columns that are there.
func (s *Store) refusals(ctx context.Context, table string, found map[string]column, writes bool) (problems []string, err error) {
	all := func(applicationColumn) bool { return true }
	rights := []right{{"SELECT", namesIn(table, found, all), func(names []string) string {
		return `SELECT ` + strings.Join(names, ", ") + ` FROM ` + table
	}}}
	if writes {
		updated := func(c applicationColumn) bool { return c.updated }
		inserted := func(c applicationColumn) bool { return c.inserted }
		rights = append(rights, right{"UPDATE", namesIn(table, found, updated), func(names []string) string {
			return `UPDATE ` + table + ` SET ` + strings.Join(names, " = ?, ") + ` = ? WHERE FALSE`
		}}, right{"INSERT", namesIn(table, found, inserted), func(names []string) string {
			return `INSERT INTO ` + table + ` (` + strings.Join(names, ", ") + `) VALUES ` + in(len(names))
		}})
	}
	for _, r := range rights {
		refused, err := s.refused(ctx, table, r)
		if err != nil {
			return nil, err
		}
		problems = append(problems, refused...)
	}
	return problems, nil
}

// namesIn picks the columns of the table that are there.
func namesIn(table string, found map[string]column, fits func(applicationColumn) bool) (names []string) {
	for _, c := range applicationColumns(nil) {
		if _, there := found[c.Name()]; there && c.Table() == table && fits(c) {
			names = append(names, c.Name())
		}
	}
	return names
}

// right is one to do something with each of some columns.
type right struct {
	name      string
	columns   []string
	statement func(columns []string) string
}

// refused tries all columns at once, and where that is refused one after the other.
func (s *Store) refused(ctx context.Context, table string, r right) ([]string, error) {
	if len(r.columns) == 0 {
		return nil, nil
	}
	refusal, err := s.try(ctx, r.statement(r.columns))
	if refusal == nil {
		return nil, err
	}
	if !isDenied(refusal) {
		return []string{"MySQL refuses " + r.name + " on " + table + ": " + refusal.Message}, nil
	}
	var denied []string
	for _, name := range r.columns {
		if refusal, err = s.try(ctx, r.statement([]string{name})); err != nil {
			return nil, err
		}
		if refusal != nil {
			denied = append(denied, name)
		}
	}
	return []string{fmt.Sprintf("DB_USER lacks %s (%s) on %s: grant it", r.name, strings.Join(denied, ", "), table)}, nil
}

// try has the server prepare a statement, and returns what it has against it.
func (s *Store) try(ctx context.Context, stmt string) (refusal *mysql.MySQLError, err error) {
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

// missingKeys names the keys that the application can do without and should not.
func (s *Store) missingKeys(ctx context.Context, writes bool) (warnings []string, err error) {
	for _, key := range uniqueKeys {
		table, name, _ := strings.Cut(key.field, ".")
		unique, err := texts(ctx, s.db, `SELECT LOWER(MIN(column_name)) FROM information_schema.statistics
			WHERE table_schema = DATABASE() AND table_name = ? GROUP BY index_name
			HAVING COUNT(*) = 1 AND MAX(non_unique) = 0 AND MIN(column_name) IS NOT NULL`, table)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(unique, name) {
			warnings = append(warnings, key.field+" has no unique key: "+key.without)
		}
	}
	missing, err := s.lacksForeignKey(ctx, writes)
	if missing {
		warnings = append(warnings, rowTable+" has no foreign key to "+orgTable+": rows of organizations that are gone keep their subscription's id, "+
			"and whose it becomes is in conflict with them")
	}
	return warnings, err
}

// lacksForeignKey is true where it is certain. MariaDB shows foreign keys to who may change something
// by column or in the whole database, and the table's definition to who has a right to the table.
func (s *Store) lacksForeignKey(ctx context.Context, writes bool) (bool, error) {
	keys, err := texts(ctx, s.db, selectForeignKeys)
	if err != nil || len(keys) > 0 {
		return false, err
	}
	lacks := true
	err = query(ctx, s.db, func(r *sql.Rows) error {
		names, err := r.Columns() // a view has more of them
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
