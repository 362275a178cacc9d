package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stub answers in the shape that AWS documents. Only a real account can test more.
type stub map[string]string

func (s stub) call(_ context.Context, into any, command ...string) error {
	key := strings.Join(command, " ")
	for length := len(command); length > 1; length-- { // the longest prefix that has a response
		if answer, ok := s[strings.Join(command[:length], " ")]; ok {
			if strings.HasPrefix(answer, "An error") {
				return errors.New(answer)
			}
			return json.Unmarshal([]byte(answer), into)
		}
	}
	return errors.New("unexpected command: aws " + key)
}

var good = stub{
	"sts get-caller-identity": `{"Account":"123456789012","Arn":"arn:aws:iam::123456789012:user/deployer"}`,
	"ec2 describe-subnets":    `{"Subnets":[{"SubnetId":"s","VpcId":"vpc-1","AvailableIpAddressCount":200}]}`,
	"ec2 describe-route-tables --filters Name=association.subnet-id,Values=subnet-1": `{"RouteTables":[{"Routes":[
		{"DestinationCidrBlock":"10.0.0.0/16","GatewayId":"local","State":"active"},
		{"DestinationCidrBlock":"0.0.0.0/0","NatGatewayId":"nat-1","State":"active"}]}]}`,
	"ec2 describe-route-tables --filters Name=association.subnet-id,Values=subnet-2": `{"RouteTables":[]}`,
	"ec2 describe-route-tables --filters Name=vpc-id,Values=vpc-1 Name=association.main,Values=true": `{"RouteTables":[{"Routes":[
		{"DestinationCidrBlock":"0.0.0.0/0","TransitGatewayId":"tgw-1","State":"active"}]}]}`,
	"ec2 describe-security-group-rules": `{"SecurityGroupRules":[
		{"IsEgress":false,"IpProtocol":"tcp","FromPort":22,"ToPort":22,"CidrIpv4":"10.0.0.0/8"},
		{"IsEgress":true,"IpProtocol":"tcp","FromPort":443,"ToPort":443,"CidrIpv4":"0.0.0.0/0"},
		{"IsEgress":true,"IpProtocol":"tcp","FromPort":3306,"ToPort":3306,"ReferencedGroupInfo":{"GroupId":"sg-2"}}]}`,
	"lambda get-account-settings":     `{"AccountLimit":{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":900}}`,
	"secretsmanager describe-secret":  `{"ARN":"arn","Name":"pixell/test"}`,
	"secretsmanager get-secret-value": `{"SecretString":"{\"DB_PASSWORD\":\"the-password\",\"STRIPE_SECRET_KEY\":\"the-key\"}"}`,
}

var example = plan{
	region: "us-east-1", subnets: []string{"subnet-1", "subnet-2"}, groups: []string{"sg-1"},
	secret: "pixell/test", databasePort: 3306, workers: 10, others: 6,
}

