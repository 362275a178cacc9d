package billing_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestOneOfSeveralSubscriptionsGovernsAndOneRowIsRepaired(t *testing.T) {
	older, newer := created.Add(-time.Hour), created.Add(time.Hour)
	twoRows := func(first, second string) billing.Record {
		return billing.Record{Org: organization(), Rows: []billing.Row{
			row("row_1", first), row("row_2", second, func(r *billing.Row) { r.CreatedAt = newer }),
		}}
	}
	tests := map[string]struct {
		truth    billing.Truth
		record   billing.Record
		want     string // governing id
		rowID    string // "row_1" where not said
		insert   bool
		warnings []billing.WarningCode
	}{
		"recorded active beats a newer active": {
			truth:  truth(subscription("sub_2", "active", createdAt(newer)), subscription("sub_1", "active")),
			record: recorded("sub_1"), want: "sub_1", warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"recorded trialing gives way to an active": {
			truth:  truth(subscription("sub_2", "active", createdAt(newer)), subscription("sub_1", "trialing")),
			record: recorded("sub_1"), want: "sub_2", warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"recorded active stays although metadata names another organization": {
			truth: claimed(truth(subscription("sub_1", "active", ofOrg(otherOrg)), subscription("sub_2", "active", createdAt(newer))),
				existing(otherOrg)),
			record: recorded("sub_1"), want: "sub_1", warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"recorded trialing beats a newer trialing": {
			truth:  truth(subscription("sub_2", "trialing", createdAt(newer)), subscription("sub_1", "trialing")),
			record: recorded("sub_1"), want: "sub_1", warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"recorded past_due gives way to an active": {
			truth:  truth(subscription("sub_1", "past_due", createdAt(newer)), subscription("sub_2", "active")),
			record: recorded("sub_1"), want: "sub_2", warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"recorded canceled gives way to a newer active": {
			truth:  truth(subscription("sub_1", "canceled"), subscription("sub_2", "active", createdAt(newer))),
			record: recorded("sub_1"), want: "sub_2",
		},
		"recorded canceled gives way to an older active": {
			truth:  truth(subscription("sub_1", "canceled"), subscription("sub_2", "active", createdAt(older))),
			record: recorded("sub_1"), want: "sub_2",
		},
		"recorded canceled stays beside an abandoned checkout that expired": {
			truth:  truth(subscription("sub_1", "canceled"), subscription("sub_2", "incomplete_expired", createdAt(newer))),
			record: recorded("sub_1"), want: "sub_1",
		},
		"abandoned checkout beside an active": {
			truth:  truth(subscription("sub_2", "incomplete", createdAt(newer)), subscription("sub_1", "active")),
			record: customerOnly(), want: "sub_1", insert: true,
		},
		"recorded abandoned checkout beside an active": {
			truth:  truth(subscription("sub_1", "incomplete", createdAt(newer)), subscription("sub_2", "active")),
			record: recorded("sub_1"), want: "sub_2",
		},
		"past_due beside a trialing": {
			truth:  truth(subscription("sub_1", "past_due", createdAt(newer)), subscription("sub_2", "trialing")),
			record: customerOnly(), want: "sub_2", insert: true, warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"of two equals the newest created": {
			truth:  truth(subscription("sub_1", "active", createdAt(older)), subscription("sub_9", "active", createdAt(newer)), subscription("sub_2", "active")),
			record: customerOnly(), want: "sub_9", insert: true, warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"of two created at once the lower id": {
			truth:  truth(subscription("sub_2", "active"), subscription("sub_1", "active", createdAt(created.In(time.FixedZone("east", 3600))))),
			record: customerOnly(), want: "sub_1", insert: true, warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"shared customer, the better one names the other organization": {
			truth: claimed(truth(subscription("sub_2", "active", ofOrg(otherOrg)), subscription("sub_1", "canceled")),
				existing(otherOrg)),
			record: recorded("sub_1"), want: "sub_1",
		},
		"shared customer, the better one is on the other organization's row": {
			truth:  claimed(truth(subscription("sub_2", "active"), subscription("sub_1", "canceled")), recordedElsewhere("sub_2")),
			record: recorded("sub_1"), want: "sub_1",
		},
		"shared customer, the other's subscription is no reason for a warning": {
			truth:  claimed(truth(subscription("sub_2", "active"), subscription("sub_1", "active")), recordedElsewhere("sub_2")),
			record: recorded("sub_1"), want: "sub_1",
		},
		"shared customer, a recorded entitled one governs beside one that could be either's": {
			truth:  claimed(truth(subscription("sub_2", "active", createdAt(newer)), subscription("sub_1", "active")), shared("cus_1")),
			record: recorded("sub_1"), want: "sub_1", warnings: []billing.WarningCode{"multiple_live_subscriptions"},
		},
		"shared customer, the one that metadata gives us": {
			truth:  claimed(truth(subscription("sub_2", "active", ofOrg(org)), subscription("sub_1", "canceled")), shared("cus_1")),
			record: recorded("sub_1"), want: "sub_2",
		},
		"shared customer, an ended one that could be either's": {
			truth:  claimed(truth(subscription("sub_2", "canceled", createdAt(newer)), subscription("sub_1", "canceled")), shared("cus_1")),
			record: recorded("sub_1"), want: "sub_1",
		},
		"shared customer, an unpaid one that could be either's gives way to our past_due": {
			truth:  claimed(truth(subscription("sub_2", "unpaid", createdAt(newer)), subscription("sub_1", "past_due")), shared("cus_1")),
			record: recorded("sub_1"), want: "sub_1",
		},
		"another customer is shared": {
			truth:  claimed(truth(subscription("sub_2", "active"), subscription("sub_1", "canceled")), shared("cus_2")),
			record: recorded("sub_1"), want: "sub_2",
		},
		"metadata names an organization that does not exist": {
			truth:  claimed(truth(subscription("sub_2", "active", ofOrg("0a4f6c1e-dead-4000-8000-00000000000c")), subscription("sub_1", "canceled")), existing(otherOrg)),
			record: recorded("sub_1"), want: "sub_2",
		},
		"metadata names us in capitals and with spaces": {
			truth:  claimed(truth(subscription("sub_1", "active", ofOrg("  "+strings.ToUpper(org)+"\n"))), existing(org)),
			record: customerOnly(), want: "sub_1", insert: true,
		},
		"metadata names the other in capitals and with spaces": {
			truth:  claimed(truth(subscription("sub_2", "active", ofOrg(" "+strings.ToUpper(otherOrg)+" ")), subscription("sub_1", "canceled")), existing(otherOrg)),
			record: recorded("sub_1"), want: "sub_1",
		},
		"our own id in capitals": {
			truth: claimed(truth(subscription("sub_1", "active", ofOrg(org))), existing(strings.ToUpper(org))),
			record: billing.Record{Org: organization(func(o *billing.Organization) {
				o.ID, o.CustomerID = strings.ToUpper(org), nil
			})},
			want: "sub_1", insert: true,
		},
		"several rows, the one with the governing id is repaired": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_2", "canceled")),
			record: twoRows("sub_1", "sub_2"), want: "sub_1", rowID: "row_1", warnings: []billing.WarningCode{"multiple_subscription_rows"},
		},
		"several rows, none with the governing id, the latest created is repaired": {
			truth:  truth(subscription("sub_1", "canceled"), subscription("sub_2", "canceled"), subscription("sub_3", "active")),
			record: twoRows("sub_1", "sub_2"), want: "sub_3", rowID: "row_2", warnings: []billing.WarningCode{"multiple_subscription_rows"},
		},
		"several rows created at once, the highest row id is repaired": {
			truth:  truth(subscription("sub_3", "active")),
			record: billing.Record{Org: organization(), Rows: []billing.Row{row("row_2", "sub_2"), row("row_1", "sub_1")}},
			want:   "sub_3", rowID: "row_2", warnings: []billing.WarningCode{"multiple_subscription_rows"},
		},
		"several rows, the entitled one governs although the latest is canceled": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_2", "canceled", createdAt(newer)), subscription("sub_3", "active", createdAt(newer))),
			record: twoRows("sub_1", "sub_2"), want: "sub_1", rowID: "row_1",
			warnings: []billing.WarningCode{"multiple_live_subscriptions", "multiple_subscription_rows"},
		},
		"several rows, two entitled, active before trialing": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_2", "trialing", createdAt(newer))),
			record: twoRows("sub_1", "sub_2"), want: "sub_1", rowID: "row_1",
			warnings: []billing.WarningCode{"multiple_live_subscriptions", "multiple_subscription_rows"},
		},
		"unknown status of one that does not compete": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_2", "suspended", createdAt(newer))),
			record: recorded("sub_1"), want: "sub_1",
		},
		"unknown status of one that belongs to another organization": {
			truth:  claimed(truth(subscription("sub_1", "canceled"), subscription("sub_2", "suspended")), recordedElsewhere("sub_2")),
			record: recorded("sub_1"), want: "sub_1",
		},
		"unusable object that does not govern": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_2", "canceled", of())),
			record: recorded("sub_1"), want: "sub_1",
		},
		"seen twice is no second subscription": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_1", "active")),
			record: recorded("sub_1"), want: "sub_1",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			plan := mustPlan(t, rules, tt.truth, tt.record)
			want := billing.Plan{GoverningID: tt.want, RowID: tt.rowID, Insert: tt.insert, Warnings: warn(tt.warnings...)}
			if !tt.insert && tt.rowID == "" {
				want.RowID = "row_1"
			}
			plan.Outcome, plan.Reason, plan.Changes = "", "", nil // TestEachSituationHasItsOutcomeAndChanges looks at these
			if diff := cmp.Diff(want, plan, samePlan); diff != "" {
				t.Errorf("Plan() (-want +got)\n%s", diff)
			}
		})
	}
}

// Each status is preferred to all that follow it, however new those are.
func TestStatusesCompeteInOrder(t *testing.T) {
	order := []billing.Status{"active", "trialing", "past_due", "unpaid", "paused", "incomplete", "canceled", "incomplete_expired"}
	for i, better := range order {
		for _, worse := range order[i+1:] {
			t.Run(string(better)+" before "+string(worse), func(t *testing.T) {
				plan := mustPlan(t, rules, truth(
					subscription("sub_1", worse, createdAt(created.Add(time.Hour))), subscription("sub_2", better)), customerOnly())
				if plan.GoverningID != "sub_2" {
					t.Errorf("governing = %s, want sub_2", plan.GoverningID)
				}
			})
		}
	}
}

func TestPlanIsRefusedIfTheOwnerOrStatusIsUncertain(t *testing.T) {
	tests := map[string]struct {
		truth  billing.Truth
		record billing.Record
		want   billing.Reason
		says   []string
	}{
		"unknown status competes with an active that is not recorded": {
			truth:  truth(subscription("sub_1", "active"), subscription("sub_2", "suspended")),
			record: customerOnly(), want: "unknown_status", says: []string{"sub_2", "suspended", "nothing was written"},
		},
		"unknown status competes with a recorded past_due": {
			truth:  truth(subscription("sub_1", "past_due"), subscription("sub_2", "suspended")),
			record: recorded("sub_1"), want: "unknown_status", says: []string{"sub_2", "suspended"},
		},
		"metadata names us but the governing one is on another organization's row": {
			truth: claimed(truth(subscription("sub_1", "canceled"), subscription("sub_2", "active", ofOrg(org))),
				recordedElsewhere("sub_2")),
			record: recorded("sub_1"), want: "subscription_conflict", says: []string{"sub_2", otherOrg, "metadata.orgId"},
		},
		"shared customer, who cancelled and maybe subscribed again": {
			truth:  claimed(truth(subscription("sub_2", "active"), subscription("sub_1", "canceled")), shared("cus_1")),
			record: recorded("sub_1"), want: "subscription_conflict", says: []string{"sub_2", otherOrg, "cus_1", "metadata.orgId"},
		},
		"shared customer, no row": {
			truth:  claimed(truth(subscription("sub_2", "unpaid"), subscription("sub_1", "canceled")), shared("cus_1")),
			record: customerOnly(), want: "subscription_conflict", says: []string{"sub_2", otherOrg, "cus_1", "metadata.orgId"},
		},
		"shared customer, a trial that is recorded beside an active one that could be either's": {
			truth:  claimed(truth(subscription("sub_2", "active"), subscription("sub_1", "trialing")), shared("cus_1")),
			record: recorded("sub_1"), want: "subscription_conflict", says: []string{"sub_2", otherOrg},
		},
		"shared customer, metadata names an organization that does not exist": {
			truth:  claimed(truth(subscription("sub_2", "active", ofOrg("0a4f6c1e-dead-4000-8000-00000000000c"))), shared("cus_1")),
			record: customerOnly(), want: "subscription_conflict", says: []string{"sub_2"},
		},
		"every subscription of the customer is another organization's": {
			truth:  claimed(truth(subscription("sub_2", "active"), subscription("sub_1", "active")), recordedElsewhere("sub_1", "sub_2")),
			record: customerOnly(), want: "subscription_conflict", says: []string{"cus_1", "sub_1", "metadata.orgId"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // in either order of the subscriptions
				_, err := rules.Plan(tt.truth, tt.record)
				if got := reasonOf(t, err); got != tt.want {
					t.Fatalf("Plan() = %v, want reason %s", err, tt.want)
				}
				for _, part := range tt.says {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q does not say %q", err, part)
					}
				}
				slices.Reverse(tt.truth.Subscriptions)
			}
		})
	}
}

