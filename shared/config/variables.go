package config

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// variables is the environment as it is written: one field for each variable,
// in the order in which they are documented. The tag "set" completes the
// sentence "set ..." of an error.
type variables struct {
	SecretName string `env:"SECRET_NAME" set:"the name or ARN of a secret in AWS Secrets Manager, or nothing"`

	DBHost     string `env:"DB_HOST" set:"the host name or address of the MySQL server, without a port"`
	DBPort     int    `env:"DB_PORT" envDefault:"3306" set:"a port number from 1 to 65535"`
	DBUser     string `env:"DB_USER" set:"the name of the database user"`
	DBPassword Secret `env:"DB_PASSWORD" set:"the password of the database user (it may be empty for a database on this machine only)"`
	DBName     string `env:"DB_NAME" set:"the name of the application's database"`
	DBTLS      string `env:"DB_TLS" set:"true, false, rds, or the path of a file with the certificates (PEM) of the authority to trust"`

	StripeSecretKey    Secret   `env:"STRIPE_SECRET_KEY" set:"a secret or restricted key: sk_live_..., rk_live_..., sk_test_... or rk_test_..."`
	StripeAPIBase      string   `env:"STRIPE_API_BASE" envDefault:"https://api.stripe.com" set:"scheme and host only, such as https://api.stripe.com (plain http for this machine only)"`
	StripeAccountID    string   `env:"STRIPE_ACCOUNT_ID" set:"the id of the Stripe account the key belongs to, acct_..."`
	StripeMode         string   `env:"STRIPE_MODE" set:"live or test, as the prefix of STRIPE_SECRET_KEY says"`
	StripeRPS          float64  `env:"STRIPE_RPS" envDefault:"20" set:"a number of requests a second above 0 and up to 100"`
	StripePriceStarter []string `env:"STRIPE_PRICE_ID_STARTER" set:"price ids separated by commas, each in one tier only"`
	StripePricePro     []string `env:"STRIPE_PRICE_ID_PRO" set:"price ids separated by commas, each in one tier only"`
	StripePriceMax     []string `env:"STRIPE_PRICE_ID_MAX" set:"price ids separated by commas, each in one tier only"`
	DefaultTier        string   `env:"DEFAULT_TIER" set:"starter, pro or max, or leave it out to report such subscriptions instead"`

	MaxDowngrades     DowngradeLimit `env:"MAX_DOWNGRADES" set:"a whole number such as 25, or a percentage from 0% to 100% such as 5%"`
	WorkerConcurrency int            `env:"WORKER_CONCURRENCY" envDefault:"10" set:"a whole number from 1 to 1000 (AWS Lambda: from 2)"`
	MaxReceiveCount   int            `env:"MAX_RECEIVE_COUNT" envDefault:"12" set:"a whole number from 1 to 1000, the same as in the queue's redrive policy"`
	RetryBackoff      time.Duration  `env:"RETRY_BACKOFF" envDefault:"30s" set:"a duration from 1s to 30m, such as 30s"`
	RunDeadline       time.Duration  `env:"RUN_DEADLINE" envDefault:"12h" set:"a duration from 1m to 168h, such as 12h"`
	RetentionDays     int            `env:"RETENTION_DAYS" envDefault:"90" set:"a whole number of days from 19 to 3650: a run must outlive the messages that name it"`

	WorkQueueURL       string `env:"WORK_QUEUE_URL" set:"the URL of the SQS queue with one message for each organization"`
	ResultsQueueURL    string `env:"RESULTS_QUEUE_URL" set:"the URL of the SQS queue that the workers report to"`
	DeadLetterQueueURL string `env:"DEAD_LETTER_QUEUE_URL" set:"the URL of the SQS queue for what could not be reconciled"`
	EnumeratorFunction string `env:"ENUMERATOR_FUNCTION" set:"the name or ARN of the enumerator's Lambda function"`

	LogLevel string `env:"LOG_LEVEL" envDefault:"info" set:"debug, info, warn or error"`
}

// parse fills the variables and notes what cannot be parsed. The library's own
// errors quote the value, so only the name of the field is taken from them.
func parse(environ map[string]string, found *problems) variables {
	var parsed variables
	// Never nil: the library would read the process's environment instead.
	err := env.ParseWithOptions(&parsed, env.Options{Environment: trimmed(environ)})
	if err == nil {
		return parsed
	}
	var all env.AggregateError
	if !errors.As(err, &all) {
		found.add("environment", "cannot be read")
		return parsed
	}
	for _, one := range all.Errors {
		var fieldError env.ParseError
		if !errors.As(one, &fieldError) {
			found.add("environment", "cannot be read")
			continue
		}
		found.add(variableOf(fieldError.Name), "is not valid")
	}
	return parsed
}

// trimmed drops white space around the values, which a copied line often brings
// along. A password may begin or end with it.
func trimmed(environ map[string]string) map[string]string {
	values := make(map[string]string, len(environ))
	maps.Copy(values, environ)
	for name, value := range values {
		if name != "DB_PASSWORD" {
			values[name] = strings.TrimSpace(value)
		}
	}
	return values
}

func variableOf(field string) string {
	found, ok := reflect.TypeFor[variables]().FieldByName(field)
	if !ok {
		return field
	}
	return found.Tag.Get("env")
}

func remedyOf(variable string) string {
	index := position(variable)
	if index < 0 {
		return "every variable as it is documented"
	}
	return reflect.TypeFor[variables]().Field(index).Tag.Get("set")
}

// position returns where the variable stands in the list, or -1.
func position(variable string) int {
	fields := reflect.TypeFor[variables]()
	for i := range fields.NumField() {
		if fields.Field(i).Tag.Get("env") == variable {
			return i
		}
	}
	return -1
}
