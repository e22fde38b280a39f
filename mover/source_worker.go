package mover

import (
	"context"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// worker is stage 2: it owns one block and one data stream.
type worker struct {
	*sourceSession
	rd   *reader
	pace *pacer
	dw   *wire.DataWriter
	pack *packer
	out  wire.Stream

	fresh leaves       // of a second read
	sum   *wire.Summer // of pieces
}

func (ss *sourceSession) worker(ctx context.Context, i uint8, b *block) error {
	binder, err := wire.NewBinder(ss.l.link, ss.pos)
	if err != nil {
		return onLink(err)
	}
	w := &worker{sourceSession: ss, pace: &pacer{ss.gate, ss.pulse, &ss.prog.times}, dw: wire.NewDataWriter(b.frame, binder)}
	w.pack = &packer{compressor: ss.compress, dw: w.dw}
	if w.out, err = ss.l.link.OpenSend(ctx, wire.StreamID{Kind: wire.StreamData, Index: i}); err != nil {
		return onLink(err)
	}
	w.out = &waited{w.out, &ss.sight.streams[i]}
	w.rd = &reader{
		layout: ss.layout, read: ss.disk.ReadAt, holes: ss.holes, hash: cbt.NewHasher(), buf: b.raw, pulse: ss.pulse, pace: w.pace, retry: readRetries,
	}
	if ss.refine != nil {
		w.sum = wire.NewSummer()
	}
	for {
		select {
		case it := <-ss.work:
			if err := w.do(ctx, it); err != nil {
				return err
			}
		case <-ss.finished:
			_ = w.out.CloseWrite() // the target knows from the control stream
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *worker) do(ctx context.Context, it item) error {
	switch {
	case it.parts != nil:
		return w.refined(ctx, it)
	case it.target == nil:
		return w.again(ctx, it)
	}
	own := w.take()
	err := w.rd.batch(ctx, it.batch, wire.FullMask(it.target.n)&^it.target.skip, &own.leaves)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.pulse.beat()
	own.skip, own.sampled = it.target.skip, it.target.sampled
	own.diff = own.differ(&it.target.leaves)
	if w.opened.Cold == coldServer {
		own.diff |= it.target.hole & own.zero &^ own.hole
	}
	own.theirs = it.target.unread & own.diff
	if err := w.unreadable(own, err); err != nil {
		return err
	}
	if lie := lied(own.sampled, own, &it.target.leaves); lie != 0 && w.cfg.bug != bugBelieveHint {
		return wire.Errorf(wire.CodeDistrust, "%d of the grains in %v differ though the hint calls them unchanged", lie.Count(), w.layout.batch(it.batch))
	}
	diff, bad, batch := own.diff, own.unread, own.batch
	ask := w.refinable(own, it.target)
	switch {
	case ask != 0:
		w.park(own, ask)
	case diff != 0 && w.mode == wire.ModeCopy:
		w.fill(own, diff, false, nil)
		fallthrough
	default:
		w.record(own) // own may be settled and reused from here on
	}
	w.mu.Lock()
	w.spare = append(w.spare, it.target)
	w.mu.Unlock()
	switch {
	case ask != 0:
		return nil
	case diff == 0:
		w.sayLater(wire.Run{First: batch, Count: 1})
		return nil
	case w.mode == wire.ModeVerify:
		return w.l.send(&wire.Diff{Batch: batch, Mask: diff, Unread: bad & diff})
	}
	return w.write(ctx)
}

// unreadable decides whether a disk with unreadable grains is worth going on
// with: everything else is still brought home, but a disk that is gone is not
// copied as a long list of errors.
func (w *worker) unreadable(a *answer, err error) error {
	if err == nil {
		return nil
	}
	if err := w.changed(); err != nil { // it was cut off under us: that is no bad sector
		return err
	}
	if retryable(err) {
		return diskError(wire.CodeRead, "source", "read", w.layout.batch(a.batch), err)
	}
	if n := w.unread.Add(int64(a.unread.Count())); n > maxBadGrains {
		return diskError(wire.CodeRead, "source", "read", w.layout.batch(a.batch), err)
	}
	w.cfg.Log.Warn("source grains cannot be read", "run", w.passSpec.run, "extent", w.layout.batch(a.batch), "grains", a.unread.Count(), "err", err)
	return nil
}

// changed asks the source whether it is still what was opened.
func (s *source) changed() error {
	if c, ok := s.disk.(Checker); ok {
		if err := c.Check(); err != nil {
			return diskError(wire.CodeDiskChanged, "source", "check", cbt.Extent{}, err)
		}
	}
	return nil
}

// fill builds the Data frame for the grains in mask of a: of those in parts, which
// may be nil, only the pieces that differ. It returns the bytes that this saves.
func (w *worker) fill(a *answer, mask wire.Mask, redo bool, parts *wire.Parts) (saved int64) {
	w.dw.Reset(a.batch, redo)
	for g := 0; g < a.n; g++ {
		if !mask.Has(g) {
			continue
		}
		kind, enc := w.empty(a, g)
		if enc == 0 {
			saved += w.add(a, g, parts)
			continue
		}
		lo := g
		for g+1 < a.n && (mask & kind).Has(g+1) {
			g++
		}
		w.dw.AddEmpty(w.span(a.batch, lo, g+1), enc)
	}
	w.pack.end()
	return saved
}

// empty says which encoding without payload grain g needs, and which other
// grains need the same; 0 when it has bytes to send.
func (w *worker) empty(a *answer, g int) (wire.Mask, wire.Encoding) {
	switch {
	case a.unread.Has(g):
		return a.unread, wire.EncBad
	case a.hole.Has(g):
		return a.hole, wire.EncHole
	case a.zero.Has(g):
		return a.zero &^ a.hole, wire.EncZero
	}
	return 0, 0
}

// write sends the frame that fill built.
func (w *worker) write(ctx context.Context) error {
	raw := w.dw.Raw()
	if err := w.inflight.Acquire(ctx, raw); err != nil {
		return err
	}
	f := w.dw.Frame()
	began := time.Now()
	if err := w.paced(ctx, f); err != nil {
		return err
	}
	w.compress.wrote(time.Since(began), raw, int64(len(f)))
	w.prog.sent.Add(raw)
	w.prog.wired.Add(int64(len(f)))
	w.pulse.beat()
	return nil
}

// pacedPiece is what is written at once while a rate limits the wire: at the
// lowest rate, one second of it.
const pacedPiece = cbt.GrainSize

// paced writes f, in one call unless limits let it go in pieces only.
func (w *worker) paced(ctx context.Context, f []byte) error {
	for !w.pace.gate.Open() && len(f) > 0 {
		n := min(len(f), pacedPiece)
		if err := w.pace.wire(ctx, int64(n)); err != nil {
			return err
		}
		if _, err := w.out.Write(f[:n]); err != nil {
			return onLink(err)
		}
		f = f[n:]
	}
	if len(f) == 0 {
		return nil
	}
	_, err := w.out.Write(f)
	return onLink(err)
}

// again sends grains once more that read back wrong at the target. The source
// may have changed since; what it says now counts.
func (w *worker) again(ctx context.Context, it item) error {
	if err := w.rd.batch(ctx, it.batch, it.redo, &w.fresh); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return diskError(wire.CodeRead, "source", "read again", w.layout.batch(it.batch), err)
	}
	w.mu.Lock()
	a := w.answers[it.batch]
	if a == nil {
		w.mu.Unlock()
		return wire.Errorf(wire.CodeFrame, "redo of batch %d, which is settled", it.batch)
	}
	w.renewLocked(a, it.redo)
	a.redo = false
	w.fill(a, it.redo, true, nil)
	w.mu.Unlock()
	return w.write(ctx)
}
