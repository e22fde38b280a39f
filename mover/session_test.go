package mover_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// counting counts what is asked of a disk.
type counting struct {
	mover.WritableDisk
	read, flushes *atomic.Int64
}

func (c counting) ReadAt(p []byte, off int64) (int, error) {
	c.read.Add(int64(len(p)))
	return c.WritableDisk.ReadAt(p, off)
}

func (c counting) Flush() error {
	c.flushes.Add(1)
	return c.WritableDisk.Flush()
}

// A lost link costs what was not settled, not a second reading of the disk:
// whether the target has noticed the loss (cut) or not (superseded).
func TestNextLinkBeginsAtTheMark(t *testing.T) {
	const size = 160 << 20 // with a window of 64 MiB that is read ahead
	content := make([]byte, size)
	for name, code := range map[string]wire.Code{"noticed": wire.CodeTimeout, "unreachable": wire.CodeUnreachable, "not noticed": wire.CodeOK} {
		t.Run(name, func(t *testing.T) {
			target := disk(content)
			var read, flushes atomic.Int64
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				cfg := mover.Config{Memory: 64 << 20, Workers: 1, Batches: 64}
				s, err := newSite(ctx, cfg, movertest.NewCrashableState(movertest.NewPower()).Mount(),
					mover.Export{Name: "disk", Role: mover.RoleTarget, Open: func(context.Context, mover.Access) (mover.Disk, error) {
						d, err := target.Reopen(movertest.ReadWrite)
						return counting{d, &read, &flushes}, err
					}})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { s.server.Drain(); _ = s.engine.Close() }()
				dials := 0
				s.wrap = func(l wire.Link) wire.Link {
					if dials++; dials > 1 {
						return l
					}
					cut := &cutting{Link: l, code: code, after: size / 2, read: &read}
					return cut
				}
				p := new(mover.Progress)
				rep, err := s.push(ctx, cfg, wire.RunID{1}, content, p)
				if err != nil || rep.State != wire.StateVerified || rep.Counters.Reconnects != 1 {
					t.Errorf("copy: %v, %v, %d reconnects", err, rep.State, rep.Counters.Reconnects)
				}
			})
			if n := read.Load(); n < size || n > size+(70<<20) {
				t.Errorf("%d MiB of a disk of %d MiB were read", n>>20, size>>20)
			}
		})
	}
}

// cutting is a link that dies, or at its dialer's end only seems to, when the
// target has read so much.
type cutting struct {
	wire.Link
	code  wire.Code // CodeOK: the other end does not notice
	after int64
	read  *atomic.Int64
}

var errCut = errors.New("cut by the test")

func (c *cutting) OpenReceive(ctx context.Context, id wire.StreamID) (wire.Stream, error) {
	s, err := c.Link.OpenReceive(ctx, id)
	return cutStream{s, c}, err
}

// CloseWithError of a link that is not noticed goes nowhere.
func (c *cutting) CloseWithError(code wire.Code, text string) {
	if c.code != wire.CodeOK || c.read.Load() < c.after {
		c.Link.CloseWithError(code, text)
		return
	}
	_ = c.Control().SetReadDeadline(time.Unix(1, 0)) // wakes our own reader
}

type cutStream struct {
	wire.Stream
	c *cutting
}

func (s cutStream) Read(p []byte) (int, error) {
	if s.c.read.Load() > s.c.after {
		if s.c.code != wire.CodeOK {
			s.c.Link.CloseWithError(s.c.code, "cut by the test")
		}
		return 0, errCut
	}
	return s.Stream.Read(p[:min(len(p), 600)])
}

