package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// pulled is a source daemon with a tracked disk, and an engine that copies from
// it: to a disk of its own, or by an order to a third one.
type pulled struct {
	*site
	*tracked
	engine *mover.Engine
	state  mover.StateDir // of the target
	third  *site
	asked  atomic.Int64  // times that the tracker was
	wait   time.Duration // of the tracker
	said   []string
}

func newPulled(ctx context.Context, d *tracked, cfg mover.Config) (*pulled, error) {
	p := &pulled{tracked: d, state: memState{}}
	var err error
	if p.third, err = newSite(ctx, cfg, p.state, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: d.dst.open}); err != nil {
		return nil, err
	}
	e, err := mover.NewEngine(cfg, memState{})
	if err != nil {
		return nil, err
	}
	p.site = &site{engine: e, listen: newPipeListener(), server: mover.NewServer(e, func(ctx context.Context, _ *wire.Order) (wire.Link, error) {
		return p.third.dial(ctx)
	})}
	p.server.SetExports([]mover.Export{{
		Name: "source", Role: mover.RoleSource, Open: d.src.open, Hint: p.changed, Peers: []wire.ID{{1}}, Operators: []wire.ID{{1}},
	}})
	go func() { _ = p.server.Serve(ctx, p.listen) }()
	p.engine, err = mover.NewEngine(cfg, p.state)
	return p, err
}

func (p *pulled) changed(ctx context.Context, d mover.Disk) (cbt.Hint, error) {
	p.asked.Add(1)
	select {
	case <-time.After(p.wait):
		return p.tracked.changed(ctx, d)
	case <-ctx.Done():
		return cbt.Hint{}, ctx.Err()
	}
}

func (p *pulled) job(track wire.Tracking, retry time.Duration) mover.Job {
	return mover.Job{
		Run: wire.RunID{1}, Mode: wire.ModeCopy, Track: track, Retry: retry,
		Source: p.remote("source"), Target: mover.Endpoint{Name: "target", Open: p.dst.open},
	}
}

func (p *pulled) run(ctx context.Context, job mover.Job) (mover.Report, error) {
	return p.engine.Run(ctx, job, &mover.Progress{Event: func(text string) { p.said = append(p.said, text) }})
}

func (p *pulled) order(ctx context.Context, job mover.Job) (mover.Report, error) {
	return p.engine.Order(ctx, job.Source.Remote, job, wire.Order{Address: "third:1", Export: "disk", Retry: uint32(job.Retry.Seconds())},
		&mover.Progress{Event: func(text string) { p.said = append(p.said, text) }})
}

func (p *pulled) close() error {
	p.server.Drain()
	p.third.server.Drain()
	return errors.Join(p.engine.Close(), p.site.engine.Close(), p.third.engine.Close())
}

// halfWritten makes state say that another run was cut while it wrote to d.
func halfWritten(state mover.StateDir, d mover.Disk) error {
	j, err := mover.OpenJournal(state, d.Identity(), mover.Bug(0))
	if err != nil {
		return err
	}
	return errors.Join(j.Open(1, wire.RunID{9}, 1, [16]byte{1}, cbt.Digest{1}, d.Size()), j.Mark(), j.Close())
}

