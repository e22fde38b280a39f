package failbacks

import (
	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/wire"
)

// sink is report.Output that tells who asked for a pass.
type sink struct{ mv *failback.Move }

func (s *sink) event(text string) {
	if s.mv.Event != nil {
		s.mv.Event(report.OneLine(text))
	}
}

// Started implements report.Output.
func (s *sink) Started(report.Start) {}

// Status implements report.Output.
func (s *sink) Status(c wire.Counters, _ string) {
	if s.mv.Progress != nil {
		s.mv.Progress(jobs.Counters(&c))
	}
}

// Remark implements report.Output.
func (s *sink) Remark(_ report.Kind, text string) { s.event(text) }

// Summary implements report.Output. A small disk is done before its first
// status.
func (s *sink) Summary(r report.Result) { s.Status(r.Counters, "") }

// Close implements report.Output; there is nothing to end.
func (s *sink) Close() {}
