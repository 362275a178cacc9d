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

// ErrNobodyToAsk is the error of a question where no person sits at a terminal.
var ErrNobodyToAsk = errors.New("there is no terminal to ask on")

// Ask says what is about to happen and asks on the terminal whether to go on. Anything but yes is no.
func Ask(ctx context.Context, in *os.File, errs io.Writer, about string) (yes bool, err error) {
	if !output.IsTerminal(in) {
		return false, ErrNobodyToAsk
	}
	return ask(ctx, in, errs, about)
}

func ask(ctx context.Context, in io.Reader, errs io.Writer, about string) (yes bool, err error) {
	p := output.NewPage(errs)
	p.Line(0, "%s", about)
	if err := p.Flush(); err != nil {
		return false, err
	}
	if _, err := fmt.Fprint(errs, "Go on? [y/N] "); err != nil {
		return false, err
	}
	answers := make(chan string, 1)
	go func() { // a read cannot be interrupted; it ends with the process at the latest
		answer, _ := bufio.NewReader(in).ReadString('\n') // the end of the input is no
		answers <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answers:
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		_, _ = fmt.Fprintln(errs) // the question has its own line
		return false, ctx.Err()
	}
}
