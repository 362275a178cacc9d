// Package archive writes the reports of a run to a bucket: the page and the table of changes.
//
// A report is first written to a temporary file, so that it takes no memory, is sent as a whole, and can be sent again.
// The file is always removed: reports contain customer data.
package archive

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/report"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

// bucket stores the reports.
type bucket interface {
	Put(ctx context.Context, key, contentType string, body io.ReaderAt) error
	Address(key string) string
}

// Reports writes the reports of runs into the bucket.
type Reports struct {
	Store  *mysqlstore.Store
	Bucket bucket
	Mode   config.Mode // selects the dashboard that the page links to
	Now    func() time.Time
}

// Put writes the run's page and table, and replaces earlier ones.
func (r Reports) Put(ctx context.Context, run billing.Run, s billing.Summary) error {
	about, err := report.Of(ctx, r.Store, run, s)
	if err != nil {
		return err
	}
	about.Mode, about.WrittenAt = r.Mode, r.Now()
	err = r.put(ctx, pageKey(run.ID), "text/html; charset=utf-8", func(w io.Writer) error {
		_, err := report.HTML(ctx, w, about)
		return err
	})
	if err != nil {
		return err
	}
	return r.put(ctx, "reports/"+run.ID+"/changes.csv", "text/csv; charset=utf-8", func(w io.Writer) error {
		_, err := report.CSV(ctx, w, about.Items)
		return err
	})
}

// Address returns the address of the run's page.
func (r Reports) Address(runID string) string { return r.Bucket.Address(pageKey(runID)) }

func pageKey(runID string) string { return "reports/" + runID + "/report.html" }

func (r Reports) put(ctx context.Context, key, contentType string, write func(io.Writer) error) (err error) {
	file, err := os.CreateTemp("", "report-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if err := write(file); err != nil {
		return err
	}
	return r.Bucket.Put(ctx, key, contentType, file)
}
