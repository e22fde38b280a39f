package daemon

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// journalSocket is where the journal takes entries with fields.
const journalSocket = "/run/systemd/journal/socket"

// journalWait bounds what a log line waits for a journal that hangs.
const journalWait = time.Second

// journalFields are the attributes that people search for, by the names that the
// documentation has. All others are HAULBACK_NAME: nothing that is logged can pose
// as a field of the journal's own.
var journalFields = map[string]string{
	"job": "JOB_ID", "disk": "DISK", "phase": "PHASE", "run": "RUN", "vm": "VM", "step": "STEP", "pass": "PASS", "export": "EXPORT", "peer": "PEER",
	"failback": "FAILBACK", "host": "HOST",
}

// journalHandler writes entries of the journal: a line for people, and every
// attribute as a field of its own.
type journalHandler struct {
	conn   *net.UnixConn
	level  slog.Leveler
	spare  slog.Handler // gets what the journal's socket does not take: too long, or it is away
	groups string
	fields []byte // of WithAttrs, as the journal wants them
	text   string // the same for people
}

// newJournalHandler sends to the socket at path.
func newJournalHandler(path string, level slog.Leveler, spare slog.Handler) (slog.Handler, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &journalHandler{conn: conn, level: level, spare: spare}, nil
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	with := *h
	with.fields = slices.Clone(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		with.add(h.groups, a)
		return true
	})
	entry := appendField(nil, "PRIORITY", priority(r.Level))
	entry = appendField(entry, "SYSLOG_IDENTIFIER", "haulbackd")
	entry = appendField(entry, "MESSAGE", r.Message+with.text)
	_ = h.conn.SetWriteDeadline(time.Now().Add(journalWait)) // a socket that cannot is one that fails below
	if _, err := h.conn.Write(append(entry, with.fields...)); err != nil {
		return h.spare.Handle(ctx, r)
	}
	return nil
}

// add notes an attribute, and what is in it where it is a group.
func (h *journalHandler) add(groups string, a slog.Attr) {
	v := a.Value.Resolve() // what is secret says so here
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups += a.Key + "."
		}
		for _, inner := range v.Group() {
			h.add(groups, inner)
		}
		return
	}
	if a.Key == "" {
		return
	}
	key, value := groups+a.Key, v.String()
	name, ok := journalFields[key]
	if !ok {
		name = "HAULBACK_" + fieldName(key)
	}
	h.fields = appendField(h.fields, name, value)
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f }) {
		value = strconv.Quote(value)
	}
	h.text += " " + key + "=" + value
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.fields, with.spare = slices.Clone(h.fields), h.spare.WithAttrs(attrs)
	for _, a := range attrs {
		with.add(h.groups, a)
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.groups, with.spare = h.groups+name+".", h.spare.WithGroup(name)
	return &with
}

// priority is syslog's.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}

// fieldName has what the journal takes in a name, of which it takes 64 bytes.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), 48)]
}

// appendField is a field on the wire: the length goes before a value of several
// lines, so that none of them can pose as a field.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if strings.Contains(value, "\n") {
		b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
		return append(append(b, value...), '\n')
	}
	return append(append(append(b, '='), value...), '\n')
}
