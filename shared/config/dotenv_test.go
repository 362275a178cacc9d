package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEnvironmentWinsOverDotEnv(t *testing.T) {
	path := writeFile(t, "DB_HOST=from-file\nDB_USER='a $user'\nDB_NAME=from-file # a comment\n")
	environ := map[string]string{"DB_HOST": "from-environment", "DB_NAME": ""}
	got, err := config.ReadDotEnv(path, environ)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"DB_HOST": "from-environment", "DB_USER": "a $user", "DB_NAME": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadDotEnv() (-want +got):\n%s", diff)
	}
	if len(environ) != 2 {
		t.Errorf("the environment was changed: %v", environ)
	}
}

func TestMissingDotEnvIsIgnored(t *testing.T) {
	environ := map[string]string{"DB_HOST": "from-environment"}
	got, err := config.ReadDotEnv(filepath.Join(t.TempDir(), ".env"), environ)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(environ, got); diff != "" {
		t.Errorf("ReadDotEnv() (-want +got):\n%s", diff)
	}
}

func TestMalformedDotEnvIsNotQuoted(t *testing.T) {
	const secret = "correct-horse-battery-staple"
	for _, content := range []string{
		"DB_PASSWORD " + secret,
		"DB_PASSWORD='" + secret,
		"DB-PASSWORD=" + secret,
		secret,
	} {
		path := writeFile(t, content)
		_, err := config.ReadDotEnv(path, nil)
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secret) {
			t.Errorf("ReadDotEnv() of %q = %v", content, err)
		}
	}
}

