package lambdabuild_test

import (
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/functions/internal/lambdabuild"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/demo"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/runtimeapi"
)

// BenchmarkColdStart measures Lambda's init phase, from the start of the process until it asks for its first event. It
// includes configuration, secret, database and the check of the tables, on this machine's network. The start of an empty
// function is measured for comparison.
func BenchmarkColdStart(b *testing.B) {
	s := newStack(b, demo.Options{Orgs: 1, Seed: 1, Now: time.Now().UTC()})
	hello := runtimeapi.Program{Path: built(b, "hello"), Name: "hello"}
	for _, name := range lambdabuild.Functions() {
		b.Run(name, func(b *testing.B) {
			program := s.program(name)
			coldStart(b, program) // creates the tables
			var bare, whole time.Duration
			b.ResetTimer()
			for b.Loop() {
				bare += coldStart(b, hello)
				whole += coldStart(b, program)
			}
			b.ReportMetric(milliseconds(whole)/float64(b.N), "ms/init")
			b.ReportMetric(milliseconds(bare)/float64(b.N), "ms/bare-init")
			b.ReportMetric(float64(whole)/float64(bare), "times-bare")
		})
	}
}

func coldStart(b *testing.B, program runtimeapi.Program) time.Duration {
	b.Helper()
	p, err := runtimeapi.Start(b.Context(), program)
	if err != nil {
		b.Fatal(err)
	}
	p.Kill()
	return p.InitTime()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