// A subscription that has ended leads neither to a row nor to an error.
func TestEndedSubscriptionsOfASharedCustomerAreNobodys(t *testing.T) {
	for _, status := range []billing.Status{"canceled", "incomplete", "incomplete_expired"} {
		s := claimed(truth(subscription("sub_1", status), subscription("sub_2", "active")), shared("cus_1"))
		s.Claims.RecordedBy = map[string][]string{"sub_2": {otherOrg}}
		plan := mustPlan(t, rules, s, customerOnly())
		if plan.Reason != billing.ReasonNoSubscription || len(plan.Changes) > 0 {
			t.Errorf("%s: %+v", status, plan)
		}
	}
}

func TestWarningOfSeveralLiveSubscriptionsNamesThem(t *testing.T) {
	plan := mustPlan(t, rules, truth(
		subscription("sub_3", "past_due"), subscription("sub_1", "active"), subscription("sub_2", "trialing"),
		subscription("sub_4", "unpaid"), subscription("sub_5", "canceled"), subscription("sub_6", "paused"), subscription("sub_7", "incomplete")), recorded("sub_1"))
	assertWarning(t, plan, billing.WarnMultipleLive, "3 subscriptions", "(sub_1, sub_2, sub_3)")
}

func TestWarningOfSeveralRowsSaysHowMany(t *testing.T) {
	plan := mustPlan(t, rules, truth(subscription("sub_1", "active")),
		billing.Record{Org: organization(), Rows: []billing.Row{row("row_1", "sub_1"), row("row_2", "sub_2")}})
	assertWarning(t, plan, billing.WarnMultipleRows, "2 subscriptions rows")
}