func TestMalformedLineIsReportedWithItsNumber(t *testing.T) {
	for content, line := range map[string]int{
		"DB_HOST=x\n# fine\nDB_USER-x\nDB_NAME=y\n":        3,
		"DB_USER=x\nDB_PASSWORD='never\nends\nDB_NAME=y\n": 2,
		"\"": 1,
		"DB_USER=x\nDB_NAME=y\nthe last line has no end": 3,
	} {
		path := writeFile(t, content)
		_, err := config.ReadDotEnv(path, nil)
		if want := fmt.Sprintf("line %d of %s is malformed: ", line, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

func TestNameWithASpaceAfterAValueWithTwoLinesIsReportedWithItsLine(t *testing.T) {
	path := writeFile(t, "DB_USER=x\nDB_PASSWORD='two\nlines'\nDB NAME=y\n")
	if _, err := config.ReadDotEnv(path, nil); err == nil || !strings.Contains(err.Error(), "in line 4 of ") {
		t.Errorf("ReadDotEnv() = %v", err)
	}
}

// wrongOf returns the variables of the error and what is wrong with them.
func wrongOf(t *testing.T, err error) (all []string) {
	t.Helper()
	invalid, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatal(err)
	}
	for _, p := range invalid.Problems {
		all = append(all, p.Variable+" "+p.Wrong)
	}
	return all
}

func TestAllProblemsOfDotEnvAreReportedTogether(t *testing.T) {
	t.Chdir(filepath.Dir(writeFile(t, strings.Join([]string{
		"DB_HOST=x", "DB_PORT=many", "DB_USER x", "DB_HOST=y", "DB_PASSWORD='replace-me'", "DB_NAM=z", "no sense", "hunter2=a", "hunter2=b",
		"STRIPE_PRICE_ID_GOLD=price_1", "LOG_LEVEL=loud", "WORKER_CONCURRENCY=0",
	}, "\n"))))
	_, err := config.ReadDotEnv(".env", map[string]string{"LOG_LEVEL": "info", "WORKER_CONCURRENCY": "0"})
	got := wrongOf(t, err)
	want := []string{
		"line 3 of .env is malformed",
		"DB_HOST is set in lines 1 and 4 of .env",
		"line 7 of .env is malformed",
		"a variable is set in lines 8 and 9 of .env",
		"DB_NAM in line 6 of .env is unknown",
		"STRIPE_PRICE_ID_GOLD in line 10 of .env is of no tier in TIERS (free, starter, pro, max)",
		"a variable in line 9 of .env is unknown",
		"DB_PORT is not valid (line 2 of .env)",
		"DB_PASSWORD is still the placeholder of the example (line 5 of .env)",
		"WORKER_CONCURRENCY is out of range",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMissingVariablesOfANeedAreReportedWithTheOtherProblemsOfDotEnv(t *testing.T) {
	for content, want := range map[string][]string{
		"DB_HSOT=x\nDB_USER=x\nDB_PASSWORD=x\nDB_NAME=\nSTRIPE_MODE=loud\n": {
			"DB_HSOT in line 1 of .env is unknown", "DB_NAME is not set (line 4 of .env)", "STRIPE_MODE is not valid (line 5 of .env)",
		},
		"DB_HSOT=x\nDB_NAME=\nSECRET_NAME=x\n": {"DB_HSOT in line 1 of .env is unknown"},
	} {
		t.Chdir(filepath.Dir(writeFile(t, content)))
		_, err := config.ReadDotEnv(".env", nil, config.NeedDatabase)
		got := wrongOf(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestTiersOfASecretAreNotCheckedWithOtherProblemsOfDotEnv(t *testing.T) {
	path := writeFile(t, "SECRET_NAME=x\nSTRIPE_PRICE_ID_GOLD=price_1\nDEFAULT_TIER=gold\nNO_SUCH=x\n")
	_, err := config.ReadDotEnv(path, nil)
	if problems, ok := errors.AsType[*config.Error](err); !ok || len(problems.Problems) != 1 {
		t.Errorf("ReadDotEnv() = %v", err)
	}
}

func TestUnknownNameInDotEnvIsRefusedWithItsLineAndTheNearestName(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		environ map[string]string
		want    string // "" is no error
	}{
		"a slip":             {"DB_HOST=x\n\nDB_PASWORD=hunter2\n", nil, "DB_PASWORD in line 3 of .env is unknown: set DB_PASSWORD instead"},
		"nothing like it":    {"NO_SUCH=x\n", nil, "NO_SUCH in line 1 of .env is unknown: set a variable of the example file, and remove this one"},
		"a list of no tier":  {"# prices\nSTRIPE_PRICE_ID_GOLD=price_1\n", nil, "STRIPE_PRICE_ID_GOLD in line 2 of .env is of no tier in TIERS (free, starter, pro, max): set TIERS to a list with its tier, or correct the tier in the name"},
		"other tiers":        {"export STRIPE_PRODUCT_ID_MXA=prod_1\n", map[string]string{"TIERS": "none,gold"}, "STRIPE_PRODUCT_ID_MXA in line 1 of .env is of no tier in TIERS (none, gold): set TIERS to"},
		"a slip of a list":   {"STRIPE_PRICES_ID_PRO=price_1\n", nil, "STRIPE_PRICES_ID_PRO in line 1 of .env is unknown: set STRIPE_PRICE_ID_PRO instead"},
		"and of no tier":     {"STRIPE_PRICES_ID_GOLD=price_1\n", nil, "STRIPE_PRICES_ID_GOLD in line 1 of .env is unknown: set a variable of the example file, and remove this one"},
		"tiers":              {"TIERS=none,gold\nSTRIPE_PRICE_ID_GOLD=price_1\n", nil, ""},
		"tiers of a secret":  {"SECRET_NAME=x\nSTRIPE_PRICE_ID_GOLD=price_1\n", nil, ""},
		"what Load refuses":  {"TIERS=gold\nSTRIPE_PRICE_ID_GOLD=price_1\n", nil, ""},
		"AWS's":              {"AWS_PROFILE=x\n", nil, ""},
		"of the environment": {"DB_HOST=x\n", map[string]string{"HOME": "x", "STRIPE_PRICE_ID_GOLD": "x"}, ""},
		"a value over lines": {"DB_PASSWORD=\nhunter2abc=\n", nil, "a variable in line 2 of .env is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(filepath.Dir(writeFile(t, test.content)))
			_, err := config.ReadDotEnv(".env", test.environ)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*config.Error](err); !ok || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestUnreadableDotEnvIsAnError(t *testing.T) {
	directory := t.TempDir()
	if _, err := config.ReadDotEnv(directory, nil); err == nil || !strings.Contains(err.Error(), directory) {
		t.Errorf("ReadDotEnv() of a directory = %v", err)
	}
}

func TestEnvironKeepsTheFirstValueOfAName(t *testing.T) {
	got := config.Environ([]string{"A=1", "B=x=y", "EMPTY=", "A=2", "no equals sign", "=C:=C:\\"})
	want := map[string]string{"A": "1", "B": "x=y", "EMPTY": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Environ() (-want +got):\n%s", diff)
	}
}

const exampleFile = "../../.env.example"

// commentedOut is a line of the example that shows a default.
var commentedOut = regexp.MustCompile(`(?m)^# ([A-Z][A-Z0-9_]*=)`)

// filledIn replaces the placeholders of the example.
var filledIn = strings.NewReplacer("replace-me", "filled-in", "replace_me", "filledIn", "replaceMe", "filledIn")

// example returns the variables of .env.example, filled in, with or without those that are commented out.
func example(t *testing.T, withDefaults bool) map[string]string {
	t.Helper()
	content, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	if withDefaults {
		content = commentedOut.ReplaceAll(content, []byte("$1"))
	}
	content = []byte(filledIn.Replace(string(content)))
	values, err := config.ReadDotEnv(writeFile(t, string(content)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// variableNames returns every variable that Load knows, in the documented order.
func variableNames(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, v := range config.Variables() {
		names = append(names, v.Name)
	}
	return names
}

func TestExampleHasEveryVariableAndNoOther(t *testing.T) {
	var got []string
	for name := range example(t, true) {
		if !strings.HasPrefix(name, "AWS_") {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(slices.Values(variableNames(t))), got); diff != "" {
		t.Errorf("%s (-known +named):\n%s", exampleFile, diff)
	}
}

func TestFilledInExampleIsValid(t *testing.T) {
	mustLoad(t, example(t, false), config.NeedDatabase, config.NeedStripe)
	mustLoad(t, example(t, true), everyNeed...)
}

func TestEveryPlaceholderOfTheExampleIsRefused(t *testing.T) {
	content, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	environ, err := config.ReadDotEnv(writeFile(t, string(content)), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := problemsOf(t, environ)
	for _, name := range []string{"DB_HOST", "DB_PASSWORD", "DB_NAME", "STRIPE_SECRET_KEY", "STRIPE_PRICE_ID_STARTER", "STRIPE_PRICE_ID_PRO", "STRIPE_PRICE_ID_MAX"} {
		if got[name] != "is still the placeholder of the example" {
			t.Errorf("%s %s", name, got[name])
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("also %v", got)
	}
}

func TestExampleShowsTheDefaults(t *testing.T) {
	shown := example(t, true)
	for _, v := range config.Variables() {
		if v.Default != "" && shown[v.Name] != v.Default {
			t.Errorf("%s shows %s=%s, the default is %s", exampleFile, v.Name, shown[v.Name], v.Default)
		}
	}
}

func TestEveryVariableHasARemedy(t *testing.T) {
	for _, v := range config.Variables() {
		if v.Name == "" || v.Remedy == "" {
			t.Errorf("%+v has no name or no remedy", v)
		}
	}
}
