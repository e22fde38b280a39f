package mover

import (
	"bufio"
	"context"
	"sync"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// Refinement, at the source. A write of 4 KiB makes a grain of 64 KiB differ. Where
// the wire is what a copy waits for, the source does not send such grains at once:
//
//	2 work   the batch is recorded and parked, a question goes to the asker; the
//	         worker takes the next item
//	  asker  one goroutine: questions, many in one write
//	  parts  one goroutine: each answer makes an item again
//	2 work   reads the grains once more, compares pieces, sends those that differ
//
// Nobody waits for an answer. A parked batch keeps its place in the window of
// unsettled batches, which so bounds questions, answers and memory; the asker
// takes from the workers without ever making them wait, because an answer may
// wait for a worker. What the second read finds counts, as with a redo: the
// source may have changed.

// maxParts is the most pieces of a grain that are sent one by one. Beyond it the
// writes and the digests cost more than the rest of the grain.
const maxParts = 12

// offers reports whether the source may ask for pieces on l. Between two halves
// in one process there is no wire to spare.
func (s *source) offers(l *lane) bool {
	return s.mode == wire.ModeCopy && (s.cfg.Refine == On || s.cfg.Refine == Auto && l.link.Transport() != "pipe")
}

// refinement is what a session at the source needs for it.
type refinement struct {
	policy
	askMu sync.Mutex
	asks  []wire.Refine // not written yet, at most as many as the window has batches
	askK  kick
	free  chan *wire.Parts // answers that nobody works on
}

func newRefinement(cfg *Config, c *compressor) *refinement {
	r := &refinement{policy: policy{refine: cfg.Refine, bound: &c.bound}, askK: newKick(), free: make(chan *wire.Parts, cfg.Workers+1)}
	for range cap(r.free) { // one for each worker, one for who reads them
		r.free <- new(wire.Parts)
	}
	return r
}

// refinable is the grains of own whose pieces are worth a question: both sides
// have bytes that are no zeros.
func (w *worker) refinable(own, theirs *answer) wire.Mask {
	if w.refine == nil || own.diff == 0 {
		return 0
	}
	m := own.diff &^ (own.zero | own.unread | theirs.zero | theirs.unread)
	if last := own.n - 1; w.grain(own.batch, last).Len <= wire.PartSize {
		m &^= 1 << last
	}
	if m == 0 || !w.refine.now() {
		return 0
	}
	return m
}

// park records own without its verdict and asks for the pieces of the grains in
// mask. From here on the batch belongs to who gets the answer.
func (w *worker) park(own *answer, mask wire.Mask) {
	own.parked, own.asked = true, mask
	q := wire.Refine{Batch: own.batch, Mask: mask}
	w.record(own)
	w.refine.askMu.Lock()
	w.refine.asks = append(w.refine.asks, q)
	w.refine.askMu.Unlock()
	w.refine.askK.wake()
}

// askParts is the asker. It ends the stream when all is settled.
func (ss *sourceSession) askParts(ctx context.Context) error {
	st, err := ss.l.link.OpenSend(ctx, wire.StreamID{Kind: wire.StreamRefine})
	if err != nil {
		return onLink(err)
	}
	var asks []wire.Refine
	var out []byte
	for {
		select {
		case <-ss.refine.askK:
		case <-ss.finished:
			_ = st.CloseWrite() // like the data streams: the target knows from the control stream
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		ss.refine.askMu.Lock()
		asks, ss.refine.asks = ss.refine.asks, asks[:0]
		ss.refine.askMu.Unlock()
		out = out[:0]
		for i := range asks {
			out = wire.AppendFrame(out, &asks[i])
		}
		if _, err := st.Write(out); err != nil {
			return onLink(err)
		}
		rest(ctx, frameRest)
	}
}

// takeParts makes items of the target's answers.
func (ss *sourceSession) takeParts(ctx context.Context) error {
	st, err := ss.l.link.OpenReceive(ctx, wire.StreamID{Kind: wire.StreamParts})
	if err != nil {
		return onLink(err)
	}
	defer beside(func(stopped <-chan struct{}) { // a target that does not end its stream must not keep this one here
		select {
		case <-ss.over:
			_ = st.SetReadDeadline(longAgo)
		case <-stopped:
		}
	})()
	in := wire.NewReader(bufio.NewReaderSize(st, 64<<10), wire.MaxControlBody)
	for {
		t, body, err := in.Next()
		if err != nil {
			select {
			case <-ss.finished: // nothing can come any more
				return nil
			default:
				return onLink(err)
			}
		}
		if t != wire.TypeParts {
			return wire.Errorf(wire.CodeFrame, "frame of type %d on the parts stream", t)
		}
		var p *wire.Parts
		select {
		case p = <-ss.refine.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := wire.Parse(p, body); err != nil {
			return err
		}
		if err := ss.answered(p); err != nil {
			return err
		}
		ss.pulse.beat()
		if err := ss.push(ctx, item{parts: p, batch: p.Batch}); err != nil {
			return err
		}
	}
}

// answered checks that p is what was asked for, and was not told before.
func (s *source) answered(p *wire.Parts) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.answers[p.Batch]
	if a == nil || a.asked == 0 || p.Mask&^a.asked != 0 {
		return wire.Errorf(wire.CodeFrame, "pieces of grains %b of batch %d, which were not asked for", p.Mask, p.Batch)
	}
	a.asked = 0
	return nil
}

// refined gives a parked batch its verdict.
func (w *worker) refined(ctx context.Context, it item) error {
	w.mu.Lock()
	a := w.answers[it.batch] // parked: it stays, and is this worker's
	w.mu.Unlock()
	want := a.diff &^ (a.zero | a.unread)
	err := w.rd.batch(ctx, a.batch, want, &w.fresh)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.pulse.beat()
	if err != nil {
		if err := w.unreadable(&answer{leaves: w.fresh}, err); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.renewLocked(a, want)
	w.mu.Unlock()
	saved := w.fill(a, a.diff, false, it.parts)
	w.refine.free <- it.parts
	w.refine.saw(w.dw.Raw(), saved)
	w.prog.refined.Add(saved)
	w.mu.Lock()
	a.parked = false // it may be settled and reused from here on
	w.mu.Unlock()
	return w.write(ctx)
}

// renewLocked takes over what a second read has found in the grains of mask.
func (w *worker) renewLocked(a *answer, mask wire.Mask) {
	w.countLocked(a, -1)
	a.zero = a.zero&^mask | w.fresh.zero
	a.hole = a.hole&^mask | w.fresh.hole
	a.unread = a.unread&^mask | w.fresh.unread
	for g := range a.n {
		if mask.Has(g) && w.cfg.bug != bugStaleAnswer {
			a.digests[g] = w.fresh.digests[g]
		}
	}
	w.countLocked(a, 1)
}

// add appends grain g of a to the frame: the pieces that differ from those in
// parts, or all of it. It returns the bytes that this has saved.
func (w *worker) add(a *answer, g int, parts *wire.Parts) (saved int64) {
	e := w.grain(a.batch, g)
	p := w.rd.at(e)
	if parts == nil || !parts.Mask.Has(g) {
		w.pack.add(e.Off, p, &a.digests[g])
		return 0
	}
	m := w.pieces(p, &parts.Sums[g])
	if m == wire.PartsOf(e.Len) || m.Count() > maxParts {
		w.pack.add(e.Off, p, &a.digests[g])
		return 0
	}
	w.pack.addParts(e, p, m, &a.digests[g])
	return e.Len - wire.PartBytes(e.Len, m)
}

// pieces is where grain p differs from one with sums. That nothing differs any
// more, because the source has changed meanwhile, is not for sums to say: one
// piece goes over, and the target's read-back proves the grain.
func (w *worker) pieces(p []byte, sums *[wire.GrainParts]wire.PartSum) (m wire.Mask) {
	var own [wire.GrainParts]wire.PartSum
	w.sum.Sum(p, &own)
	for i := range own {
		if i*wire.PartSize < len(p) && own[i] != sums[i] {
			m |= 1 << i
		}
	}
	return max(m, 1)
}

// partsOf is the pieces of e that run from lo to hi.
func partsOf(e cbt.Extent, lo, hi int) cbt.Extent {
	from := int64(lo) * wire.PartSize
	return cbt.Extent{Off: e.Off + from, Len: min(int64(hi)*wire.PartSize, e.Len) - from}
}
