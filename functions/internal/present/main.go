package present

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

// Command is a whole program: it takes its arguments and environment, writes results and
// progress, and returns the exit code.
type Command func(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int

// Main runs a program until it ends or somebody interrupts it. Its environment is the process's,
// with .env below it; the AWS SDK reads AWS_* from the process's, so those go there too.
func Main(run Command) {
	os.Exit(program(run))
}

// patience is how long an interrupted program may take to end before it says what it is doing.
const patience = time.Second

func program(run Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	calm := context.AfterFunc(ctx, func() {
		stop() // from now on a signal ends the process at once
		select {
		case <-ended:
		case <-time.After(patience):
			_, _ = fmt.Fprintln(os.Stderr, "finishing what was begun; Ctrl-C again quits at once")
		}
	})
	defer calm()
	args := os.Args[1:]
	environ, err := config.ReadDotEnv(".env", config.Environ(os.Environ()))
	if err != nil {
		return Fail(os.Stdout, os.Stderr, asksForJSON(args), &Error{Exit: ExitUsage, Code: "configuration", Hint: ".env.example names every variable", Err: err})
	}
	if err := exportAWS(environ); err != nil {
		return Fail(os.Stdout, os.Stderr, asksForJSON(args), err)
	}
	return run(ctx, args, environ, os.Stdout, os.Stderr)
}

// exportAWS sets the AWS_* variables that only .env has.
func exportAWS(environ map[string]string) error {
	for name, value := range environ {
		if _, set := os.LookupEnv(name); set || !strings.HasPrefix(name, "AWS_") {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return &Error{Exit: ExitUsage, Code: "configuration", Err: fmt.Errorf("set %s: %w", name, err)}
		}
	}
	return nil
}
