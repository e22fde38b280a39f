package jobs

import (
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/wire"
)

// sink is report.Output that tells a job engine.
type sink struct{ task *job.Task }

// Started implements report.Output. Nothing is open yet: Moving comes later.
func (s *sink) Started(report.Start) {}

// Status implements report.Output.
func (s *sink) Status(c wire.Counters, _ string) {
	if c.Scanned > 0 {
		s.task.Moving()
	}
	s.task.Progress(Counters(&c))
}

// Remark implements report.Output.
func (s *sink) Remark(kind report.Kind, text string) {
	if kind == report.Warning {
		s.task.Warning(report.OneLine(text))
		return
	}
	s.task.Event(report.OneLine(text))
}

// Summary implements report.Output. A small disk is done before its first
// status.
func (s *sink) Summary(r report.Result) { s.Status(r.Counters, "") }

// Close implements report.Output; there is nothing to end.
func (s *sink) Close() {}
