package sqsqueue_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/sqsqueue"
)

func TestMessageBodyHasItsFormat(t *testing.T) {
	work, err := sqsqueue.EncodeWork(billing.Work{RunID: "2026-11-22T03:00:00Z", OrgID: "org-1"})
	if want := `{"version":1,"runId":"2026-11-22T03:00:00Z","orgId":"org-1"}`; work != want || err != nil {
		t.Errorf("work is %s, want %s; error %v", work, want, err)
	}
	progress, err := sqsqueue.EncodeProgress("2026-11-22T03:00:00Z")
	if want := `{"version":1,"runId":"2026-11-22T03:00:00Z"}`; progress != want || err != nil {
		t.Errorf("progress is %s, want %s; error %v", progress, want, err)
	}
	if _, err := sqsqueue.DecodeProgress(work); err == nil {
		t.Error("work was taken for progress")
	}
	if _, err := sqsqueue.DecodeWork(progress); err == nil {
		t.Error("progress was taken for work")
	}
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := billing.Work{
			RunID: rapid.StringN(1, 64, -1).Draw(t, "run"),
			OrgID: rapid.StringN(1, 36, -1).Draw(t, "organization"),
		}
		body, err := sqsqueue.EncodeWork(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := sqsqueue.DecodeWork(body); got != want || err != nil {
			t.Fatalf("%+v, want %+v; error %v", got, want, err)
		}
		body, err = sqsqueue.EncodeProgress(want.RunID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := sqsqueue.DecodeProgress(body); got != want.RunID || err != nil {
			t.Fatalf("%q, want %q; error %v", got, want.RunID, err)
		}
	})
}

func TestIDsLongerThanTheirColumnsAreRefused(t *testing.T) {
	for _, character := range []string{"x", "é", "😀"} { // columns count characters
		for _, test := range []struct {
			run, org int
			ok       bool
		}{{1, 1, true}, {64, 36, true}, {65, 36, false}, {64, 37, false}, {0, 1, false}, {1, 0, false}} {
			body := `{"version":1,"runId":"` + strings.Repeat(character, test.run) + `","orgId":"` + strings.Repeat(character, test.org) + `"}`
			if _, err := sqsqueue.DecodeWork(body); (err == nil) != test.ok {
				t.Errorf("%d and %d times %s: error %v", test.run, test.org, character, err)
			}
		}
	}
}

func TestInvalidBodyIsRefused(t *testing.T) {
	const secret = "jane@example.com" // must not be in a log
	tests := []struct{ name, body, says string }{
		{"nothing", "", "not a message"},
		{"a text", secret, "not a message"},
		{"a JSON text", `"` + secret + `"`, "not a message"},
		{"an array", `[]`, "not a message"},
		{"a number", `1`, "not a message"},
		{"null", `null`, "version 0"},
		{"an empty object", `{}`, "version 0"},
		{"cut off", `{"version":1,"runId":"r","orgId":"` + secret, "not a message"},
		{"an older version", `{"version":0,"runId":"r","orgId":"o"}`, "version 0"},
		{"a newer version", `{"version":2,"runId":"r","orgId":"o"}`, "version 2"},
		{"a version that is a text", `{"version":"` + secret + `","runId":"r","orgId":"o"}`, "not a message"},
		{"a version that is no integer", `{"version":1.5,"runId":"r","orgId":"o"}`, "not a message"},
		{"a huge version", `{"version":1` + strings.Repeat("0", 5000) + `,"runId":"r","orgId":"o"}`, "not a message"},
		{"no version", `{"runId":"r","orgId":"o"}`, "version 0"},
		{"an unknown field", `{"version":1,"runId":"r","orgId":"o","` + secret + `":true}`, "not a message"},
		{"a run that is a number", `{"version":1,"runId":7,"orgId":"o"}`, "not a message"},
		{"no run", `{"version":1,"orgId":"o"}`, "runId"},
		{"an empty run", `{"version":1,"runId":"","orgId":"o"}`, "runId"},
		{"an empty organization", `{"version":1,"runId":"r","orgId":""}`, "orgId"},
		{"a long run", `{"version":1,"runId":"` + strings.Repeat(secret, 5) + `","orgId":"o"}`, "runId"},
		{"a long organization", `{"version":1,"runId":"r","orgId":"` + strings.Repeat(secret, 5) + `"}`, "orgId"},
		{"something behind it", `{"version":1,"runId":"r","orgId":"o"} ` + secret, "behind"},
		{"two messages", `{"version":1,"runId":"r","orgId":"o"}{"version":1,"runId":"r","orgId":"o"}`, "behind"},
		{"1 MiB of text", strings.Repeat("x", 1<<20), "not a message"},
		{"1 MiB of an id", `{"version":1,"runId":"` + strings.Repeat("x", 1<<20) + `","orgId":"o"}`, "runId"},
		{"1 MiB of a field's name", `{"` + strings.Repeat("x", 1<<20) + `":1}`, "not a message"},
		{"1 MiB of depth", strings.Repeat("[", 1<<20), "not a message"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			work, err := sqsqueue.DecodeWork(test.body)
			if err == nil || work != (billing.Work{}) {
				t.Fatalf("%+v, error %v", work, err)
			}
			wantShortLine(t, err)
			if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func wantShortLine(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 300 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		t.Errorf("the error is not a short line of text: %.400q", text)
	}
}

func TestWhiteSpaceAroundAMessageIsAccepted(t *testing.T) {
	got, err := sqsqueue.DecodeWork(" \r\n{\"version\":1,\n\"runId\":\"r\",\"orgId\":\"o\"}\n\t")
	if want := (billing.Work{RunID: "r", OrgID: "o"}); got != want || err != nil {
		t.Errorf("%+v, error %v", got, err)
	}
}

// FuzzDecodeWork checks that no body panics and that a decoded message encodes again.
func FuzzDecodeWork(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"runId":"2026-11-22T03:00:00Z","orgId":"0f2c6d9e-6a5b-4c1d-9a54-3f1c0f7e2b11"}`,
		`{"version":1,"runId":"2026-11-22T03:00:00Z"}`,
		`{"version":2,"runId":"r","orgId":"o"}`,
		`{"version":1,"runId":"r","orgId":"o","more":1}`,
		`{"version":1,"runId":"r","orgId":"o"}{}`,
		`{"VERSION":1,"RunID":"<\u0000\ud800&>","orgid":"\u2028"}`,
		"{\"version\":1,\"runId\":\"\xff\",\"orgId\":\"\xc3\"}",
		`{"version":1e0}`, `null`, `[]`, `{`, ``,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		work, err := sqsqueue.DecodeWork(body)
		if err != nil {
			wantShortLine(t, err)
			return
		}
		written, err := sqsqueue.EncodeWork(work)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := sqsqueue.DecodeWork(written); again != work || err != nil {
			t.Fatalf("%+v became %+v, error %v", work, again, err)
		}
	})
}
