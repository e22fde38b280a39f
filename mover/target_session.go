package mover

import (
	"bufio"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/haulback/haulback/wire"
)

// The target's pipeline on one link, in the order in which a batch takes it:
//
//	1 plan      one goroutine: batches in disk order, all of them with holes as
//	            runs, or those that the source names; waits for room in the
//	            window of unsettled batches
//	2 read      readDepth goroutines: read past the cache, hash
//	3 tell      one goroutine: manifests in order to the source
//	4 receive   one goroutine per data stream: parse, expand, check
//	5 write     writeDepth goroutines
//	6 flush     one goroutine: the checkpoint (disk, journal, ack: in this order)
//	7 verify    verifyDepth goroutines: read back what was written, settle or
//	            ask again
//
// refine_target.go answers questions for pieces beside them.
// control takes verdicts and the end, acks tells the source, watch gives up,
// tellPace tells the limits of a job that began here.
type targetSession struct {
	*target
	hinted  bool      // the source says what is read
	refine  bool      // it may ask for pieces
	planned wire.Plan // of stage 1, kept
	l       *lane
	group   *errgroup.Group
	pos     wire.Position
	pulse   *pulse
	pace    *pacer
	mem     *share
	holes   *holes
	start   int64

	room     int64 // batches that window holds
	window   *semaphore.Weighted
	finished chan struct{}

	jobs, order, free chan *job
	arrived, spare    chan *arrival // stages 4 and 5

	flushK, verifyK, ackK kick
	heard                 kick         // a frame came on the control stream
	holding               atomic.Int32 // data streams that are not read: because of a limit, or of the frame before

	doneMu    sync.Mutex
	returned  []*tbatch // written, not flushed
	unflushed int64     // bytes of it
	since     time.Time // of the first of it
	flushed   []*tbatch // to be read back
	proving   int       // flushed and not read back yet, those in work included
	received  int64     // bytes of Data on this link
	durable   int64     // of it

	last *wire.Verified // what finish said
}

// job is one batch on its way through stages 1 to 3, or a run of holes.
type job struct {
	leaves
	want, sampled wire.Mask // grains to read
	holes         wire.Run
	ready         chan error // 1: stage 2 leaves its result there
}

func newTargetSession(t *target, l *lane, window uint32, tag [16]byte) *targetSession {
	n := max(4*t.cfg.Workers, 2*readDepth) // jobs in stages 1 to 3: enough that readers seldom wait for the order
	t.maxClaimed = int(min(window, 1<<16))
	ts := &targetSession{
		target: t, l: l, pos: wire.Position{Tag: tag, Pass: t.pass, Epoch: t.epoch}, pulse: newPulse(),
		holes: newHoles(t.disk, t.full || t.suspect || t.hearsay() && t.mode == wire.ModeVerify), start: t.settled,
		room:     int64(min(uint32(t.cfg.Batches), window)),
		finished: make(chan struct{}), jobs: make(chan *job, n), order: make(chan *job, n), free: make(chan *job, n),
		flushK: newKick(), verifyK: newKick(), ackK: newKick(), heard: newKick(),
	}
	ts.window = semaphore.NewWeighted(ts.room)
	ts.pace = &pacer{t.gate, ts.pulse, &t.prog.times}
	for range n {
		ts.free <- &job{ready: make(chan error, 1)}
	}
	return ts
}

