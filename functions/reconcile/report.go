package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/cli"
	"github.com/pixell-global/subscription-reconciliation/functions/internal/report"
	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
)

// toStdout is the file name that means standard output.
const toStdout = "-"

// reportOptions are the command's flags and argument.
type reportOptions struct{ run, html, csv, organizations string }

// file is where the report goes.
func (o reportOptions) file() string { return o.html + o.csv + o.organizations }

// onlyOne reports whether exactly one format was chosen.
func (o reportOptions) onlyOne() bool {
	chosen := 0
	for _, file := range []string{o.html, o.csv, o.organizations} {
		if file != "" {
			chosen++
		}
	}
	return chosen == 1
}

// written is the JSON that report prints.
type written struct {
	report.Written

	RunID string `json:"runId"`
	File  string `json:"file"`
}

func (c *command) report(ctx context.Context) *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report [RUN] --html FILE | --csv FILE | --csv-organizations FILE",
		Short: "Write a run as a page for people or a table for finance",
		Long: `Writes the run, by default the last one over all organizations (also a dry run), to one
FILE; - is standard output.

--html is one page that works offline: outcomes, what needs a person and the command
that repairs it, changes of tier, period and access, drift by field and over time, and every
change before and after. It can be searched and printed.

--csv has one row for each change, and one for each organization without changes that has
an error or a warning. An empty cell is NULL.

--csv-organizations has one row for each of these organizations: tier and status before
and after, whether its access is raised or lowered, and the price. Values that did not
change are the current ones. "applied" is no in a dry run and for withheld changes.
"accepted" has the codes of errors and warnings that were accepted as known.

Both tables are UTF-8 with a byte order mark, times are UTC. A value that a spreadsheet
would take for a formula (= + - @) begins with an apostrophe.

Links to Stripe need STRIPE_MODE or STRIPE_SECRET_KEY, whose prefix names the mode.
All hold customer data: only you can read the file (mode 0600). An existing file is
replaced when the new one is complete.`,
		Example: `  reconcile report --html report.html
  reconcile report 2026-11-22T03:00:00Z --csv changes.csv
  reconcile report --csv-organizations organizations.csv
  reconcile report --csv - | grep subscriptions.plan_tier`,
		Args:              cli.AtMostOneArg("run"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			o.run = first(args)
			return c.writeReport(ctx, o)
		},
	}
	cmd.Flags().StringVar(&o.html, "html", "", "write a page to this `FILE`")
	cmd.Flags().StringVar(&o.csv, "csv", "", "write a table of changes to this `FILE`")
	cmd.Flags().StringVar(&o.organizations, "csv-organizations", "", "write a table of organizations to this `FILE`")
	return cmd
}

func (c *command) writeReport(ctx context.Context, o reportOptions) error {
	if !o.onlyOne() {
		return cli.Usage("give exactly one of --html FILE, --csv FILE and --csv-organizations FILE; - is standard output")
	}
	if c.json && o.file() == toStdout {
		return cli.Usage("--json prints to standard output: give the report a file")
	}
	return c.withDatabase(ctx, func(store *mysqlstore.Store, settings config.Config) error {
		run, err := findRun(ctx, store, o.run)
		if err != nil {
			return err
		}
		items := report.ItemsOf(store, run.ID)
		n := written{RunID: run.ID, File: o.file()}
		err = c.toFile(n.File, func(w io.Writer) error {
			switch {
			case o.csv != "":
				n.Written, err = report.CSV(ctx, w, items)
			case o.organizations != "":
				n.Written, err = report.OrganizationsCSV(ctx, w, items)
			default:
				n.Written, err = writePage(ctx, w, store, run, settings.Stripe.Mode)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("the report was not written: %w", err)
		}
		return c.showWritten(n)
	})
}

func writePage(ctx context.Context, w io.Writer, store *mysqlstore.Store, run billing.Run, mode config.Mode) (report.Written, error) {
	summary, err := (&pipeline.Aggregator{Store: store}).Summary(ctx, run.ID)
	if err != nil {
		return report.Written{}, err
	}
	about, err := report.Of(ctx, store, run, summary)
	if err != nil {
		return report.Written{}, err
	}
	about.Mode, about.WrittenAt = mode, time.Now()
	return report.HTML(ctx, w, about)
}

// showWritten prints where the report is. It prints to standard error if the report goes to standard output.
func (c *command) showWritten(n written) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(n)
	}
	to, name := c.out, n.File
	if name == toStdout {
		to, name = c.errs, "standard output"
	}
	rows := ""
	if n.Rows > 0 {
		rows = ", " + billing.Count(n.Rows, "row")
	}
	return say(to, "wrote run %s to %s: %s of %s%s", n.RunID, name, billing.Count(n.Changes, "change"), billing.Count(n.Organizations, "organization"), rows)
}

// toFile writes to the file, or to standard output. The file has mode 0600 and replaces an older one when it is
// complete.
func (c *command) toFile(name string, write func(io.Writer) error) (err error) {
	if name == toStdout {
		return write(c.out)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return toSpecial(name, info, write)
	}
	file, err := os.CreateTemp(filepath.Dir(name), ".report-*") // with mode 0600
	if err != nil {
		return cannotWrite(name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(file.Close()), os.Remove(file.Name()))
		}
	}()
	if err := write(file); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// toSpecial writes to a device or a pipe, such as a shell's >(gzip), which cannot be replaced.
func toSpecial(name string, info fs.FileInfo, write func(io.Writer) error) (err error) {
	if info.IsDir() {
		return cli.Usage("%s is a folder; name a file", name)
	}
	file, err := os.OpenFile(name, os.O_WRONLY, 0) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return cannotWrite(name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}

// cannotWrite names the requested file, not the temporary one.
func cannotWrite(name string, err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err
	}
	return cli.Usage("cannot write %s: %w", name, err)
}

// ignoreClosed ignores that the file is closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
