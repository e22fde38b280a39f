package movertest

import (
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

// Fault is one planned fault of a Faulty disk: which calls it hits, and what
// happens to them. "The 3rd WriteAt returns EIO twice" is
//
//	Fault{Op: "WriteAt", Nth: 3, Count: 2, Err: syscall.EIO}
type Fault struct {
	// Op is the method: ReadAt, ReadCold, WriteAt, Zero, Flush, Check,
	// NextData, Close, or "" for any of them.
	Op string
	// Extent limits the fault to calls that touch it; the zero Extent is the
	// whole disk, and calls without an extent (Flush, Check, Close) touch all.
	Extent cbt.Extent
	// Nth is the first matching call that is hit, counted from 1 since Plan;
	// 0 means 1. Count is how many in a row: 0 means 1, negative for ever.
	Nth, Count int

	// Hook runs before the call, without a lock held: a delay (time.Sleep is
	// fake in a synctest bubble), a signal to the test, a blocked device.
	Hook func()
	// Err is returned, after Done bytes of a read or write were done.
	Err  error
	Done int
	// Silent does Done bytes of a write and reports success: a lost tail, with
	// Done 0 a lost write; for Zero a lost zeroing, for Flush a lie.
	Silent bool
	// Flip turns over one bit in the middle of what a read returns or a write
	// writes.
	Flip bool
	// Gone makes this call and every later one of any method fail with ENODEV.
	Gone bool
}

// faultOps are the words that Fault.Op may be.
var faultOps = []string{"", "ReadAt", "ReadCold", "WriteAt", "Zero", "Flush", "Check", "End", "NextData", "Close"}

// Faulty decorates a disk with planned faults. It has every ability; where the
// disk beneath lacks one, it does what package mover falls back to. Faults are
// tried in the order in which they were planned; the first that hits is used.
// Safe for concurrent use: calls are counted in the order in which they begin.
type Faulty struct {
	disk mover.WritableDisk

	mu    sync.Mutex // guards what follows
	plan  []*plannedFault
	calls map[string]int
	gone  bool
	shut  bool // closed: the fall-backs must not answer for a closed disk
}

type plannedFault struct {
	Fault
	seen int // matching calls so far
}

// NewFaulty decorates disk with faults; Plan adds more at any time.
func NewFaulty(disk mover.WritableDisk, faults ...Fault) *Faulty {
	f := &Faulty{disk: disk, calls: make(map[string]int)}
	f.Plan(faults...)
	return f
}

// Plan adds faults, counted from now on. An unknown Op panics: a fault that
// never hits makes a test that cannot fail.
func (f *Faulty) Plan(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		if !slices.Contains(faultOps, fault.Op) {
			panic(fmt.Sprintf("movertest: fault on unknown method %q", fault.Op))
		}
		f.plan = append(f.plan, &plannedFault{Fault: fault})
	}
}

// On makes f decorate disk from now on, another open of the same disk, and
// returns f: the plan and its counts go on. The disk before has to be closed.
func (f *Faulty) On(disk mover.WritableDisk) *Faulty {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disk, f.shut = disk, false
	return f
}

// Calls is how often the method was called so far.
func (f *Faulty) Calls(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// begin counts the call and returns the fault that hits it, or the zero Fault.
func (f *Faulty) begin(op string, e cbt.Extent) Fault {
	fault := f.pick(op, e)
	if fault.Hook != nil {
		fault.Hook()
	}
	return fault
}

func (f *Faulty) pick(op string, e cbt.Extent) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	switch {
	case f.gone:
		return Fault{Err: syscall.ENODEV}
	case f.shut && op != "Close":
		return Fault{Err: fs.ErrClosed}
	}
	var hit *plannedFault
	for _, p := range f.plan {
		if p.matches(op, e) && p.count() && hit == nil {
			hit = p
		}
	}
	if hit == nil {
		return Fault{}
	}
	if hit.Gone {
		f.gone = true
		return Fault{Err: syscall.ENODEV, Hook: hit.Hook}
	}
	return hit.Fault
}

func (p *plannedFault) matches(op string, e cbt.Extent) bool {
	if p.Op != "" && p.Op != op {
		return false
	}
	return p.Extent == (cbt.Extent{}) || e.Len == 0 || p.Extent.Intersect(e).Len > 0
}

// count counts a matching call and reports whether it is one to be hit.
func (p *plannedFault) count() bool {
	p.seen++
	first := max(p.Nth, 1)
	return p.seen >= first && (p.Count < 0 || p.seen < first+max(p.Count, 1))
}

