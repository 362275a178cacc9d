package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// requireAll notes what the needed parts miss.
func requireAll(parsed variables, needs []Need, found *problems) {
	for _, need := range needs {
		switch need {
		case NeedDatabase:
			requireDatabase(parsed, found)
		case NeedStripe:
			found.addIf(parsed.StripeSecretKey.IsZero(), "STRIPE_SECRET_KEY", "is not set")
		case NeedWorkQueue:
			found.addIf(parsed.WorkQueueURL == "", "WORK_QUEUE_URL", "is not set")
		case NeedResultsQueue:
			found.addIf(parsed.ResultsQueueURL == "", "RESULTS_QUEUE_URL", "is not set")
		case NeedDeadLetterQueue:
			found.addIf(parsed.DeadLetterQueueURL == "", "DEAD_LETTER_QUEUE_URL", "is not set")
		case NeedEnumerator:
			found.addIf(parsed.EnumeratorFunction == "", "ENUMERATOR_FUNCTION", "is not set")
		default:
			found.add("environment", fmt.Sprintf("has no part %d", need))
		}
	}
}

func requireDatabase(parsed variables, found *problems) {
	found.addIf(parsed.DBHost == "", "DB_HOST", "is not set")
	found.addIf(parsed.DBUser == "", "DB_USER", "is not set")
	found.addIf(parsed.DBName == "", "DB_NAME", "is not set")
	found.addIf(parsed.DBPassword.IsZero() && !isLoopback(parsed.DBHost), "DB_PASSWORD", "is not set")
}

func checkRanges(parsed variables, found *problems) {
	const day = 24 * time.Hour
	const outOfRange = "is out of range"
	found.addIf(parsed.DBPort < 1 || parsed.DBPort > 65535, "DB_PORT", outOfRange)
	// Written so that NaN is refused too.
	found.addIf(!(parsed.StripeRPS > 0 && parsed.StripeRPS <= 100), "STRIPE_RPS", outOfRange)
	found.addIf(parsed.WorkerConcurrency < 1 || parsed.WorkerConcurrency > 1000, "WORKER_CONCURRENCY", outOfRange)
	found.addIf(parsed.MaxReceiveCount < 1 || parsed.MaxReceiveCount > 1000, "MAX_RECEIVE_COUNT", outOfRange)
	found.addIf(parsed.RetryBackoff < time.Second || parsed.RetryBackoff > 30*time.Minute, "RETRY_BACKOFF", outOfRange)
	found.addIf(parsed.RunDeadline < time.Minute || parsed.RunDeadline > 7*day, "RUN_DEADLINE", outOfRange)
	found.addIf(parsed.RetentionDays < 19 || parsed.RetentionDays > 3650, "RETENTION_DAYS", outOfRange)
}

func databaseFrom(parsed variables, found *problems) Database {
	if parsed.DBHost != "" && !isHost(parsed.DBHost) {
		found.add("DB_HOST", "is not a host name or an address")
	}
	return Database{
		Host:     parsed.DBHost,
		Port:     parsed.DBPort,
		User:     parsed.DBUser,
		Password: parsed.DBPassword,
		Name:     parsed.DBName,
		TLS:      tlsFrom(parsed, found),
	}
}

func tlsFrom(parsed variables, found *problems) TLS {
	switch strings.ToLower(parsed.DBTLS) {
	case "":
		return TLS{Enabled: !isLoopback(parsed.DBHost)}
	case "true":
		return TLS{Enabled: true}
	case "false":
		return TLS{}
	case "rds":
		return TLS{Enabled: true, RDS: true}
	}
	if !looksLikePath(parsed.DBTLS) {
		found.add("DB_TLS", "is not valid")
		return TLS{}
	}
	content, err := readSmallFile(parsed.DBTLS)
	if err != nil {
		found.add("DB_TLS", "names a file that cannot be read")
		return TLS{}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		found.add("DB_TLS", "names a file without a certificate")
		return TLS{}
	}
	return TLS{Enabled: true, CAFile: parsed.DBTLS}
}

// readSmallFile reads a regular file of at most one MiB: a device or a pipe, set
// by mistake, would never end.
func readSmallFile(path string) ([]byte, error) {
	const limit = 1 << 20
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, errors.New("not a small regular file")
	}
	return os.ReadFile(path) //nolint:gosec // G304: the operator names the file, to read it is the task
}

