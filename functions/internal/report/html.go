package report

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

var (
	//go:embed page.css
	style string
	//go:embed page.js
	script string
	//go:embed page.html
	markup string
)

const (
	// maxShown is how many organizations of one outcome the page holds.
	maxShown = 25_000
	// maxPlain is how many of them it shows where scripts do not run.
	maxPlain = 200
)

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"number": number, "percent": percent, "count": count, "plainLimit": func() int { return maxPlain },
}).Parse(markup))

// HTML writes the page.
func HTML(ctx context.Context, w io.Writer, run Run) (Written, error) {
	return writeHTML(ctx, w, run, maxShown)
}

func writeHTML(ctx context.Context, w io.Writer, run Run, limit int) (Written, error) {
	found := newFindings(run.Mode, limit)
	add := func(i mysqlstore.ReportItem) error {
		found.add(i, run.Summary)
		return nil
	}
	err := run.Items(ctx, add, billing.OutcomeError) // first on the page
	if err == nil {
		err = run.Items(ctx, add, billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeSkipped)
	}
	if err != nil {
		return Written{}, err
	}
	out := bufio.NewWriter(w)
	if err := pageTemplate.Execute(out, newPage(run, found)); err != nil {
		return Written{}, err
	}
	return Written{Organizations: found.changed, Changes: found.changes}, out.Flush()
}

// policy lets the page's own style and script run, and nothing else do anything.
func policy() string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", digest(style), digest(script))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
