package site

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestNothingLeaks: no goroutine and no socket is left of links that lost a race,
// were made instead of another, or ended, at whichever end.
func TestNothingLeaks(t *testing.T) {
	f, udp, tcp := newFar(t)
	f.quic(udp)
	f.tls(tcp)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	d := new(Dialer)
	for n := range 3 {
		d.mu.Lock()
		d.known = nil // as if it was dialed first
		d.mu.Unlock()
		link, err := d.Dial(t.Context(), Auto, f.address, f.own, f.key.ID())
		if err != nil {
			t.Fatal(err)
		}
		many, err := link.(mover.Rerouter).Reroute(t.Context(), mover.Route{Transport: QUIC, Connections: 3}, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := many.Stats().Connections; got != 3 {
			t.Errorf("%d connections, want 3", got)
		}
		tls, err := many.(mover.Rerouter).Reroute(t.Context(), mover.Route{Transport: TLS}, "")
		if err != nil {
			t.Fatal(err)
		}
		link.CloseWithError(wire.CodeOK, "")
		tls.CloseWithError(wire.CodeSwitch, "")
		many.CloseWithError(wire.CodeCanceled, "")
		cut, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(n)*time.Millisecond, cancel) // in the middle of the race
		if link, err := d.Dial(cut, Auto, f.address, f.own, f.key.ID()); err == nil {
			link.CloseWithError(wire.CodeOK, "")
		}
		cancel()
	}
	d.Close()
	wiretest.NoLeak(t, goroutines)
	for end := time.Now().Add(10 * time.Second); openFiles(t) > files; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d files are open, %d before", openFiles(t), files)
		}
	}
}
