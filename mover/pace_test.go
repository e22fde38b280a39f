package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// metered is a disk that knows how much of it was read in each second.
type metered struct {
	flat
	name  string
	began time.Time
	read  [4000]atomic.Int64
	call  time.Duration // that each read takes
	wcall time.Duration // that each write takes
}

func newMetered(name string, content []byte) *metered {
	return &metered{flat: flat{bytes.Clone(content)}, name: name, began: time.Now()}
}

func (d *metered) ReadAt(p []byte, off int64) (int, error) {
	if d.call > 0 {
		time.Sleep(d.call)
	}
	d.read[int(time.Since(d.began)/time.Second)].Add(int64(len(p)))
	return d.flat.ReadAt(p, off)
}

func (d *metered) WriteAt(p []byte, off int64) (int, error) {
	if d.wcall > 0 {
		time.Sleep(d.wcall)
	}
	return d.flat.WriteAt(p, off)
}

func (d *metered) Identity() string { return d.name }

func (d *metered) open(context.Context, mover.Access) (mover.Disk, error) { return d, nil }

// mean is the rate of reading in bytes per second from the first second that
// read something to the last.
func (d *metered) mean() float64 {
	first, last, sum := -1, 0, 0.0
	for i := range d.read {
		if n := d.read[i].Load(); n > 0 {
			if first < 0 {
				first = i
			}
			last, sum = i, sum+float64(n)
		}
	}
	return sum / float64(last-first+1)
}

// between is what was read from second a to b.
func (d *metered) between(a, b int) (sum int64) {
	for i := a; i < b; i++ {
		sum += d.read[i].Load()
	}
	return sum
}

// pair is a source daemon, a target daemon, and an operator.
type pair struct {
	src, dst       *metered
	source, target *site
	desk           *mover.Engine
}

func newPair(ctx context.Context, from, to []byte) (*pair, error) {
	p := &pair{src: newMetered("source", from), dst: newMetered("target", to)}
	cfg := mover.Config{Memory: 64 << 20, Workers: 2}
	var err error
	if p.target, err = newSite(ctx, cfg, memState{}, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: p.dst.open}); err != nil {
		return nil, err
	}
	e, err := mover.NewEngine(cfg, memState{})
	if err != nil {
		return nil, err
	}
	p.source = &site{engine: e, listen: newPipeListener(), server: mover.NewServer(e, func(ctx context.Context, _ *wire.Order) (wire.Link, error) {
		return p.target.dial(ctx)
	})}
	p.source.server.SetExports([]mover.Export{{Name: "disk", Role: mover.RoleSource, Open: p.src.open, Peers: []wire.ID{{1}}, Operators: []wire.ID{{1}}}})
	go func() { _ = p.source.server.Serve(ctx, p.source.listen) }()
	p.desk, err = mover.NewEngine(cfg, nil)
	return p, err
}

func (p *pair) close() error {
	p.source.server.Drain()
	p.target.server.Drain()
	return errors.Join(p.source.engine.Close(), p.target.engine.Close(), p.desk.Close())
}

// ways are who begins a job, and where.
var ways = []string{"push", "pull", "order", "local"}

func (p *pair) run(ctx context.Context, way string, job mover.Job, prog *mover.Progress) (mover.Report, error) {
	job.Run, job.Retry = wire.RunID{1}, time.Minute
	if job.Mode == 0 {
		job.Mode = wire.ModeCopy
	}
	job.Source, job.Target = mover.Endpoint{Name: "source", Open: p.src.open}, mover.Endpoint{Name: "target", Open: p.dst.open}
	switch way {
	case "push":
		job.Target = p.target.remote("disk")
		return p.source.engine.Run(ctx, job, prog)
	case "pull":
		job.Source = p.source.remote("disk")
		return p.target.engine.Run(ctx, job, prog)
	case "order":
		return p.desk.Order(ctx, p.source.remote("disk").Remote, job, wire.Order{Address: "target:1", Export: "disk", Retry: 60}, prog)
	}
	return p.source.engine.Run(ctx, job, prog)
}

func noise(seed uint64, size int) []byte {
	rng, b := rand.NewChaCha8([32]byte{byte(seed)}), make([]byte, size)
	_, _ = rng.Read(b)
	return b
}

