package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// setting is one variable.
type setting struct {
	name        string
	defaultText string
	remedy      string // completes "set ..."
	// into parses and checks the text. Its error completes "NAME ..." and does not contain the text.
	into encoding.TextUnmarshaler
}

// settings returns all variables, in the order in which they are documented and parsed: a variable comes after
// those that its check needs. tiers is nil if TIERS is invalid; then what depends on it is not checked.
func settings(c *Config, tiers billing.Tiers) []setting {
	const ids = " ids separated by commas, each in one tier only, or remove the line"
	var lists []setting
	all := tiers
	if tiers != nil {
		all = append(slices.Clone(tiers), billing.Addon)
	}
	for _, tier := range all {
		suffix := suffixOf(tier)
		lists = append(lists,
			setting{pricePrefix + suffix, "", "price" + ids, list(c.Rules.Prices, tier, pricePrefix, "price")},
			setting{productPrefix + suffix, "", "product" + ids, list(c.Rules.Products, tier, productPrefix, "product")})
	}
	queues := map[string]string{}
	return slices.Concat([]setting{
		{"STAGE", "", "a word of at most 12 small letters and digits such as staging, or leave it out", stage(&c.Stage)},
		{secretNameVariable, "", "the name or ARN of a secret in AWS Secrets Manager, or nothing", word(new(string), nil, "")},

		{"DB_HOST", "", "the host name or address of the MySQL server, without a port", read(c.Database.readHost)},
		{"DB_PORT", "3306", "a port number from 1 to 65535", between(&c.Database.Port, strconv.Atoi, 1, 65535)},
		{"DB_USER", "", "the name of the database user", word(&c.Database.User, nil, "")},
		{passwordVariable, "", "the password of the database user (it may be empty for a database on this machine only)", &c.Database.Password},
		{"DB_NAME", "", "the name of the application's database", word(&c.Database.Name, nil, "")},
		{"DB_TLS", "", "true, false, rds, or the path of a file with the certificates (PEM) of the authority to trust", &c.Database.TLS},

		{"STRIPE_SECRET_KEY", "", "a secret or restricted key: sk_live_..., rk_live_..., sk_test_... or rk_test_...", read(c.Stripe.readKey)},
		{"STRIPE_API_BASE", "https://api.stripe.com", "scheme and host only, such as https://api.stripe.com (plain http for this machine only)", read(c.Stripe.readBase)},
		{"STRIPE_ACCOUNT_ID", "", "the id of the Stripe account the key belongs to, acct_...", word(&c.Stripe.AccountID, accountID.MatchString, "is not an account id")},
		{"STRIPE_MODE", "", "live or test, as the prefix of STRIPE_SECRET_KEY says", read(c.Stripe.readMode)},
		// Above 0: at rate 0 the first request would wait for ever.
		{"STRIPE_RPS", "20", "a number of requests a second above 0 and up to 100", between(&c.Stripe.RequestsPerSecond, float, math.SmallestNonzeroFloat64, 100)},
		{tiersVariable, billing.DefaultTiers.String(), "at least two names of letters, digits and underscores, separated by commas, the lowest tier first", &c.Rules.Tiers},
	}, lists, []setting{
		{defaultTierVariable, "", "a tier of TIERS above the lowest, or leave it out to report such subscriptions instead", defaultTier(&c.Rules.DefaultTier, tiers)},

		{"MAX_DOWNGRADES", "", "a whole number such as 25, or a percentage from 0% to 100% such as 5%", &c.MaxDowngrades},
		{"WORKER_CONCURRENCY", "10", "a whole number from 1 to 1000 (AWS Lambda: from 2)", between(&c.WorkerConcurrency, strconv.Atoi, 1, 1000)},
		{"MAX_RECEIVE_COUNT", "", "a whole number from 1 to 1000, the same as in the queue's redrive policy, or leave it out to try until RUN_DEADLINE", between(&c.MaxReceiveCount, strconv.Atoi, 1, billing.MaxReceives)},
		{"RETRY_BACKOFF", "30s", "a duration from 1s to 30m, such as 30s", between(&c.RetryBackoff, time.ParseDuration, time.Second, 30*time.Minute)},
		{"RUN_DEADLINE", "12h", "a duration from 1m to 72h, such as 12h: the queues keep messages for four days", between(&c.RunDeadline, time.ParseDuration, time.Minute, 72*time.Hour)},
		{"EVENTS_SETTLE", "10m", "a duration from 0s to 6h, such as 10m: the webhook gets so long before a catch-up looks", between(&c.EventsSettle, time.ParseDuration, 0, 6*time.Hour)},
		{"RETENTION_DAYS", "90", "a whole number of days from 19 to 3650: a run must outlive the messages that name it", between(&c.RetentionDays, strconv.Atoi, 19, 3650)},

		{"REPORT_BUCKET", "", "the name of an S3 bucket for the reports of runs, or leave it out to archive none", word(&c.ReportBucket, bucketName.MatchString, "is not the name of a bucket")},

		{"WORK_QUEUE_URL", "", "the URL of the SQS queue with one message for each organization", queue(&c.Queues.Work, "WORK_QUEUE_URL", queues)},
		{"RESULTS_QUEUE_URL", "", "the URL of the SQS queue that the workers report to", queue(&c.Queues.Results, "RESULTS_QUEUE_URL", queues)},
		{"DEAD_LETTER_QUEUE_URL", "", "the URL of the SQS queue for what could not be reconciled", queue(&c.Queues.DeadLetter, "DEAD_LETTER_QUEUE_URL", queues)},
		{"ENUMERATOR_FUNCTION", "", "the name or ARN of the enumerator's Lambda function", word(&c.EnumeratorFunction, lambdaName.MatchString, "is not the name or ARN of a function")},

		{"EVENT_BUS", "", "the name or ARN of an event bus of Amazon EventBridge, or leave it out to announce nothing", word(&c.EventBus, busName.MatchString, "is not the name or ARN of an event bus")},

		{"LOG_LEVEL", "info", "debug, info, warn or error", logLevel(&c.LogLevel)},
	})
}