// ReadAt implements mover.Disk.
func (f *Faulty) ReadAt(p []byte, off int64) (int, error) {
	return f.read("ReadAt", p, off, f.disk.ReadAt)
}

// ReadCold implements mover.ColdReader; beneath it falls back to ReadAt.
func (f *Faulty) ReadCold(p []byte, off int64) (int, error) {
	if c, ok := f.disk.(mover.ColdReader); ok {
		return f.read("ReadCold", p, off, c.ReadCold)
	}
	return f.read("ReadCold", p, off, f.disk.ReadAt)
}

// read does not know Silent: a read that returns nil has filled p.
func (f *Faulty) read(op string, p []byte, off int64, read func([]byte, int64) (int, error)) (int, error) {
	fault := f.begin(op, cbt.Extent{Off: off, Len: int64(len(p))})
	if fault.Err != nil {
		n, err := read(p[:min(fault.Done, len(p))], off)
		if err != nil {
			return n, err
		}
		return n, fault.Err
	}
	n, err := read(p, off)
	if fault.Flip && n > 0 {
		p[n/2] ^= 0x10
	}
	return n, err
}

// WriteAt implements mover.WritableDisk.
func (f *Faulty) WriteAt(p []byte, off int64) (int, error) {
	fault := f.begin("WriteAt", cbt.Extent{Off: off, Len: int64(len(p))})
	if fault.Flip && len(p) > 0 {
		p = slices.Clone(p)
		p[len(p)/2] ^= 0x10
	}
	if fault.Err == nil && !fault.Silent {
		return f.disk.WriteAt(p, off)
	}
	n, err := f.disk.WriteAt(p[:min(fault.Done, len(p))], off)
	if err != nil {
		return n, err
	}
	if fault.Silent {
		return len(p), nil
	}
	return n, fault.Err
}

// Zero implements mover.Zeroer; beneath it falls back to writing zeros.
func (f *Faulty) Zero(e cbt.Extent, how mover.Allocation) error {
	fault := f.begin("Zero", e)
	if fault.Err != nil || fault.Silent {
		return fault.Err
	}
	if z, ok := f.disk.(mover.Zeroer); ok {
		return z.Zero(e, how)
	}
	if err := e.Check(f.Size()); err != nil {
		return err
	}
	_, err := f.disk.WriteAt(make([]byte, e.Len), e.Off)
	return err
}

// Flush implements mover.WritableDisk.
func (f *Faulty) Flush() error {
	return f.call("Flush", f.disk.Flush)
}

// Check implements mover.Checker; without it beneath nothing ever changed.
func (f *Faulty) Check() error {
	return f.call("Check", func() error {
		if c, ok := f.disk.(mover.Checker); ok {
			return c.Check()
		}
		return nil
	})
}

// End implements mover.Ender; without it beneath the disk always was the disk.
func (f *Faulty) End() error {
	return f.call("End", func() error {
		if e, ok := f.disk.(mover.Ender); ok {
			return e.End()
		}
		return nil
	})
}

// Close implements mover.Disk. The disk beneath is closed even when an error
// is planned: like close(2), which releases whatever it returns.
func (f *Faulty) Close() error {
	fault := f.begin("Close", cbt.Extent{})
	f.mu.Lock()
	f.shut = true
	f.mu.Unlock()
	if err := f.disk.Close(); err != nil {
		return err
	}
	return fault.Err
}

func (f *Faulty) call(op string, do func() error) error {
	if fault := f.begin(op, cbt.Extent{}); fault.Err != nil || fault.Silent {
		return fault.Err
	}
	return do()
}

// NextData implements mover.Mapper; without it beneath all is data.
func (f *Faulty) NextData(off int64) (cbt.Extent, error) {
	rest := cbt.Extent{Off: off, Len: max(f.Size()-off, 0)}
	if fault := f.begin("NextData", rest); fault.Err != nil {
		return cbt.Extent{}, fault.Err
	}
	if m, ok := f.disk.(mover.Mapper); ok {
		return m.NextData(off)
	}
	if _, err := clip(make([]byte, 1), off, f.Size()); err != nil {
		return cbt.Extent{}, err
	}
	return rest, nil
}

// Coldness is that of the disk beneath, or "cached".
func (f *Faulty) Coldness() string {
	if c, ok := f.disk.(mover.ColdReader); ok {
		return c.Coldness()
	}
	return "cached"
}

// Size implements mover.Disk.
func (f *Faulty) Size() int64 { return f.disk.Size() }

// Identity implements mover.Disk.
func (f *Faulty) Identity() string { return f.disk.Identity() }
