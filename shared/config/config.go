package config

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Config is a validated configuration. It can be printed and logged.
type Config struct {
	Database Database `json:"database"`
	Stripe   Stripe   `json:"stripe"`
	// Rules say how a tier follows from a subscription. Its maps are never nil.
	Rules  billing.Rules `json:"rules"`
	Queues Queues        `json:"queues"`

	// Stage tells deployments of one account apart; empty: the one without a name.
	Stage string `json:"stage"`
	// EnumeratorFunction is the Lambda function that the command line invokes.
	EnumeratorFunction string `json:"enumeratorFunction"`
	// MaxDowngrades limits how many organizations one run may downgrade.
	MaxDowngrades DowngradeLimit `json:"maxDowngrades"`
	// WorkerConcurrency is the number of workers that share Stripe's limits.
	WorkerConcurrency int `json:"workerConcurrency"`
	// MaxReceiveCount is how often a message is received before it is given up: so often that its backoffs
	// add up to RunDeadline, if nothing else is set.
	MaxReceiveCount int `json:"maxReceiveCount"`
	// RetryBackoff is the first pause before a message is received again.
	RetryBackoff time.Duration `json:"retryBackoff"`
	// RunDeadline is the age at which a run with pending items is closed.
	RunDeadline time.Duration `json:"runDeadline"`
	// EventsSettle is how old an event of Stripe's must be for a catch-up to go by it.
	EventsSettle time.Duration `json:"eventsSettle"`
	// RetentionDays is how long finished runs are kept.
	RetentionDays int `json:"retentionDays"`
	// EventBus is the name or ARN of the EventBridge bus that repairs are announced on; empty: on none.
	EventBus string `json:"eventBus"`
	// ReportBucket is the S3 bucket that the reports of full runs are archived in; empty: none are.
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

// Need names the variables of a part of the configuration that a program cannot do without.
type Need []string

// What a program may need.
var (
	NeedDatabase        = Need{"DB_HOST", "DB_USER", passwordVariable, "DB_NAME"} // the password off this machine only
	NeedStripe          = Need{"STRIPE_SECRET_KEY"}
	NeedWorkQueue       = Need{"WORK_QUEUE_URL"}
	NeedResultsQueue    = Need{"RESULTS_QUEUE_URL"}
	NeedDeadLetterQueue = Need{"DEAD_LETTER_QUEUE_URL"}
	NeedEnumerator      = Need{"ENUMERATOR_FUNCTION"}
)

// Load validates the environment and returns it as a Config. All problems,
// missing variables of the needed parts among them, are reported in one *Error;
// the Config is then empty.
func Load(environ map[string]string, needs ...Need) (Config, error) {
	c := Config{
		Database: Database{TLS: TLS{Enabled: true}},
		Rules:    billing.Rules{Prices: map[string]billing.Tier{}, Products: map[string]billing.Tier{}},
	}
	required := slices.Concat(needs...)
	var problems []Problem
	for _, s := range settings(&c, tiersOf(environ)) {
		text := cmp.Or(valueOf(environ, s.name), s.byItself)
		if text != "" {
			if err := s.into.UnmarshalText([]byte(text)); err != nil {
				problems = append(problems, Problem{s.name, err.Error(), s.remedy})
			}
			continue
		}
		canBeEmpty := s.name == passwordVariable && c.Database.OnThisMachine()
		if slices.Contains(required, s.name) && !canBeEmpty {
			problems = append(problems, Problem{s.name, "is not set", s.remedy})
		}
	}
	problems = append(problems, strange(environ)...)
	if len(problems) > 0 {
		return Config{}, &Error{Problems: problems}
	}
	if c.MaxReceiveCount == 0 {
		c.MaxReceiveCount = billing.Receives(c.RetryBackoff, c.RunDeadline)
	}
	return c, nil
}

// valueOf drops white space around a value, which a copied line often brings along. A password may
// begin or end with it.
func valueOf(environ map[string]string, name string) string {
	if name == passwordVariable {
		return environ[name]
	}
	return strings.TrimSpace(environ[name])
}

// tiersOf returns the tiers that the environment names, or nil where TIERS is wrong.
func tiersOf(environ map[string]string) billing.Tiers {
	tiers := billing.DefaultTiers
	if text := valueOf(environ, tiersVariable); text != "" && tiers.UnmarshalText([]byte(text)) != nil {
		return nil
	}
	return tiers
}

// IsTierList reports whether a variable of this name would list the prices or products of a tier.
func IsTierList(name string) bool {
	return strings.HasPrefix(name, pricePrefix) || strings.HasPrefix(name, productPrefix)
}

// Names returns the variables that mean something in an environment: which lists of prices and
// products do depends on its TIERS. Where those are wrong, all that it has count.
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

// strange finds the lists that belong to no tier: what stands in them would be lost.
func strange(environ map[string]string) (problems []Problem) {
	known := Names(environ)
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		if IsTierList(name) && valueOf(environ, name) != "" && !slices.Contains(known, name) {
			problems = append(problems, unknown(name, "", known))
		}
	}
	return problems
}
