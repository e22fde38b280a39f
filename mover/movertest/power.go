package movertest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/haulback/haulback/cbt"
)

// ErrPowerCut is what every use of a disk or file returns from the power cut
// on, for ever: the program that holds it is dead.
var ErrPowerCut = errors.New("movertest: power was cut")

// Power is the mains of one simulated machine: its crash clock, and the one
// thing that a power cut hits. Crashable disks and CrashableStates are plugged
// into it. Safe for concurrent use.
type Power struct {
	// Hook, when set, is called before each durable action, without a lock
	// held; an error of it is the result of the action, which then does
	// nothing. Set it before the disks are used. The words for op are: disk
	// write, disk zero, disk flush, state create, state write, state allocate,
	// state truncate, state sync, state rename, state remove, state dirsync.
	Hook func(op string, e cbt.Extent) error

	mu      sync.Mutex // guards all that is plugged in, and what follows
	boot    int        // rises with each crash: older handles are dead
	actions int
	cutAt   int // the action that cuts the power; 0: none
	off     bool
	plugged []interface {
		crashLocked(rng *rand.Rand, survivePercent int)
	}
}

// NewPower returns the mains of a new machine, switched on.
func NewPower() *Power { return &Power{} }

// Actions is the number of durable actions so far, since NewPower.
func (p *Power) Actions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.actions
}

// CutAt cuts the power in the n-th durable action from now; 0 takes a planned
// cut back. That action and all use after it return ErrPowerCut, until Crash.
func (p *Power) CutAt(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt = 0
	if n > 0 {
		p.cutAt = p.actions + n
	}
}

// IsCut reports whether a planned cut has happened.
func (p *Power) IsCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

// Crash cuts the power now, unless it is off already, and switches it on again.
// What was not durable survives with a chance of survivePercent per sector;
// some survivors are torn. With 0 all is lost and with 100 all is kept whole.
// Handles from before are dead; open anew.
func (p *Power) Crash(rng *rand.Rand, survivePercent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.plugged {
		m.crashLocked(rng, survivePercent)
	}
	p.boot++
	p.off, p.cutAt = false, 0
}

// aliveLocked returns ErrPowerCut for handles of an earlier boot.
func (p *Power) aliveLocked(boot int) error {
	if p.off || boot != p.boot {
		return ErrPowerCut
	}
	return nil
}

// act runs one durable action of a handle: do gets the lock, and cut when the
// power goes in it; what it leaves volatile then may or may not survive.
func (p *Power) act(boot int, op string, e cbt.Extent, do func(cut bool) error) error {
	cut, err := p.begin(boot, op, e)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !cut {
		if err := p.aliveLocked(boot); err != nil {
			return err
		}
	}
	if err := do(cut); err != nil {
		return err
	}
	if cut {
		return ErrPowerCut
	}
	return nil
}

func (p *Power) begin(boot int, op string, e cbt.Extent) (cut bool, err error) {
	p.mu.Lock()
	err = p.aliveLocked(boot)
	if err == nil {
		p.actions++
		if p.actions == p.cutAt {
			p.off, cut = true, true
		}
	}
	p.mu.Unlock()
	if err == nil && p.Hook != nil {
		err = p.Hook(op, e)
	}
	return cut, err
}

// sectorSize is what a device writes at once; within it a write may be torn.
const sectorSize = 512

// maxVersions bounds what is remembered of a sector that is written often
// between two flushes.
const maxVersions = 4

// unsynced holds, per sector, what was written since the last good flush,
// oldest first: a cache may write back any of it, in any order.
type unsynced map[int64][][]byte

// note remembers the present content of the sectors of e, as read tells it.
func (u unsynced) note(e cbt.Extent, read func(p []byte, off int64)) {
	for sector := e.Off / sectorSize; sector*sectorSize < e.End(); sector++ {
		p := make([]byte, sectorSize)
		read(p, sector*sectorSize)
		versions := append(u[sector], p)
		if len(versions) > maxVersions {
			versions = versions[1:]
		}
		u[sector] = versions
	}
}

// newest is what a flush would make durable.
func (u unsynced) newest(sector int64) []byte { return u[sector][len(u[sector])-1] }

// sectors are the numbers in order, so that a crash is replayed exactly.
func (u unsynced) sectors() []int64 {
	numbers := make([]int64, 0, len(u))
	for n := range u {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

// draw decides what one sector holds after a crash: old is what is durable and
// garbage makes what a torn or never written sector may show.
func draw(rng *rand.Rand, survivePercent int, versions [][]byte, old []byte, garbage func() []byte) []byte {
	if rng.IntN(100) >= survivePercent {
		return old
	}
	kept := versions[len(versions)-1]
	if survivePercent >= 100 {
		return kept
	}
	if rng.IntN(4) == 0 {
		kept = versions[rng.IntN(len(versions))]
	}
	if rng.IntN(8) > 0 {
		return kept
	}
	rest := old
	if rng.IntN(2) == 0 {
		rest = garbage()
	}
	torn := slices.Clone(kept)
	copy(torn[sectorSize/2:], rest[sectorSize/2:])
	return torn
}

func randomSector(rng *rand.Rand) []byte {
	p := make([]byte, sectorSize)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}
