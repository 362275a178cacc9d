package present

import (
	"runtime/debug"
	"testing"
)

func TestTheVersionTellsWhatWasBuilt(t *testing.T) {
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
