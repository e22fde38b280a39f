package mover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

// RestoreOptions say how a changed stream knows its base.
type RestoreOptions struct {
	// Base is what the caller says the target holds; zero: the target's journal
	// has to know.
	Base cbt.Digest
	// CheckBase reads all of the target before and after: the base is then
	// proved and not believed, and so is the whole result.
	CheckBase bool
}

// Restore makes target equal to what the stream r stands for: a copy whose
// source is r, with the same proofs and the same journal. The run in the journal
// is that of the stream. A changed stream goes only onto its base.
//
// A stream that is damaged or cut ends in an error that is archive.ErrDamaged.
func (e *Engine) Restore(ctx context.Context, target Endpoint, r *archive.Reader, o RestoreOptions, p *Progress) (Report, error) {
	h := r.Header()
	disk := newStreamDisk(r)
	job := Job{
		Run: h.Run, Pass: 1, Mode: wire.ModeCopy, Unproved: true, stream: disk, Target: target,
		Source: Endpoint{Name: "stream", Open: func(context.Context, Access) (Disk, error) { return disk, nil }},
	}
	st, err := e.look(ctx, target, h)
	if err != nil {
		return Report{}, err
	}
	if h.Kind == archive.Full {
		if st.State == wire.StatePoisoned && st.Run == job.Run { // whoever restores it again has looked at the device
			_, _ = rand.Read(job.Run[:]) // never fails
		}
		return e.Run(ctx, job, p)
	}
	before, err := e.onBase(ctx, target, h, &st, o, p)
	if err != nil {
		return Report{}, err
	}
	rep, err := e.Run(ctx, job, p)
	if codeOf(err) == wire.CodeHint { // in its own words: there is no --strict to leave out
		why := strings.ReplaceAll(oneLine(err), withoutStrict, "")
		err = wire.Errorf(wire.CodeHint, "the target is not what the stream builds on, or change tracking has lost changes: %s; restore a full stream", why)
	}
	if err == nil && before != nil {
		err = e.prove(ctx, target, h, before, &rep, p)
	}
	return rep, err
}

// look opens the target for a moment and reads its journal.
func (e *Engine) look(ctx context.Context, target Endpoint, h *archive.Header) (st JournalState, err error) {
	d, err := target.Open.patiently(ctx, ReadOnly)
	if err != nil {
		return st, diskError(wire.CodeOpen, "target", "open", cbt.Extent{}, err)
	}
	defer d.Close() // only read
	if d.Size() < h.Size {
		return st, wire.Errorf(wire.CodeTooSmall, "the target has %d bytes, the dumped disk %d: make the target at least as large", d.Size(), h.Size)
	}
	return ReadJournal(e.state, d.Identity())
}

// onBase says whether the target may be what h builds on. With CheckBase it
// returns what the target holds.
func (e *Engine) onBase(ctx context.Context, target Endpoint, h *archive.Header, st *JournalState, o RestoreOptions, p *Progress) (*survey, error) {
	named := h.Run != h.Base.Run // else every stream of a chain has this name, and it tells nothing
	again := named && st.Run == h.Run && (st.State == wire.StateInconsistent || st.State == wire.StateVerified)
	known := st.State == wire.StateVerified && st.Size == h.Size
	if h.Base.Root != (cbt.Digest{}) && st.Skipped == 0 { // both roots are there, and they are better than a name
		known = known && st.Root == h.Base.Root
	} else {
		known = known && named && h.Base.Run != [16]byte{} && st.Run == h.Base.Run
	}
	switch {
	case again:
		if o.CheckBase {
			p.event("this stream was restored here before, so the base cannot be read any more; what the stream leaves out stays unproved")
		}
		return nil, nil
	case o.CheckBase && h.Base.Root == cbt.Digest{}:
		return nil, wire.Errorf(wire.CodeHint, "the stream does not have the root of its base: nothing to compare the target with; restore the streams it builds on in turn")
	case o.CheckBase:
		return e.compareBase(ctx, target, h, p)
	case o.Base != cbt.Digest{} && o.Base != h.Base.Root:
		return nil, wire.Errorf(wire.CodeHint, "the stream builds on root %v, the target is said to have %v", h.Base.Root, o.Base)
	case o.Base != cbt.Digest{} && (st.State == wire.StateInconsistent || st.State == wire.StatePoisoned):
		return nil, wire.Errorf(wire.CodeHint, "the target is said to have root %v, and its journal says %v of run %v: something was cut there; restore a full stream, or read the target with --check-base",
			o.Base, st.State, st.Run)
	case o.Base != cbt.Digest{}:
		return nil, nil
	case known:
		p.event(fmt.Sprintf("that the target is the base is the word of its journal (run %v); who else has written to the disk since is not noticed: --check-base reads all of it", st.Run))
		return nil, nil
	}
	return nil, wire.Errorf(wire.CodeHint, "nobody knows that the target is what the stream builds on (root %v, stream %v): its journal says %v of run %v; restore the base first, or read the target with --check-base",
		h.Base.Root, wire.RunID(h.Base.Run), st.State, st.Run)
}

