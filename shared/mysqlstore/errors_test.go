package mysqlstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

func TestErrorNumbersMatchTheServers(t *testing.T) {
	for _, c := range []struct {
		class   billing.Class
		reason  billing.Reason
		text    string // part of the message
		numbers []uint16
	}{
		{billing.Unavailable, billing.ReasonDatabaseUnavailable, "limit", []uint16{1040, 1203, 1226}},
		{billing.Unavailable, billing.ReasonDatabaseUnavailable, "offline", []uint16{1053, 3032, 4031}},
		{billing.Unavailable, billing.ReasonDatabaseUnavailable, "blocks this host", []uint16{1129}},
		{billing.Unavailable, billing.ReasonDatabaseUnavailable, "read-only", []uint16{1290, 1792, 1836, 1874}},
		{billing.Unavailable, billing.ReasonDatabaseUnavailable, "in the way", []uint16{1205, 1213}},
		{billing.Unavailable, billing.ReasonDatabaseUnavailable, "KILL", []uint16{1317, 1969, 3024}},
		{billing.RunFatal, billing.ReasonDatabaseLogin, "DB_PASSWORD", []uint16{1044, 1045, 1130, 1142, 1143, 1698}},
		{billing.RunFatal, billing.ReasonDatabaseLogin, "expired", []uint16{1820, 1862}},
		{billing.RunFatal, billing.ReasonDatabaseLogin, "locked", []uint16{3118, 3955, 4151}},
		{billing.RunFatal, billing.ReasonDatabaseLogin, "DB_TLS", []uint16{3159}},
		{billing.RunFatal, billing.ReasonDatabaseLogin, "DB_NAME", []uint16{1049, 1054, 1146}},
		{billing.RunFatal, billing.ReasonDatabaseLogin, "binlog_format", []uint16{1665}},
		// If a statement writes many organizations, a refusal is retried.
		{billing.Unavailable, billing.ReasonInternal, "MySQL refused", []uint16{1062, 1364, 1406, 1644, 3819}},
	} {
		for _, number := range c.numbers {
			t.Run(fmt.Sprint(number), func(t *testing.T) {
				err := mysqlstore.Failure(&mysql.MySQLError{Number: number, Message: "as the server says"}, "write")
				wantFailure(t, err, c.class, c.reason)
				if !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "as the server says") {
					t.Errorf("got %v, want a message with %q", err, c.text)
				}
			})
		}
	}
}
