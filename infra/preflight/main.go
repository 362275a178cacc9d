// Preflight checks before a deployment that AWS has what the functions need:
//
//		go run ./infra/preflight cdk.out
//
//	  - The subnets send 0.0.0.0/0 somewhere, but not to an internet gateway, and have addresses left.
//	  - The security group allows outgoing traffic to port 443 and to the database's port.
//	  - The account may run as many functions at a time as the stack does.
//	  - The secret exists and has both keys.
//
// It reads what to check from the template that will be deployed, so it cannot check an old configuration.
// It changes nothing, and prints no value of the secret. It needs the AWS CLI v2 and credentials for
// these calls: infra/policies/deployer.json.
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
		return errors.New("nothing was deployed, because:\n  " + strings.Join(report.bad, "\n  "))
	}
	return nil
}

// cli calls AWS through its command line, which has the user's credentials.
type cli struct{ region string }

// call runs a command and decodes its response.
func (c cli) call(ctx context.Context, into any, command ...string) error {
	response, err := exec.CommandContext(ctx, "aws", append(command, "--region", c.region, "--output", "json")...).Output() //nolint:gosec // G204: the commands are in this package
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("aws %s: %s", strings.Join(command[:2], " "), strings.Join(strings.Fields(string(failed.Stderr)), " "))
	}
	if err != nil {
		return fmt.Errorf("this needs the AWS CLI v2: %w", err)
	}
	if err := json.Unmarshal(response, into); err != nil {
		return fmt.Errorf("the response of aws %s cannot be read", strings.Join(command[:2], " ")) // not wrapped: the error may quote a secret
	}
	return nil
}
