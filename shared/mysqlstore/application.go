package mysqlstore

import (
	"database/sql"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Only this file of the package names the application's tables and columns; the compared columns are named in
// [billing.Columns] only.
const (
	organizationsTable = billing.TableOrganizations
	subscriptionsTable = billing.TableSubscriptions

	fieldOrgID        = "organizations.id"
	fieldOrgDeleted   = "organizations.is_deleted"
	fieldOrgUpdatedAt = "organizations.updated_at"
	fieldRowID        = "subscriptions.id"
	fieldRowOrgID     = "subscriptions.org_id"
	fieldRowCreatedAt = "subscriptions.created_at"
	fieldRowUpdatedAt = "subscriptions.updated_at"
)

const (
	// orgIDWidth is the length of the org_id columns in this system's own tables.
	orgIDWidth = 36
	// rowIDWidth is the length of the id, a UUID, that an inserted subscriptions row gets.
	rowIDWidth = 36
)

// applicationColumn is a column that this system reads, with what it requires of it.
type applicationColumn struct {
	billing.Column

	least, most       int64 // bounds of the length of a text column; 0: none
	updated, inserted bool
}

// applicationColumns returns all columns of the application's tables that this system reads or writes.
func applicationColumns(tiers billing.Tiers) []applicationColumn {
	all := []applicationColumn{
		{Column: billing.Column{Field: fieldOrgID, Kind: billing.KindText, Required: true}, most: orgIDWidth},
		{Column: billing.Column{Field: fieldOrgDeleted, Kind: billing.KindFlag, Required: true}},
		{Column: billing.Column{Field: fieldOrgUpdatedAt, Kind: billing.KindTime, Required: true}},
		{Column: billing.Column{Field: fieldRowID, Kind: billing.KindText, Required: true}, least: rowIDWidth, inserted: true},
		{Column: billing.Column{Field: fieldRowOrgID, Kind: billing.KindText, Required: true}, inserted: true},
		{Column: billing.Column{Field: fieldRowCreatedAt, Kind: billing.KindTime, Required: true}},
		{Column: billing.Column{Field: fieldRowUpdatedAt, Kind: billing.KindTime, Required: true}},
	}
	for _, c := range tiers.Columns() {
		all = append(all, applicationColumn{Column: c, least: longest(c.Values), updated: true, inserted: c.Table() == subscriptionsTable})
	}
	return all
}

// longest returns the length of the longest value that this system writes into the column.
func longest(values []string) int64 {
	if values == nil {
		return billing.MaxIDLength
	}
	return int64(len(slices.MaxFunc(values, func(a, b string) int { return len(a) - len(b) })))
}

// uniqueKeys are the unique keys that the application should have, and the risk without each.
var uniqueKeys = []struct{ field, risk string }{
	{fieldOrgID, "one id could belong to several organizations"},
	{fieldRowID, "a repair could change several rows"},
	{billing.FieldSubscriptionID, "two organizations could be given one subscription at the same moment"},
}

const (
	selectForeignKeys = `SELECT constraint_name FROM information_schema.referential_constraints
		WHERE constraint_schema = DATABASE() AND table_name = '` + subscriptionsTable + `' AND referenced_table_name = '` + organizationsTable + `'`
	showForeignKeys = `SHOW CREATE TABLE ` + subscriptionsTable
	aForeignKey     = "REFERENCES `" + organizationsTable + "`"
)

var (
	orgColumns = billing.ColumnsOf(organizationsTable)
	rowColumns = billing.ColumnsOf(subscriptionsTable)

	selectOrganizations = `SELECT id, ` + selectList(orgColumns) + `, is_deleted <> 0, updated_at FROM organizations WHERE id IN `
	selectRows          = `SELECT id, org_id, ` + selectList(rowColumns) + `, created_at, updated_at, NULL FROM subscriptions s WHERE org_id IN `
	// selectRowsAndOthers also selects another organization, not deleted, whose row records the same id byte for byte.
	selectRowsAndOthers = strings.Replace(selectRows, `NULL`, `(SELECT MIN(d.org_id) FROM subscriptions d JOIN organizations o ON o.id = d.org_id
		WHERE o.`+notDeleted+` AND d.stripe_subscription_id = s.stripe_subscription_id AND d.org_id <> s.org_id
			AND CAST(d.stripe_subscription_id AS BINARY) = CAST(s.stripe_subscription_id AS BINARY))`, 1)
)

const orderByID = ` ORDER BY id `

func selectList(columns []billing.Column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name()
		if c.Kind == billing.KindFlag {
			names[i] += ` <> 0`
		}
	}
	return strings.Join(names, `, `)
}