// A hint that the source's own site finds out, or the target, ends a copy that
// insists on it with CodeHint. Any other is a full one at once, and the operator
// hears of it. Nobody asks the tracker again and again.
func TestDistrustFromAfar(t *testing.T) {
	for _, order := range []bool{false, true} {
		for _, half := range []bool{false, true} {
			for _, track := range []wire.Tracking{wire.TrackingUse, wire.TrackingStrict} {
				for _, retry := range []time.Duration{0, time.Minute} {
					t.Run(fmt.Sprintf("order=%t/half written=%t/%v/%v", order, half, track, retry), func(t *testing.T) {
						if err := bubble(t, func(ctx context.Context) error { return distrustFromAfar(ctx, order, half, track, retry) }); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	}
}

func distrustFromAfar(ctx context.Context, order, half bool, track wire.Tracking, retry time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	d := lying()
	if half {
		d = newTracked(rand.New(rand.NewPCG(8, 8)), 16<<20)
	}
	p, err := newPulled(ctx, d, few)
	if err != nil {
		return err
	}
	if half {
		if err := halfWritten(p.state, d.dst); err != nil {
			return err
		}
	}
	run, began := p.run, time.Now()
	if order {
		run = p.order
	}
	rep, err := run(ctx, p.job(track, retry))
	took := time.Since(began)
	if cerr := p.close(); cerr != nil {
		return cerr
	}
	if n := p.asked.Load(); n != 1 || took > 10*time.Second {
		return fmt.Errorf("asked %d times, ended after %v with %w", n, took, err)
	}
	if track == wire.TrackingStrict {
		if codeOf(err) != wire.CodeHint || rep.State == wire.StateVerified || half && !d.dst.wrote.Empty() {
			return fmt.Errorf("strict: %w (%+v)", err, rep)
		}
		return nil
	}
	if err != nil || rep.State != wire.StateVerified || rep.Hinted || !strings.Contains(rep.Reason, "distrusted") || !bytes.Equal(d.dst.Bytes(), d.want) {
		return fmt.Errorf("%w (%+v)", err, rep)
	}
	if said := strings.Join(p.said, "\n"); !strings.Contains(said, "comparing everything") || !strings.Contains(said, "everything is compared: distrusted") {
		return fmt.Errorf("the operator does not hear of it: %q", p.said)
	}
	return nil
}

// A tracker may take longer than any answer of a peer. One that never answers
// does not keep a copy for ever.
func TestSlowTrackerFromAfar(t *testing.T) {
	for _, retry := range []time.Duration{0, time.Minute} {
		for wait, atMost := range map[time.Duration]time.Duration{
			6 * time.Second: 7 * time.Second, 3 * time.Minute: 181 * time.Second, 100 * time.Hour: 33 * time.Minute,
		} {
			if wait > time.Hour && retry > 0 {
				continue // as long once more
			}
			err := bubble(t, func(ctx context.Context) error {
				p, err := newPulled(ctx, newTracked(rand.New(rand.NewPCG(8, 8)), 8<<20), few)
				if err != nil {
					return err
				}
				p.wait = wait
				began := time.Now()
				rep, err := p.run(ctx, p.job(wire.TrackingUse, retry))
				took := time.Since(began)
				if cerr := p.close(); cerr != nil {
					return cerr
				}
				if took > atMost || p.asked.Load() != 1 {
					return fmt.Errorf("asked %d times, ended after %v with %w", p.asked.Load(), took, err)
				}
				if wait > time.Hour {
					if codeOf(err) != wire.CodeTimeout {
						return fmt.Errorf("ended with %w (%+v)", err, rep)
					}
					return nil
				}
				if err != nil || !rep.Hinted || !bytes.Equal(p.dst.Bytes(), p.want) {
					return fmt.Errorf("%w (%+v)", err, rep)
				}
				return nil
			})
			if err != nil {
				t.Errorf("a tracker that takes %v, retry %v: %v", wait, retry, err)
			}
		}
	}
}

// A run that is cut and continued while the source still lingers gets what it
// asks for now, not what it asked for at first.
func TestLingeringSourceHears(t *testing.T) {
	gone := errors.New("tracker gone")
	for name, tt := range map[string]struct {
		err           error // of the tracker
		first, second wire.Tracking
		full          bool // the second
		hinted        bool
		code          wire.Code
	}{
		"use, use":            {nil, wire.TrackingUse, wire.TrackingUse, false, true, wire.CodeOK},
		"use, full":           {nil, wire.TrackingUse, wire.TrackingUse, true, false, wire.CodeOK},
		"off, full":           {nil, wire.TrackingOff, wire.TrackingOff, true, false, wire.CodeOK},
		"use, strict full":    {nil, wire.TrackingUse, wire.TrackingStrict, true, false, wire.CodeOK},
		"use, off":            {nil, wire.TrackingUse, wire.TrackingOff, false, false, wire.CodeOK},
		"use, strict":         {nil, wire.TrackingUse, wire.TrackingStrict, false, true, wire.CodeOK},
		"off, use":            {nil, wire.TrackingOff, wire.TrackingUse, false, false, wire.CodeOK},
		"off, strict":         {nil, wire.TrackingOff, wire.TrackingStrict, false, false, wire.CodeHint},
		"fallen back, strict": {gone, wire.TrackingUse, wire.TrackingStrict, false, false, wire.CodeHint},
	} {
		t.Run(name, func(t *testing.T) {
			err := bubble(t, func(ctx context.Context) error {
				d := newTracked(rand.New(rand.NewPCG(6, 6)), 16<<20)
				d.err = tt.err
				p, err := newPulled(ctx, d, few)
				if err != nil {
					return err
				}
				p.wrap = func(l wire.Link) wire.Link { return &dying{Link: l} }
				if _, err := p.run(ctx, p.job(tt.first, 0)); err == nil {
					return errors.New("the first link was not cut")
				}
				p.wrap = nil
				synctest.Wait() // the source has heard that the link is lost
				d.src.read = cbt.Map{}
				second := p.job(tt.second, 0)
				second.Full = tt.full
				rep, err := p.run(ctx, second)
				if cerr := p.close(); cerr != nil {
					return cerr
				}
				if codeOf(err) != tt.code || rep.Hinted != tt.hinted || err == nil && (rep.Counters.Skipped > 0) != tt.hinted {
					return fmt.Errorf("%w (%+v)", err, rep)
				}
				if n := p.asked.Load(); n > 1 {
					return fmt.Errorf("the source did not linger: asked %d times", n)
				}
				if err == nil && (d.src.read.Len() == int64(len(d.want))) != tt.full {
					return fmt.Errorf("%d bytes of the source were read", d.src.read.Len())
				}
				if we, ok := errors.AsType[*wire.Error](err); ok && !we.Remote {
					return fmt.Errorf("the source did not refuse it: %w", err)
				}
				if err == nil && !bytes.Equal(d.dst.Bytes(), d.want) {
					return errors.New("the target differs from the source")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// dying is a link that dies in the middle of the first data stream.
type dying struct{ wire.Link }

func (l *dying) OpenReceive(ctx context.Context, id wire.StreamID) (wire.Stream, error) {
	s, err := l.Link.OpenReceive(ctx, id)
	if err != nil || id.Kind != wire.StreamData {
		return s, err
	}
	return &dyingStream{Stream: s, l: l}, nil
}

type dyingStream struct {
	wire.Stream
	l    *dying
	read int
}

func (s *dyingStream) Read(b []byte) (int, error) {
	if s.read > 256<<10 {
		s.l.CloseWithError(wire.CodeTimeout, "cut by the test")
		return 0, errCut
	}
	n, err := s.Stream.Read(b)
	s.read += n
	return n, err
}

// A source that leaves grains out unasked is refused before it has the target.
func TestHintNobodyAskedFor(t *testing.T) {
	for _, tt := range []struct {
		track  wire.Tracking
		hinted bool
		code   wire.Code // CodeOK: the target is opened
	}{
		{wire.TrackingOff, false, wire.CodeOK},
		{wire.TrackingOff, true, wire.CodeFrame},
		{wire.TrackingUse, false, wire.CodeOK},
		{wire.TrackingUse, true, wire.CodeOK},
		{wire.TrackingStrict, false, wire.CodeHint},
		{wire.TrackingStrict, true, wire.CodeOK},
	} {
		opened, err := offered(t, tt.track, tt.hinted)
		if opened != (tt.code == wire.CodeOK) || !opened && codeOf(err) != tt.code {
			t.Errorf("asked for %v, hinted %t: target opened %t, ended with %v", tt.track, tt.hinted, opened, err)
		}
	}
}

// offered pulls with track from a source that makes up its own mind, and
// reports whether the target was opened.
func offered(t *testing.T, track wire.Tracking, hinted bool) (opened bool, err error) {
	bug := bubble(t, func(ctx context.Context) error {
		e, err2 := mover.NewEngine(few, memState{})
		if err2 != nil {
			return err2
		}
		over := make(chan struct{})
		target := disk(make([]byte, hostileSize))
		_, err = e.Run(ctx, mover.Job{
			Run: wire.RunID{1}, Mode: wire.ModeCopy, Track: track,
			Target: mover.Endpoint{Name: "target", Open: func(context.Context, mover.Access) (mover.Disk, error) {
				opened = true
				return target.Reopen(movertest.ReadWrite)
			}},
			Source: mover.Endpoint{Name: "evil", Remote: &mover.Remote{Name: "evil", Export: "source", Dial: func(context.Context) (wire.Link, error) {
				a, b := wire.Pipe(wire.ID{1}, wire.ID{2})
				go func() {
					defer close(over)
					x := &evil{t: t, ctx: ctx, link: b, in: wire.NewReader(b.Control(), wire.MaxControlBody)}
					x.expect(new(wire.Hello))
					x.send(&wire.Welcome{Agent: "evil"})
					o := openFrame(hostileSize)
					o.Hinted = hinted
					x.send(o)
					time.Sleep(time.Second)
					b.CloseWithError(wire.CodeInternal, "enough")
				}()
				return a, nil
			}}},
		}, new(mover.Progress))
		<-over
		return e.Close()
	})
	if bug != nil {
		t.Fatal(bug)
	}
	return opened, err
}

// Full, asked for from afar, is told to the source: what both maps call holes is
// read on both sides.
func TestPullFull(t *testing.T) {
	const size = 16 << 20
	for _, mode := range []wire.Mode{wire.ModeCopy, wire.ModeVerify} {
		for _, full := range []bool{false, true} {
			err := bubble(t, func(ctx context.Context) error {
				content := make([]byte, size)
				copy(content[5<<20:], bytes.Repeat([]byte{1}, 1<<20))
				d := &tracked{want: content, src: &watched{Memory: disk(content)}, dst: &watched{Memory: disk(content)}}
				p, err := newPulled(ctx, d, mover.Config{})
				if err != nil {
					return err
				}
				job := p.job(wire.TrackingOff, 0)
				job.Mode, job.Full = mode, full
				rep, err := p.run(ctx, job)
				if err := errors.Join(err, p.close()); err != nil {
					return err
				}
				if all := d.src.read.Len() == size && d.dst.read.Len() == size && rep.Counters.Holes == 0; all != full || !rep.Equal {
					return fmt.Errorf("source read %d, target read %d (%+v)", d.src.read.Len(), d.dst.read.Len(), rep)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%v, full %t: %v", mode, full, err)
			}
		}
	}
}
