// Package report tells what a run does: to people as text with a progress line
// on a terminal, to programs as JSON lines.
//
// JSON lines go to standard output (of dump and restore, whose data goes there,
// to standard error), one object each, with "schema": 1,
// "message_type" and "time" (RFC 3339, UTC); an exit_error goes to standard
// error as the last line of a run that failed. docs/cli.md has every type and
// field, docs/cli.schema.json the same for programs. Bytes are plain integers.
// Fields and types may be added; those that are there keep their meaning.
//
// The progress line counts what the target has settled as equal, never what
// was merely sent.
package report

import (
	"strings"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// The modes of streams, as in Start.Mode.
const (
	ModeDump    = "dump"
	ModeRestore = "restore"
	ModeCheck   = "check" // a stream is read, and nothing written
)

// Start is what a run is asked to do.
type Start struct {
	Mode      string // "copy", "copy, then read everything again", "verify", "diff", or one of a stream
	Run       string
	Source    string
	Target    string
	Transport string // as asked for; empty when both disks are here
	Tracking  string // change tracking as asked for; "full" or empty: none
}

// Result is how a run ended.
type Result struct {
	Start
	mover.Report
	Verify bool // nothing was to be written
	Phases []Phase
}

// Phase is a part of a run and how long it took.
type Phase struct {
	Name string
	Dur  time.Duration
}

// Kind tells what an operator may pass over from what he has to look at.
type Kind string

// The kinds of a remark.
const (
	Event   Kind = "event"
	Warning Kind = "warning"
)

// Output tells one run. It is safe for concurrent use.
type Output interface {
	Started(s Start)
	// Status tells where the run stands, and what limits it at this end now:
	// "job rate", "daemon rate", "window", "latency", or "" for nothing but
	// disks, processor and network.
	Status(c wire.Counters, limitedBy string)
	Remark(kind Kind, text string)
	Summary(r Result)
	// Close ends what Status has drawn.
	Close()
}

// Follow tells out where a run stands, every so often, until stop is called;
// stop waits for the last one.
func Follow(out Output, counters func() wire.Counters, limitedBy func() string, every time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				out.Status(counters(), limitedBy())
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		out.Close()
	}
}

// OneLine is text without line breaks.
func OneLine(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")), " ")
}
