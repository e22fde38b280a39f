package report

import (
	"context"
	"log/slog"
	"strings"
)

// NewLog is a logger whose warnings and errors become remarks of out: what a
// driver's worker says of itself is told where a run is told, between two
// progress lines.
func NewLog(out Output) *slog.Logger { return slog.New(&remarks{out: out}) }

// remarks is the handler of NewLog.
type remarks struct {
	out   Output
	attrs string
}

// Enabled implements slog.Handler.
func (r *remarks) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (r *remarks) Handle(_ context.Context, rec slog.Record) error {
	text := rec.Message + r.attrs
	rec.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	r.out.Remark(Event, OneLine(text))
	return nil
}

// WithAttrs implements slog.Handler.
func (r *remarks) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(r.attrs)
	for _, a := range attrs {
		b.WriteString(" " + a.String())
	}
	return &remarks{r.out, b.String()}
}

// WithGroup implements slog.Handler; groups are not told apart.
func (r *remarks) WithGroup(string) slog.Handler { return r }