// paced runs f with a pair in a bubble.
func paced(t *testing.T, from, to []byte, f func(ctx context.Context, p *pair) error) {
	t.Helper()
	err := bubble(t, func(ctx context.Context) error {
		p, err := newPair(ctx, from, to)
		if err != nil {
			return err
		}
		return errors.Join(f(ctx, p), p.close())
	})
	if err != nil {
		t.Error(err)
	}
}

func job(l throttle.Limits) mover.Job {
	thr, err := throttle.New(l)
	if err != nil {
		panic(err) // the test's own limits
	}
	return mover.Job{Throttle: thr}
}

// TestReadRate reads both disks whole at a rate of the job: it holds at each end
// by itself, whoever began the job.
func TestReadRate(t *testing.T) {
	const size, rate = 64 << 20, 4 << 20
	content := noise(1, size)
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			paced(t, content, content, func(ctx context.Context, p *pair) error {
				var prog mover.Progress
				rep, err := p.run(ctx, way, job(throttle.Limits{Read: rate}), &prog)
				if err != nil || !rep.Equal {
					return fmt.Errorf("equal %t: %w", rep.Equal, err)
				}
				for _, d := range []*metered{p.src, p.dst} {
					if m := d.mean(); m < 0.85*rate || m > 1.05*rate {
						return fmt.Errorf("%s: %.2f MiB/s, want %d", d.name, m/(1<<20), rate>>20)
					}
				}
				return nil
			})
		})
	}
}

// TestEachEndIsHeld limits one daemon: it holds that end, and the other goes no
// further ahead than the window.
func TestEachEndIsHeld(t *testing.T) {
	const size, rate = 64 << 20, 4 << 20
	content := noise(1, size)
	for _, end := range []string{"source", "target"} {
		t.Run(end, func(t *testing.T) {
			paced(t, content, content, func(ctx context.Context, p *pair) error {
				d, e := p.src, p.source.engine
				if end == "target" {
					d, e = p.dst, p.target.engine
				}
				if err := e.SetLimits(throttle.Limits{Read: rate}); err != nil {
					return err
				}
				if _, err := p.run(ctx, "push", mover.Job{}, new(mover.Progress)); err != nil {
					return err
				}
				if m := d.mean(); m < 0.85*rate || m > 1.05*rate {
					return fmt.Errorf("%.2f MiB/s, want %d", m/(1<<20), rate>>20)
				}
				return nil
			})
		})
	}
}

// TestWireRate sends all of a disk: limits of the job, and of the daemon at
// either end, also where it only receives.
func TestWireRate(t *testing.T) {
	const size, rate = 32 << 20, 2 << 20
	from, to := noise(1, size), noise(2, size)
	for _, way := range ways {
		for _, whose := range []string{"job", "source", "target"} {
			t.Run(way+"/"+whose, func(t *testing.T) {
				paced(t, from, to, func(ctx context.Context, p *pair) error {
					var j mover.Job
					l, held := throttle.Limits{Wire: rate}, true
					var err error
					switch whose {
					case "job":
						j = job(l)
					case "source":
						err, held = p.source.engine.SetLimits(l), way != "local" // which uses no network
					case "target":
						err, held = p.target.engine.SetLimits(l), way != "local"
					}
					if err != nil {
						return err
					}
					began := time.Now()
					if _, err := p.run(ctx, way, j, new(mover.Progress)); err != nil {
						return err
					}
					took := time.Since(began).Seconds()
					if want := float64(size / rate); held && (took < 0.95*want || took > 1.2*want) || !held && took > 1 {
						return fmt.Errorf("%.1f s, want %.1f (%t)", took, want, held)
					}
					if !bytes.Equal(p.dst.b, from) {
						return errors.New("the target differs")
					}
					return nil
				})
			})
		}
	}
}

