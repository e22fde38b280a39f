package mover

import (
	"context"
	"fmt"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// verifyStage is stage 7: what was written is read back from the device, past
// the cache, after it was flushed. Only then does it count.
func (ts *targetSession) verifyStage(ctx context.Context) error {
	rd := ts.reader()
	rd.drop = true
	for {
		b := ts.takeFlushed()
		if b == nil {
			select {
			case <-ts.verifyK:
				continue
			case <-ts.finished:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := ts.readBackOf(ctx, rd, b); err != nil {
			return err
		}
		ts.doneMu.Lock()
		ts.proving--
		ts.doneMu.Unlock()
		ts.moved()
	}
}

// takeFlushed is the next batch to be read back, or nil. Who takes one wakes
// the next reader, if there is more.
func (ts *targetSession) takeFlushed() *tbatch {
	ts.doneMu.Lock()
	defer ts.doneMu.Unlock()
	if len(ts.flushed) == 0 {
		return nil
	}
	b := ts.flushed[0]
	ts.flushed = ts.flushed[1:]
	if len(ts.flushed) > 0 {
		ts.verifyK.wake()
	}
	return b
}

// readBackOf settles b, or asks for what read back wrong.
func (ts *targetSession) readBackOf(ctx context.Context, rd *reader, b *tbatch) error {
	if ts.cfg.bug == bugNoReadBack {
		ts.settle(b)
		return nil
	}
	var back leaves
	rd.near = wire.FullMask(b.n) &^ b.skip
	readErr, err := ts.readBatch(ctx, rd, b.batch, b.fresh, &back)
	if err != nil {
		return err
	}
	if retryable(readErr) {
		return ts.failed(diskError(wire.CodeRead, "target", "read back", ts.batch(b.batch), readErr))
	}
	ts.mu.Lock()
	wrong := back.differ(&b.leaves) & b.fresh
	if wrong == 0 {
		b.fresh = 0
		ts.settleLocked(b)
		ts.mu.Unlock()
		return nil
	}
	b.stage, b.fresh = stageRedo, wrong
	b.rounds++
	round := b.rounds
	ts.mu.Unlock()
	var m cbt.Map
	ts.addMask(&m, b.batch, wrong)
	ts.cfg.Log.Warn("target reads back other data than were written", "run", ts.passSpec.run, "extent", ts.batch(b.batch),
		"grains", wrong.Count(), "round", round, "err", readErr)
	if round > maxRedo {
		return ts.failed(ts.poison(fmt.Sprintf("%d grains at %v read back wrong %d times (%v)", wrong.Count(), ts.batch(b.batch), round, readErr)))
	}
	ts.journalMu.Lock()
	err = ts.journal.forget(m)
	ts.journalMu.Unlock()
	if err != nil {
		return ts.failed(err)
	}
	return ts.l.send(&wire.Redo{Batch: b.batch, Mask: wrong, Round: round})
}
