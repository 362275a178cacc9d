package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// plan is what the stack to be deployed needs.
type plan struct {
	region          string
	subnets, groups []string
	secret          string // name or ARN
	databasePort    int
	workers, others int // concurrent invocations
}

// template is the part of a template that is read here.
type template struct {
	Resources map[string]struct {
		Type       string
		Properties json.RawMessage
	}
}

type function struct {
	VpcConfig struct {
		SubnetIDs        []string `json:"SubnetIds"`
		SecurityGroupIDs []string `json:"SecurityGroupIds"`
	}
	Environment struct {
		Variables struct {
			Secret string `json:"SECRET_NAME"`
			Port   string `json:"DB_PORT"`
			// Only the worker has this variable.
			Workers string `json:"WORKER_CONCURRENCY"`
		}
	}
}

type eventSource struct {
	ScalingConfig struct{ MaximumConcurrency int }
}

// readPlan reads the folder that task synth wrote, which has one stack.
func readPlan(folder string) (plan, error) {
	var manifest struct {
		Artifacts map[string]struct{ Type, Environment string }
	}
	if err := readJSON(filepath.Join(folder, "manifest.json"), &manifest); err != nil {
		return plan{}, err
	}
	for name, artifact := range manifest.Artifacts {
		if artifact.Type != "aws:cloudformation:stack" {
			continue
		}
		var t template
		if err := readJSON(filepath.Join(folder, name+".template.json"), &t); err != nil {
			return plan{}, err
		}
		p, err := planOf(t)
		p.region = artifact.Environment[strings.LastIndex(artifact.Environment, "/")+1:] // aws://ACCOUNT/REGION
		return p, err
	}
	return plan{}, fmt.Errorf("%s has no stack in it: run `task synth`", folder)
}

func planOf(t template) (plan, error) {
	const defaultPort = "3306"
	var p plan
	var problems []error
	concurrent := 0
	for _, r := range t.Resources {
		switch r.Type {
		case "AWS::Lambda::Function":
			var f function
			problems = append(problems, json.Unmarshal(r.Properties, &f))
			p.subnets = append(p.subnets, f.VpcConfig.SubnetIDs...)
			p.groups = append(p.groups, f.VpcConfig.SecurityGroupIDs...)
			variables := f.Environment.Variables
			p.secret = variables.Secret
			port, err := strconv.Atoi(cmp.Or(variables.Port, defaultPort))
			p.databasePort, problems = port, append(problems, err)
			if variables.Workers != "" {
				p.workers, err = strconv.Atoi(variables.Workers)
				problems = append(problems, err)
			}
		case "AWS::Lambda::EventSourceMapping":
			var source eventSource
			problems = append(problems, json.Unmarshal(r.Properties, &source))
			concurrent += source.ScalingConfig.MaximumConcurrency
		case "AWS::Lambda::EventInvokeConfig": // a function that also has ticks
			concurrent++
		}
	}
	p.others = concurrent - p.workers
	slices.Sort(p.subnets)
	slices.Sort(p.groups)
	p.subnets, p.groups = slices.Compact(p.subnets), slices.Compact(p.groups)
	return p, errors.Join(problems...)
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path) //nolint:gosec // G304: the caller names the folder
	if err != nil {
		return fmt.Errorf("run `task synth` first: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
