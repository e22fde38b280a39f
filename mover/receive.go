package mover

import (
	"context"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// outcome is what a target half came to on one link.
type outcome struct {
	began  bool
	open   wire.Open
	opened wire.Opened
	base   uint32 // the pass that the hint of open counts from; 0: not said
	last   *wire.Verified
	bad    []BadRun
}

// verdict is the error of a last word that is not a success.
func (o *outcome) verdict(mode wire.Mode, bad int64) error {
	switch {
	case o.last == nil || o.last.State == wire.StateVerified || o.last.State == wire.StateCopied && mode == wire.ModeVerify:
		return nil
	case mode == wire.ModeVerify:
		return wire.Errorf(wire.CodeVerify, "the disks differ in %d grains of 64 KiB", bad)
	}
	return wire.Errorf(wire.CodeUnreadable, unreadable, bad)
}

// report fills in what the target half knows.
func (o *outcome) report(rep *Report, l *lane) {
	rep.Epoch, rep.Source, rep.Target, rep.Cold = o.opened.Epoch, o.open.Identity, o.opened.Identity, o.opened.Cold
	rep.Larger, rep.Bad = o.opened.Size-o.open.Size, o.bad
	rep.over(l.link)
	rep.Hinted, rep.Reason = o.open.Hinted, o.open.Reason
	if o.last != nil {
		rep.State, rep.Root = o.last.State, o.last.Root
		rep.Equal = (o.last.State == wire.StateVerified || o.last.State == wire.StateCopied) && o.last.Skipped == 0
	}
}

// receive runs the target half on one link whose Hello is done: it waits for
// Open, takes the disk, and works until the last word.
// A source may take up to wait, and longer while it gives signs of life: it
// opens its disk, and may have to ask what changed on it.
func (e *Engine) receive(ctx context.Context, l *lane, exp *Export, spec passSpec, by terms, p *Progress, wait time.Duration) (o outcome, err error) {
	if err := l.expectAlive(wait, &o.open, &by); err != nil {
		return o, err
	}
	if err := wanted(exp.track, &o.open); err != nil {
		return o, err
	}
	if o.base = l.base; exp.base > 0 && o.open.Hinted {
		o.base = exp.base // what this end knows, whatever the other has said
	}
	if o.open.Mode != spec.mode {
		return o, wire.Errorf(wire.CodeFrame, "Open for mode %d in a session of mode %d", o.open.Mode, spec.mode)
	}
	spec.full = o.open.Full
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer l.whenDone(ctx, cancel)()
	key := exp.key()
	if spec.mode == wire.ModeVerify {
		key = verifyKey(key, spec.run)
	}
	e.targets.expireIdle(key) // a comparison whose link was lost must not lock a copy out
	e.sources.expireIdle(key)
	if _, use := e.targets.held(exp.key()); use != "" && spec.mode == wire.ModeVerify {
		return o, wire.Errorf(wire.CodeBusy, "the disk is %s; wait for it, or go on with that run", use)
	}
	h, err := e.targets.acquire(ctx, key, spec.run, exp.fence(), cancel, e.cfg.bug)
	if err != nil {
		return o, err
	}
	linger := time.Duration(0)
	defer func() {
		if cerr := e.targets.release(h, linger); cerr != nil && err == nil {
			err = diskError(wire.CodeWrite, "target", "close", cbt.Extent{}, cerr)
		}
	}()
	stop := l.knock() // opening may take minutes
	t, err := e.openTarget(ctx, h, exp, spec, &o, p)
	stop()
	if err != nil {
		return o, err
	}
	t.way = exp.way
	t.by, t.gate = by, e.gateFor(by, t.disk.Identity(), p)
	defer t.gate.Disk.Release()
	if err = e.runTarget(ctx, l, h, t, &o); err != nil {
		if t.broken() == nil && keepable(err) {
			linger = e.cfg.Linger
		}
		return o, err
	}
	// The source closes the link when it has the last word. When it does not,
	// the word may be lost: the source will come back and ask, soon or never.
	if !l.farewell(ctx) {
		linger = min(e.cfg.Linger, lostWord)
	}
	return o, nil
}

// wanted refuses a source that leaves out more, or less, than was asked for.
// An export of a daemon takes what the source decides.
func wanted(track *wire.Tracking, o *wire.Open) error {
	switch {
	case track == nil:
	case *track == wire.TrackingOff && o.Hinted:
		return wire.Errorf(wire.CodeFrame, "the source leaves grains out, and was not asked to")
	case *track == wire.TrackingStrict && !o.Hinted:
		return wire.Errorf(wire.CodeHint, "change tracking is not used: %s%s", o.Reason, withoutStrict)
	}
	return nil
}

// lostWord is how long a target that is done stays held for a source that may
// not have heard so: two tries to connect. Somebody wants to power a VM on.
const lostWord = 10 * time.Second

// keepable says whether a target's verdicts may outlive the link that ended
// with err: only when the disk itself did nothing wrong.
func keepable(err error) bool {
	switch codeOf(err) {
	case wire.CodeOK:
		return retryable(err)
	case wire.CodeTimeout, wire.CodeUnreachable, wire.CodeSuperseded, wire.CodeTicket, wire.CodeSwitch, wire.CodeDiskLost: // the source's disk: its own is broken
		return true
	}
	return false
}

// runTarget answers Open and runs the session.
func (e *Engine) runTarget(ctx context.Context, l *lane, h *hold, t *target, o *outcome) error {
	streams := int(o.open.Streams)
	var tag [16]byte
	copy(tag[:], sumOf(o.opened.Identity))
	o.opened.Tag = tag
	ts := newTargetSession(t, l, o.open.Window, tag)
	ts.hinted, ts.refine = o.open.Hinted, o.open.Refine && t.refines()
	o.opened.Refine = ts.refine
	var err error
	if ts.mem, err = e.pool.share(ctx, streams); err != nil {
		return err
	}
	defer ts.mem.close()
	if err := t.by.begin(l); err != nil {
		return err
	}
	if err := l.send(&o.opened); err != nil {
		return err
	}
	o.began = true
	e.targets.asks(h, ts.alive)
	p := ts.prog
	p.total.Store(t.size)
	p.had.Store(o.opened.Had)
	p.beginLink()
	err = ts.run(ctx, streams)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	if broken := t.broken(); broken != nil {
		err = broken // it came first, whatever ended the link
	}
	if code := codeOf(err); code == wire.CodeDraining || code == wire.CodeTicket || code == wire.CodeSwitch {
		if cerr := ts.lastCheckpoint(); cerr != nil {
			e.cfg.Log.Warn("last checkpoint before the stop was not made", "run", t.passSpec.run, "err", cerr)
		}
	}
	o.last, o.bad = ts.last, t.badRuns
	return err
}

// openTarget gives the target of h, opened anew unless the same session comes
// back to a disk that was never released.
func (e *Engine) openTarget(ctx context.Context, h *hold, exp *Export, spec passSpec, o *outcome, p *Progress) (*target, error) {
	if t, ok := h.res.(*target); ok {
		if t.passSpec == spec && t.owner == o.open.Owner && t.size == o.open.Size && t.fence() == exp.fence() {
			t.watchOver(p)
			t.grant = exp.grant
			if err := t.grant.fits(t.disk); err != nil {
				return nil, err
			}
			return t, e.again(t, o)
		}
		e.targets.fill(h, nil)
		if err := t.close(); err != nil {
			return nil, diskError(wire.CodeWrite, "target", "close", cbt.Extent{}, err)
		}
	}
	access := ReadWrite
	if spec.mode == wire.ModeVerify {
		access = ReadOnly
	}
	disk, err := exp.Open.patiently(ctx, access)
	if err != nil {
		return nil, diskError(wire.CodeOpen, "target", "open", cbt.Extent{}, err)
	}
	t := &target{
		layout: layout{o.open.Size}, passSpec: spec, cfg: &e.cfg, disk: disk, fails: &e.fails, prog: p, owner: o.open.Owner, pulled: exp.held, grant: exp.grant, floor: exp.floor,
	}
	if err := e.openNew(t, o); err != nil {
		_ = t.close() // nothing was written
		return nil, err
	}
	e.targets.fill(h, t)
	return t, nil
}

// openNew checks a freshly opened disk, reads its journal and makes this
// session's epoch durable.
func (e *Engine) openNew(t *target, o *outcome) error {
	if t.disk.Size() < t.size {
		return wire.Errorf(wire.CodeTooSmall, "the target has %d bytes, the source %d: make the target at least as large", t.disk.Size(), t.size)
	}
	if err := t.grant.fits(t.disk); err != nil {
		return err
	}
	_, t.cold = cold(t.disk)
	t.rewind(false)
	o.opened = wire.Opened{Size: t.disk.Size(), Cold: t.cold, Identity: t.disk.Identity()}
	if t.mode == wire.ModeVerify {
		t.epoch, o.opened.Epoch = 1, 1
		return e.mayCompare(t)
	}
	if _, ok := t.disk.(WritableDisk); !ok {
		return wire.Errorf(wire.CodeRole, "the disk cannot be written")
	}
	j, err := openJournal(e.state, t.disk.Identity(), e.cfg.bug)
	if err != nil {
		return err
	}
	t.journal = j
	return t.takeUp(o)
}

// mayCompare applies the fence to a session that writes nothing.
func (e *Engine) mayCompare(t *target) error {
	if !t.fenced() {
		return nil
	}
	st, err := ReadJournal(e.state, t.disk.Identity())
	if err == nil && t.fence() < st.Fence {
		err = fencedOff(t.fence(), st.Fence)
	}
	return err
}

// takeUp begins a session on a disk that is held, if it may.
func (t *target) takeUp(o *outcome) error {
	if err := t.admit(&o.open); err != nil {
		return err
	}
	if err := t.mayHint(&o.open, o.base); err != nil {
		return err
	}
	o.opened.State = t.journal.state.State
	if err := t.begin(&o.open); err != nil {
		return err
	}
	o.opened.Epoch, o.opened.Had = t.epoch, t.had.Len()
	return nil
}

// admit applies the fence: who held an epoch that another owner has passed is
// out for ever.
func (t *target) admit(o *wire.Open) error {
	st := &t.journal.state
	if o.Held != 0 && st.Epoch > 0 && st.Owner != o.Owner && t.cfg.bug != bugLowerEpoch {
		return wire.Errorf(wire.CodeFenced, "epoch %d of this disk is over: run %v has epoch %d now", o.Held, st.Session, st.Epoch)
	}
	if t.fenced() && t.fence() < st.Fence && t.cfg.bug != bugLowerEpoch {
		return fencedOff(t.fence(), st.Fence)
	}
	if t.pulled > 0 && st.Epoch > t.pulled && st.Session != t.passSpec.run {
		return wire.Errorf(wire.CodeFenced, "epoch %d of this disk is over: run %v has epoch %d now", t.pulled, st.Session, st.Epoch)
	}
	if st.State == wire.StatePoisoned && st.Run == t.passSpec.run {
		return wire.Errorf(wire.CodePoisoned, "the disk is poisoned: %s; check the device, then start a new copy", st.Reason)
	}
	return nil
}

// begin makes a new epoch durable and flushes what an earlier session may have
// left in caches: only then is the disk worth reading.
func (t *target) begin(o *wire.Open) error {
	st := &t.journal.state
	if f := t.fence(); f > st.Fence {
		if err := t.journal.fence(f); err != nil {
			return err
		}
	}
	t.epoch = max(st.Epoch, o.Held) + 1
	if err := t.journal.open(t.epoch, t.passSpec.run, t.pass, o.Owner, o.Plan, t.size); err != nil {
		return err
	}
	t.marked.Store(st.State == wire.StateInconsistent && st.Run == t.passSpec.run && st.Pass == t.pass)
	t.had = st.Durable.Union(cbt.Map{}) // a copy: the journal goes on
	// What an earlier link or session punched was not read back: a hole in the
	// map may be one that never reached the device.
	t.suspect = st.Suspect || st.State != wire.StateClean && st.State != wire.StateVerified
	return t.flush()
}

// again opens the next link of a session whose disk is still held.
func (e *Engine) again(t *target, o *outcome) error {
	keep := t.settled >= o.open.Start && !o.open.Fresh
	t.rewind(keep)
	o.opened = wire.Opened{Epoch: t.epoch, Start: t.settled, Size: t.disk.Size(), Cold: t.cold, Identity: t.disk.Identity()}
	if t.mode == wire.ModeVerify {
		return nil
	}
	return t.takeUp(o)
}

// sumOf is the tag of a disk in bindings: the same at both ends because the
// target tells it, different for two disks.
func sumOf(identity string) []byte {
	var d cbt.Digest
	cbt.NewHasher().Sum([]byte(identity), &d)
	return d[:]
}
