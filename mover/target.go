package mover

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// target is the target half of one session of one pass: the disk, exclusively
// held, its journal, and what is settled. It lives across links, and with it
// live the verdicts: nobody else can have written in between. A process that
// dies loses them, and the next one reads the disk again (promise 1).
type target struct {
	layout // of the source: what lies beyond is left alone
	passSpec
	cfg    *Config
	disk   Disk
	fails  *flushFails
	prog   *Progress
	by     terms          // of the link
	way    *way           // of the run, if this end dials; nil: it was dialed
	gate   *throttle.Gate // of by
	owner  [16]byte
	epoch  uint64
	grant  *grant // the ticket of the last link; nil: none is wanted
	floor  uint64 // Job.Fence
	pulled uint64 // the epoch before, where this process pulls; the source may be another owner by now
	cold   string

	brokenMu  sync.Mutex
	brokenErr error // the first failure of the disk or journal

	journalMu sync.Mutex
	journal   *journal    // nil in ModeVerify
	suspect   bool        // a flush failed before: the map of holes is not believed
	marked    atomic.Bool // the journal says Inconsistent for this run and pass

	mu         sync.Mutex
	settled    int64             // root covers the batches below
	root       *cbt.Root         //
	pending    map[int64]*tbatch // told or written, not settled
	told       cbt.Map           // holes told, not settled
	skipped    cbt.Map           // left out by the plan, not settled
	ready      cbt.Map           // settled, at or above settled
	spare      []*tbatch
	toldTo     int64 // the source knows of the batches below
	claimed    int   // batches in pending that were told as holes
	writing    int   // batches in pending at stageWriting
	maxClaimed int   // the source's window
	answered   int64 // batches with a verdict on this link, and all settled before
	matched    int64 // grains below settled that were read cold
	readBack   int64 // grains among these that were read after a write
	skippedN   int64 // grains below settled that the plan leaves out
	sampledN   int64 // grains of matched that the hint calls unchanged
	bad        int64 // grains that stay different
	verified   int64 // bytes known to be equal
	backed     int64 // bytes read back after a write
	lost       int64 // grains the journal had and that had to be sent again
	had        cbt.Map
	badRuns    []BadRun
}

// tbatch is one batch on its way to being settled.
type tbatch struct {
	leaves
	stage   stage
	window  bool      // it holds a place in the window
	claimed bool      // it was a hole, and counts among the claimed
	written wire.Mask // grains that were overwritten
	fresh   wire.Mask // of these: not read back yet
	bad     wire.Mask // grains that stay different
	theirs  wire.Mask // of bad: grains that the source could not read
	sampled wire.Mask // grains that the hint calls unchanged
	rounds  uint8     // read-backs that failed
	asked   bool      // for pieces, by the source
	looking bool      // for them
	parts   wire.Mask // grains whose pieces the source was told
}

// stage is how far a batch is. The order is that of a written batch; an equal
// one goes from told to settled.
type stage uint8

const (
	stageTold    stage = iota // the source knows its digests
	stageWriting              // a receiver is at it
	stageWritten              // the writes have returned
	stageFlushed              // durable, to be read back
	stageRedo                 // read back wrong and asked for again
	stageSettled
)

// hearsay reports whether the map of holes is the word of a server and not of
// this kernel. Then a hole counts as equal only to a hole: where the source has
// zeros they are sent, written and read back.
func (t *target) hearsay() bool { return t.cold == coldServer }

// coldServer is what a disk behind a server calls its cold reads.
const coldServer = "server"

// coldCached is what it is called where there is no way past a cache, or nothing
// behind it.
const coldCached = "cached"

// close releases the disk and its journal.
func (t *target) close() error {
	err := t.disk.Close()
	if t.journal != nil {
		t.journalMu.Lock()
		err = errors.Join(err, t.journal.close())
		t.journalMu.Unlock()
	}
	return err
}

// fails remembers the first failure of the disk or its journal. After it
// nothing may be believed, flushed or recorded any more, however the link that
// saw it ends: the disk has to be opened anew.
func (t *target) failed(err error) error {
	t.brokenMu.Lock()
	defer t.brokenMu.Unlock()
	if t.brokenErr == nil {
		t.brokenErr = err
	}
	return err
}