const (
	secretNameVariable  = "SECRET_NAME"
	passwordVariable    = "DB_PASSWORD"
	tiersVariable       = "TIERS"
	defaultTierVariable = "DEFAULT_TIER"
	pricePrefix         = "STRIPE_PRICE_ID_"
	productPrefix       = "STRIPE_PRODUCT_ID_"
)

var (
	errNotValid   = errors.New("is not valid")
	errOutOfRange = errors.New("is out of range")

	accountID   = regexp.MustCompile(`^acct_[A-Za-z0-9]+$`)
	lambdaName  = regexp.MustCompile(`^[A-Za-z0-9_:$-]{1,170}$`)
	busName     = regexp.MustCompile(`^(arn:aws[a-z-]*:events:[a-z0-9-]+:\d{12}:event-bus/)?[A-Za-z0-9_./-]{1,256}$`)
	bucketName  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	stageName   = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)
	unprintable = regexp.MustCompile(`[^\x21-\x7e]`)
)

// read parses a text.
type read func(text string) error

// UnmarshalText calls r.
func (r read) UnmarshalText(text []byte) error { return r(string(text)) }

// word sets the text unchanged, if fits is nil or accepts it.
func word(into *string, fits func(string) bool, wrong string) read {
	return func(text string) error {
		if fits != nil && !fits(text) {
			return errors.New(wrong)
		}
		*into = text
		return nil
	}
}

// between sets a value from least to most.
func between[T cmp.Ordered](into *T, parse func(string) (T, error), least, most T) read {
	return func(text string) error {
		value, err := parse(text)
		if err != nil {
			return errNotValid // not wrapped: err quotes the text
		}
		if inRange := least <= value && value <= most; !inRange { // false for NaN
			return errOutOfRange
		}
		*into = value
		return nil
	}
}

func float(text string) (float64, error) { return strconv.ParseFloat(text, 64) }

// list adds the ids, of kind price or product, to the tier.
func list(tierOf map[string]billing.Tier, tier billing.Tier, prefix, kind string) read {
	return func(text string) error {
		for i, id := range strings.Split(text, ",") {
			id = strings.TrimSpace(id)
			other, taken := tierOf[id]
			switch {
			case id == "": // such as after a comma at the end
			case kind == "price" && strings.HasPrefix(id, "prod_"):
				return fmt.Errorf("has a product id as entry %d", i+1)
			case kind == "product" && strings.HasPrefix(id, "price_"):
				return fmt.Errorf("has a price id as entry %d", i+1)
			case unprintable.MatchString(id):
				return fmt.Errorf("has white space or an unusual character in entry %d", i+1)
			case taken && other != tier:
				return fmt.Errorf("has as entry %d a %s id of %s%s", i+1, kind, prefix, suffixOf(other))
			default:
				tierOf[id] = tier
			}
		}
		return nil
	}
}

// suffixOf returns the end of the names of the tier's lists.
func suffixOf(tier billing.Tier) string {
	if tier == billing.Addon {
		return "ADDON"
	}
	return strings.ToUpper(string(tier))
}

func defaultTier(into *billing.Tier, tiers billing.Tiers) read {
	return func(text string) error {
		tier := tiers.Find(text)
		switch {
		case tiers == nil:
			return nil
		case tier == "":
			return errNotValid
		case tier == tiers.Lowest():
			return fmt.Errorf("is %s, which would take paid access from every customer whose price is not configured", tier)
		}
		*into = tier
		return nil
	}
}

// stage sets a text that fits into the names of a deployment's resources in AWS. The stage results is refused:
// its dead-letter queue would have the name of the results queue's.
func stage(into *string) read {
	return func(text string) error {
		if text == "results" {
			return errors.New("is the name of a queue")
		}
		return word(into, stageName.MatchString, errNotValid.Error())(text)
	}
}

// queue sets the URL of a queue that no other variable names.
func queue(into *string, variable string, variableOf map[string]string) read {
	return func(text string) error {
		parsed, err := url.Parse(text)
		if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" ||
			parsed.Hostname() == "" || parsed.User != nil || strings.Trim(parsed.Path, "/") == "" {
			return errors.New("is not an http or https URL of a queue")
		}
		if other, taken := variableOf[text]; taken {
			return errors.New("is the same queue as " + other)
		}
		*into, variableOf[text] = text, variable
		return nil
	}
}

// logLevel refuses info+2 and the like, which slog accepts.
func logLevel(into *slog.Level) read {
	return func(text string) error {
		if strings.ContainsAny(text, "+-") || into.UnmarshalText([]byte(text)) != nil {
			return errNotValid
		}
		return nil
	}
}
