package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// Program takes arguments and environment, writes results to out and progress to errs, and returns the exit code.
type Program func(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int

// Main runs the program with the process's arguments and environment and exits. Signals cancel its context.
func Main(program Program) {
	os.Exit(run(program))
}

// patience is how long an interrupted program may take to end before a line says that it is still ending.
const patience = time.Second

func run(program Program) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // SIGHUP: the terminal was closed
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	cancelNotice := context.AfterFunc(ctx, func() {
		stop() // the next signal ends the process at once
		select {
		case <-ended:
		case <-time.After(patience):
			_, _ = fmt.Fprintln(os.Stderr, "ending; press Ctrl-C again to quit at once")
		}
	})
	defer cancelNotice()
	return program(ctx, os.Args[1:], config.Environ(os.Environ()), os.Stdout, os.Stderr)
}

// dotEnv is the file in the current folder with more settings.
const dotEnv = ".env"

// WithDotEnv returns environ with the settings of .env added; environ wins. It also exports the AWS_* settings to the
// process's environment, where the AWS SDK reads them. The problems of .env are reported together with what is missing
// for the needs.
func WithDotEnv(environ map[string]string, needs ...config.Need) (map[string]string, error) {
	merged, err := config.ReadDotEnv(dotEnv, environ, needs...)
	if err != nil {
		return nil, &Error{Exit: ExitUsage, Code: "configuration", Hint: ".env.example names every variable", Err: err}
	}
	return merged, exportAWS(merged, environ)
}

// SetInDotEnv reports whether .env gives the variable a value.
func SetInDotEnv(name string) bool {
	file, _ := config.ReadFile(dotEnv) // [WithDotEnv] reports its problems
	return file.Values[name] != ""
}

// exportAWS sets the AWS_* variables that the environment lacks.
func exportAWS(merged, environ map[string]string) error {
	for name, value := range merged {
		_, given := environ[name]
		if _, set := os.LookupEnv(name); set || given || !strings.HasPrefix(name, "AWS_") {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return &Error{Exit: ExitUsage, Code: "configuration", Hint: "correct it in .env", Err: fmt.Errorf("set %s: %w", name, err)}
		}
	}
	return nil
}
