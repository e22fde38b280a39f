package mover

import (
	"bufio"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// The source's pipeline on one link, in the order in which a batch takes it:
//
//	0 plan       one goroutine, where a hint leaves grains out: tells which
//	1 manifests  one goroutine: what the target holds becomes items; waits for
//	             room in the window of unsettled batches
//	2 work       one goroutine per block and data stream: read, hash, compare,
//	             compress, send, in straight-line code
//	3 sames      one goroutine: verdicts "equal", many in one frame
//	4 control    one goroutine: Acks settle batches and give room, Redos
//	             become items again, Verified ends it
//	5 finish     when all is settled: the root
//
// watch gives the link up when nothing moves; tellPace tells the limits of a
// job that began here; path looks at the link, for the judge of what it goes over.
type sourceSession struct {
	*source
	l      *lane
	opened wire.Opened
	pos    wire.Position
	pulse  *pulse
	holes  *holes
	group  *errgroup.Group
	refine *refinement // nil: grains are sent whole

	work     chan item           // unbuffered: an item waits in stage 1 or is worked on
	window   *semaphore.Weighted // batches that may be unsettled
	inflight *semaphore.Weighted // bytes that may be sent and not durable
	settledK kick                // something was settled
	finished chan struct{}       // closed when all batches are settled
	over     chan struct{}       // closed when the target's last word is here
	verified chan wire.Verified  // 1: the control stage leaves it there and ends

	sight    *sight        // of the link
	halted   chan struct{} // closed when no more batches are handed out
	draining atomic.Bool   // the other end has asked for that

	sameMu sync.Mutex
	same   cbt.Map
	sameK  kick
}

// item is one batch to be answered.
type item struct {
	target *answer     // what the target holds, and what of it is sampled
	redo   wire.Mask   // or: grains to be sent again
	parts  *wire.Parts // or: what the target has in grains that differ
	batch  int64
}

// openWait is how long a target may take to open a disk: it waits for an old
// session's writes to return first.
const openWait = time.Minute

func newSourceSession(s *source, l *lane, opened wire.Opened) *sourceSession {
	ss := &sourceSession{
		source: s, l: l, opened: opened, pos: wire.Position{Tag: opened.Tag, Pass: s.pass, Epoch: opened.Epoch},
		pulse: newPulse(), holes: newHoles(s.disk, s.full), work: make(chan item),
		window:   semaphore.NewWeighted(int64(s.cfg.Batches)),
		inflight: semaphore.NewWeighted(s.cfg.Checkpoint + s.cfg.Window),
		settledK: newKick(), finished: make(chan struct{}), over: make(chan struct{}), verified: make(chan wire.Verified, 1), sameK: newKick(),
		halted: make(chan struct{}),
	}
	if opened.Refine && opened.Start < s.batches() {
		ss.refine = newRefinement(s.cfg, s.compress)
	}
	return ss
}

func (ss *sourceSession) run(ctx context.Context, blocks []*block) (wire.Verified, error) {
	parent := ctx
	g, ctx := errgroup.WithContext(ctx)
	ss.group = g
	wired := ss.prog.wired.Load()
	ss.sight = newSight(ss.l.link, len(blocks), func() int64 { return ss.prog.wired.Load() - wired })
	ss.l.endWith(ctx, parent)
	start := ss.opened.Start
	if ss.hinted() {
		g.Go(func() error { return ss.l.why(ctx, ss.tellPlan(ctx, start)) })
	}
	g.Go(func() error { return ss.l.why(ctx, ss.manifests(ctx, start)) })
	for i, b := range blocks {
		g.Go(func() error { return ss.l.why(ctx, ss.worker(ctx, uint8(i), b)) })
	}
	if ss.refine != nil {
		g.Go(func() error { return ss.l.why(ctx, ss.askParts(ctx)) })
		g.Go(func() error { return ss.l.why(ctx, ss.takeParts(ctx)) })
	}
	g.Go(func() error { return ss.sames(ctx) })
	g.Go(func() error { return ss.control(ctx) })
	g.Go(func() error { return ss.finish(ctx) })
	g.Go(func() error { return ss.watch(ctx) })
	g.Go(func() error { return ss.pings(ctx) })
	g.Go(func() error { return ss.path(ctx) })
	if ss.by.tells {
		g.Go(func() error { return ss.by.tellPace(ctx, ss.l, ss.finished) })
	}
	if err := g.Wait(); err != nil {
		return wire.Verified{}, err
	}
	return <-ss.verified, nil
}

// manifests is stage 1.
func (ss *sourceSession) manifests(ctx context.Context, at int64) error {
	if at == ss.batches() {
		return nil
	}
	st, err := ss.l.link.OpenReceive(ctx, wire.StreamID{Kind: wire.StreamManifest})
	if err != nil {
		return onLink(err)
	}
	r := wire.NewReader(bufio.NewReaderSize(st, 64<<10), wire.MaxControlBody)
	var m wire.Manifest // kept: none is allocated anew
	way := newRoute(&ss.source.plan, at)
	step, ok := way.next()
	for ; ok; step, ok = way.next() {
		if at, err = ss.step(ctx, r, &m, step); err != nil {
			return err
		}
		way.at = at // holes may have gone further
	}
	return nil
}

// step reads what the target tells of one step of the plan.
func (ss *sourceSession) step(ctx context.Context, r *wire.Reader, m *wire.Manifest, step wire.Step) (at int64, err error) {
	for at = step.Run.First; at < step.Run.End(); {
		t, body, err := r.Next()
		if err != nil {
			return at, onLink(err)
		}
		ss.pulse.beat()
		switch t {
		case wire.TypeManifest:
			at, err = ss.manifest(ctx, m, body, at, step)
		case wire.TypeHoles:
			at, err = ss.targetHoles(ctx, body, at)
		default:
			err = wire.Errorf(wire.CodeFrame, "frame of type %d on the manifest stream", t)
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

func (ss *sourceSession) manifest(ctx context.Context, m *wire.Manifest, body []byte, at int64, step wire.Step) (int64, error) {
	if err := wire.Parse(m, body); err != nil {
		return at, err
	}
	if m.Batch != at || m.Grains != ss.grains(at) || m.Skip != wire.FullMask(m.Grains)&^step.Read {
		return at, wire.Errorf(wire.CodeFrame, "manifest of batch %d with %d grains, %b left out, where batch %d has to come", m.Batch, m.Grains, m.Skip, at)
	}
	t := ss.take()
	t.leaves = leaves{batch: at, n: m.Grains, zero: m.Zero, unread: m.Unread, skip: m.Skip, digests: m.Digests}
	t.sampled = step.Sampled
	return at + 1, ss.dispatch(ctx, t)
}

// targetHoles handles a run of batches that are holes at the target. What is a
// hole here too is settled without a look; the rest is read.
func (ss *sourceSession) targetHoles(ctx context.Context, body []byte, at int64) (int64, error) {
	var h wire.Holes
	if err := wire.Parse(&h, body); err != nil {
		return at, err
	}
	if h.Run.First != at || h.Run.End() >= ss.batches() || ss.full || ss.hinted() || at == 0 {
		return at, wire.Errorf(wire.CodeFrame, "holes of %d batches from %d where batch %d has to come", h.Run.Count, h.Run.First, at)
	}
	for at < h.Run.End() {
		if n := ss.holes.holeRun(ss.layout, at, h.Run.End()-at); n > 0 {
			r := wire.Run{First: at, Count: n}
			ss.recordHoles(r)
			ss.sayLater(r)
			at += n
			continue
		}
		t := ss.take()
		t.leaves, t.sampled = leaves{batch: at, n: cbt.BatchGrains, zero: wire.FullMask(cbt.BatchGrains), hole: wire.FullMask(cbt.BatchGrains)}, 0
		if err := ss.dispatch(ctx, t); err != nil {
			return at, err
		}
		at++
	}
	return at, nil
}

func (ss *sourceSession) dispatch(ctx context.Context, t *answer) error {
	if err := ss.window.Acquire(ctx, 1); err != nil {
		return err
	}
	return ss.push(ctx, item{target: t, batch: t.batch})
}

func (ss *sourceSession) push(ctx context.Context, it item) error {
	select {
	case <-ss.halted:
	default:
		select {
		case ss.work <- it:
			return nil
		case <-ss.halted:
		case <-ss.finished:
		case <-ctx.Done():
		}
	}
	select {
	case <-ss.finished:
		return wire.Errorf(wire.CodeFrame, "batch %d was settled while it was asked for", it.batch)
	case <-ctx.Done(): // the next link has it
		return ctx.Err()
	}
}

// sayLater queues the verdict "equal" for stage 3.
func (ss *sourceSession) sayLater(r wire.Run) {
	ss.sameMu.Lock()
	ss.same.Add(ss.extent(r))
	ss.sameMu.Unlock()
	ss.sameK.wake()
}

// sames is stage 3. Between two frames it rests for a moment, so that a fast
// comparison costs a frame per many batches.
func (ss *sourceSession) sames(ctx context.Context) error {
	var f wire.Same
	for {
		select {
		case <-ss.sameK:
		case <-ss.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		ss.sameMu.Lock()
		m := ss.same
		ss.same = cbt.Map{}
		ss.sameMu.Unlock()
		f.Runs = f.Runs[:0]
		for e := range m.All() {
			f.Runs = append(f.Runs, wire.Run{First: e.Off / cbt.BatchSize, Count: (e.Len + cbt.BatchSize - 1) / cbt.BatchSize})
			if len(f.Runs) == wire.MaxSameRuns {
				if err := ss.l.send(&f); err != nil {
					return err
				}
				f.Runs = f.Runs[:0]
			}
		}
		if len(f.Runs) > 0 {
			if err := ss.l.send(&f); err != nil {
				return err
			}
		}
		rest(ctx, frameRest)
	}
}

// frameRest is the least time between two coalesced control frames: at 2 GiB/s
// it gathers 4 batches in one frame, and adds nothing to be noticed at the end.
const frameRest = 2 * time.Millisecond

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// control is stage 4.
func (ss *sourceSession) control(ctx context.Context) error {
	var last wire.Ack
	for {
		t, body, err := ss.l.receive()
		if err != nil {
			return err
		}
		switch t {
		case wire.TypeAck:
			last, err = ss.ack(body, last)
		case wire.TypeRedo:
			err = ss.redo(ctx, body)
		case wire.TypePing:
			err = ss.pong(body)
		case wire.TypePace:
			err = ss.by.takePace(body)
		case wire.TypePath:
			err = ss.toDrain(ctx, body)
		case wire.TypeVerified:
			return ss.lastWord(body)
		default:
			err = wire.Errorf(wire.CodeFrame, "frame of type %d on the control stream", t)
		}
		if err != nil {
			return err
		}
	}
}

// pong answers the target's question whether this end is alive.
func (ss *sourceSession) pong(body []byte) error {
	var p wire.Ping
	if err := wire.Parse(&p, body); err != nil {
		return err
	}
	p.Reply = true
	return ss.l.send(&p)
}

// lastWord takes the target's verdict. Before every batch is settled there can
// be none.
func (ss *sourceSession) lastWord(body []byte) error {
	var v wire.Verified
	if err := wire.Parse(&v, body); err != nil {
		return err
	}
	select {
	case <-ss.finished:
	default:
		return wire.Errorf(wire.CodeFrame, "the target says Verified before everything is settled")
	}
	ss.verified <- v
	close(ss.over)
	return nil
}

// ack settles batches and makes room for bytes that are durable now.
func (ss *sourceSession) ack(body []byte, last wire.Ack) (wire.Ack, error) {
	var a wire.Ack
	if err := wire.Parse(&a, body); err != nil {
		return last, err
	}
	if a.Durable < last.Durable || a.Durable > a.Received || a.Received < last.Received || a.Settled < last.Settled {
		return last, wire.Errorf(wire.CodeFrame, "an ack takes back what one before said")
	}
	if a != last || a.Busy {
		ss.pulse.beat()
	}
	freed, err := ss.settle(max(a.Settled, ss.opened.Start))
	ss.prog.list.pass(ss.pulse)
	if err != nil {
		return last, err
	}
	if err := ss.release(a.Durable-last.Durable, freed); err != nil {
		return last, err
	}
	ss.prog.ack(&a)
	ss.settledK.wake()
	return a, nil
}

// release gives room back; a peer that acknowledges more than was sent must
// not make the semaphores panic.
func (ss *sourceSession) release(durable, freed int64) (err error) {
	defer func() {
		if recover() != nil {
			err = wire.Errorf(wire.CodeFrame, "an ack covers %d bytes more than were sent", durable)
		}
	}()
	ss.window.Release(freed)
	ss.inflight.Release(durable)
	return nil
}

func (ss *sourceSession) redo(ctx context.Context, body []byte) error {
	var r wire.Redo
	if err := wire.Parse(&r, body); err != nil {
		return err
	}
	if !ss.mayRedo(&r) {
		return wire.Errorf(wire.CodeFrame, "redo of grains %b of batch %d, which were not sent, or too often", r.Mask, r.Batch)
	}
	ss.prog.redone.Add(int64(r.Mask.Count()))
	ss.pulse.beat()
	// Not from this goroutine: the workers may wait for an Ack that it reads.
	ss.group.Go(func() error { return ss.push(ctx, item{redo: r.Mask, batch: r.Batch}) })
	return nil
}

// mayRedo counts the target's requests for a batch that was sent: one at a time,
// and no more than a target may make before it gives up itself.
func (ss *sourceSession) mayRedo(r *wire.Redo) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	a := ss.answers[r.Batch]
	if a == nil || a.parked || r.Mask&^a.diff != 0 || a.redo || a.redos >= maxRedo {
		return false
	}
	a.redo, a.redos = true, a.redos+1
	return true
}

// finish is stage 5.
func (ss *sourceSession) finish(ctx context.Context) error {
	for {
		f, ok, err := ss.done()
		if err != nil {
			return err
		}
		if ok {
			ss.prog.list.pass(ss.pulse) // the target waits for a moment only after its last word
			if err := ss.changed(); err != nil {
				return err
			}
			close(ss.finished)
			return ss.l.send(&f)
		}
		select {
		case <-ss.settledK:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errStalled is told to the peer and makes the session go on over a new link.
var errStalled = errors.New("no progress with work outstanding")

// pings tells the target that we live, when our disk or a limit is slow; and a
// target that was started anew answers a packet with something in it, not an
// empty one, with "I do not know you". It is not for watch to send: a write that
// waits for a network that takes nothing is what watch is there to end.
func (ss *sourceSession) pings(ctx context.Context) error {
	tick := time.NewTicker(ss.cfg.Stall/8 + 1)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if ss.pulse.quiet() > time.Second {
				if err := ss.l.send(&wire.Ping{Reply: true}); err != nil {
					return err
				}
			}
		case <-ss.over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch is the progress watchdog of the source. It catches what the idle
// time-out of the link does not: small packets pass and large ones do not
// (reliability N7).
func (ss *sourceSession) watch(ctx context.Context) error {
	tick := time.NewTicker(ss.cfg.Stall/8 + 1)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			slow := ss.pulse.slowest() >= time.Second
			if q := ss.pulse.quiet(); q > ss.cfg.Stall && !slow {
				return wire.Errorf(wire.CodeTimeout, "%w for %v", errStalled, q.Round(time.Second))
			}
		case <-ss.over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
