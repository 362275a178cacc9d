package config

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Config is a validated configuration. It is safe to print and log.
type Config struct {
	Database Database `json:"database"`
	Stripe   Stripe   `json:"stripe"`
	// Rules derive a tier from a subscription. Their maps are never nil.
	Rules  billing.Rules `json:"rules"`
	Queues Queues        `json:"queues"`

	// Stage names the deployment, if there are several in an AWS account.
	Stage string `json:"stage"`
	// EnumeratorFunction is the Lambda function that the command line invokes.
	EnumeratorFunction string `json:"enumeratorFunction"`
	// MaxDowngrades limits how many organizations one run may downgrade.
	MaxDowngrades DowngradeLimit `json:"maxDowngrades"`
	// WorkerConcurrency is the number of workers that share Stripe's limits.
	WorkerConcurrency int `json:"workerConcurrency"`
	// MaxReceiveCount is the number of receives after which a message is dead-lettered. By default its backoffs
	// add up to RunDeadline.
	MaxReceiveCount int `json:"maxReceiveCount"`
	// RetryBackoff is the first pause before a message is received again.
	RetryBackoff time.Duration `json:"retryBackoff"`
	// RunDeadline is the age at which a run with pending items is closed.
	RunDeadline time.Duration `json:"runDeadline"`
	// EventsSettle is the age from which a catch-up considers a Stripe event.
	EventsSettle time.Duration `json:"eventsSettle"`
	// RetentionDays is how long finished runs are kept.
	RetentionDays int `json:"retentionDays"`
	// EventBus is the name or ARN of the EventBridge bus for announcements; "" announces nothing.
	EventBus string `json:"eventBus"`
	// ReportBucket is the S3 bucket for the reports of full runs; "" archives none.
	ReportBucket string `json:"reportBucket"`
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level `json:"logLevel"`
}

// Queues are the URLs of the SQS queues.
type Queues struct {
	Work       string `json:"work"`
	Results    string `json:"results"`
	DeadLetter string `json:"deadLetter"`
}

// Need names the variables that a program requires of one part of the configuration.
type Need []string

// The parts of the configuration.
var (
	NeedDatabase        = Need{"DB_HOST", "DB_USER", passwordVariable, "DB_NAME"} // no password for a database on this machine
	NeedStripe          = Need{"STRIPE_SECRET_KEY"}
	NeedWorkQueue       = Need{"WORK_QUEUE_URL"}
	NeedResultsQueue    = Need{"RESULTS_QUEUE_URL"}
	NeedDeadLetterQueue = Need{"DEAD_LETTER_QUEUE_URL"}
	NeedEnumerator      = Need{"ENUMERATOR_FUNCTION"}
)

// Load validates the environment and returns it as a Config. It reports all problems in one *Error, missing
// variables of the needed parts too; the Config is then empty.
func Load(environ map[string]string, needs ...Need) (Config, error) {
	c := Config{
		Database: Database{TLS: TLS{Enabled: true}},
		Rules:    billing.Rules{Prices: map[string]billing.Tier{}, Products: map[string]billing.Tier{}},
	}
	required := slices.Concat(needs...)
	var problems []Problem
	for _, s := range settings(&c, tiersOf(environ)) {
		text := cmp.Or(valueOf(environ, s.name), s.defaultText)
		canBeEmpty := !slices.Contains(required, s.name) || s.name == passwordVariable && c.Database.OnThisMachine()
		var err error
		switch {
		case placeholder.MatchString(text):
			err = errors.New("is still the placeholder of the example")
		case text != "":
			err = s.into.UnmarshalText([]byte(text))
		case !canBeEmpty:
			err = errors.New("is not set")
		}
		if err != nil {
			problems = append(problems, Problem{s.name, err.Error(), s.remedy})
		}
	}
	problems = append(problems, unknownLists(environ)...)
	if len(problems) > 0 {
		return Config{}, &Error{Problems: problems}
	}
	if c.MaxReceiveCount == 0 {
		c.MaxReceiveCount = billing.Receives(c.RetryBackoff, c.RunDeadline)
	}
	return c, nil
}

// placeholder is in each value of the example files that must be replaced.
var placeholder = regexp.MustCompile(`(?i)replace[-_]?me`)

// valueOf trims the value, because copied text often ends with white space. A password may begin or end with
// white space.
func valueOf(environ map[string]string, name string) string {
	if name == passwordVariable {
		return environ[name]
	}
	return strings.TrimSpace(environ[name])
}

// tiersOf returns the tiers of the environment, or nil if TIERS is invalid.
func tiersOf(environ map[string]string) billing.Tiers {
	tiers := billing.DefaultTiers
	if text := valueOf(environ, tiersVariable); text != "" && tiers.UnmarshalText([]byte(text)) != nil {
		return nil
	}
	return tiers
}

// IsTierList reports whether the name is that of a list of prices or products, even of an unknown tier.
func IsTierList(name string) bool {
	return strings.HasPrefix(name, pricePrefix) || strings.HasPrefix(name, productPrefix)
}

// Names returns the names of all variables. The lists of prices and products depend on the environment's TIERS;
// if that is invalid, Names returns each list that the environment has.
func Names(environ map[string]string) []string {
	tiers := tiersOf(environ)
	var names []string
	for _, s := range settings(&Config{}, tiers) {
		names = append(names, s.name)
	}
	if tiers == nil {
		names = append(names, slices.DeleteFunc(slices.Sorted(maps.Keys(environ)), func(name string) bool { return !IsTierList(name) })...)
	}
	return names
}

// unknownLists finds the lists of tiers that do not exist: their ids would be ignored.
func unknownLists(environ map[string]string) (problems []Problem) {
	known := Names(environ)
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		if IsTierList(name) && valueOf(environ, name) != "" && !slices.Contains(known, name) {
			problems = append(problems, unknown(name, "", known))
		}
	}
	return problems
}

// The most connections to the database of one process. The sum over a deployment must be within the server's
// limit.
const (
	EnumeratorConnections = 4
	// WorkerConnections is lower than the number of organizations that a worker handles at once: most of them
	// wait for Stripe.
	WorkerConnections     = 4
	AggregatorConnections = 2
)
