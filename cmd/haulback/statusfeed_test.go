package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"

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

// TestFeedAnew: a daemon that comes back with an older state, restored or another
// one, is shown as it is: nothing of before is taken for what is now.
func TestFeedAnew(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	for _, id := range []string{"gone", "old"} {
		fake.set(id, func(s *failback.Status) { s.Spec.VM, s.Activity = id, failback.Deciding })
	}
	f := newFeed(callerOf(fake.socket))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	if !f.board().Daemon.Reading {
		t.Error("before the daemon was asked, what is there is not known")
	}
	all.Go(func() { f.run(ctx) })
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
