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

// configFile is where the settings of a deployment stand; INFRA_CONFIG names another file.
const configFile = "infra/config.env"

// stackConfig is what a deployment is made of. It holds no secret.
type stackConfig struct {
	Stage         string // "" is the one without a name
	Account       string
	Region        string
	VPC           string
	Subnets       []string
	SecurityGroup string
	SecretName    string // or its complete ARN
	SecretKey     string // ARN of the customer-managed key that encrypts the secret; empty: AWS's own
	AlarmEmail    string // "" only with AlarmTopic
	AlarmTopic    string // ARN of one that exists; "" makes one
	DigestEmail   string // "": digests go where alarms go
	Schedule      string // of runs over all organizations
	CatchUp       string // the schedule of catch-ups; "" if there are none

	ReportBucket string // in which reports are archived: newBucket for one of the stack's, "" for none
	ArchiveDays  int    // after which the stack's own bucket removes them

	Protected bool // from being deleted
	Tags      map[string]string

	AccessDriftThreshold  int // organizations in one run
	CatchUpDriftThreshold int // organizations that catch-ups of three hours repair
	OrphansThreshold      int // subscriptions in one run
	LogRetentionDays      int
	WorkerConcurrency     int
	RunDeadline           time.Duration
	WorkReceives          int // of a message of the work queue

	// Functions has the functions' variables that are set, by name.
	Functions map[string]string
}

// setting is one variable of the stack itself.
type setting struct {
	name     string
	fits     *regexp.Regexp
	byItself string // its value where it is not set; empty: it must be set
	optional bool
	remedy   string // completes "set ..."
}

