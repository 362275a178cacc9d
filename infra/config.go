package main

import (
	"cmp"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

// configFile holds the settings of a deployment; INFRA_CONFIG names another file.
const configFile = "infra/config.env"

// stackConfig holds the settings of a deployment, and no secret.
type stackConfig struct {
	Stage           string // "": the deployment has no stage name
	Account         string
	Region          string
	VPC             string
	Subnets         []string
	SecurityGroup   string
	SecretName      string // or its complete ARN
	SecretKey       string // ARN of the customer-managed key that encrypts the secret; "": AWS's key
	AlarmEmail      string // "" only with AlarmTopic
	AlarmTopic      string // ARN of an existing topic; "": the stack creates one
	DigestEmail     string // "": digests go where alarms go
	Schedule        string // of runs over all organizations
	CatchUpSchedule string // schedule of catch-ups; "": none

	ReportBucket string // archives reports; newBucket: the stack creates it, "": none
	ArchiveDays  int    // days after which the stack's bucket deletes reports

	Protected bool // against deletion
	Tags      map[string]string

	AccessDriftThreshold  int // organizations in one run
	CatchUpDriftThreshold int // organizations that catch-ups repair in three hours
	OrphansThreshold      int // subscriptions in one run
	LogRetentionDays      int
	WorkerConcurrency     int
	RunDeadline           time.Duration
	WorkReceives          int // receives of a work message before it is a dead letter

	// Functions are the variables of the functions that are set, by name.
	Functions map[string]string
}

// setting is a variable of the stack itself, not of its functions.
type setting struct {
	name         string
	pattern      *regexp.Regexp
	defaultValue string // "": the variable is required, unless optional
	optional     bool
	remedy       string // completes "set ..."
}

var stackSettings = []setting{
	{name: "DEPLOY_ACCOUNT", pattern: regexp.MustCompile(`^\d{12}$`), remedy: "the 12 digits of the AWS account"},
	{name: "DEPLOY_REGION", pattern: regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d$`), remedy: "an AWS region such as us-east-1"},
	{name: "VPC_ID", pattern: regexp.MustCompile(`^vpc-[0-9a-f]{8,17}$`), remedy: "the id of the VPC in which the database can be reached, vpc-..."},
	{
		name: "SUBNET_IDS", pattern: regexp.MustCompile(`^subnet-[0-9a-f]{8,17}(\s*,\s*subnet-[0-9a-f]{8,17})*$`),
		remedy: "the ids of private subnets of that VPC, separated by commas, best in two availability zones",
	},
	{name: "SUBNET_ROUTE", pattern: regexp.MustCompile(`^(nat|internet-gateway)$`), remedy: subnetRemedy},
	{
		name: "SECURITY_GROUP_ID", pattern: regexp.MustCompile(`^sg-[0-9a-f]{8,17}$`),
		remedy: "the id of a security group that may reach the database's port and the internet's port 443, sg-...",
	},
	{
		name: "SECRET_NAME", pattern: regexp.MustCompile(`^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}|[A-Za-z0-9/_+=.@-]{1,512})$`),
		defaultValue: "pixell/prod", remedy: "the name or the complete ARN of the Secrets Manager secret with DB_PASSWORD and STRIPE_SECRET_KEY",
	},
	{
		name: "SECRET_KMS_KEY_ARN", pattern: regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`),
		optional: true, remedy: "the ARN of the customer-managed key that encrypts the secret, or leave it out",
	},
	{
		name: "SCHEDULE", pattern: regexp.MustCompile(`^(cron\([^()]+\)|rate\(\d+ (minutes?|hours?|days?)\))$`), defaultValue: "cron(0 3 ? * SUN *)",
		remedy: "when runs start, in UTC, as EventBridge Scheduler takes it, such as cron(0 3 ? * SUN *) or, daily, cron(0 3 * * ? *)",
	},
	{
		name: catchUpSchedule, pattern: regexp.MustCompile(`^(` + catchUpOff + `|rate\(\d{1,5} (minutes?|hours?)\))$`), defaultValue: "rate(1 hour)",
		remedy: "how often catch-ups run, from rate(5 minutes) to rate(24 hours), or off",
	},
	{name: "ALARM_EMAIL", pattern: regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s]+$`), optional: true, remedy: alarmRemedy},
	{
		name: "ALARM_TOPIC_ARN", pattern: regexp.MustCompile(`^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}$`), optional: true,
		remedy: "the ARN of an SNS topic in the stack's region that CloudWatch may publish to, or leave it out",
	},
	{
		name: digestEmail, pattern: regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s]+$`), optional: true,
		remedy: "the e-mail address that digests of runs go to, or leave it out: digests then go where alarms go",
	},
	{name: "CATCH_UP_DRIFT_THRESHOLD", pattern: regexp.MustCompile(`^\d{1,7}$`), defaultValue: "5", remedy: "how many organizations with drifted access are usual in three hours of catch-ups, such as 5"},
	{name: "ORPHANS_THRESHOLD", pattern: regexp.MustCompile(`^\d{1,7}$`), defaultValue: "10", remedy: "how many subscriptions without an organization are usual in a run, such as 10"},
	{
		name: reportBucket, pattern: regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`), optional: true,
		remedy: "new, so that the stack creates a bucket, the name of a bucket in this account and region, or leave it out to archive no reports",
	},
	{name: "ARCHIVE_DAYS", pattern: regexp.MustCompile(`^[1-9]\d{0,3}$`), defaultValue: "400", remedy: "the days after which the stack's bucket deletes reports, from 1 to 9999, such as 400"},
	{name: "TERMINATION_PROTECTION", pattern: regexp.MustCompile(`^(true|false)$`), defaultValue: "false", remedy: "true, so that the stack cannot be deleted by mistake, or false"},
	{
		name: "TAGS", pattern: regexp.MustCompile(`^` + oneTag + `(\s*,\s*` + oneTag + `)*$`), optional: true,
		remedy: "NAME=VALUE pairs separated by commas, such as team=billing,cost-center=1234, or leave it out",
	},
	{name: "ACCESS_DRIFT_THRESHOLD", pattern: regexp.MustCompile(`^\d{1,7}$`), defaultValue: "10", remedy: "how many organizations with drifted access are usual in a run, such as 10"},
	{
		name: "LOG_RETENTION_DAYS", pattern: regexp.MustCompile(`^(1|3|5|7|14|30|60|90|120|150|180|365|400|545|731|1096|1827|2192|2557|2922|3288|3653)$`),
		defaultValue: "90", remedy: "a number of days that CloudWatch Logs knows, such as 30, 90 or 365",
	},
}

const (
	alarmRemedy = "the e-mail address that alarms go to, or ALARM_TOPIC_ARN"
	oneTag      = `[A-Za-z0-9_.:/+@-]{1,128}=[A-Za-z0-9 _.:/+@-]{0,256}`
)

const subnetRemedy = "nat, where the subnets reach the internet through a NAT gateway (or another way that does not need a public address)"

// secrets are variables that must not be in the template, where many people can read them.
var secrets = []string{"DB_PASSWORD", "STRIPE_SECRET_KEY"}

// loadConfig reads the settings from the file and the environment, which wins. One *config.Error reports all
// problems.
func loadConfig(environ map[string]string) (stackConfig, error) {
	path := cmp.Or(environ["INFRA_CONFIG"], configFile)
	file, err := config.ReadFile(path)
	if err != nil {
		return stackConfig{}, err
	}
	found := checkNames(file, config.Names(config.Merge(environ, file.Values)))
	missing := len(file.Values) == 0
	for _, reported := range found { // once is enough
		delete(file.Values, reported.Variable)
	}
	values := config.Merge(environ, file.Values)
	found = append(found, checkStack(values)...)
	functions, wrong := checkFunctions(values)
	found = append(found, wrong...)
	if len(found) > 0 {
		if missing {
			found = append(found, config.Problem{Variable: path, Wrong: "is empty or missing", Remedy: "its values after `cp infra/config.example.env " + configFile + "`"})
		}
		return stackConfig{}, &config.Error{Problems: found}
	}
	return stackConfigFrom(values, functions)
}

// checkNames reports unknown names in the file, and secrets, which do not belong there.
func checkNames(file config.File, functions []string) []config.Problem {
	known := slices.Concat(configurable(functions), secrets)
	for _, s := range stackSettings {
		known = append(known, s.name)
	}
	found := file.Unknown(known)
	for _, name := range secrets {
		if _, set := file.Values[name]; set {
			found = append(found, config.Problem{Variable: name, Wrong: "is a secret, and would be visible in the template", Remedy: "it in the secret that SECRET_NAME names, and remove it here"})
		}
	}
	return found
}

// checkStack checks the stack's own variables and sets the defaults in values.
func checkStack(values map[string]string) []config.Problem {
	var found []config.Problem
	for _, s := range stackSettings {
		value := cmp.Or(strings.TrimSpace(values[s.name]), s.defaultValue)
		values[s.name] = value
		switch {
		case value == "" && s.optional:
		case value == "":
			found = append(found, config.Problem{Variable: s.name, Wrong: "is not set", Remedy: s.remedy})
		case !s.pattern.MatchString(value):
			found = append(found, config.Problem{Variable: s.name, Wrong: "is not valid", Remedy: s.remedy})
		}
	}
	if values["SUBNET_ROUTE"] == "internet-gateway" {
		found = append(found, config.Problem{
			Variable: "SUBNET_ROUTE",
			Wrong: "says that the subnets are public. A Lambda function there gets no public address, so that it cannot reach Stripe, " +
				"Secrets Manager or SQS: every call would time out. Ways out: name private subnets; " +
				"or add a private subnet whose route table sends 0.0.0.0/0 to a NAT gateway in a public one",
			Remedy: subnetRemedy,
		})
	}
	if interval, scheduled := catchUpInterval(values[catchUpSchedule]); scheduled && (interval < 5*time.Minute || interval > day) {
		found = append(found, config.Problem{Variable: catchUpSchedule, Wrong: "is too often or too rare", Remedy: "from rate(5 minutes) to rate(24 hours), or off"})
	}
	found = append(found, checkDigest(values)...)
	return append(found, checkAlarms(values)...)
}

// catchUpSchedule is the variable of the schedule of catch-ups, and catchUpOff its value for none.
const (
	catchUpSchedule = "CATCH_UP_SCHEDULE"
	catchUpOff      = "off"
)

var rateExpression = regexp.MustCompile(`^rate\((\d+) (minute|hour)s?\)$`)

// catchUpInterval returns the interval of a rate expression; scheduled is false for any other text.
func catchUpInterval(expression string) (interval time.Duration, scheduled bool) {
	match := rateExpression.FindStringSubmatch(expression)
	if match == nil {
		return 0, false
	}
	unit := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour}[match[2]]
	n, err := strconv.Atoi(match[1])
	return time.Duration(n) * unit, err == nil
}

func checkAlarms(values map[string]string) []config.Problem {
	topic := values["ALARM_TOPIC_ARN"]
	switch {
	case topic == "" && values["ALARM_EMAIL"] == "":
		return []config.Problem{{Variable: "ALARM_EMAIL", Wrong: "is not set", Remedy: alarmRemedy}}
	case strings.HasPrefix(topic, "arn:") && !strings.Contains(topic, ":sns:"+values["DEPLOY_REGION"]+":"):
		return []config.Problem{{Variable: "ALARM_TOPIC_ARN", Wrong: "is in another region, which alarms of this region cannot reach", Remedy: "the ARN of a topic in DEPLOY_REGION"}}
	}
	return nil
}

// checkFunctions checks the functions' variables as the functions do, and by the rules that only AWS has. It
// returns the variables that are set.
func checkFunctions(values map[string]string) (map[string]string, []config.Problem) {
	set := map[string]string{"DB_TLS": "rds"}
	for _, name := range configurable(slices.Collect(maps.Keys(values))) {
		if value := strings.TrimSpace(values[name]); value != "" {
			set[name] = value
		}
	}
	var found []config.Problem
	for _, required := range []struct{ name, remedy string }{
		{"DB_HOST", "the host name of the MySQL server, without a port"},
		{"DB_USER", "the name of the database user"},
		{"DB_NAME", "the name of the application's database"},
	} {
		if set[required.name] == "" {
			found = append(found, config.Problem{Variable: required.name, Wrong: "is not set", Remedy: required.remedy})
		}
	}
	if strings.ContainsAny(set["DB_TLS"], `/\.`) {
		found = append(found, config.Problem{Variable: "DB_TLS", Wrong: "names a file, which the function does not have", Remedy: "rds, true or false"})
		return set, found
	}
	loaded, err := config.Load(set)
	if problems, ok := errors.AsType[*config.Error](err); ok {
		return set, append(found, problems.Problems...)
	}
	return set, append(found, checkLimits(loaded)...)
}

// checkLimits checks values that are valid elsewhere but not in AWS.
func checkLimits(c config.Config) []config.Problem {
	var found []config.Problem
	if c.Database.OnThisMachine() { // may come from local --hold, in the shell's environment
		found = append(found, config.Problem{Variable: "DB_HOST", Wrong: "is this machine, where a function finds no database", Remedy: "the host name of the MySQL server, and see that your shell does not set it"})
	}
	if c.WorkerConcurrency < 2 {
		found = append(found, config.Problem{Variable: "WORKER_CONCURRENCY", Wrong: "is below what Lambda takes", Remedy: "a whole number from 2 to 1000"})
	}
	if c.EventBus != "" && c.Stripe.Mode == "" {
		found = append(found, config.Problem{
			Variable: "STRIPE_MODE", Wrong: "is not set, and EVENT_BUS needs it: rules use it to tell live announcements from test ones", Remedy: "live or test, as STRIPE_SECRET_KEY is",
		})
	}
	return found
}

// stackConfigFrom builds the configuration from valid values.
func stackConfigFrom(values, functions map[string]string) (stackConfig, error) {
	loaded, err := config.Load(functions)
	if err != nil {
		return stackConfig{}, err
	}
	// The stack depends on these too, so they must not differ from a function's default.
	functions["WORKER_CONCURRENCY"] = strconv.Itoa(loaded.WorkerConcurrency)
	functions["RUN_DEADLINE"] = loaded.RunDeadline.String()
	subnets := strings.Split(values["SUBNET_IDS"], ",")
	for i := range subnets {
		subnets[i] = strings.TrimSpace(subnets[i])
	}
	var problems []error
	number := func(name string) int {
		n, err := strconv.Atoi(values[name])
		problems = append(problems, err)
		return n
	}
	c := stackConfig{
		Stage: loaded.Stage, Account: values["DEPLOY_ACCOUNT"], Region: values["DEPLOY_REGION"],
		VPC: values["VPC_ID"], Subnets: subnets, SecurityGroup: values["SECURITY_GROUP_ID"],
		SecretName: values["SECRET_NAME"], SecretKey: values["SECRET_KMS_KEY_ARN"], AlarmEmail: values["ALARM_EMAIL"],
		AlarmTopic: values["ALARM_TOPIC_ARN"], DigestEmail: values[digestEmail], Schedule: values["SCHEDULE"],
		Protected: values["TERMINATION_PROTECTION"] == "true", Tags: tagsFrom(values["TAGS"]), OrphansThreshold: number("ORPHANS_THRESHOLD"),
		CatchUpSchedule: strings.TrimPrefix(values[catchUpSchedule], catchUpOff), CatchUpDriftThreshold: number("CATCH_UP_DRIFT_THRESHOLD"),
		ReportBucket: values[reportBucket], ArchiveDays: number("ARCHIVE_DAYS"),
		AccessDriftThreshold: number("ACCESS_DRIFT_THRESHOLD"), LogRetentionDays: number("LOG_RETENTION_DAYS"),
		WorkerConcurrency: loaded.WorkerConcurrency, RunDeadline: loaded.RunDeadline, WorkReceives: loaded.MaxReceiveCount,
		Functions: functions,
	}
	return c, errors.Join(problems...)
}

// tagsFrom parses a valid TAGS.
func tagsFrom(text string) map[string]string {
	tags := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if name, value, isPair := strings.Cut(strings.TrimSpace(pair), "="); isPair {
			tags[name] = value
		}
	}
	return tags
}
