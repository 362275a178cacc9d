package testworld

import (
	"database/sql"
	"maps"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/appschema"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
)

// Exec executes a statement.
func (w *World) Exec(statement string, args ...any) {
	w.Helper()
	w.DB.MustExec(w.TB, statement, args...)
}

// Count returns the one number that a query selects.
func (w *World) Count(query string, args ...any) int {
	w.Helper()
	return mysqltest.Value[int](w.TB, w.DB, query, args...)
}

// Run returns a run, or the zero value if it does not exist.
func (w *World) Run(id string) billing.Run {
	w.Helper()
	runs, err := w.Store.Runs(w.Context(), []string{id})
	if err != nil {
		w.Fatal(err)
	}
	return runs[id]
}

// Status returns a run's status.
func (w *World) Status(id string) billing.RunStatus {
	w.Helper()
	return w.Run(id).Status
}

// CountRuns returns the number of runs.
func (w *World) CountRuns() int {
	w.Helper()
	return w.Count(`SELECT COUNT(*) FROM reconciliation_runs`)
}

// Leased reports whether an enumerator holds the lease of the only run.
func (w *World) Leased() bool {
	w.Helper()
	return mysqltest.Value[string](w.TB, w.DB, `SELECT lease_owner FROM reconciliation_runs`) != ""
}

// Item returns an organization's item of a run.
func (w *World) Item(runID, orgID string) billing.Item {
	w.Helper()
	work := billing.Work{RunID: runID, OrgID: orgID}
	items, err := w.Store.Items(w.Context(), []billing.Work{work})
	if err != nil {
		w.Fatal(err)
	}
	return items[work]
}

// ItemIDs returns a run's organizations, sorted.
func (w *World) ItemIDs(runID string) []string {
	w.Helper()
	return w.Texts(`SELECT org_id FROM reconciliation_items WHERE run_key = (SELECT run_key FROM reconciliation_runs WHERE id = ?) ORDER BY org_id`, runID)
}

// Texts returns the only column of a query.
func (w *World) Texts(query string, args ...any) []string {
	w.Helper()
	return mysqltest.Values[string](w.TB, w.DB, query, args...)
}

// Checksum returns a checksum of the application's tables.
func (w *World) Checksum() string {
	w.Helper()
	sum, err := appschema.Checksum(w.Context(), w.DB.DB)
	if err != nil {
		w.Fatal(err)
	}
	return sum
}

// Cells is the content of the application's tables. The key of a value is its organization, "TABLE:ROW" and
// "TABLE.COLUMN".
type Cells map[[3]string]string

// Cells reads every column of every row.
func (w *World) Cells() Cells { return w.CellsOf("%") }

// CellsOf reads every column of the rows of the organizations whose id is LIKE the pattern.
func (w *World) CellsOf(pattern string) Cells {
	w.Helper()
	all := Cells{}
	for table, owner := range map[string]string{"organizations": "id", "subscriptions": "org_id"} {
		w.readCells(all, table, owner, pattern)
	}
	return all
}

// readCells adds the rows of a table. owner is the column with the organization's id.
func (w *World) readCells(all Cells, table, owner, pattern string) {
	w.Helper()
	rows, err := w.DB.QueryContext(w.Context(), `SELECT `+owner+`, t.* FROM `+table+` t WHERE `+owner+` LIKE ?`, pattern)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // rows.Err has its error
	columns, err := rows.Columns()
	if err != nil {
		w.Fatal(err)
	}
	values := make([]sql.NullString, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			w.Fatal(err)
		}
		for i, column := range columns[1:] {
			value := "NULL"
			if values[i+1].Valid {
				value = values[i+1].String
			}
			all[[3]string{values[0].String, table + ":" + values[1].String, table + "." + column}] = value
		}
	}
	if err := rows.Err(); err != nil {
		w.Fatal(err)
	}
}

// Of returns the cells of one table.
func (c Cells) Of(table string) Cells {
	some := maps.Clone(c)
	maps.DeleteFunc(some, func(key [3]string, _ string) bool { return !strings.HasPrefix(key[1], table+":") })
	return some
}

// ChangedSince returns the columns whose values differ, by organization. Of a new row it returns the columns that are
// not NULL.
func (c Cells) ChangedSince(before Cells) map[string][]string {
	changed := map[string][]string{}
	for key, value := range c {
		old, existed := before[key]
		if (existed && old != value) || (!existed && value != "NULL") {
			changed[key[0]] = append(changed[key[0]], key[2])
		}
	}
	for org := range changed {
		slices.Sort(changed[org])
		changed[org] = slices.Compact(changed[org])
	}
	return changed
}

// WithoutTimestamps returns the cells without the timestamps that the database itself writes.
func (c Cells) WithoutTimestamps() Cells {
	rest := maps.Clone(c)
	maps.DeleteFunc(rest, func(key [3]string, _ string) bool {
		return strings.HasSuffix(key[2], ".updated_at") || strings.HasSuffix(key[2], ".created_at")
	})
	return rest
}
