package daemon

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hidden is a secret as slog has them.
type hidden string

func (hidden) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// entry takes an entry apart, as the journal does.
func entry(t *testing.T, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		if name, value, ok := strings.Cut(line, "="); ok {
			out[name], text = value, rest
			continue
		}
		n := binary.LittleEndian.Uint64([]byte(rest[:8]))
		out[line], text = rest[8:8+n], rest[8+n+1:]
	}
	return out
}

func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var spare strings.Builder
	h, err := newJournalHandler(path, slog.LevelInfo, slog.NewTextHandler(&spare, nil))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(h)
	log.Debug("not for the journal")
	log.With("job", "vm1", "disk", "disk0").WithGroup("of").Warn("pass cut", "err", errors.New("line\nPRIORITY=0"), "MESSAGE", "x", "token", hidden("s3cret"), "ü-1", 7)
	got := entry(t, heard(t, conn, time.Minute))
	for name, want := range map[string]string{
		"PRIORITY": "4", "SYSLOG_IDENTIFIER": "haulbackd", "JOB_ID": "vm1", "DISK": "disk0", "HAULBACK_OF_ERR": "line\nPRIORITY=0",
		"HAULBACK_OF_MESSAGE": "x", "HAULBACK_OF_TOKEN": "[redacted]", "HAULBACK_OF___1": "7",
		"MESSAGE": `pass cut job=vm1 disk=disk0 of.err="line\nPRIORITY=0" of.MESSAGE=x of.token=[redacted] of.ü-1=7`,
	} {
		if got[name] != want {
			t.Errorf("%s=%q, want %q", name, got[name], want)
		}
	}
	for level, want := range map[slog.Level]string{slog.LevelError: "3", slog.LevelInfo: "6"} {
		log.Log(t.Context(), level, "text", "phase", "InProgress", "run", "r1")
		if got := entry(t, heard(t, conn, time.Minute)); got["PRIORITY"] != want || got["PHASE"] != "InProgress" || got["RUN"] != "r1" {
			t.Errorf("%v: %q", level, got)
		}
	}
	conn.Close()
	log.With("job", "vm2").Info("the journal is away")
	if s := spare.String(); !strings.Contains(s, "the journal is away") || !strings.Contains(s, "job=vm2") {
		t.Errorf("what the journal did not take is lost: %q", s)
	}
}
