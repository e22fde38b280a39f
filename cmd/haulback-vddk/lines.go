package main

import (
	"html"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/haulback/haulback/vddk/vix"
	"github.com/haulback/haulback/vddk/worker/control"
)

const (
	// lineQueue is how many lines wait for the supervisor. The library's threads
	// never do: what comes on top is counted and dropped.
	lineQueue = 1024
	// cutLength is where the binding cuts a line; the rest of a secret may be
	// beyond it.
	cutLength = 2000
	// leastPart is the shortest beginning of a secret that a cut line's end is
	// cleared of.
	leastPart = 3
)

// lines carries the library's log to the supervisor, without secrets.
type lines struct {
	out     *control.Writer
	queue   chan control.Log
	dropped atomic.Int64
	secrets atomic.Pointer[[]string]
}

func newLines(out *control.Writer) *lines {
	return &lines{out: out, queue: make(chan control.Log, lineQueue)}
}

// start writes what is added until the returned function is called.
func (l *lines) start() (stop func()) {
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case line := <-l.queue:
				l.write(line)
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		wg.Wait()
	}
}

func (l *lines) write(line control.Log) {
	if n := l.dropped.Swap(0); n > 0 {
		line.Text += " (and " + slog.Int64Value(n).String() + " lines that were dropped)"
	}
	_ = l.out.Write(control.Message{Log: &line}) // nobody listens: the conversation ends too
}

// add never blocks.
func (l *lines) add(level vix.Level, text string) {
	select {
	case l.queue <- control.Log{Level: int(level), Text: l.scrub(text)}:
	default:
		l.dropped.Add(1)
	}
}

// hide makes scrub remove secrets from now on, also as they stand in URLs and
// XML.
func (l *lines) hide(secrets ...string) {
	var all []string
	for _, s := range secrets {
		if s != "" {
			all = append(all, s, url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s))
		}
	}
	l.secrets.Store(&all)
}

func (l *lines) scrub(text string) string {
	all := l.secrets.Load()
	if all == nil {
		return text
	}
	for _, s := range *all {
		text = strings.ReplaceAll(text, s, "[secret]")
	}
	if len(text) < cutLength {
		return text
	}
	for _, s := range *all {
		for n := len(s) - 1; n >= leastPart; n-- {
			if rest, ok := strings.CutSuffix(text, s[:n]); ok {
				return rest + "[secret]"
			}
		}
	}
	return text
}

// logger is for the NBD server, whose lines take the same way.
func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{} // the supervisor has its own
		}
		return a
	}}))
}

// Write is for the logger: one line.
func (l *lines) Write(p []byte) (int, error) {
	l.add(vix.Info, "nbd: "+strings.TrimSpace(string(p)))
	return len(p), nil
}
