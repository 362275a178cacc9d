// Preflight asks AWS, before a deployment, whether what exists already is as the functions need it:
//
//		go run ./infra/preflight cdk.out
//
//	  - The subnets send 0.0.0.0/0 somewhere, and not to an internet gateway, and have addresses left.
//	  - The security group lets out to port 443 and to the database's port.
//	  - The account may run as many functions at a time as the stack does.
//	  - The secret exists and has both keys.
//
// What it looks for it reads in the template that is deployed, so that a change of the configuration
// cannot be missed. It changes nothing, and prints no value of the secret. It needs the AWS CLI v2,
// and credentials that may make these calls; infra/README.md lists them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: go run ./infra/preflight FOLDER, the one that `task synth` wrote")
	}
	p, err := readPlan(args[0])
	if err != nil {
		return err
	}
	report := check(ctx, cli{p.region}, p)
	for _, line := range report.good {
		fmt.Println("ok:", line)
	}
	if len(report.bad) > 0 {
		return errors.New("nothing is deployed, because of:\n  " + strings.Join(report.bad, "\n  "))
	}
	return nil
}

// cli calls AWS by its command line, which has everybody's credentials.
type cli struct{ region string }

// call decodes what a command answers.
func (c cli) call(ctx context.Context, into any, command ...string) error {
	answer, err := exec.CommandContext(ctx, "aws", append(command, "--region", c.region, "--output", "json")...).Output() //nolint:gosec // G204: what is asked for is in this package
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("aws %s: %s", strings.Join(command[:2], " "), strings.Join(strings.Fields(string(failed.Stderr)), " "))
	}
	if err != nil {
		return fmt.Errorf("the AWS CLI v2 is needed: %w", err)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the answer of aws %s cannot be read", strings.Join(command[:2], " ")) // not wrapped: it may quote a secret
	}
	return nil
}
