package report

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"reflect"
	"strings"
	"sync"

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
	// entriesMark is the place of the entries in the template; they are streamed. Data cannot contain it, because its
	// quotation marks are escaped.
	entriesMark = `"the entries"`
	// maxPlain is how many of them it shows without scripts.
	maxPlain = 200
	// shortRows is how many rows of a table are shown before it is unfolded.
	shortRows = 10
)

// pageTemplate is parsed on first use: a Lambda function that only closes runs starts faster without it.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"first": first, "rest": rest, "parts": parts, "number": billing.Thousands, "percent": percent, "count": billing.Count, "plainLimit": func() int { return maxPlain },
	}).Parse(markup))
})

// first and rest are the rows of a list that are shown, and those that a click unfolds.
func first(list any) any {
	rows := reflect.ValueOf(list)
	return rows.Slice(0, min(rows.Len(), shortRows)).Interface()
}

func rest(list any) any {
	rows := reflect.ValueOf(list)
	return rows.Slice(min(rows.Len(), shortRows), rows.Len()).Interface()
}

// parts splits a command where a line may break: before a flag, not between a flag and its value.
func parts(command string) []string {
	all := strings.Split(command, " --")
	for i := 1; i < len(all); i++ {
		all[i] = "--" + all[i]
	}
	return all
}

// HTML writes the page.
func HTML(ctx context.Context, w io.Writer, run Run) (Written, error) {
	return writeHTML(ctx, w, run, maxShown)
}

func writeHTML(ctx context.Context, w io.Writer, run Run, limit int) (Written, error) {
	found := newFindings(run.Mode, limit)
	add := func(i mysqlstore.ReportItem) error { return found.add(i, run.Summary) }
	err := run.Items(ctx, add, billing.OutcomeError) // first on the page
	if err == nil {
		err = run.Items(ctx, add, billing.OutcomeSynced, billing.OutcomeDrifted, billing.OutcomeSkipped)
	}
	if err != nil {
		return Written{}, err
	}
	var text bytes.Buffer
	if err := pageTemplate().Execute(&text, newPage(run, found)); err != nil {
		return Written{}, err
	}
	before, after, ok := bytes.Cut(text.Bytes(), []byte(entriesMark))
	if !ok {
		return Written{}, errors.New("the page has no place for its entries")
	}
	out := bufio.NewWriter(w)
	if _, err := out.Write(before); err != nil {
		return Written{}, err
	}
	if err := found.entries.writeTo(out); err != nil {
		return Written{}, err
	}
	if _, err := out.Write(after); err != nil {
		return Written{}, err
	}
	return Written{Organizations: found.changed, Changes: found.changes}, out.Flush()
}

// policy is the Content-Security-Policy: only the page's own style and script run.
func policy() string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", digest(style), digest(script))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
