package mover

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// passSpec is what both halves of a pass agree on.
type passSpec struct {
	run  wire.RunID
	pass uint32
	mode wire.Mode
	full bool // nothing is taken from a map of holes
}

// source is the source half of one session of one pass. It lives across
// links: what the target has settled is not compared again on the next one.
type source struct {
	layout
	passSpec
	cfg      *Config
	pool     *pool
	disk     Disk
	prog     *Progress
	workers  int // of one link, each with a block and a data stream
	compress *compressor
	by       terms          // of the link
	gate     *throttle.Gate // of by
	way      *way           // of the run, if this end dials; nil: it was dialed
	owner    [16]byte

	track   wire.Tracking
	base    uint32     // the pass that the hint counts from; 0: not said
	every   int64      // of a comparison: one grain in so many is compared; 0 and 1: all
	told    cbt.Digest // of what the peer has told of the changes
	plan    cbt.Plan
	planSum cbt.Digest // of plan, and of base

	lost bool // its disk, since the last link; of who runs the sessions

	claim func() cbt.Digest // of a stream: the root that it says it has; nil: none is known

	mu      sync.Mutex
	held    uint64            // epoch of the last link
	fresh   bool              // all verdicts were dropped; the target has not been told
	settled int64             // root covers the batches below
	root    *cbt.Root         //
	answers map[int64]*answer // read, not settled
	empty   cbt.Map           // holes on both sides, not settled
	spare   []*answer
	bad     []BadRun
	badN    int64        // grains in bad
	unread  atomic.Int64 // grains that could not be read, of this session
	matched int64        // grains below settled that were compared by reading
	skipped int64        // grains below settled that the plan leaves out
	sampled int64        // grains of matched that the hint calls unchanged
}

// answer is what the source found in one batch, and where the target differs.
type answer struct {
	leaves
	diff    wire.Mask
	theirs  wire.Mask // of diff: grains that the target could not read
	sampled wire.Mask // grains that the hint calls unchanged
	redos   uint8     // times the target asked for grains again
	redo    bool      // that is in work
	parked  bool      // its verdict waits for pieces
	asked   wire.Mask // grains whose pieces the target has not told yet
}

// ready opens the disk anew if the last link has lost it.
func (s *source) ready(ctx context.Context, open OpenDisk, ask HintFunc) error {
	if !s.lost {
		return nil
	}
	if err := s.reopen(ctx, open, ask); err != nil {
		return err
	}
	s.lost = false
	return nil
}

// learn takes from the error that ended a link what the next one has to do
// otherwise, and returns it, or why there is to be no next one.
func (s *source) learn(err error) error {
	s.lost = codeOf(err) == wire.CodeDiskLost && !remote(err)
	if codeOf(err) == wire.CodeDistrust && s.hinted() {
		if e := s.distrust(err); e != nil {
			return e
		}
	}
	return err
}

// reopen takes the disk up again after its driver has lost what is behind it.
// Verdicts go: an identity may be no more than a name, and what answers to it
// now may be another image, or an older state of it.
func (s *source) reopen(ctx context.Context, open OpenDisk, ask HintFunc) error {
	identity := s.disk.Identity()
	_ = s.disk.Close() // only read, and lost
	disk, err := open.patiently(ctx, ReadOnly)
	if err != nil {
		return diskError(wire.CodeOpen, "source", "open again", cbt.Extent{}, err)
	}
	s.disk = disk
	if disk.Identity() != identity || disk.Size() != s.size {
		return wire.Errorf(wire.CodeDiskChanged, "the source was lost, and opened again it is another disk: %s of %d bytes, before %s of %d",
			disk.Identity(), disk.Size(), identity, s.size)
	}
	s.forget()
	if !s.hinted() {
		return nil
	}
	return s.narrow(ctx, s.track, ask)
}

// fit says whether disk may be the source of spec. A disk that haulback itself
// has half overwritten is no source: somebody has swapped the two.
func (e *Engine) fit(disk Disk, spec passSpec, unproved bool) error {
	if disk.Size() == 0 {
		return wire.Errorf(wire.CodeTooSmall, "the source has 0 bytes: nothing can be compared; is it the right disk?")
	}
	if spec.mode == wire.ModeVerify || unproved || e.state == nil {
		return nil
	}
	st, err := ReadJournal(e.state, disk.Identity())
	if err != nil {
		return err
	}
	if st.State != wire.StateClean && st.State != wire.StateVerified {
		return wire.Errorf(wire.CodeRole, "the source is itself the target of run %v, and %v: are source and target swapped? Finish that run first", st.Run, st.State)
	}
	return nil
}

