package movertest

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"syscall"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
)

// Crashable is a block device with a volatile cache in front of it. A write is
// seen by ReadAt at once and durable after Flush. ReadCold shows what the device
// would hold if all were written back now, which is what a kernel does before a
// direct read; sectors that an injected fault lost are the difference: ReadAt
// shows the new bytes from the cache, ReadCold the old ones of the device.
//
// The device outlives its opens and crashes; Open gives a disk.
type Crashable struct {
	power *Power
	id    int64

	// Guarded by power.mu.
	durable   *sparse // what the medium holds
	cache     *sparse // what ReadAt shows
	dirty     unsynced
	hold      hold
	flushes   countdown
	writes    countdown
	lieActive bool
}

// countdown hits one call in the future.
type countdown int

func (c *countdown) hit() bool {
	if *c > 0 {
		*c--
		return *c == 0
	}
	return false
}

// NewCrashable plugs a device of size bytes, all zeros and durable, into power.
func NewCrashable(power *Power, size int64) *Crashable {
	return plugDevice(power, newSparse(size))
}

// NewCrashableFrom is NewCrashable with durable content.
func NewCrashableFrom(power *Power, content []byte) *Crashable {
	durable := newSparse(int64(len(content)))
	durable.fill(content)
	return plugDevice(power, durable)
}

func plugDevice(power *Power, durable *sparse) *Crashable {
	c := &Crashable{power: power, id: lastID.Add(1), durable: durable, cache: durable.clone(), dirty: unsynced{}}
	power.mu.Lock()
	defer power.mu.Unlock()
	power.plugged = append(power.plugged, c)
	return c
}

// Open opens the device. It refuses a second writer, and a writer beside
// readers, with syscall.EBUSY; a crash frees every hold.
func (c *Crashable) Open(mode Mode) (*CrashDisk, error) {
	c.power.mu.Lock()
	defer c.power.mu.Unlock()
	if c.power.off {
		return nil, ErrPowerCut
	}
	if err := c.hold.take(mode); err != nil {
		return nil, err
	}
	return &CrashDisk{dev: c, boot: c.power.boot, readOnly: mode == ReadOnly}, nil
}

// Bytes is a copy of what ReadAt shows.
func (c *Crashable) Bytes() []byte {
	c.power.mu.Lock()
	defer c.power.mu.Unlock()
	return c.cache.bytes()
}

// Durable is a copy of what a power cut cannot take away.
func (c *Crashable) Durable() []byte {
	c.power.mu.Lock()
	defer c.power.mu.Unlock()
	return c.durable.bytes()
}

// FailFlush makes the n-th Flush from now return EIO, once. As in Linux the
// pages that were to be written are marked clean: the next Flush says OK, and
// what they held never reaches the device (rule K3). Reads from the cache still
// show it.
func (c *Crashable) FailFlush(n int) { c.set(func() { c.flushes = countdown(n) }) }

// LoseWrite makes the n-th write or zeroing from now reach the cache and
// nothing else, without an error ever.
func (c *Crashable) LoseWrite(n int) { c.set(func() { c.writes = countdown(n) }) }

// Lie makes every Flush say OK and do nothing, until Lie(false) or for ever.
func (c *Crashable) Lie(on bool) { c.set(func() { c.lieActive = on }) }

// Rot turns over one bit of the durable byte at off. The cache does not notice:
// ReadAt shows the byte as it was, until DropCaches or a crash.
func (c *Crashable) Rot(off int64) {
	c.set(func() {
		var p [1]byte
		c.durable.readAt(p[:], off)
		p[0] ^= 1 << (off % 8)
		c.durable.writeAt(p[:], off)
	})
}

// DropCaches forgets all that is clean, like a device that nobody has open.
func (c *Crashable) DropCaches() {
	c.set(func() {
		c.cache = c.durable.clone()
		for sector := range c.dirty {
			c.writeSector(c.cache, sector, c.dirty.newest(sector))
		}
	})
}

func (c *Crashable) set(change func()) {
	c.power.mu.Lock()
	defer c.power.mu.Unlock()
	change()
}

// writeSector writes what of the sector lies on the device: its size need not
// be a multiple of the sector.
func (c *Crashable) writeSector(to *sparse, sector int64, p []byte) {
	off := sector * sectorSize
	to.writeAt(p[:min(sectorSize, to.size-off)], off)
}

// crashLocked lets each unsynced sector survive, be lost or be torn.
func (c *Crashable) crashLocked(rng *rand.Rand, survivePercent int) {
	garbage := func() []byte { return randomSector(rng) }
	for _, sector := range c.dirty.sectors() {
		old := make([]byte, sectorSize)
		c.durable.readAt(old, sector*sectorSize)
		c.writeSector(c.durable, sector, draw(rng, survivePercent, c.dirty[sector], old, garbage))
	}
	c.dirty = unsynced{}
	c.cache = c.durable.clone()
	c.hold = hold{}
}

// changeLocked records that the cache holds something new in e.
func (c *Crashable) changeLocked(e cbt.Extent) {
	if !c.writes.hit() {
		c.dirty.note(e, c.cache.readAt)
	}
}

