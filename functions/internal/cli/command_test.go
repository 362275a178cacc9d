package cli

import (
	"bytes"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func TestConfigurationErrorNamesTheLineInDotEnv(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".env", []byte("# settings\nDB_HOST=x\nDB_PORT=many\nSTRIPE_RPS=none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STRIPE_RPS", "of the environment")
	cmd := &cobra.Command{Use: "x", RunE: func(*cobra.Command, []string) error {
		environ, err := WithDotEnv(config.Environ(os.Environ()))
		if err != nil {
			return err
		}
		_, err = config.Load(environ)
		return err
	}}
	var out, errs bytes.Buffer
	if code := Execute(t.Context(), cmd, nil, &out, &errs); code != ExitUsage {
		t.Errorf("exit %d", code)
	}
	if text := errs.String(); !strings.Contains(text, "DB_PORT is not valid (line 3 of .env): set") || strings.Contains(text, "line 4") || !strings.Contains(text, "STRIPE_RPS") {
		t.Errorf("%s", text)
	}
}

func TestVersionNamesTheCommit(t *testing.T) {
	const revision = "81fe2e4eaf9a0e3630056b66f5b2b64a8ff86fb0"
	checkout := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: revision}, {Key: "vcs.time", Value: "2026-11-29T07:02:53Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	for want, info := range map[string]*debug.BuildInfo{
		"(devel), commit " + revision + " of 2026-11-29T07:02:53Z, modified, go1.26.0": checkout,
		"v1.2.3, go1.26.0": {GoVersion: "go1.26.0", Main: debug.Module{Version: "v1.2.3"}},
	} {
		if got := version(info, true); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := version(nil, false); got != "unknown" {
		t.Errorf("%q", got)
	}
}
