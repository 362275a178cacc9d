package find_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/find"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

func TestUnknownOrganizationSaysWhyNamesAreNotLookedUp(t *testing.T) {
	w := testworld.New(t)
	w.Exec(`ALTER TABLE organizations DROP COLUMN name`)
	err := find.Similar(t.Context(), w.Store, "Granite Games", errors.New("there is no organization Granite Games"))
	e, ok := errors.AsType[*cli.Error](err)
	if !ok || !strings.HasPrefix(e.Hint, "give its id; names cannot be looked up: ") || !strings.Contains(e.Hint, "name") || strings.Contains(e.Hint, "\n") {
		t.Errorf("%+v", err)
	}
}

func TestAFailedLookUpTakesAnIDAsGiven(t *testing.T) {
	w := testworld.New(t)
	w.Subscriber("org-1")
	w.Exec(`ALTER TABLE organizations RENAME TO moved`)
	for text, isID := range map[string]bool{"org-1": true, "cus_org-1": false, "Name of org-1": false} {
		var errs bytes.Buffer
		id, err := find.Organization(t.Context(), w.Store, output.NewProgress(&errs), text)
		if isID != (err == nil) || isID && id != text {
			t.Errorf("%s is %q, %v", text, id, err)
		}
	}
}
