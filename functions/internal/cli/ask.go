package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/output"
)

// ErrNoTerminal is the error of Ask if its input is not a terminal.
var ErrNoTerminal = errors.New("there is no terminal to ask on")

// Ask writes what is about to happen and asks on the terminal whether to continue. Only y and yes mean yes.
func Ask(ctx context.Context, in *os.File, errs io.Writer, about string) (yes bool, err error) {
	if !output.IsTerminal(in) {
		return false, ErrNoTerminal
	}
	return ask(ctx, in, errs, about)
}

func ask(ctx context.Context, in io.Reader, errs io.Writer, about string) (yes bool, err error) {
	p := output.NewPage(errs)
	p.Line(0, "%s", about)
	if err := p.Flush(); err != nil {
		return false, err
	}
	if _, err := fmt.Fprint(errs, "Continue? [y/N] "); err != nil {
		return false, err
	}
	answers := make(chan string, 1)
	go func() { // a read cannot be interrupted: after a cancellation it lasts until the process ends
		answer, _ := bufio.NewReader(in).ReadString('\n') // the end of the input means no
		answers <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answers:
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		_, _ = fmt.Fprintln(errs) // ends the question's line
		return false, ctx.Err()
	}
}
