package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// account answers AWS CLI commands.
type account interface {
	call(ctx context.Context, into any, command ...string) error
}

// minAddresses is how many addresses a subnet must have left. Lambda uses one for each subnet and security group, and
// more as more functions run.
const minAddresses = 8

// requiredKeys are the keys that the secret must have.
var requiredKeys = []string{"DB_PASSWORD", "STRIPE_SECRET_KEY"}

// report is the result of the checks.
type report struct{ good, bad []string }

func (r *report) ok(format string, args ...any) {
	r.good = append(r.good, fmt.Sprintf(format, args...))
}

func (r *report) wrong(format string, args ...any) {
	r.bad = append(r.bad, fmt.Sprintf(format, args...))
}

// check runs every check, even if others fail. If AWS refuses the credentials, every check would fail alike, so it
// reports only that.
func check(ctx context.Context, aws account, p plan) report {
	var found report
	var caller struct{ Arn string }
	if err := aws.call(ctx, &caller, "sts", "get-caller-identity"); err != nil {
		found.wrong("%v: sign in (aws sso login), set AWS_PROFILE, or install the AWS CLI v2", err)
		return found
	}
	for _, subnet := range p.subnets {
		checkSubnet(ctx, aws, subnet, &found)
	}
	for _, group := range p.groups {
		checkEgress(ctx, aws, group, p.databasePort, &found)
	}
	checkConcurrency(ctx, aws, p, &found)
	checkSecret(ctx, aws, p.secret, &found)
	return found
}

func checkSubnet(ctx context.Context, aws account, subnet string, found *report) {
	var response struct {
		Subnets []struct {
			VpcID     string `json:"VpcId"`
			Addresses int    `json:"AvailableIpAddressCount"`
		}
	}
	if err := aws.call(ctx, &response, "ec2", "describe-subnets", "--subnet-ids", subnet); err != nil {
		found.wrong("%v", err)
		return
	}
	if len(response.Subnets) != 1 {
		found.wrong("%s does not exist: correct SUBNET_IDS", subnet)
		return
	}
	if free := response.Subnets[0].Addresses; free < minAddresses {
		found.wrong("%s has %d addresses left, and Lambda needs some for its network interfaces: name a larger subnet in SUBNET_IDS", subnet, free)
	}
	to, err := defaultRoute(ctx, aws, subnet, response.Subnets[0].VpcID)
	switch {
	case err != nil:
		found.wrong("%v", err)
	case to == "":
		found.wrong("%s has no route for 0.0.0.0/0: the functions could not reach Stripe. Add one to a NAT gateway, or name other subnets in SUBNET_IDS", subnet)
	case strings.HasPrefix(to, "igw-"):
		found.wrong("%s is public (0.0.0.0/0 goes to %s): a Lambda function there cannot reach Stripe. Name private subnets in SUBNET_IDS", subnet, to)
	default:
		found.ok("%s sends 0.0.0.0/0 to %s and has %d addresses left", subnet, to, response.Subnets[0].Addresses)
	}
}

type routeTables struct {
	RouteTables []struct {
		Routes []struct {
			Destination      string `json:"DestinationCidrBlock"`
			State            string
			NatGateway       string `json:"NatGatewayId"`
			TransitGateway   string `json:"TransitGatewayId"`
			NetworkInterface string `json:"NetworkInterfaceId"`
			Peering          string `json:"VpcPeeringConnectionId"`
			Gateway          string `json:"GatewayId"`
		}
	}
}

// defaultRoute returns the target of the subnet's route for 0.0.0.0/0; "": there is no such route.
func defaultRoute(ctx context.Context, aws account, subnet, vpc string) (string, error) {
	var tables routeTables
	err := aws.call(ctx, &tables, "ec2", "describe-route-tables", "--filters", "Name=association.subnet-id,Values="+subnet)
	if err == nil && len(tables.RouteTables) == 0 { // then the VPC's main table applies
		err = aws.call(ctx, &tables, "ec2", "describe-route-tables", "--filters", "Name=vpc-id,Values="+vpc, "Name=association.main,Values=true")
	}
	if err != nil {
		return "", err
	}
	for _, table := range tables.RouteTables {
		for _, route := range table.Routes {
			if route.Destination == "0.0.0.0/0" && route.State == "active" {
				return cmp.Or(route.NatGateway, route.TransitGateway, route.NetworkInterface, route.Peering, route.Gateway), nil
			}
		}
	}
	return "", nil
}

