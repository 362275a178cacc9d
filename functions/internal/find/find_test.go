package find_test

import (
	"bytes"
	"testing"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/find"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/mysqltest"
	"github.com/pixell-global/subscription-reconciliation/shared/testworld"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

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
