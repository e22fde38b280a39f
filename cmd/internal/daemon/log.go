package daemon

import (
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/internal/config"
)

// Logger writes to f, which is standard error: text for people at a terminal,
// fields to the journal where f leads there, JSON for everyone else; or what the
// configuration says.
func Logger(f *os.File, cfg config.Log) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "text" || cfg.Format == "auto" && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(f, opts))
	}
	lines := slog.NewJSONHandler(f, opts)
	if there, err := journal.StderrIsJournalStream(); cfg.Format == "auto" && there && err == nil {
		if h, err := newJournalHandler(journalSocket, cfg.Level, lines); err == nil {
			return slog.New(h)
		}
	}
	return slog.New(lines)
}