// TestChangeWhileRunning sets a job free that would need hours, at both ends,
// and turns it down again.
func TestChangeWhileRunning(t *testing.T) {
	const size = 512 << 20
	content := make([]byte, size)
	copy(content, noise(1, size/4))
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			paced(t, content, content, func(ctx context.Context, p *pair) error {
				j := job(throttle.Limits{Read: throttle.Least})
				var prog mover.Progress
				var slow [2]int64
				time.AfterFunc(100*time.Second+time.Millisecond, func() {
					slow = [2]int64{p.src.between(0, 101), p.dst.between(0, 101)}
					if b := prog.Bound(); way != "order" && b != "job rate" {
						t.Errorf("bound by %q", b)
					}
					_ = j.Throttle.Set(throttle.Limits{Read: 16 << 20})
				})
				time.AfterFunc(110*time.Second, func() { _ = j.Throttle.Set(throttle.Limits{}) })
				began := time.Now()
				rep, err := p.run(ctx, way, j, &prog)
				if err != nil || !rep.Equal {
					return fmt.Errorf("equal %t: %w", rep.Equal, err)
				}
				for i, d := range []*metered{p.src, p.dst} {
					if n := slow[i]; n < 4<<20 || n > 9<<20 {
						return fmt.Errorf("%s: %d bytes in 100 s at 64 KiB/s", d.name, n)
					}
					if n := d.between(101, 110); n < 100<<20 || n > 180<<20 {
						return fmt.Errorf("%s: %d MiB in 9 s at 16 MiB/s", d.name, n>>20)
					}
				}
				if took := time.Since(began); took < 110*time.Second || took > 111*time.Second {
					return fmt.Errorf("took %v, want 110 s: it was not set free at once", took)
				}
				if rep.Counters.Reconnects > 0 {
					return fmt.Errorf("%d reconnects: a job that is paced looks dead", rep.Counters.Reconnects)
				}
				return nil
			})
		})
	}
}

// TestSlowestIsNoStall copies at the lowest rates, of each kind, for longer than
// any watchdog waits.
func TestSlowestIsNoStall(t *testing.T) {
	const size = 12 << 20
	from, to := noise(1, size), noise(2, size)
	for _, way := range ways {
		for name, l := range map[string]throttle.Limits{"wire": {Wire: throttle.Least}, "read": {Read: throttle.Least}, "both": {Wire: throttle.Least, Read: throttle.Least}} {
			t.Run(way+"/"+name, func(t *testing.T) {
				paced(t, from, to, func(ctx context.Context, p *pair) error {
					rep, err := p.run(ctx, way, job(l), new(mover.Progress))
					if err != nil || rep.Counters.Reconnects > 0 || !bytes.Equal(p.dst.b, from) {
						return fmt.Errorf("%d reconnects: %w", rep.Counters.Reconnects, err)
					}
					return nil
				})
			})
		}
	}
}

// together runs a job of each priority, pushed by one engine with these limits,
// for a while.
func together(t *testing.T, l throttle.Limits, dur time.Duration, priorities ...throttle.Priority) (pairs []*pair, progress []*mover.Progress) {
	t.Helper()
	content := noise(1, 128<<20)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), dur)
		defer cancel()
		e, err := mover.NewEngine(mover.Config{Limits: l}, memState{})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close() // holds nothing that counts
		done := make(chan struct{})
		for i, pr := range priorities {
			p, err := newPair(ctx, content, content)
			if err != nil {
				t.Fatal(err)
			}
			p.src.name, p.source.engine = fmt.Sprint(i), e
			prog := new(mover.Progress)
			pairs, progress = append(pairs, p), append(progress, prog)
			go func() {
				_, _ = p.run(ctx, "push", job(throttle.Limits{Priority: pr}), prog)
				done <- struct{}{}
			}()
		}
		for range pairs {
			<-done
		}
		for _, p := range pairs {
			p.target.server.Drain()
			p.source.server.Drain()
		}
	})
	return pairs, progress
}

// TestDaemonShares lets jobs of three priorities share what a daemon may read.
func TestDaemonShares(t *testing.T) {
	const rate = 20 << 20
	pairs, _ := together(t, throttle.Limits{Read: rate}, 4*time.Second, throttle.Low, throttle.Normal, throttle.High)
	for i, weight := range []float64{1, 4, 16} {
		got, want := float64(pairs[i].src.between(0, 4)), 4*rate*weight/21
		if got < 0.85*want-512<<10 || got > 1.15*want+1<<20 {
			t.Errorf("job of weight %v read %.1f MiB, want %.1f", weight, got/(1<<20), want/(1<<20))
		}
	}
}