func (c *Crashable) flushLocked() error {
	failed := c.flushes.hit()
	if c.lieActive {
		return nil
	}
	if !failed {
		for sector := range c.dirty {
			c.writeSector(c.durable, sector, c.dirty.newest(sector))
		}
	}
	c.dirty = unsynced{}
	if failed {
		return fmt.Errorf("flush: %w", syscall.EIO)
	}
	return nil
}

// CrashDisk is one open of a Crashable. It has every ability.
type CrashDisk struct {
	dev      *Crashable
	boot     int
	readOnly bool
	closed   bool // guarded by power.mu
}

// use runs f under the lock when the open is alive.
func (d *CrashDisk) use(f func() error) error {
	d.dev.power.mu.Lock()
	defer d.dev.power.mu.Unlock()
	if err := d.stateLocked(); err != nil {
		return err
	}
	return f()
}

func (d *CrashDisk) stateLocked() error {
	if err := d.dev.power.aliveLocked(d.boot); err != nil {
		return err
	}
	if d.closed {
		return fs.ErrClosed
	}
	return nil
}

// change is use for a durable action.
func (d *CrashDisk) change(op string, e cbt.Extent, do func(cut bool) error) error {
	err := d.use(func() error {
		if d.readOnly {
			return fs.ErrPermission
		}
		return inside(e.Off, e.Len, d.Size())
	})
	if err != nil {
		return err
	}
	return d.dev.power.act(d.boot, "disk "+op, e, do)
}

// ReadAt implements mover.Disk: what the cache shows.
func (d *CrashDisk) ReadAt(p []byte, off int64) (n int, err error) {
	return d.read(p, off, d.readCacheLocked)
}

func (d *CrashDisk) readCacheLocked(p []byte, off int64) { d.dev.cache.readAt(p, off) }

// ReadCold implements mover.ColdReader: what the device holds once all that is
// dirty was written back.
func (d *CrashDisk) ReadCold(p []byte, off int64) (int, error) {
	return d.read(p, off, d.readColdLocked)
}

func (d *CrashDisk) readColdLocked(p []byte, off int64) {
	d.dev.durable.readAt(p, off)
	end := off + int64(len(p))
	for sector := off / sectorSize; sector*sectorSize < end; sector++ {
		if _, ok := d.dev.dirty[sector]; !ok {
			continue
		}
		from, to := max(off, sector*sectorSize), min(end, (sector+1)*sectorSize)
		copy(p[from-off:to-off], d.dev.dirty.newest(sector)[from-sector*sectorSize:])
	}
}

func (d *CrashDisk) read(p []byte, off int64, read func(p []byte, off int64)) (n int, err error) {
	failed := d.use(func() error {
		n, err = clip(p, off, d.Size())
		read(p[:n], off)
		return nil
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}

// WriteAt implements mover.WritableDisk.
func (d *CrashDisk) WriteAt(p []byte, off int64) (int, error) {
	e := cbt.Extent{Off: off, Len: int64(len(p))}
	err := d.change("write", e, func(bool) error {
		d.dev.cache.writeAt(p, off)
		d.dev.changeLocked(e)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Zero implements mover.Zeroer.
func (d *CrashDisk) Zero(e cbt.Extent, how mover.Allocation) error {
	if err := e.Check(d.Size()); err != nil {
		return err
	}
	return d.change("zero", e, func(bool) error {
		if how == cbt.Deallocate {
			d.dev.cache.punch(e)
		} else {
			d.dev.cache.writeZeros(e)
		}
		d.dev.changeLocked(e)
		return nil
	})
}

// Flush implements mover.WritableDisk. One that the power goes in may have
// written any part.
func (d *CrashDisk) Flush() error {
	return d.change("flush", cbt.Extent{}, func(cut bool) error {
		if cut {
			return nil
		}
		return d.dev.flushLocked()
	})
}

// NextData implements mover.Mapper.
func (d *CrashDisk) NextData(off int64) (e cbt.Extent, err error) {
	if off < 0 {
		return cbt.Extent{}, cbt.ErrBounds
	}
	err = d.use(func() error {
		e, err = d.dev.cache.nextData(off)
		return err
	})
	return e, err
}

// Check implements mover.Checker.
func (d *CrashDisk) Check() error { return d.use(func() error { return nil }) }

// Coldness is "direct".
func (d *CrashDisk) Coldness() string { return "direct" }

// Size implements mover.Disk.
func (d *CrashDisk) Size() int64 { return d.dev.durable.size }

// Identity implements mover.Disk; it is the same after a crash.
func (d *CrashDisk) Identity() string { return fmt.Sprintf("crashable:%d", d.dev.id) }

// Close implements mover.Disk. It flushes nothing.
func (d *CrashDisk) Close() error {
	d.dev.power.mu.Lock()
	defer d.dev.power.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if d.boot == d.dev.power.boot {
		d.dev.hold.release(d.readOnly)
	}
	return nil
}
