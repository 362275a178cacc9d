package mysqlstore_test

import (
	"sync"
	"testing"
)

func TestFirstRecordedStageIsKept(t *testing.T) {
	onEach(t, func(t *testing.T, f *fixture) {
		stages := []string{"", "staging", "production"}
		var kept [6]string
		var first sync.WaitGroup
		for i := range kept { // all functions start at the same time
			first.Go(func() {
				var err error
				if kept[i], err = f.store.EnsureStage(t.Context(), stages[i%len(stages)]); err != nil {
					t.Error(err)
				}
			})
		}
		first.Wait()
		for _, stage := range kept[1:] {
			if stage != kept[0] {
				t.Errorf("the calls returned different stages: %q", kept)
			}
		}
		for _, stage := range stages {
			if got, err := f.store.EnsureStage(t.Context(), stage); err != nil || got != kept[0] {
				t.Errorf("EnsureStage(%q) = %q, %v; want %q", stage, got, err, kept[0])
			}
		}
	})
}
