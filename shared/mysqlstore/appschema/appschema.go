package appschema

import (
	"context"
	"crypto/sha256"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"
)

//go:embed schema.sql
var schema string

// rowsPerInsert keeps statements far below the packet limit of any server.
const rowsPerInsert = 500

// Organization is a row of organizations. A zero SubscriptionStatus, SubscriptionTier, CreatedAt or UpdatedAt
// is inserted as the column's default.
type Organization struct {
	ID                   string
	Name                 string
	CreatedBy            string
	StripeCustomerID     *string
	SubscriptionStatus   string
	SubscriptionTier     string
	TrialEndsAt          *time.Time
	LastBillingWarningAt *time.Time
	IsDeleted            bool
	CreatedAt            time.Time
	UpdatedAt            time.Time
}

// Subscription is a row of subscriptions. A zero PlanTier, Status, CreatedAt or UpdatedAt is inserted as the
// column's default; a nil CancelAtPeriodEnd is inserted as NULL.
type Subscription struct {
	ID                   string
	OrgID                string
	StripeSubscriptionID *string
	StripePriceID        *string
	StripeCustomerID     *string
	PlanTier             string
	Status               string
	CurrentPeriodStart   *time.Time
	CurrentPeriodEnd     *time.Time
	TrialEnd             *time.Time
	CancelAtPeriodEnd    *bool
	CanceledAt           *time.Time
	EndedAt              *time.Time
	CreatedAt            time.Time
	UpdatedAt            time.Time
}

const organizationColumns = `id, name, created_by, stripe_customer_id, subscription_status, subscription_tier,
	trial_ends_at, last_billing_warning_at, is_deleted, created_at, updated_at`

func (o *Organization) values() []any {
	return []any{
		o.ID, o.Name, o.CreatedBy, o.StripeCustomerID, orDefault(o.SubscriptionStatus), orDefault(o.SubscriptionTier),
		o.TrialEndsAt, o.LastBillingWarningAt, o.IsDeleted, orDefault(o.CreatedAt), orDefault(o.UpdatedAt),
	}
}

func (o *Organization) fields() []any {
	return []any{
		&o.ID, &o.Name, &o.CreatedBy, &o.StripeCustomerID, &o.SubscriptionStatus, &o.SubscriptionTier,
		&o.TrialEndsAt, &o.LastBillingWarningAt, &o.IsDeleted, &o.CreatedAt, &o.UpdatedAt,
	}
}

const subscriptionColumns = `id, org_id, stripe_subscription_id, stripe_price_id, stripe_customer_id, plan_tier, status,
	current_period_start, current_period_end, trial_end, cancel_at_period_end, canceled_at, ended_at, created_at, updated_at`

func (s *Subscription) values() []any {
	return []any{
		s.ID, s.OrgID, s.StripeSubscriptionID, s.StripePriceID, s.StripeCustomerID, orDefault(s.PlanTier), orDefault(s.Status),
		s.CurrentPeriodStart, s.CurrentPeriodEnd, s.TrialEnd, s.CancelAtPeriodEnd, s.CanceledAt, s.EndedAt,
		orDefault(s.CreatedAt), orDefault(s.UpdatedAt),
	}
}

func (s *Subscription) fields() []any {
	return []any{
		&s.ID, &s.OrgID, &s.StripeSubscriptionID, &s.StripePriceID, &s.StripeCustomerID, &s.PlanTier, &s.Status,
		&s.CurrentPeriodStart, &s.CurrentPeriodEnd, &s.TrialEnd, &s.CancelAtPeriodEnd, &s.CanceledAt, &s.EndedAt,
		&s.CreatedAt, &s.UpdatedAt,
	}
}

// Create creates both tables. It fails if one of them exists.
func Create(ctx context.Context, db *sql.DB) error {
	for statement := range strings.SplitSeq(schema, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create the application's tables: %w", err)
		}
	}
	return nil
}

