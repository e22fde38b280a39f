package throttle

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const mib = 1 << 20

func limited(t testing.TB, l Limits) *Throttle {
	t.Helper()
	thr, err := New(l)
	if err != nil {
		t.Fatal(err)
	}
	return thr
}

// load takes pieces from g by n workers until ctx is done, resting after each,
// and counts the bytes.
func load(ctx context.Context, wg *sync.WaitGroup, g *Gate, n int, piece int64, rest time.Duration) *atomic.Int64 {
	total := new(atomic.Int64)
	for range n {
		wg.Go(func() {
			for g.Read(ctx, piece) == nil {
				total.Add(piece)
				if rest > 0 {
					time.Sleep(rest)
				}
			}
		})
	}
	return total
}

// near reports whether got is want, to a part of it.
func near(got, want, part float64) bool { return got >= want*(1-part) && got <= want*(1+part) }

// TestRate measures rates in virtual time, of one worker and many, above and
// below what a piece is.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		name    string
		rate    int64
		workers int
		piece   int64
	}{
		{"a grain per second in pieces of four", Least, 1, 256 << 10},
		{"a grain per second, eight workers", Least, 8, 256 << 10},
		{"10 MiB/s", 10 * mib, 4, 256 << 10},
		{"1 GiB/s", 1 << 30, 4, 256 << 10},
		{"odd", 1234567, 3, 65537},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const dur = 1000 * time.Second
				ctx, cancel := context.WithTimeout(t.Context(), dur)
				defer cancel()
				if c.rate > 100*mib {
					ctx, cancel = context.WithTimeout(t.Context(), dur/100)
					defer cancel()
				}
				began := time.Now()
				var wg sync.WaitGroup
				total := load(ctx, &wg, &Gate{Job: limited(t, Limits{Read: c.rate})}, c.workers, c.piece, 0)
				wg.Wait()
				got := float64(total.Load()) / time.Since(began).Seconds()
				t.Logf("figure: %.0f bytes/s at a rate of %d", got, c.rate)
				if !near(got, float64(c.rate), 0.02) {
					t.Errorf("%.0f bytes/s, want %d", got, c.rate)
				}
			})
		})
	}
}

// TestLower checks that of job, daemon and peer the lowest counts, per kind.
func TestLower(t *testing.T) {
	for _, c := range []struct {
		name              string
		job, daemon, peer Limits
		wire, read        float64 // MiB/s; 0: not limited
	}{
		{"job", Limits{Read: mib}, Limits{Read: 2 * mib}, Limits{}, 0, 1},
		{"daemon", Limits{Read: 2 * mib}, Limits{Read: mib}, Limits{}, 0, 1},
		{"peer", Limits{Read: 2 * mib, Wire: 3 * mib}, Limits{}, Limits{Read: mib, Wire: 4 * mib}, 3, 1},
		{"each its own", Limits{Wire: mib}, Limits{Read: 2 * mib}, Limits{}, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &Gate{Job: limited(t, c.job), Daemon: limited(t, c.daemon)}
				if err := g.Job.SetPeer(c.peer); err != nil {
					t.Fatal(err)
				}
				for _, k := range []struct {
					name string
					take func(context.Context, int64) error
					want float64
				}{{"wire", g.Wire, c.wire}, {"read", g.Read, c.read}} {
					began := time.Now()
					for range 4 * 100 {
						if err := k.take(t.Context(), mib/4); err != nil {
							t.Fatal(err)
						}
					}
					took := time.Since(began).Seconds()
					switch {
					case k.want == 0 && took != 0:
						t.Errorf("%s: 100 MiB took %v s without a limit", k.name, took)
					case k.want > 0 && !near(100/took, k.want, 0.02):
						t.Errorf("%s: %.2f MiB/s, want %v", k.name, 100/took, k.want)
					}
				}
			})
		})
	}
}

