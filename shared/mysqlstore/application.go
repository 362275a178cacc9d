package mysqlstore

import (
	"database/sql"
	"slices"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// The application's tables and columns are named in this file and in no other of this package; those
// that are compared, in [billing.Columns] alone.
const (
	orgTable = billing.TableOrganizations
	rowTable = billing.TableSubscriptions

	fieldOrgID        = "organizations.id"
	fieldOrgDeleted   = "organizations.is_deleted"
	fieldOrgUpdatedAt = "organizations.updated_at"
	fieldRowID        = "subscriptions.id"
	fieldRowOrgID     = "subscriptions.org_id"
	fieldRowCreatedAt = "subscriptions.created_at"
	fieldRowUpdatedAt = "subscriptions.updated_at"
)

const (
	// orgIDWidth is how many characters of an organization's id this system's own tables hold.
	orgIDWidth = 36
	// rowIDWidth is how many the id of an inserted subscriptions row has: a UUID's.
	rowIDWidth = 36
)

// applicationColumn is one that this system reads, and what else it needs of it.
type applicationColumn struct {
	billing.Column

	least, most       int64 // characters that a text must hold, and may at most; 0: any number
	updated, inserted bool
}

// applicationColumns are all that this system reads and writes of the application's tables.
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
		all = append(all, applicationColumn{Column: c, least: longest(c.Values), updated: true, inserted: c.Table() == rowTable})
	}
	return all
}

// longest is how many characters the longest value has that is written.
func longest(values []string) int64 {
	if values == nil {
		return billing.MaxText
	}
	return int64(len(slices.MaxFunc(values, func(a, b string) int { return len(a) - len(b) })))
}

// uniqueKeys are those that the application can do without and should not.
var uniqueKeys = []struct{ field, without string }{
	{fieldOrgID, "one id could stand for several organizations"},
	{fieldRowID, "a repair could change several rows"},
	{billing.FieldSubscriptionID, "two organizations could be given one subscription at the same moment"},
}

const (
	selectForeignKeys = `SELECT constraint_name FROM information_schema.referential_constraints
		WHERE constraint_schema = DATABASE() AND table_name = '` + rowTable + `' AND referenced_table_name = '` + orgTable + `'`
	showForeignKeys = `SHOW CREATE TABLE ` + rowTable
	aForeignKey     = "REFERENCES `" + orgTable + "`"
)

var (
	orgColumns = billing.ColumnsOf(orgTable)
	rowColumns = billing.ColumnsOf(rowTable)

	selectOrganizations = `SELECT id, ` + selected(orgColumns) + `, is_deleted <> 0, updated_at FROM organizations WHERE id IN `
	selectRows          = `SELECT id, org_id, ` + selected(rowColumns) + `, created_at, updated_at, NULL FROM subscriptions s WHERE org_id IN `
	// selectRowsAndOthers adds another organization whose row records the same subscription, spelled alike.
	selectRowsAndOthers = strings.Replace(selectRows, `NULL`, `(SELECT MIN(d.org_id) FROM subscriptions d
		WHERE d.stripe_subscription_id = s.stripe_subscription_id AND d.org_id <> s.org_id
			AND CAST(d.stripe_subscription_id AS BINARY) = CAST(s.stripe_subscription_id AS BINARY))`, 1)
)

const inOrderOfID = ` ORDER BY id `

func selected(columns []billing.Column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name()
		if c.Kind == billing.KindFlag {
			names[i] += ` <> 0`
		}
	}
	return strings.Join(names, `, `)
}

// scanOrganization scans what selectOrganizations selects.
func scanOrganization(r *sql.Rows) (o billing.Organization, nulls []string, err error) {
	into := append([]any{&o.ID}, cells(orgColumns, nil, &o, &nulls)...)
	err = r.Scan(append(into, needed(fieldOrgDeleted, &o.Deleted, &nulls), needed(fieldOrgUpdatedAt, &o.UpdatedAt, &nulls))...)
	return o, nulls, err
}

// scanRow scans what selectRows selects.
func scanRow(r *sql.Rows) (orgID string, row billing.Row, other sql.NullString, nulls []string, err error) {
	into := append([]any{needed(fieldRowID, &row.ID, &nulls), &orgID}, cells(rowColumns, &row, nil, &nulls)...)
	err = r.Scan(append(into, needed(fieldRowCreatedAt, &row.CreatedAt, &nulls), needed(fieldRowUpdatedAt, &row.UpdatedAt, &nulls), &other)...)
	return orgID, row, other, nulls, err
}

// cells are what the columns are scanned into.
func cells(columns []billing.Column, row *billing.Row, org *billing.Organization, nulls *[]string) []any {
	into := make([]any, len(columns))
	for i, c := range columns {
		into[i] = c.Cell(row, org)
		if text, ok := into[i].(*string); ok {
			into[i] = needed(c.Field, text, nulls)
		}
	}
	return into
}

// updateColumns sets columns of the row of the table with this id, the last argument.
func updateColumns(table string, names []string) string {
	return `UPDATE ` + table + ` SET ` + strings.Join(names, ` = ?, `) + ` = ? WHERE id = ?`
}

