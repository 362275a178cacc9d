package chaos_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/report"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
)

// secretsStaySecret: neither the key nor a password is in the functions' output and answers, in a table, in a queue, or
// on a process's command line.
func (r *round) secretsStaySecret(ctx context.Context) error {
	places := map[string]string{"the functions' output and answers": r.printed.String()}
	if err := r.addTables(ctx, places); err != nil {
		return err
	}
	page, table, err := r.reported(ctx)
	if err != nil {
		return err
	}
	places["the report"] = page + table
	if strings.Contains(page, "<script>alert") {
		return errors.New("the report's page has a script from the data")
	}
	for name, url := range map[string]string{"dead-letter": r.urls.deadLetter, "results-dead-letter": r.urls.resultsDeadLetter, "work": r.urls.work, "results": r.urls.results} {
		messages, err := r.peek(ctx, url)
		if err != nil {
			return err
		}
		for _, m := range messages {
			places["queue "+name] += bodyOf(m)
			for _, a := range m.MessageAttributes {
				places["queue "+name] += *a.StringValue
			}
		}
	}
	for _, f := range r.deployment().all() {
		for _, p := range f.Processes() {
			line, err := os.ReadFile(filepath.Join(processFolder(p), "cmdline"))
			if err != nil {
				return err
			}
			places["a command line"] += string(line)
		}
	}
	return errors.Join(findSecrets(places, r.stripe.Key(), r.server.passwords[systemAccount])...)
}

// addTables adds the content of every table of the round.
func (r *round) addTables(ctx context.Context, places map[string]string) error {
	columns := map[string][]string{} // GROUP_CONCAT would truncate a long list
	err := each(ctx, r.db, func(rows *sql.Rows) error {
		var table, column string
		err := rows.Scan(&table, &column)
		columns[table] = append(columns[table], "`"+column+"`")
		return err
	}, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()")
	if err != nil {
		return err
	}
	for table, all := range columns {
		var content strings.Builder
		err := each(ctx, r.db, func(rows *sql.Rows) error {
			var text sql.NullString
			err := rows.Scan(&text)
			content.WriteString(text.String)
			return err
		}, "SELECT CONCAT_WS('|',"+strings.Join(all, ",")+") FROM `"+table+"`")
		if err != nil {
			return err
		}
		places["table "+table] = content.String()
	}
	return nil
}

// reported returns the first run's report, as a page and as a table.
func (r *round) reported(ctx context.Context) (page, table string, err error) {
	items := func(ctx context.Context, fn func(mysqlstore.ReportItem) error, outcomes ...billing.Outcome) error {
		return r.store.EachReportItem(ctx, firstRun, fn, outcomes...)
	}
	summary, err := (&pipeline.Aggregator{Store: r.store}).Summary(ctx, firstRun)
	if err != nil {
		return "", "", err
	}
	var html, csv bytes.Buffer
	_, pageErr := report.HTML(ctx, &html, report.Run{Summary: summary, WrittenAt: time.Now(), Items: items})
	_, tableErr := report.CSV(ctx, &csv, items)
	return html.String(), csv.String(), errors.Join(pageErr, tableErr)
}

// processFolder returns the folder in which Linux describes a process.
// https://man7.org/linux/man-pages/man5/proc.5.html
func processFolder(p *runtimeapi.Process) string { return "/proc/" + strconv.Itoa(p.PID()) }

func findSecrets(places map[string]string, secrets ...string) []error {
	var problems []error
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				problems = append(problems, fmt.Errorf("a secret (%.3s...) is in %s", secret, place))
			}
		}
	}
	return problems
}
