package config_test

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

var everyNeed = []config.Need{
	config.NeedDatabase, config.NeedStripe, config.NeedWorkQueue,
	config.NeedResultsQueue, config.NeedDeadLetterQueue, config.NeedEnumerator,
}

// comparableLimit lets cmp compare limits with ==.
var comparableLimit = cmpopts.EquateComparable(config.DowngradeLimit{})

// complete returns an environment for every need, with changes:
// NAME, value, NAME, value ...
func complete(changes ...string) map[string]string {
	environ := map[string]string{
		"DB_HOST":               "db.example.internal",
		"DB_USER":               "reconciliation",
		"DB_PASSWORD":           "a password",
		"DB_NAME":               "application",
		"STRIPE_SECRET_KEY":     "rk_test_placeholder",
		"WORK_QUEUE_URL":        "https://sqs.eu-central-1.amazonaws.com/000000000000/work",
		"RESULTS_QUEUE_URL":     "https://sqs.eu-central-1.amazonaws.com/000000000000/results",
		"DEAD_LETTER_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/000000000000/dead-letter",
		"ENUMERATOR_FUNCTION":   "reconciliation-enumerator",
	}
	for pair := range slices.Chunk(changes, 2) {
		environ[pair[0]] = pair[1]
	}
	return environ
}

func mustLoad(t *testing.T, environ map[string]string, needs ...config.Need) config.Config {
	t.Helper()
	loaded, err := config.Load(environ, needs...)
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	return loaded
}

// problemsOf returns what Load finds wrong, as a map of variable to wrong.
func problemsOf(t *testing.T, environ map[string]string, needs ...config.Need) map[string]string {
	t.Helper()
	loaded, err := config.Load(environ, needs...)
	if err == nil {
		return map[string]string{}
	}
	var all *config.Error
	if !errors.As(err, &all) {
		t.Fatalf("Load() = %T, want a *config.Error", err)
	}
	if diff := cmp.Diff(config.Config{}, loaded, comparableLimit); diff != "" {
		t.Errorf("a configuration came with the error:\n%s", diff)
	}
	wrong := map[string]string{}
	for _, problem := range all.Problems {
		if _, twice := wrong[problem.Variable]; twice {
			t.Errorf("%s is reported twice", problem.Variable)
		}
		if problem.Remedy == "" {
			t.Errorf("%s is reported without a remedy", problem.Variable)
		}
		wrong[problem.Variable] = problem.Wrong
	}
	return wrong
}