func (t *target) broken() error {
	t.brokenMu.Lock()
	defer t.brokenMu.Unlock()
	return t.brokenErr
}

// watchOver makes t count in p from here on.
func (t *target) watchOver(p *Progress) {
	if t.prog == p {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prog = p
	p.step(func() { // the link before has done that
		p.verified.Store(t.verified)
		p.readBack.Store(t.backed)
		p.bad.Store(t.bad)
		p.lost.Store(t.lost)
	})
}

// rewind forgets what is not settled; from 0 it forgets everything.
func (t *target) rewind(keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending, t.told, t.skipped, t.ready = make(map[int64]*tbatch), cbt.Map{}, cbt.Map{}, cbt.Map{}
	if !keep {
		t.settled, t.root = 0, cbt.NewRoot(t.size)
		t.matched, t.readBack, t.bad, t.verified, t.backed, t.badRuns = 0, 0, 0, 0, 0, nil
		t.skippedN, t.sampledN = 0, 0
		if t.prog != nil {
			t.prog.rewind()
		}
	}
	t.answered, t.toldTo, t.claimed, t.writing = t.settled, t.settled, 0, 0
}

// mark makes the journal say Inconsistent before the first byte is overwritten
// (promise 2).
func (t *target) mark() error {
	if t.cfg.bug == bugNoMark {
		return nil
	}
	if t.marked.Load() { // without the lock: a checkpoint holds it while its record is flushed
		return nil
	}
	t.journalMu.Lock()
	defer t.journalMu.Unlock()
	if t.marked.Load() {
		return nil
	}
	if err := t.journal.mark(); err != nil {
		return t.failed(err)
	}
	t.marked.Store(true)
	return nil
}

func (t *target) grabLocked() *tbatch {
	if n := len(t.spare); n > 0 {
		b := t.spare[n-1]
		t.spare = t.spare[:n-1]
		*b = tbatch{}
		return b
	}
	return new(tbatch)
}

// tell takes over what a reader found, before the source learns of it.
func (t *target) tell(v *leaves, sampled wire.Mask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.grabLocked()
	b.leaves, b.sampled, b.window = *v, sampled, true
	t.pending[v.batch] = b
	t.toldTo = v.batch + 1
}

func (t *target) tellHoles(r wire.Run) {
	t.mu.Lock()
	t.told.Add(t.extent(r))
	t.toldTo = r.End()
	t.mu.Unlock()
}

// same settles a run of batches that the source found equal.
func (t *target) same(r wire.Run) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.First < t.settled || r.End() > t.batches() || !t.ready.Clip(t.extent(r)).Empty() {
		return wire.Errorf(wire.CodeExtent, "second verdict for batches %d to %d, or they are outside the plan", r.First, r.End())
	}
	for at := r.First; at < r.End(); {
		if b := t.pending[at]; b != nil {
			if b.stage != stageTold || b.unread != 0 || b.looking {
				return wire.Errorf(wire.CodeFrame, "verdict \"equal\" for batch %d, which is at stage %d", at, b.stage)
			}
			b.stage = stageSettled
			at++
			continue
		}
		e, ok := t.told.At(at * cbt.BatchSize)
		if !ok {
			return wire.Errorf(wire.CodeFrame, "verdict for batch %d, which the source was not told of", at)
		}
		at = min(e.End()/cbt.BatchSize, r.End())
	}
	t.ready.Add(t.extent(r))
	t.answered += r.Count
	return nil
}

// differ settles a batch of ModeVerify in which the grains of mask differ.
func (t *target) differ(d *wire.Diff) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := t.claimLocked(d.Batch)
	if err != nil {
		return err
	}
	if d.Mask&^wire.FullMask(b.n) != 0 {
		return wire.Errorf(wire.CodeExtent, "grains %b of batch %d are outside the disk", d.Mask, d.Batch)
	}
	b.bad, b.theirs = d.Mask, d.Unread
	t.answered++
	t.settleLocked(b)
	return nil
}

