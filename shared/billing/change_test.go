package billing_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

func TestChangeIsReadAndWrittenAsItsJSON(t *testing.T) {
	for text, want := range map[string]billing.Change{
		`{"field":"subscriptions.plan_tier","from":null,"to":"pro"}`:                               {Field: "subscriptions.plan_tier", To: "pro"},
		`{"field":"subscriptions.cancel_at_period_end","from":false,"to":true}`:                    {Field: "subscriptions.cancel_at_period_end", From: false, To: true},
		`{"field":"subscriptions.ended_at","from":"2026-11-12T08:00:01Z","to":null}`:               {Field: "subscriptions.ended_at", From: endedAt},
		`{"field":"subscriptions.stripe_price_id","from":"2026-11-12T08:00:01Z","to":"price_pro"}`: {Field: "subscriptions.stripe_price_id", From: "2026-11-12T08:00:01Z", To: "price_pro"},
		`{"field":"subscriptions.of_yore","from":"2026-11-12T08:00:01Z","to":7}`:                   {Field: "subscriptions.of_yore", From: "2026-11-12T08:00:01Z", To: int64(7)},
		`{"field":"subscriptions.ended_at","from":"yesterday","to":null}`:                          {Field: "subscriptions.ended_at", From: "yesterday"},
	} {
		var got billing.Change
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(want, got) {
			t.Errorf("%s is read as %#v, %v", text, got, err)
		}
		if again, err := json.Marshal(got); err != nil || string(again) != text {
			t.Errorf("%s is written as %s, %v", text, again, err)
		}
	}
}

// Every field of a record is compared under the lock, also one that is added later.
func TestRecordDiffersIfAnyFieldDiffers(t *testing.T) {
	_, record := everything()
	if _, again := everything(); !record.Same(again) {
		t.Fatal("a record differs from itself")
	}
	alter := func(name string, of func(*billing.Record) reflect.Value) {
		for i := range of(&record).NumField() {
			_, other := everything()
			value := of(&other).Field(i)
			switch {
			case value.Kind() == reflect.Bool:
				value.SetBool(!value.Bool())
			case value.Kind() == reflect.String:
				value.SetString(value.String() + " ")
			case value.Type() == reflect.TypeFor[time.Time]():
				value.Set(reflect.ValueOf(created.Add(time.Millisecond)))
			default:
				value.SetZero() // a pointer: NULL
			}
			if record.Same(other) || other.Same(record) {
				t.Errorf("%s.%s is not compared", name, of(&record).Type().Field(i).Name)
			}
		}
	}
	alter("Organization", func(r *billing.Record) reflect.Value { return reflect.ValueOf(&r.Org).Elem() })
	alter("Row", func(r *billing.Record) reflect.Value { return reflect.ValueOf(&r.Rows[0]).Elem() })
	for name, other := range map[string]billing.Record{
		"a row more":     {Org: record.Org, Rows: append(record.Rows[:1:1], billing.Row{})},
		"no row":         {Org: record.Org},
		"a NULL":         {Org: record.Org, Rows: record.Rows, Nulls: []string{billing.FieldOrgTier}},
		"a later moment": {Org: record.Org, Rows: []billing.Row{later(record.Rows[0])}},
	} {
		if record.Same(other) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

// later returns the row with an end that is later by less than a plan sees.
func later(r billing.Row) billing.Row {
	r.EndedAt = ptr(r.EndedAt.Add(time.Microsecond))
	return r
}

func TestAColumnIsRequiredWhereItsFieldHasNoNull(t *testing.T) {
	kinds := map[billing.Kind]any{
		billing.KindText: new(*string), billing.KindTime: new(*time.Time), billing.KindFlag: new(*bool), billing.KindNumber: new(*int64),
	}
	for _, c := range billing.Columns() {
		want := kinds[c.Kind]
		if c.Required {
			want = new(string)
		}
		if got := c.Cell(&billing.Row{}, &billing.Organization{}); reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%s, of kind %d, required %t, is a %T", c.Field, c.Kind, c.Required, got)
		}
	}
}
