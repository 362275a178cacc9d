package stripesource

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// FuzzDecode checks that any JSON becomes a subscription with an id or a failure with a message of
// one line.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"object":"subscription","id":"sub_1","livemode":false,"status":"active","customer":"cus_1","created":1700000000,` +
			`"current_period_start":1700000000,"current_period_end":1702592000,"trial_end":null,"canceled_at":null,"ended_at":null,` +
			`"cancel_at_period_end":false,"items":{"data":[{"price":{"id":"price_1"}}]},"metadata":{"orgId":"org-1","tier":"pro"}}`,
		`{"object":"subscription","id":"sub_1","livemode":false,"customer":{"id":"cus_1","deleted":true},"items":{"data":[null]}}`,
		`{"object":"subscription","id":"sub_1","livemode":false,"cancel_at":1,"pause_collection":{"behavior":"void"},"items":{"has_more":true,"data":[` +
			`{"id":"si_1","price":null,"plan":{"id":"plan_1","product":{"id":"prod_1"},"usage_type":"metered"}},` +
			`{"id":"si_2","price":{"id":"price_2","product":null,"recurring":{"usage_type":"licensed"}},"plan":null}]}}`,
		`{"object":"subscription","id":"sub_1","livemode":true}`,
		`{"object":"subscription","id":"sub_1","livemode":null,"items":null,"metadata":null,"customer":null}`,
		`{"object":"subscription","id":"sub_1","livemode":false,"created":9223372036854775807,"ended_at":-9223372036854775808}`,
		`{"object":"subscription","id":"sub_1","livemode":false,"created":1e400}`,
		`{"object":"subscription","id":"sub_1\n\u0000","livemode":false,"status":5}`,
		`{"object":"subscription","id":"","livemode":false}`,
		`{"Object":"subscription","ID":"sub_1","LiveMode":false}`,
		`{"object":"invoice","id":"in_1"}`,
		"{\"object\":\"subscription\",\"id\":\"\xff\",\"livemode\":false}",
		`null`, `[]`, `"sub_1"`, `1`, `{`, ``,
	} {
		f.Add([]byte(seed))
	}
	c := New(Config{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		sub, err := c.decode(raw)
		if err == nil {
			if sub.ID == "" || !utf8.ValidString(sub.ID) {
				t.Fatalf("a subscription with id %q", sub.ID)
			}
			if !json.Valid(raw) {
				t.Fatal("decoded invalid JSON")
			}
			return
		}
		if !reflect.DeepEqual(sub, billing.Subscription{}) {
			t.Fatalf("a subscription and an error: %+v, %v", sub, err)
		}
		failed, ok := errors.AsType[*billing.Failure](err)
		if !ok || failed.Retryable() || failed.Reason == "" {
			t.Fatalf("error %T %v", err, err)
		}
		if text := err.Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || !utf8.ValidString(text) {
			t.Fatalf("not one line of text: %q", text)
		}
	})
}