// TestChangeWakes changes limits under those who wait.
func TestChangeWakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Throttle) error
		within time.Duration
		after  time.Duration // and not before
	}{
		{"lifted", func(t *Throttle) error { return t.Set(Limits{}) }, 0, 0},
		{"of the other kind", func(t *Throttle) error { return t.Set(Limits{Wire: Least}) }, 0, 0},
		{"up", func(t *Throttle) error { return t.Set(Limits{Read: 64 * mib}) }, 800 * time.Millisecond, 790 * time.Millisecond},
		{"down", func(t *Throttle) error { return t.Set(Limits{Read: Least}) }, 817 * time.Second, 815 * time.Second},
		{"peer", func(t *Throttle) error { return t.SetPeer(Limits{Read: Least}) }, 817 * time.Second, 815 * time.Second},
		{"window", func(t *Throttle) error {
			return t.Set(Limits{Read: Least, Windows: []Window{{From: 1, To: 2}}})
		}, 47 * time.Second, 47*time.Second - time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				thr := limited(t, Limits{Read: mib})
				thr.zone = time.UTC
				g := &Gate{Job: thr}
				if err := g.Read(t.Context(), 64*mib); err != nil { // 64 s of debt, 51 when it changes
					t.Fatal(err)
				}
				done := make(chan time.Time, 1)
				go func() {
					_ = g.Read(t.Context(), 1)
					done <- time.Now()
				}()
				time.Sleep(13 * time.Second) // not when it would wake anyway
				began := time.Now()
				if err := c.change(thr); err != nil {
					t.Fatal(err)
				}
				if d := (<-done).Sub(began); d > c.within || d < c.after {
					t.Errorf("woke %v after the change, want %v to %v", d, c.after, c.within)
				}
			})
		})
	}
}

// TestClockChange lets a window begin when daylight saving ends, at a minute
// that is no edge of it, under somebody who waits.
func TestClockChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		jump := time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC) // 03:00 becomes 02:00
		time.Sleep(time.Until(jump.Add(-10*time.Minute - 17*time.Second)))
		thr := &Throttle{zone: berlin}
		if err := thr.Set(Limits{Read: Least, Windows: []Window{{From: 90, To: 150}}}); err != nil { // 01:30 to 02:30, no limit
			t.Fatal(err)
		}
		g := &Gate{Job: thr, Meter: new(Meter)}
		for range 2 { // hours of debt
			if err := g.Read(t.Context(), 1<<30); err != nil {
				t.Fatal(err)
			}
		}
		if now := time.Now(); !now.Equal(jump) {
			t.Errorf("woke at %v, want %v", now.In(berlin), jump.In(berlin))
		}
	})
}

// TestShares measures what jobs of all priorities get of one daemon.
func TestShares(t *testing.T) {
	type job struct {
		priority Priority
		workers  int
		piece    int64
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	all := [][]job{
		{{High, 1, 256 << 10}, {Low, 8, 256 << 10}},
		{{High, 4, 64 << 10}, {Normal, 4, 256 << 10}, {Low, 4, 1 << 20}},
		{{Normal, 1, 64 << 10}, {Normal, 8, 1 << 20}},
	}
	for range 10 {
		var jobs []job
		for range 2 + rng.IntN(8) {
			jobs = append(jobs, job{Priority(rng.IntN(3) - 1), 1 + rng.IntN(6), int64(1+rng.IntN(16)) << 16})
		}
		all = append(all, jobs)
	}
	for _, jobs := range all {
		synctest.Test(t, func(t *testing.T) {
			daemon := limited(t, Limits{Read: 20 * mib})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			var got []*atomic.Int64
			weights, sum := 0.0, 0.0
			for _, j := range jobs {
				g := &Gate{Job: limited(t, Limits{Priority: j.priority}), Daemon: daemon}
				got = append(got, load(ctx, &wg, g, j.workers, j.piece, 0))
				weights += float64(j.priority.weight())
			}
			wg.Wait()
			for _, n := range got {
				sum += float64(n.Load())
			}
			if !near(sum, 500*20*mib, 0.02) {
				t.Errorf("%+v: %.0f MiB in all, want %d", jobs, sum/mib, 500*20)
			}
			for i, j := range jobs {
				want := sum * float64(j.priority.weight()) / weights
				if n := float64(got[i].Load()); !near(n, want, 0.10) {
					t.Errorf("%+v: job %d got %.0f MiB, want %.0f", jobs, i, n/mib, want/mib)
				}
			}
		})
	}
}

// TestPeerPriority lets a peer lower a job and not raise it.
func TestPeerPriority(t *testing.T) {
	for _, c := range []struct{ own, peer, want Priority }{
		{Normal, Normal, Normal},
		{Normal, Low, Low},
		{Normal, High, Normal},
		{High, Low, Low},
		{High, Normal, High},
		{Low, High, Low},
		{Low, Normal, Low},
	} {
		thr := limited(t, Limits{Priority: c.own})
		if err := thr.SetPeer(Limits{Priority: c.peer}); err != nil {
			t.Fatal(err)
		}
		if got := thr.share(); got != c.want.weight() {
			t.Errorf("%d with %d of the peer weighs %d, want %d", c.own, c.peer, got, c.want.weight())
		}
		if l, _, _ := thr.Now(); l.Priority != c.want {
			t.Errorf("%d with %d of the peer is told as %d, want %d", c.own, c.peer, l.Priority, c.want)
		}
	}
}

// TestIdleGetsNoCredit lets a job come late, and another come back after a
// rest: neither gets what it did not use.
func TestIdleGetsNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		daemon := limited(t, Limits{Read: 10 * mib})
		gate := func() *Gate { return &Gate{Job: limited(t, Limits{}), Daemon: daemon} }
		run := func(dur time.Duration, gates ...*Gate) (got []float64) {
			ctx, cancel := context.WithTimeout(t.Context(), dur)
			defer cancel()
			var wg sync.WaitGroup
			var totals []*atomic.Int64
			for i, g := range gates {
				if i > 0 {
					time.Sleep(5 * time.Second) // the first one waits already
				}
				totals = append(totals, load(ctx, &wg, g, 2, 256<<10, 0))
			}
			wg.Wait()
			for _, n := range totals {
				got = append(got, float64(n.Load())/mib)
			}
			return got
		}
		old, late := gate(), gate()
		run(10*time.Second, old, late)
		if got := run(1000*time.Second, old); !near(got[0], 10000, 0.02) {
			t.Errorf("alone it got %.0f MiB of 10000: what others leave is not used", got[0])
		}
		time.Sleep(time.Hour)
		for name, pair := range map[string][]*Gate{"back after a rest": {old, late}, "new": {old, gate()}} {
			if got := run(25*time.Second, pair...); !near(got[1], 100, 0.10) || !near(got[0], 150, 0.10) {
				t.Errorf("%s: it got %.0f MiB of 200, the other %.0f of 250", name, got[1], got[0])
			}
		}
	})
}

