package wire

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// worker stands for a connection: it processes what is in its queue at a rate.
type worker struct {
	packets, bytes atomic.Uint64
}

func (w *worker) ConnectionStats() quic.ConnectionStats {
	return quic.ConnectionStats{PacketsReceived: w.packets.Load(), BytesReceived: w.bytes.Load()}
}

func (w *worker) process(packets int) {
	w.packets.Add(uint64(packets))
	w.bytes.Add(uint64(packets * backlogPacket))
}

// drop processes packets that cannot be decrypted.
func (w *worker) drop(packets int) { w.bytes.Add(uint64(packets * backlogPacket)) }

const backlogPacket = 1000

// backlogRig is a backlog with one connection, in a bubble.
type backlogRig struct {
	*backlog
	stats  packetCounters
	packet []byte
}

func newBacklogRig(t *testing.T, workers ...*worker) *backlogRig {
	r := &backlogRig{}
	r.backlog = newBacklog(&r.stats)
	id, err := r.ids.GenerateConnectionID()
	if err != nil {
		t.Fatal(err)
	}
	r.packet = append(append([]byte{0x40}, id.Bytes()...), make([]byte, backlogPacket-1-connIDLen)...)
	for _, w := range workers {
		r.track(t.Context(), w)
	}
	return r
}

// give hands out n packets.
func (r *backlogRig) give(n int) {
	for range n {
		r.hand(r.packet)
	}
}

// took is how long a wait was.
func (r *backlogRig) took() time.Duration {
	start := time.Now()
	r.wait()
	return time.Since(start)
}

func inBubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// settle makes the counts agree, as they do soon after a connection has come.
func (r *backlogRig) settle(t *testing.T) {
	t.Helper()
	r.give(1)
	if left := r.left(); left != 0 {
		t.Fatalf("%d left", left)
	}
}

func TestBacklogWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &worker{}
		w.process(1e6) // before it was tracked
		r := newBacklogRig(t, w)
		r.settle(t)
		r.give(backlogLimit)
		if d := r.took(); d != 0 {
			t.Errorf("waited %v at the limit", d)
		}
		r.give(1)
		time.AfterFunc(time.Millisecond, func() { w.process(backlogLimit / 4) })
		time.AfterFunc(10*time.Millisecond, func() { w.process(backlogLimit / 4) })
		time.AfterFunc(12*time.Millisecond, func() { w.process(1) })
		if d := r.took(); d < 12*time.Millisecond || d > 13*time.Millisecond {
			t.Errorf("waited %v, want until half was processed after 12 ms", d)
		}
		if w, n := r.stats.waits.Load(), r.stats.resyncs.Load(); w != 1 || n != 0 {
			t.Errorf("%d waits, %d without progress", w, n)
		}
	})
}

// What can be processed without being counted must not be waited for long.
func TestBacklogForgives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &worker{}
		r := newBacklogRig(t, w)
		r.settle(t)
		for range 10 { // duplicates, and what cannot be decrypted
			r.give(2 * backlogLimit)
			w.drop(2 * backlogLimit)
			if d := r.took(); d != 0 {
				t.Fatalf("waited %v for what is done", d)
			}
		}
		want := maxPatience
		for i := range 10 { // what never gets to a connection, with an ID of ours
			r.give(2 * backlogLimit)
			if d := r.took(); d < want || d > want+2*time.Millisecond {
				t.Fatalf("waited %v the %dth time, want %v", d, i+1, want)
			}
			want = max(want/2, minPatience)
		}
		if n := r.stats.resyncs.Load(); n != 10 {
			t.Errorf("%d waits without progress", n)
		}
		r.give(backlogLimit + 1)
		time.AfterFunc(time.Millisecond/2, func() { w.process(backlogLimit) })
		r.wait()
		if r.patience != maxPatience {
			t.Errorf("patience %v after one that ended well", r.patience)
		}
	})
}

// A flood of garbage must not hold up those who wait in the kernel behind it.
func TestBacklogGarbage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &worker{}
		r := newBacklogRig(t, w)
		r.settle(t)
		for i := range 100 * backlogLimit {
			r.hand([]byte{0x40, byte(i), byte(i >> 8), 1, 2, 3, 4, 5, 6, 7, 8, 9})
			r.hand([]byte{0xc0, 0, 0, 0, 1, 8, byte(i), byte(i >> 8)})
			if d := r.took(); d != 0 {
				t.Fatalf("waited %v", d)
			}
		}
	})
}

// The limit of one connection holds for all of a socket together.
func TestBacklogConnections(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := &worker{}, &worker{}
		r := newBacklogRig(t, a, a)
		ctx, end := context.WithCancel(t.Context())
		r.track(ctx, b)
		r.settle(t)
		r.give(2 * backlogLimit)
		time.AfterFunc(time.Millisecond, func() { a.process(backlogLimit) })
		time.AfterFunc(3*time.Millisecond, func() { b.process(backlogLimit / 2) })
		if d := r.took(); d < 3*time.Millisecond || d > 4*time.Millisecond {
			t.Errorf("waited %v, want 3 ms", d)
		}
		// One that ends takes what is in its queue along.
		r.give(2 * backlogLimit)
		end()
		synctest.Wait()
		if d := r.took(); d != 0 {
			t.Errorf("waited %v for a connection that has ended", d)
		}
		if len(r.conns) != 1 {
			t.Errorf("%d connections", len(r.conns))
		}
		r.give(2 * backlogLimit)
		time.AfterFunc(time.Millisecond, func() { a.process(2 * backlogLimit) })
		if d := r.took(); d < time.Millisecond || d > 2*time.Millisecond {
			t.Errorf("waited %v for the one that is left", d)
		}
	})
}

// When the kernel has no room either, quic-go's own limit decides who loses.
func TestBacklogOverflow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := &worker{}, &worker{}
		r := newBacklogRig(t, a)
		r.settle(t)
		r.overflow()
		if r.free != 0 {
			t.Error("the only connection is not waited for")
		}
		r.track(t.Context(), b)
		r.settle(t)
		r.overflow()
		for range backlogFree {
			if d := r.took(); d != 0 {
				t.Fatalf("waited %v", d)
			}
			r.give(1)
		}
		if d := r.took(); d == 0 {
			t.Error("never waits again")
		}
	})
}

// Nothing is waited for where nothing is counted.
func TestBacklogWithoutConnections(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBacklogRig(t)
		for range 10 {
			r.give(2 * backlogLimit)
			if d := r.took(); d != 0 {
				t.Fatalf("waited %v", d)
			}
		}
	})
}