func TestAReadyAccountPassesEveryCheck(t *testing.T) {
	want := report{good: []string{
		"subnet-1 sends 0.0.0.0/0 to nat-1 and has 200 addresses left",
		"subnet-2 sends 0.0.0.0/0 to tgw-1 and has 200 addresses left",
		"sg-1 allows outgoing traffic to ports 443 and 3306",
		"the account may run 900 functions at a time, of which this stack needs 16",
		"secret pixell/test has DB_PASSWORD and STRIPE_SECRET_KEY",
	}}
	if diff := cmp.Diff(want, check(t.Context(), good, example), cmp.AllowUnexported(report{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEachProblemIsReportedWithItsRemedy(t *testing.T) {
	const routes = "ec2 describe-route-tables --filters Name=association.subnet-id,Values=subnet-1"
	const rules = "ec2 describe-security-group-rules"
	for name, c := range map[string]struct{ call, answer, says string }{
		"no credentials": {"sts get-caller-identity", "An error occurred (ExpiredToken)", "ExpiredToken"},
		"public":         {routes, `{"RouteTables":[{"Routes":[{"DestinationCidrBlock":"0.0.0.0/0","GatewayId":"igw-1","State":"active"}]}]}`, "subnet-1 is public"},
		"no route":       {routes, `{"RouteTables":[{"Routes":[{"DestinationCidrBlock":"10.0.0.0/16","GatewayId":"local","State":"active"}]}]}`, "no route for 0.0.0.0/0"},
		"gateway gone":   {routes, `{"RouteTables":[{"Routes":[{"DestinationCidrBlock":"0.0.0.0/0","NatGatewayId":"nat-1","State":"blackhole"}]}]}`, "no route for 0.0.0.0/0"},
		"full subnet":    {"ec2 describe-subnets --subnet-ids subnet-1", `{"Subnets":[{"VpcId":"vpc-1","AvailableIpAddressCount":3}]}`, "3 addresses left"},
		"no subnet":      {"ec2 describe-subnets --subnet-ids subnet-1", `{"Subnets":[]}`, "SUBNET_IDS"},
		"may not ask":    {"ec2 describe-subnets --subnet-ids subnet-1", "An error occurred (UnauthorizedOperation)", "UnauthorizedOperation"},
		"no internet":    {rules, `{"SecurityGroupRules":[{"IsEgress":true,"IpProtocol":"-1","FromPort":-1,"ToPort":-1,"CidrIpv4":"10.0.0.0/8"}]}`, "tcp 443 to 0.0.0.0/0"},
		"no database":    {rules, `{"SecurityGroupRules":[{"IsEgress":true,"IpProtocol":"tcp","FromPort":443,"ToPort":443,"CidrIpv4":"0.0.0.0/0"}]}`, "port 3306"},
		"a new account":  {"lambda get-account-settings", `{"AccountLimit":{"UnreservedConcurrentExecutions":10}}`, "may run 10 functions at a time, and this stack needs 16 (WORKER_CONCURRENCY=10 and 6 others)"},
		"no secret":      {"secretsmanager describe-secret", "An error occurred (ResourceNotFoundException)", "ResourceNotFoundException"},
		"deleted secret": {"secretsmanager describe-secret", `{"DeletedDate":"2026-11-01T00:00:00Z"}`, "restore it"},
		"no key":         {"secretsmanager get-secret-value", `{"SecretString":"{\"DB_PASSWORD\":\"the-password\",\"STRIPE_SECRET_KEY\":\"\"}"}`, "has no STRIPE_SECRET_KEY"},
		"no JSON":        {"secretsmanager get-secret-value", `{"SecretString":"the-password"}`, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			aws := maps.Clone(good)
			aws[c.call] = c.answer
			got := check(t.Context(), aws, example)
			if len(got.bad) != 1 || !strings.Contains(got.bad[0], c.says) {
				t.Errorf("%q, want %q", got.bad, c.says)
			}
			for _, line := range append(got.good, got.bad...) {
				if strings.Contains(line, "the-password") || strings.Contains(line, "the-key") {
					t.Errorf("a secret is in %q", line)
				}
			}
		})
	}
}

func TestADeployerNeedNotReadTheSecret(t *testing.T) {
	aws := maps.Clone(good)
	aws["secretsmanager get-secret-value"] = "An error occurred (AccessDeniedException)"
	if got := check(t.Context(), aws, example); len(got.bad) != 0 || !strings.Contains(strings.Join(got.good, "\n"), "its keys were not checked") {
		t.Errorf("%+v", got)
	}
}

func TestThePlanIsReadFromTheTemplate(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"manifest.json": `{"artifacts":{"x.assets":{"type":"cdk:asset-manifest"},"x":{"type":"aws:cloudformation:stack","environment":"aws://123456789012/eu-west-1"}}}`,
		"x.template.json": `{"Resources":{
			"A":{"Type":"AWS::Lambda::Function","Properties":{"VpcConfig":{"SubnetIds":["subnet-1","subnet-2"],"SecurityGroupIds":["sg-1"]},
				"Environment":{"Variables":{"SECRET_NAME":"pixell/test","DB_PORT":"3307","WORKER_CONCURRENCY":"10","WORK_QUEUE_URL":{"Ref":"Q"}}}}},
			"B":{"Type":"AWS::Lambda::Function","Properties":{"VpcConfig":{"SubnetIds":["subnet-2","subnet-1"],"SecurityGroupIds":["sg-1"]},
				"Environment":{"Variables":{"SECRET_NAME":"pixell/test","DB_PORT":"3307"}}}},
			"C":{"Type":"AWS::Lambda::EventSourceMapping","Properties":{"ScalingConfig":{"MaximumConcurrency":10}}},
			"D":{"Type":"AWS::Lambda::EventSourceMapping","Properties":{"ScalingConfig":{"MaximumConcurrency":2}}},
			"E":{"Type":"AWS::Lambda::EventInvokeConfig","Properties":{}}}}`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readPlan(folder)
	if err != nil {
		t.Fatal(err)
	}
	want := plan{
		region: "eu-west-1", subnets: []string{"subnet-1", "subnet-2"}, groups: []string{"sg-1"},
		secret: "pixell/test", databasePort: 3307, workers: 10, others: 3,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(plan{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := readPlan(t.TempDir()); err == nil || !strings.Contains(err.Error(), "task synth") {
		t.Errorf("of an empty folder: %v", err)
	}
}
