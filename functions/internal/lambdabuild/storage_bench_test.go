package lambdabuild_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/localdb"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/stripesource/stripetest"
)

// BenchmarkStorage measures the storage of a run over BENCH_ORGS organizations, of which one in a hundred drifted: bytes
// per item, per row of the snapshot while it exists, per organization in all tables that are kept, and in the
// application's tables for comparison, all with indexes, and in the binary log with whole rows. It counts the pages of
// the tables' statistics, which are mostly empty in a small table.
func BenchmarkStorage(b *testing.B) {
	for _, orgs := range setting(b, "BENCH_ORGS", "1000") {
		b.Run(fmt.Sprintf("orgs=%d", orgs), func(b *testing.B) {
			for b.Loop() {
				measureStorage(b, orgs)
			}
		})
	}
}

func measureStorage(b *testing.B, orgs int) {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	server, err := localdb.StartWith(b.Context(), "--log-bin=binlog", "--server-id=1",
		"--loose-binlog-format=ROW", "--loose-binlog-annotate-row-events=OFF") // MariaDB would add each statement
	if errors.Is(err, localdb.ErrNoServer) && os.Getenv("CI") != "true" {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Close(); err != nil {
			b.Error(err)
		}
	})
	population := demo.Options{Orgs: orgs, Drift: 0.01, Plain: true, Seed: 1, Now: time.Now().UTC().Truncate(time.Second)}
	s := newStackIn(b, mysqltest.NewOn(b, server), population, stripetest.Options{})
	binlogBefore := s.binlogBytes()

	runID := s.enumerateAll(s.function("enumerator"), `{"strategy":"sweep"}`)
	b.ReportMetric(s.bytesPerRow("reconciliation_snapshots"), "B/snapshot-row")
	_, stop := s.deploy(100)
	s.awaitClosed(b.Context(), runID)
	stop()
	s.outcome(runID)

	b.ReportMetric(float64(s.binlogBytes()-binlogBefore)/float64(orgs), "binlog-B/org")
	b.ReportMetric(s.bytesPerRow("reconciliation_items"), "B/item")
	b.ReportMetric(float64(s.bytes(`reconciliation\_%`)-s.bytes(`reconciliation\_snapshots`))/float64(orgs), "kept-B/org")
	b.ReportMetric(float64(s.bytes(`organizations`)+s.bytes(`subscriptions`))/float64(orgs), "application-B/org")
}

// bytesPerRow returns the bytes per row of a table, with its indexes.
func (s *stack) bytesPerRow(table string) float64 {
	s.Helper()
	rows := mysqltest.Value[int](s.TB, s.db, `SELECT COUNT(*) FROM `+table)
	if rows == 0 {
		s.Fatalf("%s is empty", table)
	}
	return float64(s.bytes(table)) / float64(rows)
}

// bytes returns the size of the pages of the tables and their indexes.
func (s *stack) bytes(like string) (total int) {
	s.Helper()
	var tables []string
	s.eachRow(`SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE ?`, func(values []sql.NullString) {
		tables = append(tables, values[0].String)
	}, like)
	for _, table := range tables {
		s.eachRow(`ANALYZE TABLE `+table, func([]sql.NullString) {}) // MySQL updates the statistics only here
		total += mysqltest.Value[int](s.TB, s.db, `SELECT data_length + index_length FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?`, table)
	}
	return total
}

// binlogBytes returns the size of the server's binary log.
func (s *stack) binlogBytes() (total int) {
	s.Helper()
	s.eachRow(`SHOW BINARY LOGS`, func(values []sql.NullString) { // name, size and, on MySQL, whether it is encrypted
		var size int
		if _, err := fmt.Sscan(values[1].String, &size); err != nil {
			s.Fatal(err)
		}
		total += size
	})
	return total
}

// eachRow calls fn with the values of every row.
func (s *stack) eachRow(query string, fn func([]sql.NullString), args ...any) {
	s.Helper()
	rows, err := s.db.QueryContext(s.Context(), query, args...)
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		s.Fatal(err)
	}
	values, places := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		places[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			s.Fatal(err)
		}
		fn(values)
	}
	if err := rows.Err(); err != nil {
		s.Fatal(err)
	}
}