// scanOrganization scans a row of selectOrganizations.
func scanOrganization(r *sql.Rows) (o billing.Organization, nulls []string, err error) {
	into := append([]any{&o.ID}, scanTargets(orgColumns, nil, &o, &nulls)...)
	err = r.Scan(append(into, notNull(fieldOrgDeleted, &o.Deleted, &nulls), notNull(fieldOrgUpdatedAt, &o.UpdatedAt, &nulls))...)
	return o, nulls, err
}

// scanRow scans a row of selectRows or selectRowsAndOthers.
func scanRow(r *sql.Rows) (orgID string, row billing.Row, other sql.NullString, nulls []string, err error) {
	into := append([]any{notNull(fieldRowID, &row.ID, &nulls), &orgID}, scanTargets(rowColumns, &row, nil, &nulls)...)
	err = r.Scan(append(into, notNull(fieldRowCreatedAt, &row.CreatedAt, &nulls), notNull(fieldRowUpdatedAt, &row.UpdatedAt, &nulls), &other)...)
	return orgID, row, other, nulls, err
}

// scanTargets returns what the columns are scanned into.
func scanTargets(columns []billing.Column, row *billing.Row, org *billing.Organization, nulls *[]string) []any {
	into := make([]any, len(columns))
	for i, c := range columns {
		into[i] = c.Cell(row, org)
		if text, ok := into[i].(*string); ok {
			into[i] = notNull(c.Field, text, nulls)
		}
	}
	return into
}

// updateColumns returns an UPDATE of the row whose id is the last argument.
func updateColumns(table string, names []string) string {
	return `UPDATE ` + table + ` SET ` + strings.Join(names, ` = ?, `) + ` = ? WHERE id = ?`
}

// insertColumns returns an INSERT of a subscriptions row. Its arguments are the ids of row and organization,
// then the columns.
func insertColumns(names []string) string {
	return `INSERT INTO subscriptions (id, org_id, ` + strings.Join(names, `, `) + `) VALUES ` + placeholders(len(names)+2)
}

// notDeleted takes NULL, which the column should not hold, for not deleted.
const notDeleted = `is_deleted IS NOT TRUE`

// isPadded matches text that begins or ends with anything but visible ASCII, such as an id with white space around
// it. It uses no index.
const (
	isPadded          = `REGEXP '^[^!-~]|[^!-~]$'`
	hasPaddedCustomer = `stripe_customer_id ` + isPadded
)