// claimLocked finds the batch of a verdict that is due.
func (t *target) claimLocked(at int64) (*tbatch, error) {
	if at >= t.batches() {
		return nil, wire.Errorf(wire.CodeExtent, "batch %d outside a disk of %d batches", at, t.batches())
	}
	if b := t.pending[at]; b != nil {
		if b.stage != stageTold || b.looking {
			return nil, wire.Errorf(wire.CodeFrame, "second verdict for batch %d, or a question about it is open", at)
		}
		return b, nil
	}
	e := t.batch(at)
	if !t.told.Covers(e) || t.ready.Covers(e) {
		return nil, wire.Errorf(wire.CodeExtent, "batch %d is not in the plan, or settled", at)
	}
	if t.claimed++; t.claimed > t.maxClaimed {
		return nil, wire.Errorf(wire.CodeLimit, "more than %d batches are unsettled", t.maxClaimed)
	}
	t.told.Remove(e)
	b := t.grabLocked()
	b.claimed = true
	b.leaves = leaves{batch: at, n: t.grains(at), zero: wire.FullMask(t.grains(at))}
	b.hole = b.zero
	t.pending[at] = b
	return b, nil
}

// claim prepares for the writes of d: from here on the batch is the caller's.
func (t *target) claim(d *wire.Data) (*tbatch, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !d.Redo {
		b, err := t.claimLocked(d.Batch)
		if err != nil {
			return nil, err
		}
		if lie := data(d) & b.sampled &^ b.unread; lie != 0 && t.cfg.bug != bugBelieveHint {
			return nil, wire.Errorf(wire.CodeDistrust, "%d sampled grains of batch %d differ though the hint calls them unchanged", lie.Count(), d.Batch)
		}
		if d.Mask&b.skip != 0 {
			return nil, wire.Errorf(wire.CodeExtent, "data for grains %b of batch %d, which are not in the plan", d.Mask&b.skip, d.Batch)
		}
		if err := b.mayPart(d); err != nil {
			return nil, err
		}
		b.stage = stageWriting
		t.writing++
		t.answered++
		t.lostLocked(d)
		return b, nil
	}
	b := t.pending[d.Batch]
	if b == nil || b.stage != stageRedo || d.Mask != b.fresh {
		return nil, wire.Errorf(wire.CodeFrame, "batch %d was not asked for again", d.Batch)
	}
	if err := b.mayPart(d); err != nil {
		return nil, err
	}
	b.stage = stageWriting
	t.writing++
	return b, nil
}

// data is the grains of d that have contents: not those that the source could
// not read.
func data(d *wire.Data) (mask wire.Mask) {
	for i := range d.Records {
		if r := &d.Records[i]; r.Enc != wire.EncBad {
			lo := int(r.Extent.Off-d.Batch*cbt.BatchSize) / cbt.GrainSize
			hi := lo + int((r.Extent.Len+cbt.GrainSize-1)/cbt.GrainSize)
			mask |= wire.FullMask(hi) &^ wire.FullMask(lo)
		}
	}
	return mask
}

// lostLocked counts grains that the journal of this run calls durable and that
// differ all the same.
func (t *target) lostLocked(d *wire.Data) {
	if t.had.Empty() {
		return
	}
	for lo, hi := range spans(d.Mask) {
		for g := lo; g < hi; g++ {
			if t.had.Covers(t.grain(d.Batch, g)) {
				t.lost++
			}
		}
	}
}

// wrote takes over what the batch holds now that d is written.
func (t *target) wrote(b *tbatch, d *wire.Data) (raw int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	start := b.batch * cbt.BatchSize
	for i := range d.Records {
		r := &d.Records[i]
		lo := int(r.Extent.Off-start) / cbt.GrainSize
		mask := wire.FullMask(lo+int((r.Extent.Len+cbt.GrainSize-1)/cbt.GrainSize)) &^ wire.FullMask(lo)
		if r.Enc == wire.EncBad {
			b.bad |= mask
			continue
		}
		b.zero, b.hole, b.unread = b.zero&^mask, b.hole&^mask, b.unread&^mask
		b.written, b.fresh = b.written|mask, b.fresh|mask
		if r.Enc == wire.EncZero || r.Enc == wire.EncHole {
			b.zero |= mask
		} else {
			b.digests[lo] = r.Digest
		}
	}
	b.stage = stageWritten
	t.writing--
	return d.Raw
}

