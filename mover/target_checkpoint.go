package mover

import (
	"context"
	"time"

	"github.com/haulback/haulback/cbt"
)

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

// flushStage is stage 6.
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
	last := ts.answered == ts.batches() && ts.writing == 0 // else a write that returns soon needs the same flush
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
	call, began := ts.pulse.enter(), time.Now()
	err := ts.flush()
	ts.prog.times[TimeFlush].add(time.Since(began))
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
	began := time.Now()
	defer func() { ts.prog.times[TimeJournal].add(time.Since(began)) }()
	return ts.journal.durable(m)
}
