package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// told is an error with a text for people; its chain keeps the exit code.
type told struct {
	text string
	err  error
}

// Error implements error.
func (e *told) Error() string { return e.text }

// Unwrap is the error that text is about.
func (e *told) Unwrap() error { return e.err }

// explain says what the other side said in whose name, and how to go on.
func (t *transfer) explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Remote {
		text = e.Text
		if who := t.speaker(); who != "" {
			text = who + ": " + text
		}
	}
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Remote && e.Code == wire.CodeOpen && t.speaker() == "" {
		err = &exitcode.UsageError{Err: err} // the target half of this very process
	}
	inc, incomplete := errors.AsType[*mover.IncompleteError](err)
	switch {
	case incomplete && errors.Is(inc.Err, exitcode.ErrCanceled):
		text = "stopped by a signal"
	case incomplete && t.mode == wire.ModeVerify:
		text = "not compared to the end: " + text
	}
	if incomplete && t.mode == wire.ModeCopy {
		text += fmt.Sprintf("; the target is not verified and nothing is lost: to go on, run the same command with --run %s", t.started.Run)
	}
	return &told{text, err}
}

// speaker is the daemon that this process talks to, or nothing.
func (t *transfer) speaker() string {
	switch {
	case t.src.remote():
		return t.src.text
	case t.dst.remote():
		return t.dst.text
	}
	return ""
}

// runID is a new ID, or the one that an earlier run has printed.
func runID(s string) (wire.RunID, error) {
	if s == "" {
		id, err := uuid.NewV7()
		return wire.RunID(id), err
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return wire.RunID{}, usage("--run %q: not the ID of a run", s)
	}
	return wire.RunID(id), nil
}

// output is where a run is told.
func (g *global) output() report.Output {
	if g.json {
		return report.NewJSON(os.Stdout)
	}
	return report.NewText(os.Stdout, os.Stderr, terminalWidth)
}

// terminalWidth is that of standard error, 0 when it is no terminal.
func terminalWidth() int {
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil {
		return 0
	}
	if width == 0 { // a terminal that does not know
		return 80
	}
	return width
}

// Statuses per second, when HAULBACK_PROGRESS_FPS does not say.
const (
	jsonFPS = 1
	termFPS = 5
	maxFPS  = 60
)

// every is the time between two statuses.
func (g *global) every() time.Duration {
	fps := float64(termFPS)
	if g.json {
		fps = jsonFPS
	}
	if n, err := strconv.ParseFloat(os.Getenv("HAULBACK_PROGRESS_FPS"), 64); err == nil && n > 0 {
		fps = min(n, maxFPS)
	}
	return time.Duration(float64(time.Second) / fps)
}
