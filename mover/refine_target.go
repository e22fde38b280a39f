package mover

import (
	"bufio"
	"context"
	"io"
	"sync/atomic"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// refiners is how many goroutines of a session answer questions for pieces. A
// question reads 64 KiB here and there: one of them at a time is a fifth of what
// a disk can do (facts: performance 1.1).
const refiners = 4

// Sectored is the optional ability to say in which unit a disk writes. Without it
// that is taken to be 4 KiB at most.
type Sectored interface {
	// Sector is the length of the disk's logical sectors in bytes.
	Sector() int64
}

// refines reports whether pieces can be told, and written without a
// read-modify-write in the disk.
func (t *target) refines() bool {
	s, ok := t.disk.(Sectored)
	return t.mode == wire.ModeCopy && (!ok || s.Sector() <= wire.PartSize)
}

// questions is the refine stream and the parts stream of one session.
type questions struct {
	turnIn  chan struct{} // 1: who reads; that may wait for the network
	in      *wire.Reader
	turnOut chan struct{} // 1: who writes
	out     wire.Stream
	left    atomic.Int32 // refiners that are not done
}

// refineStage answers the source's questions, until it ends its stream, in
// goroutines of the session's group: if one fails the link has to end, or the
// others go on waiting for it.
func (ts *targetSession) refineStage(ctx context.Context) error {
	in, err := ts.l.link.OpenReceive(ctx, wire.StreamID{Kind: wire.StreamRefine})
	if err != nil {
		return onLink(err)
	}
	out, err := ts.l.link.OpenSend(ctx, wire.StreamID{Kind: wire.StreamParts})
	if err != nil {
		return onLink(err)
	}
	q := &questions{
		turnIn: make(chan struct{}, 1), in: wire.NewReader(bufio.NewReaderSize(in, 4<<10), 64),
		turnOut: make(chan struct{}, 1), out: out,
	}
	q.left.Store(refiners)
	for range refiners {
		r := &refiner{targetSession: ts, q: q, rd: ts.reader(), sums: wire.NewSummer()}
		ts.group.Go(func() error { return ts.l.why(ctx, r.run(ctx)) })
	}
	return nil
}

// refiner is one of those who answer.
type refiner struct {
	*targetSession
	q    *questions
	rd   *reader // its buffer is borrowed for each question
	sums *wire.Summer
	ask  wire.Refine
	told wire.Parts
	out  []byte
}

func (r *refiner) run(ctx context.Context) error {
	for {
		if err := r.next(); err != nil {
			if err != io.EOF {
				return onLink(err)
			}
			if r.q.left.Add(-1) == 0 {
				_ = r.q.out.CloseWrite() // the source knows from the control stream
			}
			return nil
		}
		r.pulse.beat()
		if err := r.asked(&r.ask); err != nil {
			return err
		}
		if err := r.look(ctx); err != nil {
			return err
		}
		if err := r.tell(); err != nil {
			return onLink(err)
		}
	}
}

// next reads a question.
func (r *refiner) next() error {
	r.q.turnIn <- struct{}{}
	defer func() { <-r.q.turnIn }()
	return r.q.in.Expect(&r.ask)
}

// tell writes the answer.
func (r *refiner) tell() error {
	r.toldParts(&r.told)
	r.out = wire.AppendFrame(r.out[:0], &r.told)
	r.q.turnOut <- struct{}{}
	defer func() { <-r.q.turnOut }()
	_, err := r.q.out.Write(r.out)
	return err
}

// look reads the grains of the question, past the cache, and sums their pieces.
// What cannot be read is left out: then it comes whole.
func (r *refiner) look(ctx context.Context) (err error) {
	r.told.Batch, r.told.Mask = r.ask.Batch, 0
	calls := r.ask.Mask
	if r.rd.far {
		calls |= bridge(calls)
	}
	if err := r.pace.read(ctx, r.maskBytes(r.ask.Batch, calls)); err != nil {
		return err
	}
	if r.rd.buf, err = r.mem.borrow(ctx); err != nil {
		return err
	}
	defer r.mem.giveBack(r.rd.buf)
	for lo, hi := range spans(calls) {
		e := r.span(r.ask.Batch, lo, hi)
		try := func() error { return r.rd.into(e) }
		err := r.pulse.insist(ctx.Done(), try(), try)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if retryable(err) {
			return r.failed(diskError(wire.CodeRead, "target", "read again", e, err))
		}
		for g := lo; g < hi && err == nil; g++ {
			if r.ask.Mask.Has(g) {
				r.sum(g, r.rd.at(r.grain(r.ask.Batch, g)))
			}
		}
	}
	return nil
}

// sum puts the sums of grain g, which is p, into the answer.
func (r *refiner) sum(g int, p []byte) {
	r.sums.Sum(p, &r.told.Sums[g])
	r.told.Mask |= 1 << g
}

// asked takes a question of the source's: once for each batch that was told with
// digests and has no verdict. So what a source can ask for is bounded by what it
// was told, and all in all by one more read of the disk.
func (t *target) asked(q *wire.Refine) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.pending[q.Batch]
	switch {
	case b == nil || b.stage != stageTold || b.asked:
		return wire.Errorf(wire.CodeFrame, "pieces of batch %d asked for, which was not told, has its verdict, or was asked for before", q.Batch)
	case q.Mask&^(wire.FullMask(b.n)&^(b.zero|b.unread|b.skip)) != 0:
		return wire.Errorf(wire.CodeFrame, "pieces of grains %b of batch %d asked for, not all of which have a digest", q.Mask, q.Batch)
	}
	b.asked, b.looking = true, true
	return nil
}

// toldParts notes what the source is told.
func (t *target) toldParts(p *wire.Parts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.pending[p.Batch] // nobody gives it a verdict while looking
	b.looking, b.parts = false, p.Mask
}

// mayPart refuses part records of d for grains whose pieces were not told.
func (b *tbatch) mayPart(d *wire.Data) error {
	for i := range d.Records {
		r := &d.Records[i]
		if g := int(r.Extent.Off%cbt.BatchSize) / cbt.GrainSize; r.Parts != 0 && (d.Redo || !b.parts.Has(g)) {
			return wire.Errorf(wire.CodeFrame, "pieces of %v, which the source was not told", r.Extent)
		}
	}
	return nil
}

// expandParts brings the pieces of rec to their places in the buffer.
func (r *receiver) expandParts(a *arrival, rec *wire.Record) error {
	err := rec.ExpandParts(a.at(rec.Extent), r.binder)
	if e, ok := err.(*wire.Error); ok && e.Code == wire.CodeDigest && r.cfg.bug == bugNoPartCheck {
		return nil
	}
	return err
}

// writeParts writes the pieces of rec, neighbours in one call.
func (w *writer) writeParts(ctx context.Context, a *arrival, rec *wire.Record) error {
	w.prog.refined.Add(rec.Extent.Len - rec.Bytes())
	for lo, hi := range spans(rec.Parts) {
		e := partsOf(rec.Extent, lo, hi)
		if w.cfg.bug == bugPartElsewhere && e.End() < rec.Extent.End() {
			copy(a.at(cbt.Extent{Off: e.Off + wire.PartSize, Len: e.Len})[:e.Len], a.at(e))
			e.Off += wire.PartSize
		}
		if err := w.writeAt(ctx, a, e); err != nil {
			return err
		}
	}
	return nil
}
