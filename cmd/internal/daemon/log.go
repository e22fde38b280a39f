package daemon

import (
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/internal/config"
)

// Logger writes to f: text for people at a terminal, JSON for everyone else,
// or what the configuration says.
func Logger(f *os.File, cfg config.Log) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "text" || cfg.Format == "auto" && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(f, opts))
	}
	return slog.New(slog.NewJSONHandler(f, opts))
}
