package daemon

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager is a service manager's socket.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// heard is the next message within the time, or empty.
func heard(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, _ := conn.Read(b)
	return string(b[:n])
}

// TestWatchdogStalls: a loop that does not come back from its look feeds no
// watchdog, and one that does goes on.
func TestWatchdogStalls(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	n := notifier{log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	stall, ended := make(chan struct{}), make(chan struct{})
	looks := 0
	go func() {
		defer close(ended)
		loop(ctx, &n, nil, func(context.Context) activity {
			if looks++; looks == 3 {
				<-stall // a lock that nobody gives back
			}
			return activity{}
		}, nil)
	}()
	for fed := 0; fed < 2; {
		switch m := heard(t, conn, time.Minute); {
		case m == "WATCHDOG=1":
			fed++
		case m == "":
			t.Fatal("the watchdog is not fed")
		}
	}
	for { // a status of the last round may be on its way
		m := heard(t, conn, 500*time.Millisecond)
		if m == "" {
			break
		}
		if strings.Contains(m, "WATCHDOG") {
			t.Fatalf("a loop that stands still says %q", m)
		}
	}
	close(stall)
	if m := heard(t, conn, time.Minute); m != "WATCHDOG=1" {
		t.Errorf("after the stall: %q", m)
	}
	cancel()
	<-ended
}

func TestStopping(t *testing.T) {
	conn := manager(t)
	n := notifier{log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	over := n.stopping(ctx)
	cancel()
	if m := heard(t, conn, time.Minute); !strings.Contains(m, "STOPPING=1\n") || !strings.Contains(m, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("at the end: %q", m)
	}
	if m := heard(t, conn, time.Minute); !strings.HasPrefix(m, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("while it drains: %q", m)
	}
	over()
}

func TestStatus(t *testing.T) {
	now := time.Now()
	n := notifier{at: now, done: 1 << 30}
	for _, c := range []struct {
		after time.Duration
		a     activity
		want  string
	}{
		{time.Second, activity{sessions: 2, jobs: 1, disks: 3, done: 1<<30 + 431<<20, left: 3 << 40}, "2 sessions, 1 jobs, 3 disks in work, 431 MiB/s, 3.0 TiB left"},
		{2 * time.Second, activity{sessions: 1, done: 1 << 20, left: 512}, "1 sessions, 0 jobs, 0 disks in work, 512 B left"},
		{4 * time.Second, activity{done: 3 << 20, failbacks: 2, halted: 1}, "0 sessions, 0 jobs, 0 disks in work, 1 MiB/s, 2 failbacks (1 wait for an operator)"},
	} {
		if got := n.status(c.a, now.Add(c.after)); got != c.want {
			t.Errorf("%+v: %q, want %q", c.a, got, c.want)
		}
	}
}
