package worker

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/haulback/haulback/vddk/worker/control"
)

// tailLines is how many lines are kept from the one on in which a crash begins.
const tailLines = 3

// tail keeps what a worker said last on standard error: the last line, and when
// Go's runtime reports a crash the beginning of it and the line before, which is
// often the message of an abort.
type tail struct {
	secrets *strings.Replacer

	mu      sync.Mutex
	crashed bool
	lines   []string
}

func newTail(c *Config) tail {
	var pairs []string
	for _, s := range []control.Secret{c.Password, c.Cookie} {
		if s != "" {
			pairs = append(pairs, string(s), s.String())
		}
	}
	return tail{secrets: strings.NewReplacer(pairs...)}
}

// read passes lines to the log and keeps some.
func (t *tail) read(from *os.File, log *slog.Logger) {
	defer from.Close()
	for lines := control.Lines(from); lines.Scan(); {
		if line := strings.TrimSpace(t.secrets.Replace(lines.Text())); line != "" {
			log.Debug("VDDK worker", "line", line)
			t.keep(line)
		}
	}
	_, _ = io.Copy(io.Discard, from) // after a line of more than MaxLine
}

func (t *tail) keep(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.crashed && len(t.lines) >= tailLines:
		return
	case !t.crashed && isCrash(line):
		t.crashed = true
	case !t.crashed:
		t.lines = t.lines[:0]
	}
	t.lines = append(t.lines, line)
}

// isCrash tells the lines by which Go's runtime begins its report.
func isCrash(line string) bool {
	for _, start := range []string{"SIGABRT", "SIGSEGV", "SIGBUS", "fatal error:", "panic:"} {
		if strings.HasPrefix(line, start) {
			return true
		}
	}
	return false
}

// words are one line of it.
func (t *tail) words() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "; ")
}