func TestRecordedSubscriptionsSufficeIfOneIsActive(t *testing.T) {
	tests := map[string]struct {
		statuses []billing.Status
		want     bool
	}{
		"none":                 {nil, false},
		"active":               {[]billing.Status{"active"}, true},
		"trialing":             {[]billing.Status{"trialing"}, false},
		"one of several":       {[]billing.Status{"canceled", "active"}, true},
		"several, none active": {[]billing.Status{"canceled", "past_due"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var subs []billing.Subscription
			for _, status := range tt.statuses {
				subs = append(subs, subscription("sub_1", status))
			}
			if got := billing.RecordedSuffice(subs); got != tt.want {
				t.Errorf("RecordedSuffice() = %t, want %t", got, tt.want)
			}
		})
	}
}

func TestRecordNamesItsCustomers(t *testing.T) {
	later := created.Add(time.Hour)
	customer := func(id *string, at time.Time) func(*billing.Row) {
		return func(r *billing.Row) { r.CustomerID, r.CreatedAt = id, at }
	}
	tests := map[string]struct {
		org  *string
		rows []billing.Row
		want []string
	}{
		"none":                                {nil, nil, nil},
		"the organization's where no row":     {ptr("cus_org"), nil, []string{"cus_org"}},
		"the row's before the organization's": {ptr("cus_org"), []billing.Row{row("row_1", "sub_1", customer(ptr("cus_row"), created))}, []string{"cus_row", "cus_org"}},
		"the same in both once":               {ptr("cus_1"), []billing.Row{row("row_1", "sub_1", customer(ptr("cus_1"), created))}, []string{"cus_1"}},
		"the organization's where the row has none": {
			ptr("cus_org"), []billing.Row{row("row_1", "sub_1", customer(nil, created)), row("row_2", "sub_2", customer(ptr(""), created))}, []string{"cus_org"},
		},
		"the latest row's": {
			nil, []billing.Row{row("row_2", "sub_2", customer(ptr("cus_new"), later)), row("row_1", "sub_1", customer(ptr("cus_old"), created))}, []string{"cus_new", "cus_old"},
		},
		"the latest row's that has one": {
			nil, []billing.Row{row("row_1", "sub_1", customer(ptr("cus_old"), created)), row("row_2", "sub_2", customer(nil, later))}, []string{"cus_old"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			record := billing.Record{Org: billing.Organization{ID: org, CustomerID: tt.org}, Rows: tt.rows}
			if got := record.CustomerIDs(); !slices.Equal(got, tt.want) {
				t.Errorf("CustomerIDs() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRecordKnowsWhatItsRowsName(t *testing.T) {
	record := billing.Record{Org: billing.Organization{ID: org}, Rows: []billing.Row{
		{ID: "row_1", SubscriptionID: ptr("sub_1")}, {ID: "row_2"}, {ID: "row_3", SubscriptionID: ptr("")}, {ID: "row_4", SubscriptionID: ptr("sub_4")},
	}}
	if diff := cmp.Diff([]string{"sub_1", "sub_4"}, record.RecordedIDs()); diff != "" {
		t.Errorf("RecordedIDs() (-want +got)\n%s", diff)
	}
	for id, want := range map[string]bool{"sub_1": true, "sub_4": true, "sub_2": false, "SUB_1": false, "": false} {
		if got := record.Records(id); got != want {
			t.Errorf("Records(%q) = %t, want %t", id, got, want)
		}
	}
	if !record.HasStripeIdentity() {
		t.Error("HasStripeIdentity() = false for a record with subscription ids")
	}
	if (billing.Record{Rows: []billing.Row{{ID: "row_1"}}}).HasStripeIdentity() {
		t.Error("HasStripeIdentity() = true for a record that names nothing")
	}
}

// assertWarning fails the test unless the plan has the warning once and its message contains all parts.
func assertWarning(t *testing.T, plan billing.Plan, code billing.WarningCode, parts ...string) {
	t.Helper()
	var messages []string
	for _, w := range plan.Warnings {
		if w.Code == code {
			messages = append(messages, w.Message)
		}
	}
	if len(messages) != 1 {
		t.Fatalf("warnings = %+v, want %s once", plan.Warnings, code)
	}
	for _, part := range parts {
		if !strings.Contains(messages[0], part) {
			t.Errorf("warning %q does not say %q", messages[0], part)
		}
	}
}

// A table without a unique key may have one subscription on the rows of two organizations.
func TestSubscriptionOnTwoRowsBelongsToTheOrganizationThatMetadataNames(t *testing.T) {
	ended := func(s *billing.Subscription) { s.EndedAt = endedAt }
	tests := map[string]struct {
		subs []billing.Subscription
		want string
	}{
		"named by no metadata":                {[]billing.Subscription{subscription("sub_1", "active")}, "subscription_conflict"},
		"named is this one":                   {[]billing.Subscription{subscription("sub_1", "active", ofOrg(org))}, "in sync"},
		"named is the other":                  {[]billing.Subscription{subscription("sub_1", "active", ofOrg(otherOrg))}, "subscription_conflict"},
		"named is nobody who exists":          {[]billing.Subscription{subscription("sub_1", "active", ofOrg("gone"))}, "subscription_conflict"},
		"ended and named by no metadata":      {[]billing.Subscription{subscription("sub_1", "canceled", ended)}, "subscription_conflict"},
		"ended and named is this one":         {[]billing.Subscription{subscription("sub_1", "canceled", ended, ofOrg(org))}, "free"},
		"ended, but the customer has another": {[]billing.Subscription{subscription("sub_1", "canceled", ended), subscription("sub_2", "active", of("price_max"))}, "max"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			record := recorded("sub_1")
			record.OtherOwners = map[string]string{"sub_1": otherOrg}
			plan, err := rules.Plan(claimed(truth(test.subs...), existing(org, otherOrg)), record)
			if got := summarized(plan, reasonOf(t, err)); got != test.want {
				t.Errorf("%s, want %s: %v", got, test.want, err)
			}
			if err != nil && (!strings.Contains(err.Error(), otherOrg) || len(plan.Changes) > 0) {
				t.Errorf("%v with %v", err, plan.Changes)
			}
			if _, inSync := rules.InSync(truth(test.subs...), record); inSync != (test.want == "in sync") {
				t.Errorf("in sync by a snapshot: %t", inSync)
			}
		})
	}
}

func TestDeletedOrganizationsRowIsNoConflictForAnOrganizationWhoseRowRecordsTheSubscription(t *testing.T) {
	deleted := recordedElsewhere("sub_1")
	deleted.Deleted = map[string]bool{otherOrg: true}
	for name, test := range map[string]struct {
		record billing.Record
		sub    billing.Subscription
		want   string
	}{
		"recorded":          {recorded("sub_1"), subscription("sub_1", "active"), "in sync"},
		"known by customer": {customerOnly(), subscription("sub_1", "active"), "subscription_conflict"},
		"named by metadata": {customerOnly(), subscription("sub_1", "active", ofOrg(org)), "subscription_conflict"},
	} {
		plan, err := rules.Plan(claimed(truth(test.sub), deleted), test.record)
		if got := summarized(plan, reasonOf(t, err)); got != test.want {
			t.Errorf("%s: %s, want %s: %v", name, got, test.want, err)
		}
	}
}

func TestIDsOfTheOtherModeAreRefusedUnlessAnotherLeadsToASubscription(t *testing.T) {
	tests := map[string]struct {
		inMode bool
		subs   []billing.Subscription
		want   string
	}{
		"none is of the key's mode":                        {false, nil, "other_mode"},
		"none is, though metadata leads to a subscription": {false, []billing.Subscription{subscription("sub_2", "active", ofOrg(org))}, "other_mode"},
		"another is, and leads to nothing":                 {true, nil, "other_mode"},
		"another is, and leads to a subscription":          {true, []billing.Subscription{subscription("sub_2", "active", of("price_max"))}, "max"},
		"another is, and leads to somebody else's":         {true, []billing.Subscription{subscription("sub_2", "active", ofOrg(otherOrg))}, "other_mode"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seen := claimed(truth(test.subs...), existing(org, otherOrg))
			seen.OtherMode, seen.InKeyMode = []string{"sub_1", "cus_9"}, test.inMode
			plan, err := rules.Plan(seen, recorded("sub_1"))
			if got := summarized(plan, reasonOf(t, err)); got != test.want || err != nil && !strings.Contains(err.Error(), "sub_1, cus_9") {
				t.Errorf("%s, want %s: %v", got, test.want, err)
			}
		})
	}
}