// A target that outruns its source must not flush for every batch that comes.
func TestFlushesAreFew(t *testing.T) {
	const size = 64 << 20
	content := image(rand.New(rand.NewPCG(2, 3)), size)
	dst := disk(bytes.Repeat([]byte{1}, size)) // no holes: all is told by digests
	var read, flushes atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		cfg := mover.Config{Memory: 64 << 20, Workers: 1, Batches: 64}
		s, err := newSite(ctx, cfg, movertest.NewCrashableState(movertest.NewPower()).Mount(),
			mover.Export{Name: "disk", Role: mover.RoleTarget, Open: func(context.Context, mover.Access) (mover.Disk, error) {
				d, err := dst.Reopen(movertest.ReadWrite)
				return counting{d, &read, &flushes}, err
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		s.wrap = func(l wire.Link) wire.Link { return slowWrites{l, 20 * time.Millisecond} }
		if _, err := s.push(ctx, cfg, wire.RunID{1}, content, new(mover.Progress)); err != nil {
			t.Error(err)
		}
	})
	// 64 frames of 20 ms are 1.3 s: a flush a second, one for the end, and a few
	// when the window would stand still.
	if n := flushes.Load(); n > 16 {
		t.Errorf("%d flushes for 64 batches", n)
	}
}

// One failed flush whose link is lost at the same moment is one failure and not
// two, and nothing it covered is believed.
func TestFlushFailsAsTheLinkIsLost(t *testing.T) {
	want := image(rand.New(rand.NewPCG(8, 8)), 6<<20)
	power := movertest.NewPower()
	dev := movertest.NewCrashable(power, int64(len(want)))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		cfg := mover.Config{Memory: 64 << 20, Workers: 1, Checkpoint: 1 << 20}
		var link wire.Link
		first := true
		s, err := newSite(ctx, cfg, movertest.NewCrashableState(power).Mount(),
			mover.Export{Name: "disk", Role: mover.RoleTarget, Open: func(context.Context, mover.Access) (mover.Disk, error) {
				d, err := dev.Open(movertest.ReadWrite)
				if err != nil || !first {
					return d, err
				}
				first = false
				return movertest.NewFaulty(d, movertest.Fault{Op: "Flush", Nth: 2, Count: -1, Err: syscall.EIO, Hook: func() {
					link.CloseWithError(wire.CodeTimeout, "cut by the test")
					time.Sleep(time.Second)
				}}), nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		s.wrap = func(l wire.Link) wire.Link { link = l; return l }
		rep, err := s.push(ctx, cfg, wire.RunID{1}, want, new(mover.Progress))
		if err != nil || rep.State != wire.StateVerified {
			t.Errorf("copy: %v, %v", err, rep.State)
		}
	})
	power.Crash(rand.New(rand.NewPCG(1, 1)), 0)
	if !bytes.Equal(dev.Durable(), want) {
		t.Error("the target differs")
	}
}

// Who has compared two disks and found differences copies next, at once.
func TestCopyRightAfterVerify(t *testing.T) {
	want := image(rand.New(rand.NewPCG(6, 6)), 3<<20)
	target := disk(make([]byte, len(want)))
	e := newEngine(t, mover.Config{})
	srv := mover.NewServer(e, nil)
	listener := newPipeListener()
	srv.SetExports([]mover.Export{{Name: "disk", Role: mover.RoleTarget, Peers: []wire.ID{{1}}, Open: endpoint("disk", target).Open}})
	go func() { _ = srv.Serve(t.Context(), listener) }()
	t.Cleanup(srv.Drain)
	s := &site{engine: e, server: srv, listen: listener}
	job := mover.Job{Mode: wire.ModeVerify, Source: endpoint("source", disk(want)), Target: s.remote("disk"), Retry: 5 * time.Second}
	if _, err := run(t, e, job); codeOf(err) != wire.CodeVerify {
		t.Fatalf("verify: %v", err)
	}
	job.Mode, job.Run = wire.ModeCopy, wire.RunID{2}
	if _, err := run(t, e, job); err != nil || !bytes.Equal(target.Bytes(), want) {
		t.Errorf("copy right after: %v", err)
	}
}

// A journal that cannot be compacted says so from then on; what it said before
// stays true on disk, its epoch too.
func TestJournalFailsForGood(t *testing.T) {
	state := movertest.NewCrashableState(movertest.NewPower())
	j, err := mover.OpenJournal(state.Mount(), "disk:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Open(5, wire.RunID{1}, 1, [16]byte{1}, cbt.Digest{}, 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := j.Mark(); err != nil {
		t.Fatal(err)
	}
	state.SetSpace(5 << 20) // no room for a second file
	var m cbt.Map
	m.Add(cbt.Extent{Len: cbt.GrainSize})
	for err = nil; err == nil; {
		err = j.Durable(m)
	}
	if codeOf(err) != wire.CodeNoSpace {
		t.Errorf("compaction ended with %v", err)
	}
	if err := j.Verified(cbt.Digest{1}); err == nil {
		t.Error("a journal that failed has taken a record")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := mover.OpenJournal(state.Mount(), "disk:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	if st := again.State(); st.Epoch != 5 || st.State != wire.StateInconsistent {
		t.Errorf("opened again it says %v, epoch %d", st.State, st.Epoch)
	}
}

// A hole that was punched and never reached the device looks like a hole in the
// map of the file system. It was not read back when the link was lost, so the
// next link has to read it.
func TestLostPunchIsFound(t *testing.T) {
	const size = 4 << 20
	want := image(rand.New(rand.NewPCG(8, 9)), size)
	clear(want[2<<20 : 3<<20]) // a hole at the source over data at the target
	before := bytes.Clone(want)
	copy(before[2<<20:], bytes.Repeat([]byte{7}, 1<<20))
	power := movertest.NewPower()
	dev := movertest.NewCrashableFrom(power, before)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		cfg := mover.Config{Memory: 64 << 20, Workers: 1}
		var link wire.Link
		s, err := newSite(ctx, cfg, movertest.NewCrashableState(power).Mount(),
			mover.Export{Name: "disk", Role: mover.RoleTarget, Open: func(context.Context, mover.Access) (mover.Disk, error) {
				d, err := dev.Open(movertest.ReadWrite)
				if err != nil {
					return nil, err
				}
				return movertest.NewFaulty(d, movertest.Fault{Op: "Flush", Nth: 2, Hook: func() { link.CloseWithError(wire.CodeTimeout, "cut by the test") }}), nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		s.wrap = func(l wire.Link) wire.Link { link = l; return l }
		dev.LoseWrite(1)
		rep, err := s.push(ctx, cfg, wire.RunID{1}, want, new(mover.Progress))
		if err != nil || rep.State != wire.StateVerified || rep.Counters.Reconnects == 0 {
			t.Errorf("copy: %v, %v, %d reconnects", err, rep.State, rep.Counters.Reconnects)
		}
	})
	power.Crash(rand.New(rand.NewPCG(1, 1)), 0)
	if !bytes.Equal(dev.Durable(), want) {
		t.Error("Verified, and the target differs")
	}
}

// A probe of a disk that a session holds is answered from that session.
func TestProbeOfADiskInUse(t *testing.T) {
	content := image(rand.New(rand.NewPCG(6, 7)), hostileSize)
	target := disk(content)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20}, movertest.NewCrashableState(movertest.NewPower()).Mount(),
			mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", target).Open})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		link, err := s.dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		e := &evil{t: t, ctx: ctx, link: link, in: wire.NewReader(link.Control(), wire.MaxControlBody)}
		e.begin(openFrame(hostileSize))
		p, err := s.engine.Probe(ctx, s.remote("disk").Remote)
		if err != nil || p.Size != hostileSize || p.Use != "in use by run "+(wire.RunID{7}).String() {
			t.Errorf("probe: %+v, %v", p, err)
		}
		link.CloseWithError(wire.CodeTimeout, "cut by the test")
		synctest.Wait()
		p, err = s.engine.Probe(ctx, s.remote("disk").Remote)
		if err != nil || p.Use == "" {
			t.Errorf("probe after the link was lost: %+v, %v", p, err)
		}
	})
}

// A run that drops its verdicts, because its hint has lied, stays who it was: if
// another run has taken the target meanwhile, and is done, it is fenced off.
func TestDistrustIsFencedOff(t *testing.T) {
	for name, lost := range map[string]bool{"a lie": false, "a disk that is lost": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				d := lying()
				job := d.job(wire.TrackingUse)
				if lost { // the source is, and opened anew it has dropped its verdicts too
					job = d.job(wire.TrackingOff)
					src := &flaky{m: disk(d.want), plans: [][]movertest.Fault{{{Op: "ReadAt", Nth: 200, Count: -1, Err: errLost{}}}}}
					job.Source.Open = src.open
				}
				s, err := newSite(ctx, few, memState{}, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: d.dst.open})
				if err != nil {
					t.Fatal(err)
				}
				e, err := mover.NewEngine(few, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					s.server.Drain()
					_ = errors.Join(e.Close(), s.engine.Close()) // hold nothing
				}()
				other := image(rand.New(rand.NewPCG(99, 99)), len(d.want))
				dials := 0
				job.Run, job.Mode, job.Target, job.Retry = wire.RunID{1}, wire.ModeCopy, s.remote("disk"), 20*time.Minute
				job.Target.Remote.Dial = func(ctx context.Context) (wire.Link, error) {
					if dials++; dials == 2 {
						time.Sleep(5 * time.Minute) // longer than a target lingers
						if _, err := s.push(ctx, few, wire.RunID{2}, other, new(mover.Progress)); err != nil {
							t.Errorf("the other run: %v", err)
						}
					}
					return s.dial(ctx)
				}
				rep, err := e.Run(ctx, job, new(mover.Progress))
				if codeOf(err) != wire.CodeFenced || dials != 2 {
					t.Errorf("after %d links: %v, %v", dials, err, rep.State)
				}
				if !bytes.Equal(d.dst.Bytes(), other) {
					t.Error("a run that was fenced off wrote to the disk of its successor")
				}
			})
		})
	}
}
