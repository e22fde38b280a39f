package wire

import (
	"testing"
	"time"
)

// A window grows to what 1 GB/s need in a round trip, at most twice that, and
// not at all before the round trip is known.
func TestWindowGrows(t *testing.T) {
	for _, c := range []struct {
		rtt  time.Duration
		want uint64
	}{
		{0, firstWindow},
		{100 * time.Microsecond, firstWindow},
		{time.Millisecond, firstWindow},
		{3 * time.Millisecond, 4 << 20},
		{10 * time.Millisecond, 16 << 20},
		{50 * time.Millisecond, maxConnWindow},
	} {
		b := newBudget()
		if !b.join(firstWindow) {
			t.Fatal("no room for one connection")
		}
		g := &growth{link: b, window: firstWindow}
		g.rtt.Store(int64(c.rtt))
		for w := uint64(firstWindow); w < maxConnWindow; { // as quic-go does
			next := min(2*w, maxConnWindow)
			if !g.take(next - w) {
				break
			}
			w = next
		}
		if g.window != c.want {
			t.Errorf("round trip %v: window %d, want %d", c.rtt, g.window, c.want)
		}
		if left := uint64(linkWindow - MaxConnections*leastWindow - (g.window - leastWindow)); b.left != left {
			t.Errorf("round trip %v: %d left, want %d", c.rtt, b.left, left)
		}
	}
}

// Data that are not read hold up what goes the same way at most: the end that
// does not read them can still say so.
func TestStalledData(t *testing.T) {
	a, _ := newKeys(t)
	p := newMoreRig(t).peer(a, 1)
	flood(t, p.link, 1)
	deadline := time.Now().Add(openTimeout)
	p.far.Control().SetWriteDeadline(deadline)
	p.link.Control().SetReadDeadline(deadline)
	go p.far.Control().Write(make([]byte, 2*firstWindow))
	buf, got := make([]byte, 64<<10), 0
	for got < 2*firstWindow {
		n, err := p.link.Control().Read(buf)
		if got += n; err != nil {
			t.Fatalf("%d bytes came the other way: %v", got, err)
		}
	}
}
