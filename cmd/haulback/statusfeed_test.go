package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/cmd/internal/screen/status"
	"github.com/haulback/haulback/hostctl/failback"
)

// callerOf is a caller of a socket.
func callerOf(socket string) *caller {
	return newCaller(&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}, "http://haulback", socket, true)
}

// runs has f follow its daemon until the test ends.
func runs(t *testing.T, f *feed) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { f.run(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
}

// TestFeedAnew: a daemon that comes back with an older state, restored or another
// one, is shown as it is: nothing of before is taken for what is now.
func TestFeedAnew(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	for _, id := range []string{"gone", "old"} {
		fake.set(id, func(s *failback.Status) { s.Spec.VM, s.Activity = id, failback.Deciding })
	}
	f := newFeed(callerOf(fake.socket))
	if !f.board().Daemon.Reading {
		t.Error("before the daemon was asked, what is there is not known")
	}
	runs(t, f)
	shows := func(want ...string) func() bool {
		return func() bool {
			b := f.board()
			var got []string
			for _, s := range b.Failbacks {
				got = append(got, s.ID+" "+string(s.Activity))
			}
			slices.Sort(got)
			return slices.Equal(got, want) && b.Daemon.Lost == nil && !b.Daemon.Reading
		}
	}
	cmdtest.Await(t, "both failbacks", shows("gone deciding", "old deciding"))
	fake.offer(func() {
		older := *fake.all["old"]
		older.Revision, older.Activity = 1, failback.Syncing
		fake.all = map[string]*failback.Status{"old": &older}
		fake.broken = make(chan struct{})
		close(fake.changed) // whoever watches sees that it is broken
		fake.changed = make(chan struct{})
		close(fake.broken)
	})
	cmdtest.Await(t, "the loss", func() bool { return f.board().Daemon.Lost != nil })
	fake.offer(func() { fake.broken = nil })
	cmdtest.Await(t, "the older state", shows("old syncing"))
}

// TestFeedRenewed: a watch is begun anew by itself, without a loss: what the daemon
// has no more and has not told of goes.
func TestFeedRenewed(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	for _, id := range []string{"gone", "stays"} {
		fake.set(id, func(s *failback.Status) { s.Spec.VM, s.Activity = id, failback.Deciding })
	}
	f := newFeed(callerOf(fake.socket))
	f.anew = 300 * time.Millisecond
	runs(t, f)
	has := func(n int) func() bool {
		return func() bool {
			if b := f.board(); !b.Daemon.Reading {
				if b.Daemon.Lost != nil {
					t.Fatalf("told as lost: %v", b.Daemon.Lost)
				}
				return len(b.Failbacks) == n
			}
			return false
		}
	}
	cmdtest.Await(t, "both failbacks", has(2))
	fake.offer(func() { delete(fake.all, "gone") })
	cmdtest.Await(t, "one failback", has(1))
}

// TestFeedSilent: a daemon that answers and does not tell what it does is lost, and
// since the first time that it was.
func TestFeedSilent(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	f := newFeed(callerOf(fake.socket))
	f.anew, f.patience = 200*time.Millisecond, 200*time.Millisecond
	runs(t, f)
	cmdtest.Await(t, "the daemon", func() bool { b := f.board(); return !b.Daemon.Reading && b.Daemon.Lost == nil })
	fake.offer(func() { fake.silent = true })
	var same []*screen.Lost // losses one after another, since one time
	cmdtest.Await(t, "three losses since the first one", func() bool {
		l := f.board().Daemon.Lost
		switch {
		case l == nil || !strings.Contains(l.Why, "does not say what it does"):
		case len(same) == 0 || !l.Since.Equal(same[0].Since):
			same = []*screen.Lost{l}
		case !slices.Contains(same, l):
			same = append(same, l)
		}
		return len(same) == 3
	})
}

// TestSuspendedTwice: asked again before it came back the view is put away once, and
// SIGTSTP is its own again afterwards.
func TestSuspendedTwice(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTSTP)
	filter := suspending(t.Context(), make(chan os.Signal, 1), make(chan os.Signal, 1))
	handler := func() sigaction {
		now := swap(unix.SIGTSTP, sigaction{})
		swap(unix.SIGTSTP, now)
		return now
	}
	before := handler()
	if filter(nil, tea.SuspendMsg{}) == nil || handler() != (sigaction{}) {
		t.Error("it is not put away")
	}
	if filter(nil, tea.SuspendMsg{}) != nil {
		t.Error("it is put away twice")
	}
	filter(nil, tea.ResumeMsg{})
	if handler() != before {
		t.Error("SIGTSTP stops it where it stands")
	}
	filter(nil, tea.SuspendMsg{})
	filter(nil, tea.ResumeMsg{})
	filter(nil, tea.ResumeMsg{})
	if handler() != before {
		t.Error("SIGTSTP stops it where it stands, the second time")
	}
}

// TestStatusUnknown: a verb whose answer did not come may have been done, and only
// one that has not reached the daemon, or that it has refused, is told as not done.
func TestStatusUnknown(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	fake.set("web-1", func(s *failback.Status) { s.Activity, s.State = failback.Deciding, failback.Failback })
	fake.offer(func() { fake.denied = "you may only look" })
	dir := t.TempDir()
	closing := filepath.Join(dir, "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", closing)
	check(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1024))
			c.Close()
		}
	}()
	for socket, unknown := range map[string]bool{fake.socket: false, filepath.Join(dir, "none"): false, closing: true} {
		_, err := newFeed(callerOf(socket)).do(t.Context(), status.Request{Verb: screen.Commit, Item: screen.Item{Failback: fake.all["web-1"]}})
		if err == nil || errors.Is(err, status.ErrUnknown) != unknown {
			t.Errorf("%s: %v; want it to be unknown: %v", socket, err, unknown)
		}
	}
}