// InsertOrganizations inserts the rows, several hundred with one statement.
func InsertOrganizations(ctx context.Context, db *sql.DB, rows []Organization) error {
	return insert(ctx, db, "organizations", organizationColumns, rows, (*Organization).values)
}

// InsertSubscriptions inserts the rows, several hundred with one statement. Their organizations must exist.
func InsertSubscriptions(ctx context.Context, db *sql.DB, rows []Subscription) error {
	return insert(ctx, db, "subscriptions", subscriptionColumns, rows, (*Subscription).values)
}

// Organizations returns every organization, ordered by id.
func Organizations(ctx context.Context, db *sql.DB) ([]Organization, error) {
	return list(ctx, db, "SELECT "+organizationColumns+" FROM organizations ORDER BY id", (*Organization).fields)
}

// Subscriptions returns every subscription, ordered by id.
func Subscriptions(ctx context.Context, db *sql.DB) ([]Subscription, error) {
	return list(ctx, db, "SELECT "+subscriptionColumns+" FROM subscriptions ORDER BY id", (*Subscription).fields)
}

// Checksum digests every column of every row of both tables, updated_at included: if two checksums are equal,
// nothing was written in between, not even equal values.
func Checksum(ctx context.Context, db *sql.DB) (string, error) {
	digest := sha256.New()
	for _, query := range []string{
		"SELECT * FROM organizations ORDER BY id",
		"SELECT * FROM subscriptions ORDER BY id",
	} {
		if err := digestRows(ctx, db, digest, query); err != nil {
			return "", fmt.Errorf("checksum of %s: %w", query, err)
		}
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// columnDefault is the SQL keyword DEFAULT among the values of a row.
type columnDefault struct{}

func orDefault[T comparable](value T) any {
	var zero T
	if value == zero {
		return columnDefault{}
	}
	return value
}

func insert[Row any](ctx context.Context, db *sql.DB, table, columns string, rows []Row, values func(*Row) []any) error {
	for done := 0; done < len(rows); {
		chunk := rows[done:min(done+rowsPerInsert, len(rows))]
		statement, args := insertStatement(table, columns, chunk, values)
		if _, err := db.ExecContext(ctx, statement, args...); err != nil {
			return fmt.Errorf("insert %s %d to %d: %w", table, done, done+len(chunk)-1, err)
		}
		done += len(chunk)
	}
	return nil
}

func insertStatement[Row any](table, columns string, rows []Row, values func(*Row) []any) (string, []any) {
	var statement strings.Builder
	var args []any
	statement.WriteString("INSERT INTO " + table + " (" + columns + ") VALUES ")
	for i := range rows {
		if i > 0 {
			statement.WriteString(", ")
		}
		for j, value := range values(&rows[i]) {
			separator := ", "
			if j == 0 {
				separator = "("
			}
			statement.WriteString(separator)
			if value == (columnDefault{}) {
				statement.WriteString("DEFAULT")
				continue
			}
			statement.WriteString("?")
			args = append(args, value)
		}
		statement.WriteString(")")
	}
	return statement.String(), args
}

func list[Row any](ctx context.Context, db *sql.DB, query string, fields func(*Row) []any) (result []Row, err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var row Row
		if err := rows.Scan(fields(&row)...); err != nil {
			return nil, err
		}
		result = append(result, row)
	}
	return result, rows.Err()
}

func digestRows(ctx context.Context, db *sql.DB, digest hash.Hash, query string) (err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	digestValue(digest, []byte(query))
	values := make([]sql.RawBytes, len(columns))
	targets := make([]any, len(columns))
	for i, column := range columns {
		digestValue(digest, []byte(column))
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		for _, value := range values {
			digestValue(digest, value)
		}
	}
	return rows.Err()
}

// digestValue writes the length first, so that different lists of values digest differently; NULL has the
// length -1.
func digestValue(digest hash.Hash, value []byte) {
	length := int64(len(value))
	if value == nil {
		length = -1
	}
	digest.Write(binary.BigEndian.AppendUint64(nil, uint64(length)))
	digest.Write(value)
}
