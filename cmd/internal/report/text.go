package report

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// textOutput is Output for people: remarks and the progress line go to the
// terminal, the summary to standard output.
type textOutput struct {
	mu    sync.Mutex
	out   io.Writer  // the summary
	term  io.Writer  // remarks and the line
	width func() int // of the terminal; 0: it is none, nothing is drawn
	now   func() time.Time
	meter meter
	drawn bool
	dump  bool
}

// NewText writes the summary to out and what happens meanwhile to term. The
// width of a terminal, asked for at every line, is 0 when term is none: then
// no progress is drawn, only remarks are written.
func NewText(out, term io.Writer, width func() int) Output {
	return &textOutput{out: out, term: term, width: width, now: time.Now}
}

// clearLine goes to the start of the line and empties it.
const clearLine = "\r\x1b[K"

func (t *textOutput) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.eraseLocked()
	fmt.Fprintf(t.term, format+"\n", args...)
}

func (t *textOutput) eraseLocked() {
	if t.drawn {
		io.WriteString(t.term, clearLine)
		t.drawn = false
	}
}

func (t *textOutput) Started(s Start) {
	over := ""
	if s.Transport != "" {
		over = " over " + s.Transport
	}
	to := ""
	if s.Target != "" {
		to = " to " + s.Target
	}
	t.mu.Lock()
	t.dump = s.Mode == ModeDump
	t.mu.Unlock()
	t.say("%s %s%s%s, run %s", verb(s.Mode), s.Source, to, over, s.Run)
}

func verb(mode string) string {
	switch mode {
	case "verify", "diff":
		return "comparing"
	case ModeDump:
		return "dumping"
	case ModeRestore:
		return "restoring"
	case ModeCheck:
		return "checking"
	}
	return "copying"
}

func (t *textOutput) Remark(kind Kind, text string) {
	mark := ""
	if kind == Warning {
		mark = "WARNING: "
	}
	t.say("%s %s%s", t.now().Format("15:04:05"), mark, OneLine(text))
}

func (t *textOutput) Status(c wire.Counters, limitedBy string) {
	width := t.width()
	if width <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dump { // nothing is verified: what is written counts
		c.Verified = c.Scanned + c.Holes
	}
	line := progressLine(c, t.meter.rate(t.now(), c.Verified), limitedBy, width-1)
	io.WriteString(t.term, clearLine+line)
	t.drawn = true
}

func (t *textOutput) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.eraseLocked()
	t.meter = meter{}
}

func (t *textOutput) Summary(r Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.eraseLocked()
	io.WriteString(t.out, summaryText(&r))
}