var stackSettings = []setting{
	{name: "DEPLOY_ACCOUNT", fits: regexp.MustCompile(`^\d{12}$`), remedy: "the 12 digits of the AWS account"},
	{name: "DEPLOY_REGION", fits: regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d$`), remedy: "an AWS region such as us-east-1"},
	{name: "VPC_ID", fits: regexp.MustCompile(`^vpc-[0-9a-f]{8,17}$`), remedy: "the id of the VPC in which the database can be reached, vpc-..."},
	{
		name: "SUBNET_IDS", fits: regexp.MustCompile(`^subnet-[0-9a-f]{8,17}(\s*,\s*subnet-[0-9a-f]{8,17})*$`),
		remedy: "the ids of private subnets of that VPC, separated by commas, best in two availability zones",
	},
	{name: "SUBNET_ROUTE", fits: regexp.MustCompile(`^(nat|internet-gateway)$`), remedy: subnetRemedy},
	{
		name: "SECURITY_GROUP_ID", fits: regexp.MustCompile(`^sg-[0-9a-f]{8,17}$`),
		remedy: "the id of a security group that may reach the database's port and the internet's port 443, sg-...",
	},
	{
		name: "SECRET_NAME", fits: regexp.MustCompile(`^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}|[A-Za-z0-9/_+=.@-]{1,512})$`),
		byItself: "pixell/prod", remedy: "the name or the complete ARN of the Secrets Manager secret with DB_PASSWORD and STRIPE_SECRET_KEY",
	},
	{
		name: "SECRET_KMS_KEY_ARN", fits: regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`),
		optional: true, remedy: "the ARN of the customer-managed key that encrypts the secret, or leave it out",
	},
	{
		name: "SCHEDULE", fits: regexp.MustCompile(`^(cron\([^()]+\)|rate\(\d+ (minutes?|hours?|days?)\))$`), byItself: "cron(0 3 ? * SUN *)",
		remedy: "when runs start, in UTC, as EventBridge Scheduler takes it, such as cron(0 3 ? * SUN *) or, daily, cron(0 3 * * ? *)",
	},
	{
		name: catchUpSchedule, fits: regexp.MustCompile(`^(` + catchUpOff + `|rate\(\d{1,5} (minutes?|hours?)\))$`), byItself: "rate(1 hour)",
		remedy: "how often what Stripe's latest events name is read afresh, from rate(5 minutes) to rate(24 hours), or off",
	},
	{name: "ALARM_EMAIL", fits: regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s]+$`), optional: true, remedy: alarmRemedy},
	{
		name: "ALARM_TOPIC_ARN", fits: regexp.MustCompile(`^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}$`), optional: true,
		remedy: "the ARN of an SNS topic in the stack's region that CloudWatch may publish to, or leave it out",
	},
	{
		name: digestEmail, fits: regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s]+$`), optional: true,
		remedy: "the e-mail address that digests of runs go to, or leave it out: they go where alarms go",
	},
	{name: "CATCH_UP_DRIFT_THRESHOLD", fits: regexp.MustCompile(`^\d{1,7}$`), byItself: "5", remedy: "how many organizations with drifted access are usual in three hours of catch-ups, such as 5"},
	{name: "ORPHANS_THRESHOLD", fits: regexp.MustCompile(`^\d{1,7}$`), byItself: "10", remedy: "how many subscriptions without an organization are usual in a run, such as 10"},
	{
		name: reportBucket, fits: regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`), optional: true,
		remedy: "new, so that the stack makes a bucket, the name of one of this account and region, or leave it out to archive no reports",
	},
	{name: "ARCHIVE_DAYS", fits: regexp.MustCompile(`^[1-9]\d{0,3}$`), byItself: "400", remedy: "the days after which the stack's bucket removes reports, from 1 to 9999, such as 400"},
	{name: "TERMINATION_PROTECTION", fits: regexp.MustCompile(`^(true|false)$`), byItself: "false", remedy: "true, so that nobody deletes the stack by mistake, or false"},
	{
		name: "TAGS", fits: regexp.MustCompile(`^` + oneTag + `(\s*,\s*` + oneTag + `)*$`), optional: true,
		remedy: "NAME=VALUE pairs separated by commas, such as team=billing,cost-center=1234, or leave it out",
	},
	{name: "ACCESS_DRIFT_THRESHOLD", fits: regexp.MustCompile(`^\d{1,7}$`), byItself: "10", remedy: "how many organizations with drifted access are usual in a run, such as 10"},
	{
		name: "LOG_RETENTION_DAYS", fits: regexp.MustCompile(`^(1|3|5|7|14|30|60|90|120|150|180|365|400|545|731|1096|1827|2192|2557|2922|3288|3653)$`),
		byItself: "90", remedy: "a number of days that CloudWatch Logs knows, such as 30, 90 or 365",
	},
}

const (
	alarmRemedy = "the e-mail address that alarms go to, or ALARM_TOPIC_ARN"
	oneTag      = `[A-Za-z0-9_.:/+@-]{1,128}=[A-Za-z0-9 _.:/+@-]{0,256}`
)

const subnetRemedy = "nat, where the subnets reach the internet through a NAT gateway (or another way that does not need a public address)"

// secrets are variables whose value would stand in the template for everybody to read.
var secrets = []string{"DB_PASSWORD", "STRIPE_SECRET_KEY"}

// loadConfig reads the settings from the file and, above it, the environment. All problems are
// reported in one *config.Error.
func loadConfig(environ map[string]string) (stackConfig, error) {
	path := cmp.Or(environ["INFRA_CONFIG"], configFile)
	file, err := config.ReadFile(path)
	if err != nil {
		return stackConfig{}, err
	}
	found := checkNames(file, config.Names(config.Merge(environ, file.Values)))
	missing := len(file.Values) == 0
	for _, slip := range found { // it is said already
		delete(file.Values, slip.Variable)
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

// checkNames looks for slips in the file's names, of which the functions know some, and for values
// that belong elsewhere.
func checkNames(file config.File, functions []string) []config.Problem {
	known := slices.Concat(configurable(functions), secrets)
	for _, s := range stackSettings {
		known = append(known, s.name)
	}
	found := file.Unknown(known)
	for _, name := range secrets {
		if _, set := file.Values[name]; set {
			found = append(found, config.Problem{Variable: name, Wrong: "is a secret, which would stand in the template", Remedy: "it in the secret that SECRET_NAME names, and remove it here"})
		}
	}
	return found
}

// checkStack checks the stack's own variables and puts in what they are by themselves.
func checkStack(values map[string]string) []config.Problem {
	var found []config.Problem
	for _, s := range stackSettings {
		value := cmp.Or(strings.TrimSpace(values[s.name]), s.byItself)
		values[s.name] = value
		switch {
		case value == "" && s.optional:
		case value == "":
			found = append(found, config.Problem{Variable: s.name, Wrong: "is not set", Remedy: s.remedy})
		case !s.fits.MatchString(value):
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
	if every, on := catchUpEvery(values[catchUpSchedule]); on && (every < 5*time.Minute || every > day) {
		found = append(found, config.Problem{Variable: catchUpSchedule, Wrong: "is too often or too rarely", Remedy: "from rate(5 minutes) to rate(24 hours), or off"})
	}
	found = append(found, checkDigest(values)...)
	return append(found, checkAlarms(values)...)
}

// catchUpSchedule is the variable of the schedule of catch-ups, and catchUpOff its value for none.
const (
	catchUpSchedule = "CATCH_UP_SCHEDULE"
	catchUpOff      = "off"
)

var rate = regexp.MustCompile(`^rate\((\d+) (minute|hour)s?\)$`)

// catchUpEvery reads a rate; on is false where the text is none.
func catchUpEvery(expression string) (every time.Duration, on bool) {
	match := rate.FindStringSubmatch(expression)
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
		return []config.Problem{{Variable: "ALARM_TOPIC_ARN", Wrong: "is in another region, where no alarm of this one can go", Remedy: "the ARN of a topic in DEPLOY_REGION"}}
	}
	return nil
}

// checkFunctions holds the functions' variables to the rules that the functions will hold them
// to, and to those that only matter in AWS. It returns the variables that are set.
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
		found = append(found, config.Problem{Variable: "DB_TLS", Wrong: "names a file, which is not in the function", Remedy: "rds, true or false"})
		return set, found
	}
	loaded, err := config.Load(set)
	if problems, ok := errors.AsType[*config.Error](err); ok {
		return set, append(found, problems.Problems...)
	}
	return set, append(found, checkLimits(loaded)...)
}

// checkLimits checks what is right elsewhere and wrong in AWS.
func checkLimits(c config.Config) []config.Problem {
	var found []config.Problem
	if c.Database.OnThisMachine() { // such as what local --hold prints, still in the shell
		found = append(found, config.Problem{Variable: "DB_HOST", Wrong: "is the machine that a program runs on, where a function finds no database", Remedy: "the host name of the MySQL server, and see that your shell does not set it"})
	}
	if c.WorkerConcurrency < 2 {
		found = append(found, config.Problem{Variable: "WORKER_CONCURRENCY", Wrong: "is below what Lambda takes", Remedy: "a whole number from 2 to 1000"})
	}
	if c.EventBus != "" && c.Stripe.Mode == "" {
		found = append(found, config.Problem{
			Variable: "STRIPE_MODE", Wrong: "is not set, and with EVENT_BUS it must be: rules tell announcements of live mode from others by it", Remedy: "live or test, as STRIPE_SECRET_KEY is",
		})
	}
	return found
}

// stackConfigFrom takes values that were found right.
func stackConfigFrom(values, functions map[string]string) (stackConfig, error) {
	loaded, err := config.Load(functions)
	if err != nil {
		return stackConfig{}, err
	}
	threshold, thresholdErr := strconv.Atoi(values["ACCESS_DRIFT_THRESHOLD"])
	missed, missedErr := strconv.Atoi(values["CATCH_UP_DRIFT_THRESHOLD"])
	orphans, orphansErr := strconv.Atoi(values["ORPHANS_THRESHOLD"])
	archiveDays, archiveErr := strconv.Atoi(values["ARCHIVE_DAYS"])
	retention, retentionErr := strconv.Atoi(values["LOG_RETENTION_DAYS"])
	if err := errors.Join(thresholdErr, missedErr, orphansErr, archiveErr, retentionErr); err != nil {
		return stackConfig{}, err
	}
	// What the stack itself depends on is never left to a function's own default.
	functions["WORKER_CONCURRENCY"] = strconv.Itoa(loaded.WorkerConcurrency)
	functions["RUN_DEADLINE"] = loaded.RunDeadline.String()
	subnets := strings.Split(values["SUBNET_IDS"], ",")
	for i := range subnets {
		subnets[i] = strings.TrimSpace(subnets[i])
	}
	return stackConfig{
		Stage: loaded.Stage, Account: values["DEPLOY_ACCOUNT"], Region: values["DEPLOY_REGION"],
		VPC: values["VPC_ID"], Subnets: subnets, SecurityGroup: values["SECURITY_GROUP_ID"],
		SecretName: values["SECRET_NAME"], SecretKey: values["SECRET_KMS_KEY_ARN"], AlarmEmail: values["ALARM_EMAIL"],
		AlarmTopic: values["ALARM_TOPIC_ARN"], DigestEmail: values[digestEmail], Schedule: values["SCHEDULE"],
		Protected: values["TERMINATION_PROTECTION"] == "true", Tags: tagsFrom(values["TAGS"]), OrphansThreshold: orphans,
		CatchUp: strings.TrimPrefix(values[catchUpSchedule], catchUpOff), CatchUpDriftThreshold: missed,
		ReportBucket: values[reportBucket], ArchiveDays: archiveDays,
		AccessDriftThreshold: threshold, LogRetentionDays: retention,
		WorkerConcurrency: loaded.WorkerConcurrency, RunDeadline: loaded.RunDeadline, WorkReceives: loaded.MaxReceiveCount,
		Functions: functions,
	}, nil
}

// tagsFrom takes a text that was found right.
func tagsFrom(text string) map[string]string {
	tags := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if name, value, isPair := strings.Cut(strings.TrimSpace(pair), "="); isPair {
			tags[name] = value
		}
	}
	return tags
}