func (ts *targetSession) run(ctx context.Context, streams int) error {
	parent := ctx
	g, ctx := errgroup.WithContext(ctx)
	ts.group = g
	ts.l.endWith(ctx, parent)
	if ts.hinted {
		g.Go(func() error { return ts.l.why(ctx, ts.hintedPlan(ctx)) })
	} else {
		g.Go(func() error { return ts.plan(ctx) })
	}
	readers, writers, verifiers := ts.depth()
	for range readers {
		g.Go(func() error { return ts.readStage(ctx) })
	}
	g.Go(func() error { return ts.l.why(ctx, ts.tellStage(ctx)) })
	ts.arrivals(streams + writers)
	for i := range streams {
		g.Go(func() error { return ts.l.why(ctx, ts.receive(ctx, uint8(i), ts.mem.frames[i])) })
	}
	for range writers {
		g.Go(func() error { return ts.writeStage(ctx) })
	}
	g.Go(func() error { return ts.flushStage(ctx) })
	for range verifiers {
		g.Go(func() error { return ts.verifyStage(ctx) })
	}
	if ts.refine && ts.start < ts.batches() {
		g.Go(func() error { return ts.l.why(ctx, ts.refineStage(ctx)) })
	}
	g.Go(func() error { return ts.control(ctx) })
	g.Go(func() error { return ts.acks(ctx) })
	g.Go(func() error { return ts.watch(ctx) })
	if ts.by.tells {
		g.Go(func() error { return ts.by.tellPace(ctx, ts.l, ts.finished) })
	}
	err := g.Wait()
	ts.unwritten()
	if ts.last != nil {
		return nil // the last word is out: how the link ends after that changes nothing
	}
	return err
}

// plan is stage 1.
func (ts *targetSession) plan(ctx context.Context) error {
	for at := ts.start; at < ts.batches(); {
		if n := ts.holes.holeRun(ts.layout, at, ts.batches()-at); n > 0 {
			j, err := ts.freeJob(ctx)
			if err != nil {
				return err
			}
			j.holes = wire.Run{First: at, Count: n}
			j.ready <- nil
			ts.order <- j
			at += n
			continue
		}
		if err := ts.enqueue(ctx, at, wire.FullMask(ts.grains(at)), 0); err != nil {
			return err
		}
		at++
	}
	close(ts.order)
	close(ts.jobs)
	return nil
}