func newSource(cfg *Config, p *pool, disk Disk, spec passSpec, prog *Progress) *source {
	s := &source{layout: layout{disk.Size()}, passSpec: spec, cfg: cfg, pool: p, disk: disk, prog: prog, compress: newCompressor(cfg.Compress)}
	if cfg.cpu != nil {
		s.compress.cpu = cfg.cpu
	}
	s.usePlan(cbt.PlanFull(disk.Size()))
	s.prog.total.Store(s.size)
	s.restart()
	return s
}

// restart forgets all verdicts: the next link compares from the start, as a
// new owner.
func (s *source) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = rand.Read(s.owner[:]) // never fails
	s.held = 0
	s.rewindLocked()
}

func (s *source) rewindLocked() {
	s.settled, s.root, s.answers, s.empty = 0, cbt.NewRoot(s.size), make(map[int64]*answer), cbt.Map{}
	s.bad, s.badN, s.matched, s.skipped, s.sampled = nil, 0, 0, 0, 0
	s.prog.rewind()
}

// forget drops all verdicts, as the same owner: what another run did to the
// target in between fences it off all the same.
func (s *source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = true
	s.rewindLocked()
}

// resume prepares the next link, which begins at batch start: verdicts below
// are kept, verdicts that the target has not settled are not.
func (s *source) resume(start int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if start == 0 {
		s.rewindLocked()
		return nil
	}
	for s.settled < start {
		if _, err := s.foldLocked(min(start, s.settled+foldAtOnce)); err != nil {
			return err
		}
	}
	for _, a := range s.answers {
		s.countLocked(a, -1)
		s.spare = append(s.spare, a)
	}
	clear(s.answers)
	s.prog.holes.Add(-s.empty.Len())
	s.prog.scanned.Add(-s.empty.Len())
	s.empty = cbt.Map{}
	return nil
}

// take gives an answer to fill.
func (s *source) take() *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.spare); n > 0 {
		a := s.spare[n-1]
		s.spare = s.spare[:n-1]
		a.redos, a.redo, a.parked, a.asked = 0, false, false, 0
		return a
	}
	return new(answer)
}

// record keeps a until the target has settled its batch. It has to come before
// the verdict is sent.
func (s *source) record(a *answer) {
	s.mu.Lock()
	s.answers[a.batch] = a
	s.countLocked(a, 1)
	s.mu.Unlock()
}

// recordHoles keeps a run of batches that are holes on both sides.
func (s *source) recordHoles(r wire.Run) {
	e := s.extent(r)
	s.mu.Lock()
	s.empty.Add(e)
	s.mu.Unlock()
	s.prog.holes.Add(e.Len)
	s.prog.scanned.Add(e.Len)
}

// countLocked adds a to the counters, or with sign -1 takes it out.
func (s *source) countLocked(a *answer, sign int64) {
	all := wire.FullMask(a.n) &^ a.skip
	holes := a.hole &^ a.diff
	s.prog.scanned.Add(sign * s.maskBytes(a.batch, all))
	s.prog.skipped.Add(sign * s.maskBytes(a.batch, a.skip))
	s.prog.sampled.Add(sign * s.maskBytes(a.batch, a.sampled))
	s.prog.holes.Add(sign * s.maskBytes(a.batch, holes))
	s.prog.same.Add(sign * s.maskBytes(a.batch, all&^a.diff&^holes))
	s.prog.differing.Add(sign * s.maskBytes(a.batch, a.diff))
	s.prog.zero.Add(sign * s.maskBytes(a.batch, a.diff&a.zero))
}

// settle folds what the target says is settled and returns how many answers
// that freed.
func (s *source) settle(upto int64) (freed int64, err error) {
	for {
		s.mu.Lock()
		n, err := s.foldLocked(min(upto, s.settled+foldAtOnce))
		more := s.settled < upto
		s.mu.Unlock()
		freed += n
		if err != nil || !more {
			return freed, err
		}
	}
}

func (s *source) foldLocked(upto int64) (freed int64, err error) {
	if upto > s.batches() || upto < s.settled {
		return 0, wire.Errorf(wire.CodeFrame, "the target settled batch %d, at %d of %d", upto, s.settled, s.batches())
	}
	for s.settled < upto {
		if a := s.answers[s.settled]; a != nil && a.parked {
			return freed, wire.Errorf(wire.CodeFrame, "the target settled batch %d, which has no verdict yet", s.settled)
		} else if a != nil {
			a.fold(s.root)
			s.badLocked(a)
			s.matched += int64((wire.FullMask(a.n) &^ a.skip &^ (a.hole &^ a.diff)).Count())
			s.skipped += int64(a.skip.Count())
			s.sampled += int64(a.sampled.Count())
			delete(s.answers, s.settled)
			s.spare = append(s.spare, a)
			s.settled++
			freed++
			continue
		}
		if n := s.skipRun(upto); n > 0 {
			e := s.extent(wire.Run{First: s.settled, Count: n})
			s.root.AddSkipped(cbt.Grains(e.Len))
			s.skipped += cbt.Grains(e.Len)
			s.prog.skipped.Add(e.Len)
			s.settled += n
			continue
		}
		e, ok := s.empty.At(s.settled * cbt.BatchSize)
		if !ok {
			return freed, wire.Errorf(wire.CodeFrame, "the target settled batch %d, which has no verdict", s.settled)
		}
		n := min(e.End()/cbt.BatchSize, upto) - s.settled // never the last batch
		s.root.AddZeros(n * cbt.BatchGrains)
		s.empty.Remove(s.extent(wire.Run{First: s.settled, Count: n}))
		s.settled += n
	}
	return freed, nil
}