// settle ends a batch that was read back, or has nothing to read back.
func (t *target) settle(b *tbatch) {
	t.mu.Lock()
	t.settleLocked(b)
	t.mu.Unlock()
}

func (t *target) settleLocked(b *tbatch) {
	b.stage = stageSettled
	t.ready.Add(t.batch(b.batch))
}

// advance folds what is settled without a gap, and returns how many places of
// the window that frees.
func (t *target) advance() (freed int64) {
	for more := true; more; {
		var n int64
		n, more = t.advanceSome()
		freed += n
	}
	return freed
}

// foldAtOnce is how many batches of a hole are folded under one lock: 16 GiB of
// it are 8 MiB of digests. A sparse disk of many TiB must not stop the acks.
const foldAtOnce = 16 << 10

func (t *target) advanceSome() (freed int64, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := t.settled
	e, ok := t.ready.At(from * cbt.BatchSize)
	if !ok || from == t.batches() {
		return 0, false
	}
	end := min((e.End()+cbt.BatchSize-1)/cbt.BatchSize, from+foldAtOnce)
	for t.settled < end {
		freed += t.foldLocked(end)
	}
	t.ready.Remove(t.extent(wire.Run{First: from, Count: end - from}))
	return freed, true
}

func (t *target) foldLocked(end int64) (freed int64) {
	b := t.pending[t.settled]
	if b == nil && t.skipRunLocked(end) {
		return 0
	}
	if b == nil {
		e, _ := t.told.At(t.settled * cbt.BatchSize) // same and claim have checked it
		r := wire.Run{First: t.settled, Count: min(e.End()/cbt.BatchSize, end) - t.settled}
		t.root.AddZeros(r.Count * cbt.BatchGrains)
		t.verified += t.extent(r).Len
		t.prog.scanned.Add(t.extent(r).Len)
		t.prog.holes.Add(t.extent(r).Len)
		t.prog.verified.Store(t.verified)
		t.told.Remove(t.extent(r))
		t.settled += r.Count
		return 0
	}
	b.fold(t.root)
	bad := b.bad | b.unread
	t.bad += int64(bad.Count())
	all := wire.FullMask(b.n) &^ b.skip
	t.matched += int64((all &^ b.hole).Count())
	t.skippedN += int64(b.skip.Count())
	t.sampledN += int64(b.sampled.Count())
	t.readBack += int64(b.written.Count())
	t.backed += t.maskBytes(b.batch, b.written)
	t.verified += t.maskBytes(b.batch, all&^bad)
	t.countLocked(b, bad)
	if b.window {
		freed = 1
	}
	if b.claimed {
		t.claimed--
	}
	delete(t.pending, t.settled)
	t.spare = append(t.spare, b)
	t.settled++
	return freed
}

// countLocked brings a settled batch into the counters and the list of what
// stays different.
func (t *target) countLocked(b *tbatch, bad wire.Mask) {
	all, diff := wire.FullMask(b.n)&^b.skip, b.written|bad
	t.prog.scanned.Add(t.maskBytes(b.batch, all))
	t.prog.skipped.Add(t.maskBytes(b.batch, b.skip))
	t.prog.sampled.Add(t.maskBytes(b.batch, b.sampled))
	t.prog.holes.Add(t.maskBytes(b.batch, b.hole))
	t.prog.same.Add(t.maskBytes(b.batch, all&^diff&^b.hole))
	t.prog.differing.Add(t.maskBytes(b.batch, diff))
	t.prog.zero.Add(t.maskBytes(b.batch, b.written&b.zero))
	t.prog.verified.Store(t.verified)
	t.prog.readBack.Store(t.backed)
	t.prog.bad.Store(t.bad)
	t.prog.lost.Store(t.lost)
	unread := bad // of a copy; what it could read it has brought over
	if t.mode == wire.ModeVerify {
		unread = b.theirs | b.unread
	}
	t.badRuns = addBad(t.badRuns, t.layout, b.batch, bad, unread)
	t.prog.list.add(t.layout, b.batch, bad, unread)
}