// rule is a rule of a security group.
type rule struct {
	IsEgress   bool
	Protocol   string `json:"IpProtocol"` // -1: any protocol and port
	From       int    `json:"FromPort"`
	To         int    `json:"ToPort"`
	CIDR       string `json:"CidrIpv4"`
	PrefixList string `json:"PrefixListId"`
}

func (r rule) allowsOut(port int) bool {
	return r.IsEgress && (r.Protocol == "-1" || r.Protocol == "tcp" && r.From <= port && port <= r.To)
}

func checkEgress(ctx context.Context, aws account, group string, databasePort int, found *report) {
	const https = 443
	var response struct{ SecurityGroupRules []rule }
	if err := aws.call(ctx, &response, "ec2", "describe-security-group-rules", "--filters", "Name=group-id,Values="+group); err != nil {
		found.wrong("%v", err)
		return
	}
	internet, database := false, false
	for _, r := range response.SecurityGroupRules {
		internet = internet || r.allowsOut(https) && (r.CIDR == "0.0.0.0/0" || r.PrefixList != "")
		database = database || r.allowsOut(databasePort)
	}
	if !internet {
		found.wrong("%s does not allow outgoing traffic to port 443 of the internet, where Stripe and AWS are: add a rule for tcp 443 to 0.0.0.0/0", group)
	}
	if !database {
		found.wrong("%s does not allow outgoing traffic to port %d, the database's: add a rule to the database's security group", group, databasePort)
	}
	if internet && database {
		found.ok("%s allows outgoing traffic to ports 443 and %d", group, databasePort)
	}
}

func checkConcurrency(ctx context.Context, aws account, p plan, found *report) {
	var response struct {
		AccountLimit struct {
			Free int `json:"UnreservedConcurrentExecutions"`
		}
	}
	if err := aws.call(ctx, &response, "lambda", "get-account-settings"); err != nil {
		found.wrong("%v", err)
		return
	}
	free, needed := response.AccountLimit.Free, p.workers+p.others
	if free < needed {
		found.wrong("the account may run %d functions at a time, and this stack needs %d (WORKER_CONCURRENCY=%d and %d others): "+
			"request more (Service Quotas, AWS Lambda, Concurrent executions), or lower WORKER_CONCURRENCY", free, needed, p.workers, p.others)
		return
	}
	found.ok("the account may run %d functions at a time, of which this stack needs %d", free, needed)
}

// checkSecret checks that the secret has its keys. It never prints a value.
func checkSecret(ctx context.Context, aws account, name string, found *report) {
	var description struct {
		Deleted any `json:"DeletedDate"`
	}
	if err := aws.call(ctx, &description, "secretsmanager", "describe-secret", "--secret-id", name); err != nil {
		found.wrong("secret %s: %v", name, err)
		return
	}
	if description.Deleted != nil {
		found.wrong("secret %s is marked for deletion: restore it, or name another in SECRET_NAME", name)
		return
	}
	var value struct{ SecretString string }
	if err := aws.call(ctx, &value, "secretsmanager", "get-secret-value", "--secret-id", name); err != nil {
		if strings.Contains(err.Error(), "AccessDenied") { // the deployer need not be allowed to read it
			found.ok("secret %s exists; you may not read its value, so its keys were not checked", name)
			return
		}
		found.wrong("secret %s: %v", name, err)
		return
	}
	var keys map[string]any
	if json.Unmarshal([]byte(value.SecretString), &keys) != nil {
		found.wrong(`secret %s is not a JSON object such as {"DB_PASSWORD":"...","STRIPE_SECRET_KEY":"..."}`, name)
		return
	}
	missing := len(found.bad)
	for _, key := range requiredKeys {
		if keys[key] == nil || keys[key] == "" {
			found.wrong("secret %s has no %s", name, key)
		}
	}
	if len(found.bad) == missing {
		found.ok("secret %s has %s", name, strings.Join(requiredKeys, " and "))
	}
}
