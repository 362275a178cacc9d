package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// statement is one of a policy; one action or resource counts as a list of one.
type statement struct {
	Effect    string
	Action    list
	Resource  list
	Condition map[string]any
}

type list []any

func (l *list) UnmarshalJSON(b []byte) error {
	var many []any
	if json.Unmarshal(b, &many) == nil {
		*l = many
		return nil
	}
	var one any
	err := json.Unmarshal(b, &one)
	*l = list{one}
	return err
}

func statements(t *testing.T, policy map[string]any) []statement {
	t.Helper()
	text, err := json.Marshal(policy["PolicyDocument"])
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Statement []statement }
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Statement) == 0 {
		t.Fatalf("no statement in %s", text)
	}
	return document.Statement
}

// identityPolicies returns what somebody may do, by the logical id of the policy.
func identityPolicies(t *testing.T) map[string][]statement {
	t.Helper()
	found := map[string][]statement{}
	for _, kind := range []string{"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"} {
		for id, policy := range resources(t, kind) {
			found[id] = statements(t, policy)
		}
	}
	return found
}

func TestOnlyNetworkInterfacesAndTheAccountAreAllowedWithoutAResource(t *testing.T) {
	for id, all := range identityPolicies(t) {
		for _, s := range all {
			var actions []string
			for _, action := range s.Action {
				actions = append(actions, fmt.Sprint(action))
				if strings.Contains(fmt.Sprint(action), "*") {
					t.Errorf("%s allows %v", id, action)
				}
			}
			slices.Sort(actions)
			if hasWildcard(t, s.Resource) && !slices.Equal(actions, networkInterfaceActions) && !slices.Equal(actions, accountActions) {
				t.Errorf("%s allows %v on %v", id, actions, s.Resource)
			}
		}
	}
}

// hasWildcard looks into every text of the resources. The six characters that Secrets Manager
// itself puts behind a secret's name, and the reports in a bucket, are the only patterns that are taken for none.
func hasWildcard(t *testing.T, resources list) bool {
	t.Helper()
	text, err := json.Marshal(resources)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte(":secret:pixell/subscription-reconciliation-??????"), nil)
	return bytes.ContainsAny(bytes.ReplaceAll(text, []byte(`"/reports/*"`), nil), "*?")
}

func TestRolesHaveNoOtherPolicies(t *testing.T) {
	for id, role := range resources(t, "AWS::IAM::Role") {
		if role["ManagedPolicyArns"] != nil || role["Policies"] != nil {
			t.Errorf("%s has policies that no test looks at: %v %v", id, role["ManagedPolicyArns"], role["Policies"])
		}
	}
}