// skipRun is the number of batches from settled, up to upto, that the plan
// leaves out whole.
func (s *source) skipRun(upto int64) int64 {
	if !s.hinted() {
		return 0
	}
	if e, ok := s.plan.Read.Next(s.settled * cbt.BatchSize); ok {
		upto = min(upto, e.Off/cbt.BatchSize)
	}
	return max(0, upto-s.settled)
}

// badLocked lists the grains of a that stay different.
func (s *source) badLocked(a *answer) {
	mask, unread := a.unread, a.unread
	if s.mode == wire.ModeVerify {
		mask, unread = a.diff, a.unread|a.theirs
	}
	s.badN += int64(mask.Count())
	s.bad = addBad(s.bad, s.layout, a.batch, mask, unread)
	s.prog.list.add(s.layout, a.batch, mask, unread)
	s.prog.bad.Store(s.badN)
}

// done reports whether every batch is settled, and the frame that says so.
func (s *source) done() (wire.Finish, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled < s.batches() {
		return wire.Finish{}, false, nil
	}
	root, err := s.root.Sum()
	if err == nil && s.claim != nil && s.badN == 0 && root != s.claim() {
		err = wire.Errorf(wire.CodeVerify, "what was restored has root %v, the stream says %v", root, s.claim())
	}
	return wire.Finish{Root: root, Compared: s.matched, Bad: s.badN}, true, err
}

// session runs the source half on one link until the target's last word.
func (s *source) session(ctx context.Context, l *lane) (wire.Opened, wire.Verified, error) {
	opened, err := s.open(l)
	if err != nil {
		return opened, wire.Verified{}, err
	}
	s.prog.endLink()
	s.prog.had.Store(opened.Had)
	blocks, err := s.pool.take(ctx, s.workers)
	if err != nil {
		return opened, wire.Verified{}, err
	}
	defer s.pool.put(blocks)
	s.compress.link(l.link.Transport(), s.workers, s.by.here, s.gate.WireRate)
	v, err := newSourceSession(s, l, opened).run(ctx, blocks)
	return opened, v, err
}

// open exchanges Open and Opened.
func (s *source) open(l *lane) (wire.Opened, error) {
	s.workers = s.pool.workers(s.cfg.Workers)
	s.mu.Lock()
	o := wire.Open{
		Mode: s.mode, Full: s.full, Streams: uint8(s.workers), Owner: s.owner, Held: s.held, Start: s.settled,
		Size: s.size, Window: uint32(s.cfg.Batches), Plan: s.planSum, Hinted: s.hinted(), Fresh: s.fresh,
		Refine:   s.offers(l),
		Identity: s.disk.Identity(), Reason: s.plan.Reason,
	}
	s.mu.Unlock()
	var opened wire.Opened
	if err := s.by.begin(l); err != nil {
		return opened, err
	}
	if s.base > 0 && o.Hinted && s.mode == wire.ModeCopy {
		if err := l.send(&wire.Base{Pass: s.base}); err != nil {
			return opened, err
		}
	}
	if err := l.send(&o); err != nil {
		return opened, err
	}
	stop := l.knock()
	err := l.expectAlive(openWait, &opened, &s.by)
	stop()
	if err != nil {
		return opened, err
	}
	if opened.Size < s.size {
		return opened, wire.Errorf(wire.CodeTooSmall, "the target has %d bytes, the source %d: make the target at least as large", opened.Size, s.size)
	}
	if o.Fresh && opened.Start != 0 {
		return opened, wire.Errorf(wire.CodeFrame, "the target goes on at batch %d, of verdicts that were taken back", opened.Start)
	}
	if opened.Refine && !o.Refine {
		return opened, wire.Errorf(wire.CodeFrame, "the target tells pieces, and was not asked to")
	}
	if err := s.resume(opened.Start); err != nil {
		s.restart()
		return opened, &linkError{err}
	}
	s.mu.Lock()
	s.held, s.fresh = opened.Epoch, false
	s.mu.Unlock()
	s.prog.beginLink()
	return opened, nil
}
