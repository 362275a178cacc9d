package config

import (
	"log/slog"
	"time"
)

// Config is a validated configuration. It can be printed and logged.
type Config struct {
	Database Database `json:"database"`
	Stripe   Stripe   `json:"stripe"`
	Tiers    Tiers    `json:"tiers"`
	Queues   Queues   `json:"queues"`

	// EnumeratorFunction is the Lambda function that the command line invokes.
	EnumeratorFunction string `json:"enumeratorFunction"`
	// MaxDowngrades limits how many organizations one run may downgrade.
	MaxDowngrades DowngradeLimit `json:"maxDowngrades"`
	// WorkerConcurrency is the number of workers that share Stripe's limits.
	WorkerConcurrency int `json:"workerConcurrency"`
	// MaxReceiveCount is how often a message is received before it is given up.
	MaxReceiveCount int `json:"maxReceiveCount"`
	// RetryBackoff is the first pause before a message is received again.
	RetryBackoff time.Duration `json:"retryBackoff"`
	// RunDeadline is the age at which a run with pending items is closed.
	RunDeadline time.Duration `json:"runDeadline"`
	// RetentionDays is how long finished runs are kept.
	RetentionDays int `json:"retentionDays"`
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level `json:"logLevel"`
}

// Database says how to reach MySQL.
type Database struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	User     string `json:"user"`
	Password Secret `json:"password"`
	Name     string `json:"name"`
	TLS      TLS    `json:"tls"`
}

// OnThisMachine reports whether Host is this machine, wherever that is. Names are not looked up.
func (d Database) OnThisMachine() bool { return isLoopback(d.Host) }

// TLS says how the connection to the database is protected.
type TLS struct {
	Enabled bool `json:"enabled"`
	// CAFile, where it is not empty, is a PEM file with the only authorities to
	// trust. Load has seen certificates in it.
	CAFile string `json:"caFile"`
	// RDS: Amazon's authorities for RDS are the only ones to trust. Without this
	// and without CAFile the system's count.
	RDS bool `json:"rds"`
}

// Mode is the mode of a Stripe key and of Stripe's objects.
type Mode string

// The two modes. Mode is empty only where no key and no mode is configured.
const (
	ModeLive Mode = "live"
	ModeTest Mode = "test"
)

// Stripe says how to reach Stripe.
type Stripe struct {
	SecretKey Secret `json:"secretKey"`
	// APIBase has a scheme and a host and no slash at its end.
	APIBase string `json:"apiBase"`
	// AccountID is empty where the account is not to be checked.
	AccountID string `json:"accountId"`
	Mode      Mode   `json:"mode"`
	// RequestsPerSecond is the limit for one endpoint, over all workers.
	RequestsPerSecond float64 `json:"requestsPerSecond"`
}

// Tiers says how a tier follows from a price.
type Tiers struct {
	// ByPriceID has the tier (starter, pro, max) of each configured price id.
	ByPriceID map[string]string `json:"byPriceId"`
	// Default is the tier of an unknown price; empty: there is none.
	Default string `json:"default"`
}

// Queues are the URLs of the SQS queues.
type Queues struct {
	Work       string `json:"work"`
	Results    string `json:"results"`
	DeadLetter string `json:"deadLetter"`
}

// Need is a part of the configuration that a program cannot do without.
type Need int

// What a program may need.
const (
	NeedDatabase        Need = iota // DB_HOST, DB_USER, DB_NAME, and DB_PASSWORD off this machine
	NeedStripe                      // STRIPE_SECRET_KEY
	NeedWorkQueue                   // WORK_QUEUE_URL
	NeedResultsQueue                // RESULTS_QUEUE_URL
	NeedDeadLetterQueue             // DEAD_LETTER_QUEUE_URL
	NeedEnumerator                  // ENUMERATOR_FUNCTION
)

// Load validates the environment and returns it as a Config. All problems,
// missing variables of the needed parts among them, are reported in one *Error;
// the Config is then empty.
func Load(environ map[string]string, needs ...Need) (Config, error) {
	found := &problems{}
	parsed := parse(environ, found)
	requireAll(parsed, needs, found)
	loaded := Config{
		Database:           databaseFrom(parsed, found),
		Stripe:             stripeFrom(parsed, found),
		Tiers:              tiersFrom(parsed, found),
		Queues:             queuesFrom(parsed, found),
		EnumeratorFunction: enumeratorFrom(parsed, found),
		MaxDowngrades:      parsed.MaxDowngrades,
		WorkerConcurrency:  parsed.WorkerConcurrency,
		MaxReceiveCount:    parsed.MaxReceiveCount,
		RetryBackoff:       parsed.RetryBackoff,
		RunDeadline:        parsed.RunDeadline,
		RetentionDays:      parsed.RetentionDays,
		LogLevel:           levelFrom(parsed, found),
	}
	checkRanges(parsed, found)
	if err := found.err(); err != nil {
		return Config{}, err
	}
	return loaded, nil
}