func (ts *targetSession) freeJob(ctx context.Context) (*job, error) {
	select {
	case j := <-ts.free:
		return j, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// enqueue hands batch at to stages 2 and 3.
func (ts *targetSession) enqueue(ctx context.Context, at int64, want, sampled wire.Mask) error {
	j, err := ts.freeJob(ctx)
	if err != nil {
		return err
	}
	if err := ts.window.Acquire(ctx, 1); err != nil {
		return err
	}
	j.holes, j.batch, j.want, j.sampled = wire.Run{}, at, want, sampled
	ts.order <- j // has room: there are no more jobs than that
	ts.jobs <- j
	return nil
}

// readStage is stage 2. A grain that cannot be read is told as such: it counts
// as different, and writing it may well mend it.
func (ts *targetSession) readStage(ctx context.Context) error {
	rd := ts.reader()
	rd.drop = true
	if ts.cfg.bug == bugWarmRead {
		rd.read = ts.disk.ReadAt
	}
	if !ts.hearsay() { // else the source cannot ask back for parts of a batch
		rd.holes = ts.holes
	}
	for {
		select {
		case j, ok := <-ts.jobs:
			if !ok {
				return nil
			}
			bad, err := ts.readBatch(ctx, rd, j.batch, j.want, &j.leaves)
			if err != nil {
				return err
			}
			j.skip = wire.FullMask(j.n) &^ j.want
			if retryable(bad) {
				return ts.failed(diskError(wire.CodeRead, "target", "read", ts.batch(j.batch), bad))
			}
			if bad != nil && ts.mode == wire.ModeVerify {
				ts.cfg.Log.Warn("target grains cannot be read", "run", ts.passSpec.run, "extent", ts.batch(j.batch), "err", bad)
			}
			j.ready <- nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellStage is stage 3.
func (ts *targetSession) tellStage(ctx context.Context) error {
	if ts.start == ts.batches() {
		return nil
	}
	st, err := ts.l.link.OpenSend(ctx, wire.StreamID{Kind: wire.StreamManifest})
	if err != nil {
		return onLink(err)
	}
	w := bufio.NewWriterSize(st, 32<<10)
	var out tellFrames
	for {
		var j *job
		select {
		case j = <-ts.order:
		default: // nothing to come at once: what there is goes out now
			if err := w.Flush(); err != nil {
				return onLink(err)
			}
			select {
			case j = <-ts.order:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if j == nil {
			return onLink(w.Flush())
		}
		if err := ts.tellJob(ctx, j, w, &out); err != nil {
			return err
		}
		ts.free <- j
	}
}

// tellFrames are the frames of stage 3, kept so that none is allocated anew.
type tellFrames struct {
	manifest wire.Manifest
	holes    wire.Holes
	bytes    []byte
}

func (ts *targetSession) tellJob(ctx context.Context, j *job, w *bufio.Writer, out *tellFrames) error {
	if len(j.ready) == 0 {
		if err := w.Flush(); err != nil {
			return onLink(err)
		}
	}
	select {
	case err := <-j.ready:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.holes.Count > 0 {
		ts.tellHoles(j.holes)
		out.holes.Run = j.holes
		out.bytes = wire.AppendFrame(out.bytes[:0], &out.holes)
	} else {
		ts.target.tell(&j.leaves, j.sampled)
		out.manifest = wire.Manifest{Batch: j.batch, Grains: j.n, Zero: j.zero, Unread: j.unread, Skip: j.skip, Digests: j.digests}
		out.bytes = wire.AppendFrame(out.bytes[:0], &out.manifest)
	}
	_, err := w.Write(out.bytes)
	return onLink(err)
}

// control takes the source's verdicts and its Finish.
func (ts *targetSession) control(ctx context.Context) error {
	var same wire.Same
	for {
		t, body, err := ts.l.receive()
		if err != nil {
			return err
		}
		ts.pulse.beat()
		ts.heard.wake()
		switch t {
		case wire.TypeSame:
			if err = wire.Parse(&same, body); err != nil {
				return err
			}
			for _, r := range same.Runs {
				if err := ts.same(r); err != nil {
					return err
				}
			}
		case wire.TypeDiff:
			var d wire.Diff
			if err = wire.Parse(&d, body); err == nil {
				if err = ts.mayDiff(); err == nil {
					err = ts.differ(&d)
				}
			}
		case wire.TypePing: // the beat above is what was asked for
			err = wire.Parse(new(wire.Ping), body)
		case wire.TypePace:
			err = ts.by.takePace(body)
		case wire.TypePath:
			err = ts.hears(ctx, body)
		case wire.TypeFinish:
			var f wire.Finish
			if err := wire.Parse(&f, body); err != nil {
				return err
			}
			return ts.finish(&f)
		default:
			err = wire.Errorf(wire.CodeFrame, "frame of type %d on the control stream", t)
		}
		if err != nil {
			return err
		}
		ts.moved()
	}
}

func (ts *targetSession) mayDiff() error {
	if ts.mode != wire.ModeVerify {
		return wire.Errorf(wire.CodeFrame, "a Diff in a session that copies")
	}
	return nil
}

// moved passes on that something was settled or got its verdict.
func (ts *targetSession) moved() {
	freed := ts.advance()
	ts.prog.list.pass(ts.pulse)
	if freed > 0 {
		ts.window.Release(freed)
	}
	ts.ackK.wake()
	ts.flushK.wake()
}

// acks tells the source what is true here, when it changed and as a sign of
// life.
func (ts *targetSession) acks(ctx context.Context) error {
	tick := time.NewTicker(ts.cfg.Stall/6 + 1)
	defer tick.Stop()
	for {
		select {
		case <-ts.ackK:
		case <-tick.C:
		case <-ts.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		a := ts.ack()
		if err := ts.l.send(&a); err != nil {
			return err
		}
		rest(ctx, frameRest)
	}
}

func (ts *targetSession) ack() wire.Ack {
	ts.mu.Lock()
	a := wire.Ack{Settled: ts.settled, Verified: ts.verified, ReadBack: ts.backed}
	ts.mu.Unlock()
	ts.doneMu.Lock()
	a.Received, a.Durable = ts.received, ts.durable
	ts.doneMu.Unlock()
	a.Busy = ts.pulse.slowest() > 2*time.Second
	return a
}

// alive asks the source for a sign of life and waits a moment for one.
func (ts *targetSession) alive(ctx context.Context) bool {
	select { // one from before does not count
	case <-ts.heard:
	default:
	}
	sent := make(chan error, 1) // 1: a stuck link must not keep the sender
	go func() { sent <- ts.l.send(&wire.Ping{Seq: 1}) }()
	t := time.NewTimer(aliveWait)
	defer t.Stop()
	select {
	case <-ts.heard:
		return true
	case <-t.C:
		// Data that this end does not take fill the window of the connection, and
		// the answer waits behind them. A dead one's link ends by itself, later.
		return ts.holding.Load() > 0
	case <-ts.l.link.Done():
	case <-ctx.Done():
	}
	return false
}

// aliveWait is how long a source may take to answer a Ping: more than any round
// trip, less than an operator who has started a killed copy again likes to wait.
const aliveWait = 3 * time.Second

// watch ends a session whose source leaves it waiting for twice the stall
// time: the source's own watchdog comes first, this one is for a source that
// does not play by the rules.
func (ts *targetSession) watch(ctx context.Context) error {
	tick := time.NewTicker(ts.cfg.Stall/4 + 1)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if q := ts.pulse.quiet(); q > 2*ts.cfg.Stall && ts.pulse.slowest() < time.Second {
				return wire.Errorf(wire.CodeTimeout, "%w for %v", errStalled, q.Round(time.Second))
			}
		case <-ts.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish proves the end: everything durable, nothing open, both roots equal.
func (ts *targetSession) finish(f *wire.Finish) error {
	defer close(ts.finished)
	ts.mu.Lock()
	settled, matched, bad := ts.settled, ts.matched, ts.bad
	skipped, sampled := ts.skippedN, ts.sampledN
	ts.mu.Unlock()
	if settled != ts.batches() {
		return wire.Errorf(wire.CodeFrame, "finish at batch %d of %d", settled, ts.batches())
	}
	call := ts.pulse.enter()
	err := ts.flush()
	if err == nil {
		err = ts.end()
	}
	ts.pulse.leave(call)
	if err != nil {
		return ts.failed(err)
	}
	root, err := ts.root.Sum()
	if err != nil {
		return err
	}
	v := wire.Verified{State: wire.StateInconsistent, Epoch: ts.epoch, Root: root, Compared: matched, ReadBack: ts.readBack, Lost: ts.lost, Skipped: skipped, Sampled: sampled}
	switch {
	case ts.size > 0 && matched == 0:
		return wire.Errorf(wire.CodeVerify, "nothing of a disk of %d bytes was compared", ts.size)
	case bad > 0 || f.Bad > 0: // the Report of the source has the list
	case root != f.Root:
		return wire.Errorf(wire.CodeVerify, "manifest roots differ: source %v, target %v", f.Root, root)
	case ts.mode == wire.ModeVerify:
		v.State = wire.StateCopied
	default:
		ts.journalMu.Lock()
		err := ts.journal.verified(root, skipped, sampled)
		ts.journalMu.Unlock()
		if err != nil {
			return ts.failed(err)
		}
		v.State = wire.StateVerified
	}
	if err := ts.l.send(&v); err != nil {
		return err
	}
	ts.last = &v
	// The source ends its data streams now. One that does not gets no more time
	// than for any other answer: the disk is done.
	time.AfterFunc(firstFrame, func() { ts.l.link.CloseWithError(wire.CodeOK, "done") })
	return nil
}

// lastCheckpoint makes durable what has returned, before the daemon stops.
func (ts *targetSession) lastCheckpoint() error {
	ts.doneMu.Lock()
	none := len(ts.returned) == 0
	ts.doneMu.Unlock()
	if none || ts.broken() != nil || ts.mode != wire.ModeCopy {
		return nil
	}
	return ts.checkpoint()
}