// TestLastInLineIsNoStall has a job wait for two minutes for each piece, longer
// than any watchdog does, because others are before it.
func TestLastInLineIsNoStall(t *testing.T) {
	pairs, progress := together(t, throttle.Limits{Read: throttle.Least}, 2000*time.Second, throttle.Low, throttle.High, throttle.High)
	if n := pairs[0].src.between(300, 2000); n < 2<<20 || n > 5<<20 {
		t.Errorf("it read %d KiB in 1700 s of 64 KiB, with one part of 33", n>>10)
	}
	for i, p := range progress {
		if n := p.Counters().Reconnects; n > 0 {
			t.Errorf("job %d: %d reconnects: a job that waits looks dead", i, n)
		}
	}
}

// TestLatencyOfTheJob holds at both ends, and is told.
func TestLatencyOfTheJob(t *testing.T) {
	const size = 256 << 20
	content := noise(1, size)
	for _, way := range ways {
		for _, slow := range []string{"source", "target"} {
			t.Run(way+"/"+slow, func(t *testing.T) {
				paced(t, content, content, func(ctx context.Context, p *pair) error {
					d := p.src
					if slow == "target" {
						d = p.dst
					}
					d.call = 20 * time.Millisecond // 25 MiB/s with two workers
					if _, err := p.run(ctx, way, job(throttle.Limits{Latency: 10 * time.Millisecond}), new(mover.Progress)); err != nil {
						return err
					}
					if n := d.between(10, 60); n < 40<<20 || n > 60<<20 {
						return fmt.Errorf("%d MiB in 50 s, want one a second", n>>20)
					}
					return nil
				})
			})
		}
	}
}

// TestPaceAfterReconnect cuts the link: the limits of the job hold on the next
// one too, at the end that was told them on the first.
func TestPaceAfterReconnect(t *testing.T) {
	const size, rate = 64 << 20, 4 << 20
	content := noise(1, size)
	for _, way := range []string{"push", "order"} {
		t.Run(way, func(t *testing.T) {
			paced(t, content, content, func(ctx context.Context, p *pair) error {
				links := 0
				p.target.wrap = func(l wire.Link) wire.Link {
					if links++; links == 1 {
						time.AfterFunc(5*time.Second, func() { l.CloseWithError(wire.CodeTimeout, "cut by the test") })
					}
					return l
				}
				if _, err := p.run(ctx, way, job(throttle.Limits{Read: rate}), new(mover.Progress)); err != nil || links != 2 {
					return fmt.Errorf("%d links: %w", links, err)
				}
				for s := range 30 {
					if n := p.dst.between(s, s+1); n > rate*3/2 {
						return fmt.Errorf("the target read %.1f MiB in second %d, %d may be", float64(n)/(1<<20), s, rate>>20)
					}
				}
				return nil
			})
		})
	}
}

// stuckControl is a link whose control stream takes nothing after a while,
// until the link ends.
type stuckControl struct {
	wire.Link
	from time.Time
}

func (l stuckControl) Control() wire.Stream { return stuckStream{l.Link.Control(), l} }

type stuckStream struct {
	wire.Stream
	l stuckControl
}

func (s stuckStream) Write(p []byte) (int, error) {
	if time.Now().After(s.l.from) {
		<-s.l.Done()
		return 0, s.l.Err()
	}
	return s.Stream.Write(p)
}

// TestStuckControlIsSeen is the watchdog of a source whose own control stream
// takes nothing any more: it must not wait for it.
func TestStuckControlIsSeen(t *testing.T) {
	content := noise(1, 64<<20)
	paced(t, content, content, func(ctx context.Context, p *pair) error {
		p.target.wrap = func(l wire.Link) wire.Link {
			p.target.wrap = nil
			return stuckControl{l, time.Now().Add(5 * time.Second)}
		}
		began := time.Now()
		rep, err := p.run(ctx, "push", job(throttle.Limits{Read: 4 << 20}), new(mover.Progress))
		if took := time.Since(began); err != nil || rep.Counters.Reconnects != 1 || took > 70*time.Second {
			return fmt.Errorf("%d reconnects, took %v: %w", rep.Counters.Reconnects, took, err)
		}
		return nil
	})
}