func looksLikePath(text string) bool {
	if strings.ContainsRune(text, '/') || strings.ContainsRune(text, filepath.Separator) {
		return true
	}
	switch strings.ToLower(filepath.Ext(text)) {
	case ".pem", ".crt", ".cer":
		return true
	default:
		return false
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

func isHost(host string) bool {
	return net.ParseIP(host) != nil || (len(host) <= 253 && hostName.MatchString(host))
}

// isLoopback reports whether the host is this machine. Names are not looked up.
func isLoopback(host string) bool {
	if address := net.ParseIP(host); address != nil {
		return address.IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

func stripeFrom(parsed variables, found *problems) Stripe {
	keyMode := keyModeFrom(parsed.StripeSecretKey.Reveal(), found)
	mode := Mode(strings.ToLower(parsed.StripeMode))
	switch {
	case mode == "":
		mode = keyMode
	case mode != ModeLive && mode != ModeTest:
		found.add("STRIPE_MODE", "is not valid")
	case keyMode != "" && keyMode != mode:
		found.add("STRIPE_MODE", "does not agree with the key, which is for "+string(keyMode)+" mode")
	}
	return Stripe{
		SecretKey:         parsed.StripeSecretKey,
		APIBase:           apiBaseFrom(parsed.StripeAPIBase, found),
		AccountID:         accountFrom(parsed.StripeAccountID, found),
		Mode:              mode,
		RequestsPerSecond: parsed.StripeRPS,
	}
}

var (
	secretKey   = regexp.MustCompile(`^(?:sk|rk)_(live|test)_[A-Za-z0-9_]+$`)
	accountID   = regexp.MustCompile(`^acct_[A-Za-z0-9]+$`)
	lambdaName  = regexp.MustCompile(`^[A-Za-z0-9_:$-]{1,170}$`)
	unprintable = regexp.MustCompile(`[^\x21-\x7e]`)
)

// keyModeFrom returns the mode that the key's prefix names, empty for no key.
func keyModeFrom(key string, found *problems) Mode {
	if key == "" {
		return ""
	}
	match := secretKey.FindStringSubmatch(key)
	switch {
	case match != nil:
		return Mode(match[1])
	case strings.HasPrefix(key, "pk_"):
		found.add("STRIPE_SECRET_KEY", "is a publishable key, which cannot read subscriptions")
	case strings.HasPrefix(key, "whsec_"):
		found.add("STRIPE_SECRET_KEY", "is the secret of a webhook endpoint")
	default:
		found.add("STRIPE_SECRET_KEY", "is not a Stripe key")
	}
	return ""
}

func apiBaseFrom(text string, found *problems) string {
	base, err := url.Parse(text)
	switch {
	case err != nil || base.Hostname() == "" || (base.Scheme != "http" && base.Scheme != "https"):
		found.add("STRIPE_API_BASE", "is not an http or https URL")
	case base.Scheme == "http" && !isLoopback(base.Hostname()):
		found.add("STRIPE_API_BASE", "would send the key over plain http")
	case base.User != nil:
		found.add("STRIPE_API_BASE", "contains a user name")
	case strings.Trim(base.Path, "/") != "" || base.RawQuery != "" || base.Fragment != "":
		found.add("STRIPE_API_BASE", "contains more than scheme and host")
	default:
		return base.Scheme + "://" + base.Host
	}
	return ""
}

func accountFrom(text string, found *problems) string {
	found.addIf(text != "" && !accountID.MatchString(text), "STRIPE_ACCOUNT_ID", "is not an account id")
	return text
}

func tiersFrom(parsed variables, found *problems) Tiers {
	byPriceID := map[string]string{}
	for _, list := range []struct {
		variable, tier string
		priceIDs       []string
	}{
		{"STRIPE_PRICE_ID_STARTER", "starter", parsed.StripePriceStarter},
		{"STRIPE_PRICE_ID_PRO", "pro", parsed.StripePricePro},
		{"STRIPE_PRICE_ID_MAX", "max", parsed.StripePriceMax},
	} {
		for i, priceID := range list.priceIDs {
			addPrice(byPriceID, list.variable, list.tier, strings.TrimSpace(priceID), i+1, found)
		}
	}
	return Tiers{ByPriceID: byPriceID, Default: defaultTierFrom(parsed.DefaultTier, found)}
}

func addPrice(byPriceID map[string]string, variable, tier, priceID string, entry int, found *problems) {
	known, isKnown := byPriceID[priceID]
	switch {
	case priceID == "": // a comma too many
	case strings.HasPrefix(priceID, "prod_"):
		found.add(variable, fmt.Sprintf("has a product id as entry %d", entry))
	case unprintable.MatchString(priceID):
		found.add(variable, fmt.Sprintf("has white space or an unusual character in entry %d", entry))
	case isKnown && known != tier:
		found.add(variable, fmt.Sprintf("has as entry %d a price id of STRIPE_PRICE_ID_%s", entry, strings.ToUpper(known)))
	default:
		byPriceID[priceID] = tier
	}
}

func defaultTierFrom(text string, found *problems) string {
	tier := strings.ToLower(text)
	switch tier {
	case "", "starter", "pro", "max":
		return tier
	case "free":
		found.add("DEFAULT_TIER", "is free, which would take paid access from every customer whose price is not configured")
	default:
		found.add("DEFAULT_TIER", "is not valid")
	}
	return ""
}

func queuesFrom(parsed variables, found *problems) Queues {
	variableByURL := map[string]string{}
	for _, queue := range []struct{ variable, url string }{
		{"WORK_QUEUE_URL", parsed.WorkQueueURL},
		{"RESULTS_QUEUE_URL", parsed.ResultsQueueURL},
		{"DEAD_LETTER_QUEUE_URL", parsed.DeadLetterQueueURL},
	} {
		if queue.url == "" {
			continue
		}
		found.addIf(!isQueueURL(queue.url), queue.variable, "is not an http or https URL of a queue")
		if other, taken := variableByURL[queue.url]; taken {
			found.add(queue.variable, "is the same queue as "+other)
		}
		variableByURL[queue.url] = queue.variable
	}
	return Queues{Work: parsed.WorkQueueURL, Results: parsed.ResultsQueueURL, DeadLetter: parsed.DeadLetterQueueURL}
}

func isQueueURL(text string) bool {
	queue, err := url.Parse(text)
	return err == nil && (queue.Scheme == "http" || queue.Scheme == "https") &&
		queue.Hostname() != "" && queue.User == nil && strings.Trim(queue.Path, "/") != ""
}

func enumeratorFrom(parsed variables, found *problems) string {
	name := parsed.EnumeratorFunction
	found.addIf(name != "" && !lambdaName.MatchString(name), "ENUMERATOR_FUNCTION", "is not the name or ARN of a function")
	return name
}

func levelFrom(parsed variables, found *problems) slog.Level {
	switch strings.ToLower(parsed.LogLevel) {
	case "debug":
		return slog.LevelDebug
	case "info":
		return slog.LevelInfo
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	default:
		found.add("LOG_LEVEL", "is not valid")
		return slog.LevelInfo
	}
}