// Each entry is an action, then a queue, function or log group. The actions on network interfaces are left out.
func TestEachPolicyAllowsWhatIsNeededAndNoMore(t *testing.T) {
	own := func(function string, more ...string) []string {
		return append([]string{
			"logs:CreateLogStream " + function + "Logs", "logs:PutLogEvents " + function + "Logs", "secretsmanager:GetSecretValue pixell/subscription-reconciliation",
		}, more...)
	}
	consume := func(queue string) []string {
		var all []string
		for _, action := range []string{"ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl", "ReceiveMessage"} {
			all = append(all, "sqs:"+action+" "+queue)
		}
		return all
	}
	operators := []string{"lambda:InvokeFunction Enumerator", "lambda:InvokeFunction Aggregator"}
	look := []string{"ReceiveMessage", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl"}
	for queue, actions := range map[string][]string{
		"DeadLetterQueue":        append([]string{"StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask"}, look...),
		"ResultsDeadLetterQueue": append([]string{"StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask"}, look...),
		"FailedInvocations":      look,
	} {
		for _, action := range actions {
			operators = append(operators, "sqs:"+action+" "+queue)
		}
	}
	for _, name := range []string{"scheduled-run", "catch-up", "resume-tick", "aggregator-tick"} {
		operators = append(operators, "scheduler:GetSchedule schedule/"+prefix+"/"+prefix+"-"+name)
	}
	for _, function := range []string{"Enumerator", "Worker", "Aggregator"} {
		operators = append(operators, "lambda:GetFunctionConcurrency "+function)
	}
	operators = append(operators, "secretsmanager:DescribeSecret pixell/subscription-reconciliation", "cloudformation:DescribeStacks AWS::StackId")
	for _, queue := range []string{"WorkQueue", "ResultsQueue"} {
		operators = append(operators, "sqs:SendMessage "+queue, "sqs:GetQueueAttributes "+queue, "sqs:GetQueueUrl "+queue)
	}
	for _, function := range []string{"Enumerator", "Worker", "Aggregator"} {
		for _, action := range []string{"FilterLogEvents", "GetLogEvents", "DescribeLogStreams"} {
			operators = append(operators, "logs:"+action+" "+function+"Logs")
		}
	}
	want := map[string][]string{
		"EnumeratorRoleDefaultPolicy": slices.Concat(own("Enumerator", "sqs:SendMessage WorkQueue", "sqs:SendMessage ResultsQueue"), consume("ScheduledRuns")),
		"WorkerRoleDefaultPolicy":     slices.Concat(own("Worker", "sqs:SendMessage ResultsQueue", "sqs:SendMessage DeadLetterQueue"), consume("WorkQueue")),
		"AggregatorRoleDefaultPolicy": slices.Concat(own("Aggregator", "s3:PutObject Reports/reports/*"), consume("ResultsQueue")),
		"SchedulerRoleDefaultPolicy": {
			"lambda:InvokeFunction Enumerator", "lambda:InvokeFunction Aggregator", "sqs:SendMessage ScheduledRuns", "sqs:SendMessage FailedInvocations",
		},
		"Operators": operators,
		"BreakGlass": {
			"lambda:UpdateEventSourceMapping " + idOf(t, "AWS::Lambda::EventSourceMapping", "MaximumBatchingWindowInSeconds", workerWindow.Seconds()),
			"lambda:PutFunctionConcurrency Enumerator", "lambda:DeleteFunctionConcurrency Enumerator", "cloudformation:DescribeStacks AWS::StackId",
		},
	}
	got := map[string][]string{}
	for id, all := range identityPolicies(t) {
		got[withoutHash(id)] = pairsOf(all)
	}
	for _, pairs := range want {
		slices.Sort(pairs)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// setUp are AWS CLI commands that no policy of the stack can allow: they run before the stack exists, after it is
// deleted, or on resources of others.
var setUp = map[string]string{
	"sts get-caller-identity":              "needs no right",
	"s3 cp":                                "by whoever is given the reports, which hold customer data",
	"iam attach-role-policy":               "after the first deployment",
	"iam detach-role-policy":               "before the stack goes",
	"secretsmanager create-secret":         "before the first deployment",
	"secretsmanager delete-secret":         "after the stack went",
	"ec2 create-security-group":            "before the first deployment",
	"ec2 authorize-security-group-ingress": "before the first deployment",
	"ec2 revoke-security-group-ingress":    "after the stack went",
	"ec2 delete-security-group":            "after the stack went",
	"ec2 describe-security-group-rules":    "of the database's group, by whoever owns it",
	"sqs list-queues":                      "by whoever deploys, while a deployment fails",
	"events create-event-bus":              "by the application's team, on their bus",
	"events describe-event-bus":            "by the application's team, on their bus",
	"events put-rule":                      "by the application's team, on their bus",
	"events put-targets":                   "by the application's team, on their bus",
	"events create-connection":             "by the application's team, to their route",
	"events create-api-destination":        "by the application's team, to their route",
	"events describe-connection":           "by the application's team, to their route",
	"iam create-role":                      "by the application's team, for their rule",
	"iam put-role-policy":                  "by the application's team, for their rule",
	"sqs create-queue":                     "by the application's team, for their rule",
	"sqs set-queue-attributes":             "by the application's team, for their rule",
	"lambda add-permission":                "by the application's team, to their function",
	"ssm describe-instance-information":    "of an instance that the stack does not know",
	"ssm start-session":                    "to an instance that the stack does not know",
}

// The operators' policy allows every AWS CLI command in the runbooks. That policy, the break-glass policy or the rights
// for setUp allow those in the READMEs.
func TestPoliciesAllowTheCommandsInTheDocuments(t *testing.T) {
	operators, emergency := actionsOf(t, "Operators"), actionsOf(t, "BreakGlass")
	used := map[string]bool{}
	for file, commands := range commandsIn(t, "runbooks/*.md", "README.md", "../README.md") {
		for _, command := range commands {
			action := actionOf(command)
			used[command], used[action] = true, true
			isRunbook := strings.HasPrefix(file, "runbooks")
			if operators[action] || !isRunbook && (emergency[action] || setUp[command] != "") {
				continue
			}
			t.Errorf("%s: no policy allows \"aws %s\" (%s)", file, command, action)
		}
	}
	for action := range emergency {
		if !used[action] {
			t.Errorf("the break-glass policy allows %s, which no document uses", action)
		}
	}
	for command, why := range setUp {
		if !used[command] {
			t.Errorf("no document uses %q (%s)", command, why)
		}
	}
}

// actionsOf returns the actions that a policy allows, in small letters.
func actionsOf(t *testing.T, policy string) map[string]bool {
	t.Helper()
	allowed := map[string]bool{}
	for id, all := range identityPolicies(t) {
		if withoutHash(id) != policy {
			continue
		}
		for _, s := range all {
			for _, action := range s.Action {
				allowed[strings.ToLower(fmt.Sprint(action))] = true
			}
		}
	}
	if len(allowed) == 0 {
		t.Fatalf("there is no policy %s", policy)
	}
	return allowed
}

// commandsIn returns the AWS CLI's commands, such as "logs tail", that the files name, by file.
func commandsIn(t *testing.T, patterns ...string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no file, %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, command := range regexp.MustCompile(`\baws ([a-z][a-z0-9]* [a-z][a-z-]*)`).FindAllStringSubmatch(string(text), -1) {
				found[file] = append(found[file], command[1])
			}
		}
	}
	return found
}

// actionOf returns what a command of the AWS CLI must be allowed, in small letters.
func actionOf(command string) string {
	service, operation, _ := strings.Cut(command, " ")
	action := service + ":" + strings.ReplaceAll(operation, "-", "")
	switch action {
	case "logs:tail":
		return "logs:filterlogevents"
	case "lambda:invoke":
		return "lambda:invokefunction"
	default:
		return action
	}
}

func pairsOf(all []statement) []string {
	var pairs []string
	for _, s := range all {
		for _, action := range s.Action {
			for _, resource := range s.Resource {
				if resource != "*" {
					pairs = append(pairs, fmt.Sprint(action, " ", nameOf(resource)))
				}
			}
		}
	}
	slices.Sort(pairs)
	return pairs
}

// nameOf returns the logical id, or, of an ARN that is put together, the name behind the colon.
func nameOf(resource any) string {
	if id := target(resource); id != "" {
		return withoutHash(id)
	}
	joined, _ := resource.(object)
	if join, ok := joined["Fn::Join"].([]any); ok { // an ARN may end in a reference
		parts, _ := join[1].([]any)
		if id := target(parts[len(parts)-1]); id != "" {
			return id
		}
		if id := target(parts[0]); id != "" { // or begin with one
			return withoutHash(id) + fmt.Sprint(parts[1:]...)
		}
	}
	text := fmt.Sprint(resource)
	text = strings.TrimRight(text[strings.LastIndex(text, ":")+1:], "]")
	return strings.TrimSuffix(text, "-??????")
}

// withoutHash drops the eight characters that the CDK puts behind an id.
func withoutHash(id string) string {
	const hash = 8
	if len(id) <= hash || strings.HasPrefix(id, "AWS::") { // such as AWS::StackId
		return id
	}
	return id[:len(id)-hash]
}

func TestFunctionsMayReadASecretByItsARNAndUseItsKey(t *testing.T) {
	const secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:other/name-AbCdEf" // secret-scan:allow the ARN of a secret is none
	const key = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
	c := example(t)
	c.SecretName, c.SecretKey = secret, key
	made, _ := synthOf(t, c)
	readers := 0
	for _, r := range made.Resources {
		if r.Type != "AWS::IAM::Policy" {
			continue
		}
		for _, s := range statements(t, r.Properties) {
			switch {
			case slices.Contains(s.Action, any("secretsmanager:GetSecretValue")) && slices.Equal(s.Resource, list{secret}):
				readers++
			case slices.Contains(s.Action, any("kms:Decrypt")) && slices.Equal(s.Resource, list{key}) &&
				fmt.Sprint(s.Condition) == "map[StringEquals:map[kms:ViaService:secretsmanager.us-east-1.amazonaws.com]]":
				readers++
			}
		}
	}
	if want := 2 * len(functionNames); readers != want {
		t.Errorf("%d statements read the secret or use its key, want %d", readers, want)
	}
}

// Only AWS can show that it applies the conditions; this test checks the template.
func TestOnlyAFunctionsOwnCodeMayUseItsRights(t *testing.T) {
	for id, all := range identityPolicies(t) {
		function := strings.ToLower(strings.TrimSuffix(withoutHash(id), "RoleDefaultPolicy"))
		if !slices.Contains(functionNames, function) {
			continue
		}
		denied := 0
		for _, s := range all {
			only, _ := s.Condition["ArnEquals"].(map[string]any)
			fromCode := nameOf(only["lambda:SourceFunctionArn"]) == prefix+"-"+function
			for _, action := range s.Action {
				ownCode := slices.Contains([]any{"secretsmanager:GetSecretValue", "sqs:SendMessage", "s3:PutObject"}, action) || s.Effect == "Deny"
				if ownCode != fromCode {
					t.Errorf("%s: %s %v where %v", function, s.Effect, action, s.Condition)
				}
			}
			if s.Effect == "Deny" && hasWildcard(t, s.Resource) {
				denied += len(s.Action)
			}
		}
		if denied != len(networkInterfaceActions) {
			t.Errorf("%s: %d of Lambda's own actions are denied to its code", function, denied)
		}
	}
}

func TestOnlyTheSchedulerOfThisGroupMayUseItsRole(t *testing.T) {
	for id, role := range resources(t, "AWS::IAM::Role") {
		text, err := json.Marshal(role["AssumeRolePolicyDocument"])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "scheduler.amazonaws.com") {
			continue
		}
		var policy struct {
			Statement []struct {
				Condition struct {
					StringEquals struct {
						Account string `json:"aws:SourceAccount"`
						Arn     any    `json:"aws:SourceArn"`
					}
				}
			}
		}
		if err := json.Unmarshal(text, &policy); err != nil {
			t.Fatal(err)
		}
		for _, s := range policy.Statement {
			only := s.Condition.StringEquals
			if only.Account != "123456789012" || nameOf(only.Arn) != "schedule-group/"+prefix {
				t.Errorf("%s may be used by %+v", id, only)
			}
		}
		return
	}
	t.Error("no role is the scheduler's")
}