func (e *Engine) compareBase(ctx context.Context, target Endpoint, h *archive.Header, p *Progress) (*survey, error) {
	p.event("reading the target to compare it with the base")
	d, err := target.Open.patiently(ctx, ReadWrite) // nobody else shall write meanwhile
	if err != nil {
		return nil, diskError(wire.CodeOpen, "target", "open", cbt.Extent{}, err)
	}
	v, err := e.survey(ctx, d, h)
	if cerr := d.Close(); err == nil && cerr != nil {
		err = diskError(wire.CodeOpen, "target", "close", cbt.Extent{}, cerr)
	}
	if err == nil && v.all != h.Base.Root {
		err = wire.Errorf(wire.CodeHint, "the target is not what the stream builds on: it has root %v, the base has %v; nothing was written", v.all, h.Base.Root)
	}
	return v, err
}

// survey is the roots of all of a disk, of what a stream carries of it with the
// rest skipped, and of the rest.
type survey struct{ all, carried, rest cbt.Digest }

// survey reads all of disk, as far as the stream goes, past its cache.
func (e *Engine) survey(ctx context.Context, disk Disk, h *archive.Header) (*survey, error) {
	blocks, err := e.pool.take(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer e.pool.put(blocks)
	read, _ := cold(disk)
	rd := &reader{layout: layout{h.Size}, read: read, holes: &holes{}, hash: cbt.NewHasher(), buf: blocks[0].raw, pulse: newPulse(), retry: readRetries}
	way := route{layout: rd.layout}
	all, carried, rest := cbt.NewRoot(h.Size), cbt.NewRoot(h.Size), cbt.NewRoot(h.Size)
	var v leaves
	for b := range rd.batches() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := rd.batch(ctx, b, wire.FullMask(rd.grains(b)), &v); err != nil {
			return nil, diskError(wire.CodeRead, "target", "read", rd.layout.batch(b), err)
		}
		v.fold(all)
		in := way.mask(h.Map, b)
		v.skip = wire.FullMask(v.n) &^ in
		v.fold(carried)
		v.skip = in
		v.fold(rest)
	}
	var out survey
	var errs [3]error
	out.all, errs[0] = all.Sum()
	out.carried, errs[1] = carried.Sum()
	out.rest, errs[2] = rest.Sum()
	return &out, errors.Join(errs[:]...)
}

// prove reads the whole target once more: what the stream carries has to be
// what the session proved, and the rest what it was before. Then the journal can
// say Verified with the root of all of it.
func (e *Engine) prove(ctx context.Context, target Endpoint, h *archive.Header, before *survey, rep *Report, p *Progress) (err error) {
	p.event("reading the target once more to prove all of it")
	d, err := target.Open.patiently(ctx, ReadWrite)
	if err != nil {
		return diskError(wire.CodeOpen, "target", "open", cbt.Extent{}, err)
	}
	defer func() {
		if cerr := d.Close(); cerr != nil && err == nil {
			err = diskError(wire.CodeWrite, "target", "close", cbt.Extent{}, cerr)
		}
	}()
	j, err := openJournal(e.state, d.Identity(), e.cfg.bug)
	if err != nil {
		return err
	}
	defer j.close() // every record is durable when it is made
	var owner [16]byte
	_, _ = rand.Read(owner[:]) // never fails
	if err := j.open(j.state.Epoch+1, h.Run, 1, owner, cbt.PlanFull(h.Size).Digest(), h.Size); err != nil {
		return err
	}
	after, err := e.survey(ctx, d, h)
	if err != nil {
		return err
	}
	if after.rest != before.rest || after.carried != rep.Root {
		rep.State = wire.StateInconsistent
		var nobody wire.RunID // a cut of this stream would be gone on with, and what somebody else has written stay
		_, _ = rand.Read(nobody[:])
		err := j.open(j.state.Epoch+1, nobody, 1, owner, cbt.PlanFull(h.Size).Digest(), h.Size)
		return errors.Join(wire.Errorf(wire.CodeVerify, "the target was changed by somebody else while the stream was restored; find out who writes to it, then restore a full stream"), err, j.mark())
	}
	if err := j.verified(after.all, 0, 0); err != nil {
		return err
	}
	rep.Epoch, rep.Equal, rep.Root, rep.Hinted = j.state.Epoch, true, after.all, false
	rep.Counters.Skipped, rep.Counters.Sampled = 0, 0
	rep.Counters.Scanned, rep.Counters.Verified = h.Size, h.Size
	rep.Reason = fmt.Sprintf("used: %s; the whole target was read before and after", rep.Reason)
	return nil
}