// insertColumns inserts a subscriptions row: its id, its organization's and the columns.
func insertColumns(names []string) string {
	return `INSERT INTO subscriptions (id, org_id, ` + strings.Join(names, `, `) + `) VALUES ` + in(len(names)+2)
}

// living: an organization counts as deleted only if it surely is. The column may hold NULL against all rules.
const living = `is_deleted IS NOT TRUE`

// isPadded: the text begins or ends with something else than a visible character of ASCII, as an id does with white
// space around it. No index helps to find it.
const (
	isPadded          = `REGEXP '^[^!-~]|[^!-~]$'`
	hasPaddedCustomer = `stripe_customer_id ` + isPadded
)

const (
	// listPage tells of each organization of a page whether a subscriptions row or a customer connects
	// it with Stripe. The page comes first, or the server may go through a whole table.
	listPage = `SELECT o.id, o.stripe_customer_id <> '' OR EXISTS (SELECT 1 FROM subscriptions s WHERE s.org_id = o.id)
		FROM (SELECT id, COALESCE(stripe_customer_id, '') AS stripe_customer_id FROM organizations WHERE ` + living + ` AND id > ? ORDER BY id LIMIT ?) o ORDER BY o.id`
	// listOne is listPage for one organization, which is taken as it is.
	listOne = `SELECT id, TRUE FROM organizations WHERE ` + living + ` AND id = ? AND id > ?`

	// selectIdentities: whether an id is the same in small letters and in capitals, and whether it is deleted.
	selectIdentities = `SELECT id, LOWER(id) = UPPER(id), COALESCE(is_deleted <> 0, FALSE) FROM organizations WHERE id IN `
	selectLiving     = `SELECT id FROM organizations WHERE ` + living + ` AND id IN `
	selectGrants     = `SELECT id, name, stripe_customer_id, subscription_tier, subscription_status FROM organizations WHERE id IN `
	selectPrices     = `SELECT org_id, stripe_subscription_id, stripe_price_id FROM subscriptions WHERE org_id IN `
	selectOrgNames   = `SELECT id, COALESCE(name, '') FROM organizations WHERE id IN `
	// How an organization is found by what people have at hand of it.
	selectByID          = `SELECT id FROM organizations WHERE id = ? LIMIT ?`
	selectByOrgCustomer = `SELECT id FROM organizations WHERE ` + living + ` AND stripe_customer_id = ? ORDER BY id LIMIT ?`
	selectByRowCustomer = `SELECT DISTINCT o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + living + ` AND s.stripe_customer_id = ? ORDER BY o.id LIMIT ?`
	selectBySubscription = `SELECT DISTINCT o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + living + ` AND s.stripe_subscription_id = ? ORDER BY o.id LIMIT ?`
	selectByName = `SELECT id FROM organizations WHERE ` + living + ` AND name = ? ORDER BY id LIMIT ?`

	selectNearest = `SELECT id, name FROM organizations WHERE ` + living + ` AND (id LIKE ? ESCAPE '!' OR name LIKE ? ESCAPE '!')
		ORDER BY CASE WHEN id LIKE ? ESCAPE '!' THEN 0 ELSE 1 END, name, id LIMIT ?`

	// selectOwners: whose row records each subscription.
	selectOwners = `SELECT s.stripe_subscription_id, COALESCE(o.id, s.org_id) FROM subscriptions s LEFT JOIN organizations o ON o.id = s.org_id
		WHERE s.org_id IS NOT NULL AND `
	recordedIn = `s.stripe_subscription_id IN `
	// recordedPadded goes on behind recordedIn: what begins with white space is sorted before anything that can be read.
	recordedPadded = ` OR s.stripe_subscription_id < '!'`
	recordedBegins = ` OR s.stripe_subscription_id LIKE ? ESCAPE '!'`
	// selectHolder: the row that holds a subscription, and how it spells its id.
	selectHolder = `SELECT id, org_id, stripe_subscription_id FROM subscriptions WHERE stripe_subscription_id = ?`

	// Each customer and who is known under it. Not in one UNION: the two columns may differ in collation.
	selectOrgsByCustomer = `SELECT stripe_customer_id, id FROM organizations WHERE ` + living + ` AND (` + hasPaddedCustomer + ` OR stripe_customer_id IN `
	selectRowsByCustomer = `SELECT s.stripe_customer_id, o.id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + living + ` AND (s.` + hasPaddedCustomer + ` OR s.stripe_customer_id IN `
	// Ids that somebody pasted with white space, which no look-up by the id finds.
	selectPaddedIDs = `SELECT s.stripe_subscription_id FROM subscriptions s JOIN organizations o ON o.id = s.org_id
		WHERE o.` + living + ` AND s.stripe_subscription_id ` + isPadded

	// The customers that are known.
	selectCustomersOfOrgs = `SELECT stripe_customer_id FROM organizations WHERE ` + living + ` AND (` + hasPaddedCustomer + ` OR stripe_customer_id IN `
	selectCustomersOfRows = `SELECT s.stripe_customer_id FROM subscriptions s
		JOIN organizations o ON o.id = s.org_id AND o.` + living + ` WHERE (s.` + hasPaddedCustomer + ` OR s.stripe_customer_id IN `
)
