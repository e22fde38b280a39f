package mover

import (
	"context"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// depth is how many goroutines read, write and read back. A device needs several
// calls at once, and a goroutine that waits for one costs nothing; what a cache
// holds is there at once, and more than one per processor only costs.
func (t *target) depth() (readers, writers, verifiers int) {
	if t.cold == coldCached {
		return t.cfg.Workers, t.cfg.Workers, 1
	}
	return max(readDepth, t.cfg.Workers), max(writeDepth, t.cfg.Workers), verifyDepth
}

// reader is for stages 2 and 7; its buffer is borrowed for each batch.
func (ts *targetSession) reader() *reader {
	read, _ := cold(ts.disk)
	return &reader{
		layout: ts.layout, read: read, holes: &holes{}, hash: cbt.NewHasher(), pulse: ts.pulse, pace: ts.pace, paid: true, far: ts.cold != coldCached,
	}
}

// readBatch is rd.batch within the limits and the memory of the session. bad is
// what rd.batch returns, with v saying where. After err nothing was read, v says
// nothing, and the session has to end.
func (ts *targetSession) readBatch(ctx context.Context, rd *reader, b int64, want wire.Mask, v *leaves) (bad, err error) {
	if err := ts.pace.read(ctx, rd.cost(b, want)); err != nil {
		return nil, err
	}
	if rd.buf, err = ts.mem.borrow(ctx); err != nil {
		return nil, err
	}
	defer ts.mem.giveBack(rd.buf)
	bad = rd.batch(ctx, b, want, v)
	return bad, ctx.Err() // then it may not have been read at all
}
