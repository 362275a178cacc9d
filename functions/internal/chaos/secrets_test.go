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

// secretsStaySecret: neither the key nor a password is in anything that the round wrote: what the
// functions printed, this system's tables, the queues, and the command lines of the processes.
func (r *round) secretsStaySecret(ctx context.Context) error {
	places := map[string]string{"what the functions printed": r.printed.String()}
	for table, columns := range map[string]string{
		"reconciliation_runs":  "status_message, summary, lease_owner",
		"reconciliation_items": "error, changes, warnings, reason",
	} {
		var text strings.Builder
		err := each(ctx, r.db, func(rows *sql.Rows) error {
			var row sql.NullString
			err := rows.Scan(&row)
			text.WriteString(row.String)
			return err
		}, `SELECT CONCAT_WS('|', `+columns+`) FROM `+table)
		if err != nil {
			return err
		}
		places["table "+table] = text.String()
	}
	page, table, err := r.reported(ctx)
	if err != nil {
		return err
	}
	places["the report"] = page + table
	if strings.Contains(page, "<script>alert") {
		return errors.New("the report's page holds somebody's script")
	}
	letters, err := r.deadLetters(ctx)
	if err != nil {
		return err
	}
	for _, l := range letters {
		places["the dead-letter queue"] += bodyOf(l)
		for _, a := range l.MessageAttributes {
			places["the dead-letter queue"] += *a.StringValue
		}
	}
	for _, f := range append([]*runtimeapi.Function{r.cast().enumerator, r.aggregator}, r.cast().workers...) {
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

// reported is the first run's report, as a page and as a table.
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

// processFolder is where Linux tells about a process: https://man7.org/linux/man-pages/man5/proc.5.html
func processFolder(p *runtimeapi.Process) string { return "/proc/" + strconv.Itoa(p.PID()) }

func findSecrets(places map[string]string, secrets ...string) []error {
	var problems []error
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				problems = append(problems, fmt.Errorf("a secret (%.3s...) stands in %s", secret, place))
			}
		}
	}
	return problems
}
