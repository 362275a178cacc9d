package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func TestTheExampleIsAValidConfiguration(t *testing.T) {
	got := example(t)
	want := stackConfig{
		Account: "123456789012", Region: "us-east-1", VPC: "vpc-0123456789abcdef0",
		Subnets: []string{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1"}, SecurityGroup: "sg-0123456789abcdef0",
		SecretName: "pixell/subscription-reconciliation", AlarmEmail: "operators@example.com", Schedule: "cron(0 3 ? * SUN *)",
		ReportBucket: "new", ArchiveDays: 400,
		Protected: true, Tags: map[string]string{}, AccessDriftThreshold: 10, CatchUpSchedule: "rate(1 hour)", CatchUpDriftThreshold: 5, OrphansThreshold: 10, LogRetentionDays: 90,
		WorkerConcurrency: 10, RunDeadline: 12 * time.Hour, WorkReceives: 30,
		Functions: map[string]string{
			"DB_HOST": "db.example.internal", "DB_USER": "reconciliation", "DB_NAME": "application", "DB_TLS": "rds", "STRIPE_MODE": "live",
			"STRIPE_PRICE_ID_STARTER": "price_starterMonthly,price_starterYearly", "STRIPE_PRICE_ID_PRO": "price_proMonthly,price_proYearly",
			"STRIPE_PRICE_ID_MAX": "price_maxMonthly", "WORKER_CONCURRENCY": "10", "RUN_DEADLINE": "12h0m0s",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheExampleNamesEveryVariable(t *testing.T) {
	text, err := os.ReadFile("config.example.env")
	if err != nil {
		t.Fatal(err)
	}
	// Uncommented, the defaults are settings too.
	path := filepath.Join(t.TempDir(), "all.env")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(uncomment(string(text)), "replaceMe", "filledIn")), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := config.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := configurable(config.Names(nil))
	for _, s := range stackSettings {
		want = append(want, s.name)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(file.Values))); diff != "" {
		t.Errorf("(-known +named):\n%s", diff)
	}
	if _, err := loadConfig(map[string]string{"INFRA_CONFIG": path}); err != nil {
		t.Error(err)
	}
}

func uncomment(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		name, _, isPair := strings.Cut(strings.TrimPrefix(line, "# "), "=")
		if isPair && name != "" && strings.ToUpper(name) == name && !strings.Contains(name, " ") {
			lines[i] = strings.TrimPrefix(line, "# ")
		}
	}
	return strings.Join(lines, "\n")
}

func TestTheEnvironmentWinsOverTheFile(t *testing.T) {
	c, err := loadConfig(map[string]string{
		"INFRA_CONFIG": "config.example.env", "DEPLOY_REGION": "eu-central-1", "WORKER_CONCURRENCY": "4",
		"SUBNET_IDS": " subnet-00000000 , subnet-11111111 ",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Region != "eu-central-1" || c.WorkerConcurrency != 4 || c.Functions["WORKER_CONCURRENCY"] != "4" ||
		!slices.Equal(c.Subnets, []string{"subnet-00000000", "subnet-11111111"}) {
		t.Errorf("got %+v", c)
	}
}

func TestAnInvalidValueIsReportedWithItsRemedy(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, says string }{
		"stage":                    {"STAGE", "Staging", "small letters"},
		"a stage like a queue":     {"STAGE", "results", "name of a queue"},
		"schedule":                 {"SCHEDULE", "weekly", "cron(0 3 ? * SUN *)"},
		"catch-ups":                {"CATCH_UP_SCHEDULE", "hourly", "rate(24 hours), or off"},
		"catch-ups at a time":      {"CATCH_UP_SCHEDULE", "cron(0 * * * ? *)", "rate(24 hours), or off"},
		"catch-ups all the time":   {"CATCH_UP_SCHEDULE", "rate(1 minute)", "from rate(5 minutes)"},
		"catch-ups too rarely":     {"CATCH_UP_SCHEDULE", "rate(25 hours)", "to rate(24 hours)"},
		"drift of catch-ups":       {"CATCH_UP_DRIFT_THRESHOLD", "few", "such as 5"},
		"account":                  {"DEPLOY_ACCOUNT", "1234", "12 digits"},
		"region":                   {"DEPLOY_REGION", "Frankfurt", "such as us-east-1"},
		"VPC":                      {"VPC_ID", "main", "vpc-..."},
		"subnets":                  {"SUBNET_IDS", "subnet-00000000;subnet-11111111", "separated by commas"},
		"public subnets":           {"SUBNET_ROUTE", "internet-gateway", "cannot reach Stripe"},
		"ways out of them":         {"SUBNET_ROUTE", "internet-gateway", "NAT gateway in a public one"},
		"security group":           {"SECURITY_GROUP_ID", "default", "sg-..."},
		"secret":                   {"SECRET_NAME", "pixell prod", "the name or the complete ARN"},
		"ARN without its end":      {"SECRET_NAME", "arn:aws:secretsmanager:us-east-1:123456789012:secret:x", "complete ARN"},
		"key":                      {"SECRET_KMS_KEY_ARN", "alias/x", "customer-managed key"},
		"topic of another region":  {"ALARM_TOPIC_ARN", "arn:aws:sns:eu-central-1:123456789012:alarms", "another region"},
		"topic":                    {"ALARM_TOPIC_ARN", "alarms", "ARN of an SNS topic"},
		"tags":                     {"TAGS", "team", "NAME=VALUE"},
		"protection":               {"TERMINATION_PROTECTION", "yes", "true, so that"},
		"orphans":                  {"ORPHANS_THRESHOLD", "many", "such as 10"},
		"mail":                     {"ALARM_EMAIL", "operators", "e-mail address"},
		"threshold":                {"ACCESS_DRIFT_THRESHOLD", "-1", "such as 10"},
		"retention of logs":        {"LOG_RETENTION_DAYS", "91", "30, 90 or 365"},
		"certificates in a file":   {"DB_TLS", "/etc/ssl/ca.pem", "rds, true or false"},
		"one worker":               {"WORKER_CONCURRENCY", "1", "from 2"},
		"deadline after retention": {"RUN_DEADLINE", "100h", "72h"},
		"as a function sees it":    {"STRIPE_RPS", "0", "above 0"},
		"mode":                     {"STRIPE_MODE", "prod", "live or test"},
		"a forwarded port":         {"DB_HOST", "127.0.0.1", "your shell"},
		"event bus":                {"EVENT_BUS", "arn:aws:sqs:us-east-1:123456789012:bus", "event bus of Amazon EventBridge"},
		"runs kept too short":      {"RETENTION_DAYS", "7", "from 19"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(map[string]string{"INFRA_CONFIG": "config.example.env", c.variable: c.value})
			found := problemsOf(t, err)
			if !strings.Contains(found[c.variable], c.says) {
				t.Errorf("%q does not say %q", found[c.variable], c.says)
			}
			if len(found) != 1 {
				t.Errorf("found more: %v", found)
			}
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing.env")
	_, err := loadConfig(map[string]string{"INFRA_CONFIG": path, "WORKER_CONCURRENCY": "1", "STRIPE_MODE": "test"})
	want := []string{
		"ALARM_EMAIL", "DB_HOST", "DB_NAME", "DB_USER", "DEPLOY_ACCOUNT", "DEPLOY_REGION", "SECURITY_GROUP_ID", "SUBNET_IDS", "SUBNET_ROUTE", "VPC_ID",
		"WORKER_CONCURRENCY", path,
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(problemsOf(t, err)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(err.Error(), "cp infra/config.example.env infra/config.env") {
		t.Errorf("it does not say how to begin: %v", err)
	}
}

func TestSecretsAndUnknownNamesInTheFileAreRefused(t *testing.T) {
	text, err := os.ReadFile("config.example.env")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.env")
	more := "\nDB_PASSWORD=a-placeholder\nALARM_EMIAL=x@example.com\n"
	if err := os.WriteFile(path, append(text, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = loadConfig(map[string]string{"INFRA_CONFIG": path})
	found := problemsOf(t, err)
	if !strings.Contains(found["DB_PASSWORD"], "in the secret that SECRET_NAME names") || !strings.Contains(found["ALARM_EMIAL"], "is unknown: set ALARM_EMAIL") || len(found) != 2 {
		t.Errorf("found %v", found)
	}
	if strings.Contains(err.Error(), "a-placeholder") {
		t.Errorf("%v repeats the value", err)
	}
}

// A configured tier must reach the functions, from the file or from the environment.
func TestTheWorkerGetsTheListsOfEveryTier(t *testing.T) {
	text, err := os.ReadFile("config.example.env")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.env")
	more := "\nTIERS=free,starter,pro,max,enterprise\nSTRIPE_PRICE_ID_ENTERPRISE=price_e\nSTRIPE_PRODUCT_ID_FREE=prod_f\n"
	if err := os.WriteFile(path, append(text, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(map[string]string{"INFRA_CONFIG": path, "STRIPE_PRODUCT_ID_ENTERPRISE": "prod_e"})
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]string{}
	for _, p := range environment(c, databaseVariables, workerVariables, tierLists(slices.Sorted(maps.Keys(c.Functions)))) {
		given[p.name] = p.value
	}
	for name, want := range map[string]string{
		"TIERS": "free,starter,pro,max,enterprise", "STRIPE_PRICE_ID_ENTERPRISE": "price_e", "STRIPE_PRODUCT_ID_ENTERPRISE": "prod_e",
		"STRIPE_PRODUCT_ID_FREE": "prod_f", "STRIPE_PRICE_ID_MAX": "price_maxMonthly",
	} {
		if given[name] != want {
			t.Errorf("%s is %q, want %q", name, given[name], want)
		}
	}
	for _, environ := range []map[string]string{
		{"INFRA_CONFIG": path, "TIERS": "free,starter,pro,max"}, {"INFRA_CONFIG": "config.example.env", "STRIPE_PRICE_ID_ENTERPRISE": "price_e"},
	} {
		_, err := loadConfig(environ)
		if found := problemsOf(t, err); len(found) != 1 || !strings.Contains(found["STRIPE_PRICE_ID_ENTERPRISE"], "of no tier in TIERS") {
			t.Errorf("%v: found %v", environ, found)
		}
	}
}

func TestRetentionKnowsEveryAllowedNumberOfDays(t *testing.T) {
	for _, s := range stackSettings {
		if s.name != "LOG_RETENTION_DAYS" {
			continue
		}
		for days := range 4000 {
			if allowed := s.pattern.MatchString(strconv.Itoa(days)); allowed != (retention(days) != "") {
				t.Errorf("%d days: allowed %t, known as %q", days, allowed, retention(days))
			}
		}
	}
}
