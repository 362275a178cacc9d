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

// Command is a whole program: it takes its arguments and environment, writes results and
// progress, and returns the exit code.
type Command func(ctx context.Context, args []string, environ map[string]string, out, errs io.Writer) int

// Main runs a program until it ends or somebody interrupts it. Its environment is the process's.
func Main(run Command) {
	os.Exit(program(run))
}

// patience is how long an interrupted program may take to end before it says what it is doing.
const patience = time.Second

func program(run Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // the last: a terminal that was closed
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
	return run(ctx, os.Args[1:], config.Environ(os.Environ()), os.Stdout, os.Stderr)
}

// dotEnv is the file, in the current folder, whose settings the command lines add to the environment's.
const dotEnv = ".env"

// WithDotEnv returns the environment with what .env in the current folder says below it. The AWS SDK
// reads AWS_* from the process's environment, so those go there too.
func WithDotEnv(environ map[string]string) (map[string]string, error) {
	merged, err := config.ReadDotEnv(dotEnv, environ)
	if err != nil {
		return nil, &Error{Exit: ExitUsage, Code: "configuration", Hint: ".env.example names every variable", Err: err}
	}
	return merged, exportAWS(merged, environ)
}

// exportAWS sets the AWS_* variables that the environment does not have.
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