const (
	// listPage selects a page of organizations and whether to list each: a subscriptions row or a customer connects it with
	// Stripe, or it has another tier than the lowest. The derived table makes the server read the page first; it may scan
	// a whole table otherwise.
	listPage = `SELECT o.id, o.stripe_customer_id <> '' OR COALESCE(o.subscription_tier <> ?, FALSE) OR EXISTS (SELECT 1 FROM subscriptions s WHERE s.org_id = o.id)
		FROM (SELECT id, COALESCE(stripe_customer_id, '') AS stripe_customer_id, subscription_tier
			FROM organizations WHERE ` + notDeleted + ` AND id > ? ORDER BY id LIMIT ?) o ORDER BY o.id`
	// listOne is listPage for one organization, which need not be connected with Stripe.
	listOne = `SELECT id, TRUE FROM organizations WHERE ` + notDeleted + ` AND id = ? AND id > ?`

	// selectIdentities selects whether the server ignores the case of an id, and whether the organization is deleted.
	selectIdentities = `SELECT id, LOWER(id) = UPPER(id), COALESCE(is_deleted <> 0, FALSE) FROM organizations WHERE id IN `
	selectLiving     = `SELECT id FROM organizations WHERE ` + notDeleted + ` AND id IN `
	selectGrants     = `SELECT id, name, stripe_customer_id, subscription_tier, subscription_status FROM organizations WHERE id IN `
	selectPrices     = `SELECT org_id, stripe_subscription_id, stripe_price_id FROM subscriptions WHERE org_id IN `
	selectOrgNames   = `SELECT id, COALESCE(name, '') FROM organizations WHERE id IN `
	// Find an organization by its id, customer, subscription or name.
	selectByID          = `SELECT id FROM organizations WHERE id = ? LIMIT ?`
	selectByOrgCustomer = `SELECT id FROM organizations WHERE ` + notDeleted + ` AND stripe_customer_id = ? ORDER BY id LIMIT ?`
	selectByRowCustomer = `SELECT DISTINCT o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + notDeleted + ` AND s.stripe_customer_id = ? ORDER BY o.id LIMIT ?`
	selectBySubscription = `SELECT DISTINCT o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + notDeleted + ` AND s.stripe_subscription_id = ? ORDER BY o.id LIMIT ?`
	selectByName = `SELECT id FROM organizations WHERE ` + notDeleted + ` AND name = ? ORDER BY id LIMIT ?`

	selectSimilar = `SELECT id, name FROM organizations WHERE ` + notDeleted + ` AND (id LIKE ? ESCAPE '!' OR name LIKE ? ESCAPE '!')
		ORDER BY CASE WHEN id LIKE ? ESCAPE '!' THEN 0 ELSE 1 END, name, id LIMIT ?`

	// selectOwners selects whose rows record each subscription, and whether the owner is deleted or does not exist.
	selectOwners = `SELECT s.stripe_subscription_id, COALESCE(o.id, s.org_id), o.id IS NULL OR COALESCE(o.is_deleted <> 0, FALSE) FROM subscriptions s LEFT JOIN organizations o ON o.id = s.org_id
		WHERE s.org_id IS NOT NULL AND `
	recordedIn = `s.stripe_subscription_id IN `
	// recordedPadded extends recordedIn: white space sorts before every visible character.
	recordedPadded = ` OR s.stripe_subscription_id < '!'`
	recordedBegins = ` OR s.stripe_subscription_id LIKE ? ESCAPE '!'`
	// selectHolder selects the row that holds a subscription, and whether its organization is deleted or does not exist.
	selectHolder = `SELECT s.id, s.org_id, s.stripe_subscription_id, o.id IS NULL OR COALESCE(o.is_deleted <> 0, FALSE)
		FROM subscriptions s LEFT JOIN organizations o ON o.id = s.org_id WHERE s.stripe_subscription_id = ?`

	// Each customer and its organizations: two statements, because the two columns may differ in collation.
	selectOrgsByCustomer = `SELECT stripe_customer_id, id FROM organizations WHERE ` + notDeleted + ` AND (` + hasPaddedCustomer + ` OR stripe_customer_id IN `
	selectRowsByCustomer = `SELECT s.stripe_customer_id, o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + notDeleted + ` AND (s.` + hasPaddedCustomer + ` OR s.stripe_customer_id IN `
	// Subscription ids with white space around them, which a look-up by id misses.
	selectPaddedIDs = `SELECT s.stripe_subscription_id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + notDeleted + ` AND s.stripe_subscription_id ` + isPadded
)
