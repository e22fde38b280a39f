package main

import (
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/wire"
)

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