// TestCancel ends waits, and lets what they wait for go to others.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		daemon := limited(t, Limits{Read: mib})
		first, second := &Gate{Job: new(Throttle), Daemon: daemon}, &Gate{Job: new(Throttle), Daemon: daemon}
		_ = first.Read(t.Context(), 10*mib)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := first.Read(ctx, 1000*mib); err != context.DeadlineExceeded {
			t.Errorf("a wait that was cancelled: %v", err)
		}
		began := time.Now()
		_ = second.Read(t.Context(), 1)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("waited %v behind a request that was taken back", d)
		}
		if err := first.Read(ctx, 1); err == nil {
			t.Error("read with a context that is done")
		}
		daemon.mu.Lock()
		defer daemon.mu.Unlock()
		if n := len(daemon.queues[read].waiting); n != 0 {
			t.Errorf("%d jobs still wait", n)
		}
	})
}

// TestMeter says what a pass waits for.
func TestMeter(t *testing.T) {
	slow, minute := Limits{Read: Least}, Limits{Windows: []Window{{Read: Least}}}
	for _, c := range []struct {
		name        string
		job, daemon Limits
		want        string
	}{
		{"nothing", Limits{}, Limits{}, ""},
		{"only the other kind", Limits{Wire: Least}, Limits{}, ""},
		{"job", slow, Limits{Read: mib}, "job rate"},
		{"daemon", Limits{Read: mib}, slow, "daemon rate"},
		{"window of the job", minute, Limits{}, "window"},
		{"window of the daemon", Limits{}, minute, "window"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := new(Meter)
				g := &Gate{Job: limited(t, c.job), Daemon: limited(t, c.daemon), Meter: m}
				for range 40 {
					_ = g.Read(t.Context(), 256<<10)
				}
				if got := m.Bound().String(); got != c.want {
					t.Errorf("bound by %q, want %q", got, c.want)
				}
				time.Sleep(2 * time.Second)
				if got := m.Bound(); got != Unbound {
					t.Errorf("bound by %q 2 s after it ended", got)
				}
			})
		})
	}
}

// TestOpenGate costs nothing: no allocation, no lock.
func TestOpenGate(t *testing.T) {
	var disks Disks
	g := &Gate{Job: new(Throttle), Daemon: new(Throttle), Disk: disks.Open("d"), Meter: new(Meter)}
	g.Job.mu.Lock() // who takes a lock stops here
	g.Daemon.mu.Lock()
	g.Disk.mu.Lock()
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if !g.Open() || g.Read(ctx, 1) != nil || g.Wire(ctx, 1) != nil || g.Write(ctx, 1) != nil {
			t.Error("closed")
		}
		g.Observe(time.Second, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGate(b *testing.B) {
	var disks Disks
	for name, l := range map[string]Limits{"open": {}, "limited": {Read: 1 << 50}} {
		b.Run(name, func(b *testing.B) {
			g := &Gate{Job: limited(b, l), Daemon: new(Throttle), Disk: disks.Open("d"), Meter: new(Meter)}
			b.ReportAllocs()
			for b.Loop() {
				_ = g.Read(b.Context(), 1)
			}
		})
	}
}
