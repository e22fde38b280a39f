package throttle

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// storage is a simulated disk: calls are served one after another at a speed,
// and each takes a little more. Its latency grows with what waits.
type storage struct {
	mu    sync.Mutex
	free  time.Time
	speed float64
	least time.Duration
}

func (s *storage) read(n int64) (took time.Duration) {
	began := time.Now()
	s.mu.Lock()
	if s.free.Before(began) {
		s.free = began
	}
	s.free = s.free.Add(time.Duration(float64(n) / s.speed * float64(time.Second)))
	done := s.free.Add(s.least)
	s.mu.Unlock()
	time.Sleep(time.Until(done))
	return time.Since(began)
}

// reader is n workers that read through a gate, and what they did in each
// second.
type diskReader struct {
	bytes, slow, calls [200]atomic.Int64
}

func (r *diskReader) run(ctx context.Context, wg *sync.WaitGroup, s *storage, g *Gate, n int, target time.Duration) {
	began := time.Now()
	for range n {
		wg.Go(func() {
			for g.Read(ctx, 256<<10) == nil && ctx.Err() == nil {
				took := s.read(256 << 10)
				g.Observe(took, 256<<10)
				at := int(time.Since(began) / time.Second)
				r.bytes[at].Add(256 << 10)
				r.calls[at].Add(1)
				if took > target {
					r.slow[at].Add(1)
				}
			}
		})
	}
}

// rate is MiB/s from second a to b; least is the lowest of any five seconds.
func (r *diskReader) rate(a, b int) (mean, least float64) {
	least = 1e9
	for i := a; i < b; i++ {
		mean += float64(r.bytes[i].Load()) / mib
		five := 0.0
		for k := i; k < i+5; k++ {
			five += float64(r.bytes[k].Load()) / mib / 5
		}
		least = min(least, five)
	}
	return mean / float64(b-a), least
}

func (r *diskReader) slowPart(a, b int) float64 {
	slow, all := 0.0, 0.0
	for i := a; i < b; i++ {
		slow, all = slow+float64(r.slow[i].Load()), all+float64(r.calls[i].Load())
	}
	return slow / all
}

// TestBackOff reads a disk of 200 MiB/s with eight workers, which alone need
// 10 ms and more for each call, and a target of 5 ms. From 60 s to 120 s
// somebody else keeps 16 calls at the storage.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const target = 5 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 190*time.Second)
		defer cancel()
		s := &storage{speed: 200 * mib, least: 200 * time.Microsecond}
		var disks Disks
		var events []string
		g := &Gate{
			Job: limited(t, Limits{Latency: target}), Disk: disks.Open("d"), Meter: new(Meter),
			Event: func(text string) { events = append(events, text) },
		}
		var wg sync.WaitGroup
		var ours diskReader
		ours.run(ctx, &wg, s, g, 8, target)
		time.Sleep(60 * time.Second)
		if got := g.Meter.Bound(); got != ByLatency {
			t.Errorf("bound by %q, want latency", got)
		}
		var theirs diskReader
		other, stop := context.WithTimeout(ctx, 60*time.Second)
		defer stop()
		theirs.run(other, &wg, s, &Gate{Job: new(Throttle)}, 16, target)
		wg.Wait()

		alone, least := ours.rate(20, 55)
		slow := ours.slowPart(20, 55)
		t.Logf("figure: alone %.0f MiB/s of 200, never below %.0f, %.0f %% of calls above the target", alone, least, 100*slow)
		if alone < 100 || least < 60 || slow > 0.3 {
			t.Errorf("alone %.0f MiB/s, least %.0f, %.0f %% slow: not stable", alone, least, 100*slow)
		}
		busy, least := ours.rate(80, 115)
		their, _ := theirs.rate(20, 55)
		t.Logf("figure: beside another: %.1f MiB/s, never below %.1f; the other has %.0f", busy, least, their)
		if least < 0.5 || busy > 20 || their < 170 {
			t.Errorf("beside another %.1f MiB/s, least %.2f, the other %.0f: backing off stops, or does not", busy, least, their)
		}
		after, _ := ours.rate(165, 185)
		t.Logf("figure: 45 s after the other has gone: %.0f MiB/s", after)
		if after < 100 {
			t.Errorf("%.0f MiB/s after the other has gone", after)
		}
		if len(events) == 0 || len(events) > 190/30+1 || !strings.Contains(events[0], "above the target of 5ms") {
			t.Errorf("%d events: %q", len(events), events)
		}
	})
}

// TestNoBackOff reads with what the storage stands: nothing is turned down, and
// what once was is let go again.
func TestNoBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const target = 5 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		s := &storage{speed: 200 * mib, least: 200 * time.Microsecond}
		var disks Disks
		g := &Gate{Job: limited(t, Limits{Latency: target}), Disk: disks.Open("d"), Meter: new(Meter)}
		var wg sync.WaitGroup
		var ours diskReader
		ours.run(ctx, &wg, s, g, 1, target)
		time.Sleep(10 * time.Second)
		if g.Disk.active.Load() || g.Meter.Bound() != Unbound {
			t.Error("backs off from a storage that is fast")
		}
		other, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		new(diskReader).run(other, &wg, s, &Gate{Job: new(Throttle)}, 16, target)
		time.Sleep(9 * time.Second)
		if !g.Disk.active.Load() {
			t.Error("does not back off from a storage that is slow")
		}
		time.Sleep(71 * time.Second)
		if g.Disk.active.Load() {
			t.Errorf("still backs off 70 s after the storage is fast again, at %d bytes/s", int64(g.Disk.limit))
		}
		if before, _ := ours.rate(0, 9); before > 0 {
			if after, _ := ours.rate(80, 89); !near(after, before, 0.05) {
				t.Errorf("%.0f MiB/s, before %.0f", after, before)
			}
		}
		cancel()
		wg.Wait()
	})
}

// TestTwoOfADisk share what a disk allows; one that asks for no target is left
// alone.
func TestTwoOfADisk(t *testing.T) {
	var disks Disks
	a, b := disks.Open("d"), disks.Open("d")
	if a != b || disks.Open("e") == a {
		t.Error("disks are not told apart by identity")
	}
	a.active.Store(true)
	a.rate.setRead(1)
	g := &Gate{Job: new(Throttle), Disk: a}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Write(ctx, 1); err != nil {
		t.Errorf("a job without a target waits: %v", err)
	}
	a.Release()
	if len(disks.m) != 2 {
		t.Error("a disk in use is forgotten")
	}
	b.Release()
	if len(disks.m) != 1 {
		t.Error("a disk that nobody uses is kept")
	}
}

// TestScaled counts a call in proportion to its length: 1 MiB may take four
// times as long as 256 KiB.
func TestScaled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disks Disks
		d := disks.Open("d")
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			if e := d.Observe(30*time.Millisecond, 1<<20, 10*time.Millisecond); e != "" {
				t.Error(e)
			}
		}
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			_ = d.Observe(30*time.Millisecond, 256<<10, 10*time.Millisecond)
		}
		if !d.active.Load() {
			t.Error("256 KiB in 30 ms are fast enough for 10 ms")
		}
	})
}
