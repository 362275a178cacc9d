package chaos_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
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
			line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "cmdline"))
			if err != nil {
				return err
			}
			places["a command line"] += string(line)
		}
	}
	return errors.Join(findSecrets(places, r.stripe.Key(), r.server.passwords[systemAccount])...)
}

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