func TestUnsetVariablesHaveDefaults(t *testing.T) {
	got := mustLoad(t, complete(), everyNeed...)
	want := config.Config{
		Database: config.Database{
			Host: "db.example.internal", Port: 3306, User: "reconciliation",
			Password: config.NewSecret("a password"), Name: "application", TLS: config.TLS{Enabled: true},
		},
		Stripe: config.Stripe{
			SecretKey: config.NewSecret("rk_test_placeholder"), APIBase: "https://api.stripe.com",
			Mode: config.ModeTest, RequestsPerSecond: 20,
		},
		Rules: billing.Rules{Tiers: billing.DefaultTiers, Prices: map[string]billing.Tier{}, Products: map[string]billing.Tier{}},
		Queues: config.Queues{
			Work:       "https://sqs.eu-central-1.amazonaws.com/000000000000/work",
			Results:    "https://sqs.eu-central-1.amazonaws.com/000000000000/results",
			DeadLetter: "https://sqs.eu-central-1.amazonaws.com/000000000000/dead-letter",
		},
		EnumeratorFunction: "reconciliation-enumerator",
		WorkerConcurrency:  10,
		MaxReceiveCount:    30,
		RetryBackoff:       30 * time.Second,
		RunDeadline:        12 * time.Hour,
		EventsSettle:       10 * time.Minute,
		RetentionDays:      90,
		LogLevel:           slog.LevelInfo,
	}
	if diff := cmp.Diff(want, got, comparableLimit); diff != "" {
		t.Errorf("Load() (-want +got):\n%s", diff)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	got := mustLoad(t, complete(
		"DB_PORT", "13306", "DB_TLS", "false", "STRIPE_SECRET_KEY", "sk_live_placeholder",
		"STRIPE_API_BASE", "http://127.0.0.1:12111/", "STRIPE_ACCOUNT_ID", "acct_1234", "STRIPE_MODE", "live",
		"STRIPE_RPS", "2.5", "TIERS", "free,starter,pro,max", "STRIPE_PRICE_ID_STARTER", "price_a, price_b,", "STRIPE_PRICE_ID_PRO", "gold",
		"STRIPE_PRICE_ID_MAX", "price_c", "STRIPE_PRICE_ID_FREE", "price_0", "STRIPE_PRODUCT_ID_FREE", "prod_0", "STRIPE_PRODUCT_ID_STARTER", "prod_a",
		"STRIPE_PRODUCT_ID_PRO", "silver", "STRIPE_PRODUCT_ID_MAX", "prod_c", "DEFAULT_TIER", "starter", "MAX_DOWNGRADES", "7",
		"WORKER_CONCURRENCY", "1", "MAX_RECEIVE_COUNT", "3", "RETRY_BACKOFF", "1s", "RUN_DEADLINE", "1h30m",
		"EVENTS_SETTLE", "0s",
		"RETENTION_DAYS", "19", "LOG_LEVEL", "WARN", "STAGE", "staging", "EVENT_BUS", "application",
	))
	want := mustLoad(t, complete())
	want.Database.Port, want.Database.TLS = 13306, config.TLS{}
	want.Stripe = config.Stripe{
		SecretKey: config.NewSecret("sk_live_placeholder"), APIBase: "http://127.0.0.1:12111",
		AccountID: "acct_1234", Mode: config.ModeLive, RequestsPerSecond: 2.5,
	}
	want.Rules = billing.Rules{
		Tiers:       billing.Tiers{"free", "starter", "pro", "max"},
		Prices:      map[string]billing.Tier{"price_0": "free", "price_a": "starter", "price_b": "starter", "gold": "pro", "price_c": "max"},
		Products:    map[string]billing.Tier{"prod_0": "free", "prod_a": "starter", "silver": "pro", "prod_c": "max"},
		DefaultTier: "starter",
	}
	want.WorkerConcurrency, want.MaxReceiveCount, want.RetentionDays = 1, 3, 19
	want.Stage, want.EventBus = "staging", "application"
	want.RetryBackoff, want.RunDeadline, want.LogLevel = time.Second, 90*time.Minute, slog.LevelWarn
	want.EventsSettle = 0
	if got.MaxDowngrades.Limit(1000) != 7 {
		t.Errorf("MaxDowngrades = %v, want 7", got.MaxDowngrades)
	}
	got.MaxDowngrades = want.MaxDowngrades
	if diff := cmp.Diff(want, got, comparableLimit); diff != "" {
		t.Errorf("Load() (-want +got):\n%s", diff)
	}
}

func TestEmptyEnvironmentIsValidWithoutNeeds(t *testing.T) {
	t.Setenv("DB_PORT", "not a number") // of the process: it must be ignored
	for _, environ := range []map[string]string{nil, {}} {
		if got := mustLoad(t, environ); got.Database.Port != 3306 || got.Stripe.Mode != "" {
			t.Errorf("Load(%v) = %+v", environ, got)
		}
	}
}

func TestMissingVariablesOfANeedAreReported(t *testing.T) {
	for name, test := range map[string]struct {
		need config.Need
		want []string
	}{
		"database":          {config.NeedDatabase, []string{"DB_HOST", "DB_NAME", "DB_PASSWORD", "DB_USER"}},
		"stripe":            {config.NeedStripe, []string{"STRIPE_SECRET_KEY"}},
		"work queue":        {config.NeedWorkQueue, []string{"WORK_QUEUE_URL"}},
		"results queue":     {config.NeedResultsQueue, []string{"RESULTS_QUEUE_URL"}},
		"dead-letter queue": {config.NeedDeadLetterQueue, []string{"DEAD_LETTER_QUEUE_URL"}},
		"enumerator":        {config.NeedEnumerator, []string{"ENUMERATOR_FUNCTION"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(problemsOf(t, nil, test.need)))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAllProblemsAreReportedInTheDocumentedOrder(t *testing.T) {
	environ := complete("DB_HOST", "  ", "DB_PORT", "many", "STRIPE_SECRET_KEY", "", "STRIPE_RPS", "0",
		"WORK_QUEUE_URL", "", "LOG_LEVEL", "loud", "RETENTION_DAYS", "18")
	_, err := config.Load(environ, everyNeed...)
	want := strings.Join([]string{
		"the configuration is not usable:",
		"  DB_HOST is not set: set the host name or address of the MySQL server, without a port",
		"  DB_PORT is not valid: set a port number from 1 to 65535",
		"  STRIPE_SECRET_KEY is not set: set a secret or restricted key: sk_live_..., rk_live_..., sk_test_... or rk_test_...",
		"  STRIPE_RPS is out of range: set a number of requests a second above 0 and up to 100",
		"  RETENTION_DAYS is out of range: set a whole number of days from 19 to 3650: a run must outlive the messages that name it",
		"  WORK_QUEUE_URL is not set: set the URL of the SQS queue with one message for each organization",
		"  LOG_LEVEL is not valid: set debug, info, warn or error",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("Load() =\n%v\nwant\n%s", err, want)
	}
}

func TestValuesAreCheckedByTheirRule(t *testing.T) {
	const ok, notValid, outOfRange = "", "is not valid", "is out of range"
	for _, test := range []struct{ variable, value, wrong string }{
		{"DB_HOST", "10.0.0.7", ok},
		{"DB_HOST", "2001:db8::7", ok},
		{"DB_HOST", "db_1.example.internal", ok},
		{"DB_HOST", "db.example.internal:3306", "is not a host name or an address"},
		{"DB_HOST", "mysql://db.example.internal", "is not a host name or an address"},
		{"DB_HOST", "user@db", "is not a host name or an address"},
		{"DB_PORT", "65535", ok},
		{"DB_PORT", "0", outOfRange},
		{"DB_PORT", "65536", outOfRange},
		{"DB_PORT", "3306.5", notValid},
		{"DB_TLS", "TRUE", ok},
		{"DB_TLS", "RDS", ok},
		{"DB_TLS", "rds2019", notValid},
		{"DB_TLS", "yes", notValid},
		{"DB_TLS", "1", notValid},
		{"DB_TLS", "/no/such/file", "names a file that cannot be read"},
		{"DB_TLS", "/dev/zero", "names a file that cannot be read"},
		{"DB_TLS", "missing.pem", "names a file that cannot be read"},
		{"DB_TLS", "config_test.go/", "names a file that cannot be read"},
		{"DB_TLS", "./config_test.go", "names a file without a certificate"},
		{"STRIPE_SECRET_KEY", " sk_test_placeholder\n", ok},
		{"STRIPE_SECRET_KEY", "rk_live_placeholder", ok},
		{"STRIPE_SECRET_KEY", "sk_live_", "is not a Stripe key"},
		{"STRIPE_SECRET_KEY", "sk_test_two words", "is not a Stripe key"},
		{"STRIPE_SECRET_KEY", "sk_other_placeholder", "is not a Stripe key"},
		{"STRIPE_SECRET_KEY", "pk_test_placeholder", "is a publishable key, which cannot read subscriptions"},
		{"STRIPE_SECRET_KEY", "whsec_placeholder", "is the secret of a webhook endpoint"},
		{"STRIPE_API_BASE", "https://stripe.example.com:8443/", ok},
		{"STRIPE_API_BASE", "http://localhost:12111", ok},
		{"STRIPE_API_BASE", "http://[::1]:12111", ok},
		{"STRIPE_API_BASE", "http://stripe.example.com", "would send the key over plain http"},
		{"STRIPE_API_BASE", "api.stripe.com", "is not an http or https URL"},
		{"STRIPE_API_BASE", "ftp://api.stripe.com", "is not an http or https URL"},
		{"STRIPE_API_BASE", "https://", "is not an http or https URL"},
		{"STRIPE_API_BASE", "https://api.stripe.com/v1", "contains more than scheme and host"},
		{"STRIPE_API_BASE", "https://api.stripe.com?x=1", "contains more than scheme and host"},
		{"STRIPE_API_BASE", "https://user@api.stripe.com", "contains a user name"},
		{"STRIPE_ACCOUNT_ID", "acct_1OjK2x", ok},
		{"STRIPE_ACCOUNT_ID", "cus_1234", "is not an account id"},
		{"STRIPE_ACCOUNT_ID", "acct_", "is not an account id"},
		{"STRIPE_MODE", "Test", ok},
		{"STRIPE_MODE", "live", "does not agree with the key, which is for test mode"},
		{"STRIPE_MODE", "sandbox", notValid},
		{"STRIPE_RPS", "100", ok},
		{"STRIPE_RPS", "0.1", ok},
		{"STRIPE_RPS", "0", outOfRange},
		{"STRIPE_RPS", "-1", outOfRange},
		{"STRIPE_RPS", "100.1", outOfRange},
		{"STRIPE_RPS", "NaN", outOfRange},
		{"STRIPE_RPS", "Inf", outOfRange},
		{"STRIPE_RPS", "fast", notValid},
		{"STRIPE_PRICE_ID_PRO", "price_a,price_a", ok},
		{"STRIPE_PRICE_ID_PRO", "price_a,prod_b", "has a product id as entry 2"},
		{"STRIPE_PRICE_ID_PRO", "price_a price_b", "has white space or an unusual character in entry 1"},
		{"STRIPE_PRODUCT_ID_FREE", "prod_a,prod_a", ok},
		{"STRIPE_PRODUCT_ID_PRO", "prod_a,,price_b", "has a price id as entry 3"},
		{"STRIPE_PRICE_ID_GOLD", "price_a", "is of no tier in TIERS (free, starter, pro, max)"},
		{"STRIPE_PRICE_ID_GOLD", " ", ok},
		{"STRIPE_PRODUCT_ID_", "prod_a", "is of no tier in TIERS (free, starter, pro, max)"},
		{"TIERS", " none , Gold_2 ", ok},
		{"TIERS", "free", "has only one entry"},
		{"TIERS", "free,pro,Free", "has an entry 3 that repeats an earlier name, ignoring case"},
		{"TIERS", "free,,pro", "has an entry 2 that is not a name of letters, digits and underscores"},
		{"TIERS", "free,pro-plus", "has an entry 2 that is not a name of letters, digits and underscores"},
		{"DEFAULT_TIER", "max", ok},
		{"DEFAULT_TIER", "Pro", ok},
		{"DEFAULT_TIER", "free", "is free, which would take paid access from every customer whose price is not configured"},
		{"DEFAULT_TIER", "gold", notValid},
		{"MAX_DOWNGRADES", "0", ok},
		{"MAX_DOWNGRADES", "100%", ok},
		{"MAX_DOWNGRADES", "2.25 %", ok},
		{"MAX_DOWNGRADES", "-1", notValid},
		{"MAX_DOWNGRADES", "+1", notValid},
		{"MAX_DOWNGRADES", "100.01%", notValid},
		{"MAX_DOWNGRADES", "1.234%", notValid},
		{"MAX_DOWNGRADES", "1.%", notValid},
		{"MAX_DOWNGRADES", "%", notValid},
		{"MAX_DOWNGRADES", "5.5", notValid},
		{"MAX_DOWNGRADES", "99999999999", notValid},
		{"WORKER_CONCURRENCY", "1000", ok},
		{"WORKER_CONCURRENCY", "0", outOfRange},
		{"WORKER_CONCURRENCY", "1001", outOfRange},
		{"MAX_RECEIVE_COUNT", "1", ok},
		{"MAX_RECEIVE_COUNT", "0", outOfRange},
		{"MAX_RECEIVE_COUNT", "1001", outOfRange},
		{"RETRY_BACKOFF", "30m", ok},
		{"RETRY_BACKOFF", "999ms", outOfRange},
		{"RETRY_BACKOFF", "31m", outOfRange},
		{"RETRY_BACKOFF", "30", notValid},
		{"RUN_DEADLINE", "72h", ok},
		{"RUN_DEADLINE", "59s", outOfRange},
		{"RUN_DEADLINE", "73h", outOfRange},
		{"EVENTS_SETTLE", "6h", ok},
		{"EVENTS_SETTLE", "-1s", outOfRange},
		{"EVENTS_SETTLE", "7h", outOfRange},
		{"RETENTION_DAYS", "3650", ok},
		{"RETENTION_DAYS", "18", outOfRange},
		{"RETENTION_DAYS", "3651", outOfRange},
		{"WORK_QUEUE_URL", "http://localhost:4566/000000000000/work", ok},
		{"WORK_QUEUE_URL", "work", "is not an http or https URL of a queue"},
		{"WORK_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/", "is not an http or https URL of a queue"},
		{"RESULTS_QUEUE_URL", complete()["WORK_QUEUE_URL"], "is the same queue as WORK_QUEUE_URL"},
		{"DEAD_LETTER_QUEUE_URL", complete()["WORK_QUEUE_URL"], "is the same queue as WORK_QUEUE_URL"},
		{"ENUMERATOR_FUNCTION", "arn:aws:lambda:eu-central-1:000000000000:function:enumerator:live", ok},
		{"ENUMERATOR_FUNCTION", "my function", "is not the name or ARN of a function"},
		{"EVENT_BUS", "application.events/v1", ok},
		{"EVENT_BUS", "arn:aws:events:eu-central-1:000000000000:event-bus/application", ok},
		{"EVENT_BUS", "arn:aws:sns:eu-central-1:000000000000:application", "is not the name or ARN of an event bus"},
		{"EVENT_BUS", "my bus", "is not the name or ARN of an event bus"},
		{"STAGE", "staging", ok},
		{"STAGE", "productionx2", ok},
		{"STAGE", "productionx22", notValid},
		{"STAGE", "Staging", notValid},
		{"STAGE", "staging-2", notValid},
		{"STAGE", "results", "is the name of a queue"},
		{"LOG_LEVEL", "debug", ok},
		{"LOG_LEVEL", "Error", ok},
		{"LOG_LEVEL", "info+2", notValid},
	} {
		t.Run(test.variable+" "+strings.ReplaceAll(test.value, "/", "_"), func(t *testing.T) {
			want := map[string]string{}
			if test.wrong != "" {
				want[test.variable] = test.wrong
			}
			got := problemsOf(t, complete(test.variable, test.value), everyNeed...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems of %q (-want +got):\n%s", test.value, diff)
			}
		})
	}
}

func TestPriceInTwoTiersIsRefused(t *testing.T) {
	got := problemsOf(t, map[string]string{
		"STRIPE_PRICE_ID_STARTER": "price_a,price_b",
		"STRIPE_PRICE_ID_MAX":     "price_c,price_b",
	})
	want := map[string]string{"STRIPE_PRICE_ID_MAX": "has as entry 2 a price id of STRIPE_PRICE_ID_STARTER"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestTiersDefineTheLists(t *testing.T) {
	got := mustLoad(t, map[string]string{
		"TIERS": "None,Team_2,Gold", "STRIPE_PRICE_ID_TEAM_2": "price_a", "STRIPE_PRODUCT_ID_GOLD": "prod_b", "STRIPE_PRICE_ID_NONE": "price_c", "DEFAULT_TIER": "gold",
	}).Rules
	want := billing.Rules{
		Tiers: billing.Tiers{"None", "Team_2", "Gold"}, Prices: map[string]billing.Tier{"price_a": "Team_2", "price_c": "None"},
		Products: map[string]billing.Tier{"prod_b": "Gold"}, DefaultTier: "Gold",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wrong := problemsOf(t, map[string]string{
		"TIERS": "none,gold", "STRIPE_PRICE_ID_PRO": "price_a", "STRIPE_PRODUCT_ID_GOLD": "prod_a", "STRIPE_PRODUCT_ID_NONE": "prod_a", "DEFAULT_TIER": "none",
	})
	if diff := cmp.Diff(map[string]string{
		"STRIPE_PRICE_ID_PRO": "is of no tier in TIERS (none, gold)", "STRIPE_PRODUCT_ID_GOLD": "has as entry 1 a product id of STRIPE_PRODUCT_ID_NONE",
		"DEFAULT_TIER": "is none, which would take paid access from every customer whose price is not configured",
	}, wrong); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestInvalidTiersHideProblemsThatDependOnThem(t *testing.T) {
	got := problemsOf(t, map[string]string{"TIERS": "gold", "STRIPE_PRICE_ID_GOLD": "price_a", "STRIPE_PRODUCT_ID_PRO": "prod_a", "DEFAULT_TIER": "gold"})
	if diff := cmp.Diff(map[string]string{"TIERS": "has only one entry"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestModeDefaultsToTheKeysPrefix(t *testing.T) {
	for key, want := range map[string]config.Mode{
		"sk_live_x": config.ModeLive, "rk_live_x": config.ModeLive,
		"sk_test_x": config.ModeTest, "rk_test_x": config.ModeTest,
	} {
		if got := mustLoad(t, map[string]string{"STRIPE_SECRET_KEY": key}).Stripe.Mode; got != want {
			t.Errorf("mode of %s = %q, want %q", key, got, want)
		}
	}
}

func TestLoopbackDatabaseNeedsNoTLSAndNoPassword(t *testing.T) {
	for host, isThisMachine := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "mysql.localhost": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true,
		"10.0.0.1": false, "localhost.example.com": false, "0.0.0.0": false, "db": false,
	} {
		loaded := mustLoad(t, complete("DB_HOST", host), config.NeedDatabase)
		if loaded.Database.TLS.Enabled == isThisMachine {
			t.Errorf("TLS for %s = %v", host, loaded.Database.TLS.Enabled)
		}
		wrong := problemsOf(t, complete("DB_HOST", host, "DB_PASSWORD", ""), config.NeedDatabase)
		if _, refused := wrong["DB_PASSWORD"]; refused == isThisMachine {
			t.Errorf("without a password for %s: %v", host, wrong)
		}
	}
}

func TestTLSTrustsTheAuthoritiesOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authorities.pem")
	if err := os.WriteFile(path, []byte(certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	got := mustLoad(t, complete("DB_TLS", path)).Database.TLS
	if want := (config.TLS{Enabled: true, CAFile: path}); got != want {
		t.Errorf("TLS = %+v, want %+v", got, want)
	}
}

func TestTLSTrustsAmazonsAuthorities(t *testing.T) {
	if got, want := mustLoad(t, complete("DB_TLS", "rds")).Database.TLS, (config.TLS{Enabled: true, RDS: true}); got != want {
		t.Errorf("TLS = %+v, want %+v", got, want)
	}
}

func TestPasswordKeepsWhiteSpace(t *testing.T) {
	got := mustLoad(t, complete("DB_PASSWORD", " secret ", "DB_USER", " user "), config.NeedDatabase).Database
	if got.Password.Reveal() != " secret " || got.User != "user" {
		t.Errorf("password %q, user %q", got.Password.Reveal(), got.User)
	}
}

func TestLoadDoesNotChangeTheEnvironment(t *testing.T) {
	environ := complete("DB_USER", " user ")
	before := maps.Clone(environ)
	mustLoad(t, environ)
	if diff := cmp.Diff(before, environ); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}
