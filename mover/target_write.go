package mover

import (
	"context"
	"io"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// writeDepth is how many writes of a session are under way: as many as bring a
// disk to its rate past the cache (facts: performance 1.1).
const writeDepth = 4

// writer is one goroutine of stage 5. It is apart from stage 4 because a write
// past the cache takes milliseconds in which the processor has nothing to do:
// then the next frame is decrypted, expanded and hashed.
type writer struct {
	*targetSession
	disk WritableDisk
}

// writeStage is stage 5. After ctx is done nothing is begun.
func (ts *targetSession) writeStage(ctx context.Context) error {
	w := &writer{targetSession: ts}
	w.disk, _ = ts.disk.(WritableDisk)
	for {
		select {
		case a := <-ts.arrived:
			err := ctx.Err()
			if err == nil {
				err = w.bring(ctx, a)
			}
			ts.mem.giveBack(a.buf)
			ts.spare <- a
			if err != nil {
				return err
			}
		case <-ts.finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bring writes a, and hands its batch to the checkpoint.
func (w *writer) bring(ctx context.Context, a *arrival) error {
	call := w.pulse.enter()
	err := w.write(ctx, a)
	w.pulse.leave(call)
	if err != nil && err == ctx.Err() {
		return err // the disk did nothing wrong
	}
	if err != nil {
		return w.failed(err)
	}
	w.prog.wired.Add(a.body)
	w.returnedFrom(a.b, w.wrote(a.b, &a.data))
	return nil
}

// unwritten gives back what a session that ended has not begun to write.
func (ts *targetSession) unwritten() {
	for len(ts.arrived) > 0 {
		ts.mem.giveBack((<-ts.arrived).buf)
	}
}

// write brings the records to the disk, neighbours in one call. A batch may be 128
// calls: when ctx is done the next one is not begun, and the error is that of ctx.
func (w *writer) write(ctx context.Context, a *arrival) error {
	recs := a.data.Records
	for i := 0; i < len(recs); {
		e, enc := recs[i].Extent, recs[i].Enc
		i++
		if enc == wire.EncBad {
			continue
		}
		if enc == wire.EncZero || enc == wire.EncHole {
			if err := w.zero(ctx, a, e, enc); err != nil {
				return err
			}
			continue
		}
		if recs[i-1].Parts != 0 {
			if err := w.writeParts(ctx, a, &recs[i-1]); err != nil {
				return err
			}
			continue
		}
		for i < len(recs) && recs[i].Extent.Off == e.End() && recs[i].Parts == 0 && (recs[i].Enc == wire.EncRaw || recs[i].Enc == wire.EncLZ4) {
			e.Len += recs[i].Extent.Len
			i++
		}
		if err := w.writeAt(ctx, a, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) writeAt(ctx context.Context, a *arrival, e cbt.Extent) error {
	return w.call(ctx, "write", e, func() error {
		began := w.pace.began()
		n, err := w.disk.WriteAt(a.at(e), e.Off)
		w.pace.ended(TimeWrite, began, int64(n))
		if err == nil && int64(n) != e.Len {
			err = io.ErrShortWrite
		}
		return err
	})
}

// zero makes e read as zeros; disks that cannot do it themselves get zeros
// written.
func (w *writer) zero(ctx context.Context, a *arrival, e cbt.Extent, enc wire.Encoding) error {
	z, ok := w.disk.(Zeroer)
	if !ok {
		clear(a.at(e))
		return w.writeAt(ctx, a, e)
	}
	how := Allocation(cbt.Keep)
	if enc == wire.EncHole {
		how = cbt.Deallocate
	}
	return w.call(ctx, "zero", e, func() error { return z.Zero(e, how) })
}

// call makes one call that changes e, and again where that may help. When ctx is done
// it is not begun, and the error is that of ctx.
func (w *writer) call(ctx context.Context, what string, e cbt.Extent, try func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.pulse.insist(ctx.Done(), try(), try); err != nil {
		return diskError(wire.CodeWrite, "target", what, e, err)
	}
	return nil
}
