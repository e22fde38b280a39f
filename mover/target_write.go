package mover

import (
	"context"
	"io"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// receiver is stage 4: it owns one block and one data stream.
type receiver struct {
	*targetSession
	disk   WritableDisk
	binder *wire.Binder
	hash   *cbt.Hasher
	buf    []byte // the batch as it will lie on the disk; borrowed for each
	data   wire.Data
}

func (ts *targetSession) receive(ctx context.Context, i uint8, frame []byte) error {
	st, err := ts.l.link.OpenReceive(ctx, wire.StreamID{Kind: wire.StreamData, Index: i})
	if err != nil {
		return onLink(err)
	}
	binder, err := wire.NewBinder(ts.l.link, ts.pos)
	if err != nil {
		return onLink(err)
	}
	r := &receiver{targetSession: ts, binder: binder, hash: cbt.NewHasher()}
	r.disk, _ = ts.target.disk.(WritableDisk)
	r.data.Records = make([]wire.Record, 0, cbt.BatchGrains)
	in := wire.NewReaderBuffer(st, frame)
	for {
		t, body, err := in.Next()
		if err == io.EOF {
			return nil // no more from here; the control stream says whether that is in order
		}
		if err != nil {
			return onLink(err)
		}
		if t != wire.TypeData || r.disk == nil || ts.mode != wire.ModeCopy {
			return wire.Errorf(wire.CodeFrame, "frame of type %d on a data stream", t)
		}
		ts.pulse.beat()
		ts.holding.Add(1)
		err = ts.pace.wire(ctx, int64(len(body)))
		ts.holding.Add(-1)
		if err != nil {
			return err
		}
		if err := r.frame(ctx, body); err != nil {
			return err
		}
	}
}

// frame brings one Data frame to the disk. Nothing is written before all of it
// is expanded and has its digests, and after ctx is done nothing is begun.
func (r *receiver) frame(ctx context.Context, body []byte) error {
	if err := r.parse(body); err != nil {
		return err
	}
	b, err := r.claim(&r.data)
	if err != nil {
		return err
	}
	if err := r.mark(); err != nil {
		return err
	}
	if err := r.pace.write(ctx, r.data.Raw); err != nil {
		return err
	}
	if r.buf, err = r.mem.borrow(ctx); err != nil {
		return err
	}
	defer r.mem.giveBack(r.buf)
	for i := range r.data.Records {
		if err := r.expand(&r.data.Records[i]); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	call := r.pulse.enter()
	err = r.write(ctx)
	r.pulse.leave(call)
	if err != nil {
		return r.failed(err)
	}
	r.prog.wired.Add(int64(len(body)))
	r.returnedFrom(b, r.wrote(b, &r.data))
	return nil
}

func (r *receiver) parse(body []byte) error {
	err := r.data.ParseData(body, r.size, r.binder)
	if e, ok := err.(*wire.Error); ok && e.Code == wire.CodeBinding && r.cfg.bug == bugNoBinding {
		return nil
	}
	return err
}

func (r *receiver) expand(rec *wire.Record) error {
	if rec.Enc == wire.EncBad || rec.Enc == wire.EncHole || rec.Enc == wire.EncZero {
		return nil
	}
	if rec.Parts != 0 {
		return r.expandParts(rec)
	}
	p := r.at(rec.Extent)
	if err := rec.Expand(p); err != nil {
		return err
	}
	var d cbt.Digest
	r.hash.Sum(p, &d)
	if d != rec.Digest && r.cfg.bug != bugNoDigest {
		return wire.Errorf(wire.CodeDigest, "data of %v do not have their digest", rec.Extent)
	}
	return nil
}

func (r *receiver) at(e cbt.Extent) []byte {
	off := e.Off % cbt.BatchSize
	return r.buf[off : off+e.Len]
}

// write brings the records to the disk, neighbours in one call.
func (r *receiver) write(ctx context.Context) error {
	recs := r.data.Records
	for i := 0; i < len(recs); {
		e, enc := recs[i].Extent, recs[i].Enc
		i++
		if enc == wire.EncBad {
			continue
		}
		if enc == wire.EncZero || enc == wire.EncHole {
			if err := r.zero(ctx, e, enc); err != nil {
				return err
			}
			continue
		}
		if recs[i-1].Parts != 0 {
			if err := r.writeParts(ctx, &recs[i-1]); err != nil {
				return err
			}
			continue
		}
		for i < len(recs) && recs[i].Extent.Off == e.End() && recs[i].Parts == 0 && (recs[i].Enc == wire.EncRaw || recs[i].Enc == wire.EncLZ4) {
			e.Len += recs[i].Extent.Len
			i++
		}
		if err := r.writeAt(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) writeAt(ctx context.Context, e cbt.Extent) error {
	try := func() error {
		began := r.pace.began()
		n, err := r.disk.WriteAt(r.at(e), e.Off)
		r.pace.ended(began, int64(n))
		if err == nil && int64(n) != e.Len {
			err = io.ErrShortWrite
		}
		return err
	}
	if err := r.pulse.insist(ctx.Done(), try(), try); err != nil {
		return diskError(wire.CodeWrite, "target", "write", e, err)
	}
	return nil
}

// zero makes e read as zeros; disks that cannot do it themselves get zeros
// written.
func (r *receiver) zero(ctx context.Context, e cbt.Extent, enc wire.Encoding) error {
	z, ok := r.disk.(Zeroer)
	if !ok {
		clear(r.at(e))
		return r.writeAt(ctx, e)
	}
	how := Allocation(cbt.Keep)
	if enc == wire.EncHole {
		how = cbt.Deallocate
	}
	try := func() error { return z.Zero(e, how) }
	if err := r.pulse.insist(ctx.Done(), try(), try); err != nil {
		return diskError(wire.CodeWrite, "target", "zero", e, err)
	}
	return nil
}

// returnedFrom hands a batch whose writes have returned to the checkpoint.
func (ts *targetSession) returnedFrom(b *tbatch, raw int64) {
	ts.doneMu.Lock()
	if len(ts.returned) == 0 {
		ts.since = time.Now()
	}
	ts.returned = append(ts.returned, b)
	ts.received += raw
	ts.unflushed += raw
	ts.prog.sent.Add(raw)
	if ts.cfg.bug == bugAckBeforeFlush {
		ts.durable = ts.received
		ts.ackK.wake()
	}
	ts.doneMu.Unlock()
	ts.flushK.wake()
}

// flushStage is stage 5.
func (ts *targetSession) flushStage(ctx context.Context) error {
	timer := time.NewTicker(ts.cfg.CheckpointEvery/4 + 1)
	defer timer.Stop()
	for {
		select {
		case <-ts.flushK:
		case <-timer.C:
		case <-ts.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if ts.due() {
			if err := ts.checkpoint(); err != nil {
				return ts.failed(err)
			}
		}
	}
}

// pressedEvery is the least age of unflushed data for a checkpoint that is made
// only to move the window.
const pressedEvery = 20 * time.Millisecond

// pressed says whether a source soon has nothing to do because the window of
// room batches does not move: of the batches below told, all below settled are
// done and so many answered. With half of the window free it is only fast.
func pressed(told, answered, settled, room int64) bool {
	return told-answered < room/4 && told-settled >= room/2
}

// due says whether to flush now: a checkpoint is full, something has waited
// long enough, the window is about to close, or no more data will come.
func (ts *targetSession) due() bool {
	ts.mu.Lock()
	head := ts.pending[ts.settled]
	pressed := head != nil && head.stage == stageWritten && pressed(ts.toldTo, ts.answered, ts.settled, ts.room)
	last := ts.answered == ts.batches()
	ts.mu.Unlock()
	ts.doneMu.Lock()
	defer ts.doneMu.Unlock()
	// The source will soon have nothing to do because the window does not move,
	// and it does not move because its first batch waits for a flush.
	pressed = pressed && ts.proving == 0 && time.Since(ts.since) >= pressedEvery
	return len(ts.returned) > 0 &&
		(ts.unflushed >= ts.cfg.Checkpoint || last || pressed || time.Since(ts.since) >= ts.cfg.CheckpointEvery)
}

// checkpoint makes what has returned durable: first the set, then the disk,
// then the journal, then the ack. A write that returns during the flush
// belongs to the next one (reliability section 3.3).
func (ts *targetSession) checkpoint() error {
	set, raw := ts.takeReturned()
	var m cbt.Map
	for _, b := range set {
		ts.addMask(&m, b.batch, b.fresh)
	}
	if ts.cfg.bug == bugJournalBeforeFlush {
		if err := ts.record(m); err != nil {
			return err
		}
	}
	call := ts.pulse.enter()
	err := ts.flush()
	ts.pulse.leave(call)
	if err != nil {
		return err
	}
	if ts.cfg.bug == bugCoverLateWrites {
		late, n := ts.takeReturned()
		for _, b := range late {
			ts.addMask(&m, b.batch, b.fresh)
		}
		set, raw = append(set, late...), raw+n
	}
	if err := ts.record(m); err != nil {
		return err
	}
	ts.mu.Lock()
	for _, b := range set {
		b.stage = stageFlushed
	}
	ts.mu.Unlock()
	ts.doneMu.Lock()
	ts.durable += raw
	ts.prog.durable.Add(raw)
	ts.flushed = append(ts.flushed, set...)
	ts.proving += len(set)
	ts.doneMu.Unlock()
	ts.pulse.beat()
	ts.ackK.wake()
	ts.verifyK.wake()
	return nil
}

func (ts *targetSession) takeReturned() ([]*tbatch, int64) {
	ts.doneMu.Lock()
	defer ts.doneMu.Unlock()
	set, raw := ts.returned, ts.unflushed
	ts.returned, ts.unflushed = nil, 0
	return set, raw
}

func (ts *targetSession) record(m cbt.Map) error {
	if m.Empty() {
		return nil
	}
	ts.journalMu.Lock()
	defer ts.journalMu.Unlock()
	return ts.journal.durable(m)
}
