//go:build linux && amd64 && cgo

package vix

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/haulback/haulback/cbt"
)

const (
	flagUnbuffered = 1
	flagReadOnly   = 4
)

// Disk is an open disk with a connection of its own. All methods may be called
// concurrently. Offsets and lengths are in bytes and multiples of SectorSize.
type Disk struct {
	lib      *Library
	path     string
	readOnly bool
	async    bool // the library has ReadAsync and WriteAsync
	piece    int  // bytes
	size     int64
	mode     string

	connection, handle unsafe.Pointer // opaque: a library may mean something by NULL
	connected, opened  bool

	closing sync.RWMutex // held for reading by every call, for writing by Close
	closed  bool

	calling sync.Mutex // one thread at a time is inside the library with handle
	slots   []*slot
	free    chan *slot
	queue   chan *slot // to the I/O thread
	ended   chan struct{}

	flight   sync.Mutex // guards inFlight
	idle     *sync.Cond // inFlight became 0
	inFlight int        // pieces that the library has taken and not answered

	broken atomic.Bool   // the library contradicted itself; nothing is asked of it any more
	dead   chan struct{} // closed then

	flushing sync.Mutex
	lost     atomic.Pointer[ioError] // the first failed flush: nothing after it can be believed
	blocks   allocation

	zeroing sync.Mutex
	look    []byte // what Zero reads holes into
}

// Open connects to the server and opens a disk of the VM.
func (l *Library) Open(ctx context.Context, p Params, t Target) (*Disk, error) {
	if err := errors.Join(p.validate(), t.validate()); err != nil {
		return nil, fmt.Errorf("open %s: %w", t.Path, err)
	}
	if !t.ReadOnly && C.hb_has_flush(l.api) == 0 {
		return nil, fmt.Errorf("open %s for writing: %w: the library has no function VixDiskLib_Flush", t.Path, syscall.ENOTSUP)
	}
	size, count := t.pieces()
	d := &Disk{
		lib: l, path: t.Path, readOnly: t.ReadOnly, async: C.hb_has_async(l.api) != 0, piece: size,
		free: make(chan *slot, count), queue: make(chan *slot, count), ended: make(chan struct{}), dead: make(chan struct{}),
	}
	d.idle = sync.NewCond(&d.flight)
	if err := l.takeSlots(d, size, count); err != nil {
		return nil, fmt.Errorf("open %s: %w", t.Path, err)
	}
	if err := d.open(ctx, p, t); err != nil {
		l.giveSlots(d)
		return nil, err
	}
	l.mu.Lock()
	l.disks[d] = struct{}{}
	l.mu.Unlock()
	return d, nil
}

// open makes the calls of the main thread, and undoes them when one fails.
func (d *Disk) open(ctx context.Context, p Params, t Target) error {
	err := d.connect(ctx, p, t)
	if err != nil {
		return err
	}
	if err = d.openHandle(ctx, t); err == nil {
		if err = d.inspect(ctx); err == nil {
			err = d.startThread()
		}
	}
	if err != nil {
		err = errors.Join(err, d.release())
	}
	return err
}

func (d *Disk) connect(ctx context.Context, p Params, t Target) error {
	login := newLogin(&p)
	defer login.free()
	snapshot, freeSnapshot := optional(t.Snapshot)
	defer freeSnapshot()
	transports := C.CString(t.Transports)
	defer C.free(unsafe.Pointer(transports))
	var readOnly C.int
	if t.ReadOnly {
		readOnly = 1
	}
	err := d.control(ctx, "ConnectEx", p.VM+" of "+p.Server, func() C.uint64_t {
		return C.hb_connect(d.lib.api, &login.c, readOnly, snapshot, transports, &d.connection)
	})
	d.connected = err == nil
	return err
}

func (d *Disk) openHandle(ctx context.Context, t Target) error {
	path := C.CString(t.Path)
	defer C.free(unsafe.Pointer(path))
	flags := C.uint32_t(flagUnbuffered)
	if t.ReadOnly {
		flags |= flagReadOnly
	}
	err := d.control(ctx, "Open", d.path, func() C.uint64_t {
		return C.hb_open(d.lib.api, d.connection, path, flags, &d.handle)
	})
	d.opened = err == nil
	return err
}

func (d *Disk) inspect(ctx context.Context) error {
	var sectors C.uint64_t
	err := d.control(ctx, "GetInfo", d.path, func() C.uint64_t {
		rc := C.hb_capacity(d.lib.api, d.handle, &sectors)
		d.mode = text(func(p *C.char, n C.int) { C.hb_disk_mode(d.lib.api, d.handle, p, n) })
		return rc
	})
	if err != nil {
		return err
	}
	if sectors == 0 || sectors > math.MaxInt64/SectorSize {
		return fmt.Errorf("VixDiskLib_GetInfo %s: capacity of %d sectors", d.path, uint64(sectors))
	}
	d.size = int64(sectors) * SectorSize
	d.blocks.init(d.size)
	return nil
}

// control makes one call on the main thread.
func (d *Disk) control(ctx context.Context, name, object string, call func() C.uint64_t) error {
	var rc C.uint64_t
	if err := d.lib.do(ctx, name, object, func() { rc = d.alone(call) }); err != nil {
		return err
	}
	return d.lib.fail(name, object, uint64(rc))
}

// mustControl is control that nothing cancels.
func (d *Disk) mustControl(name string, call func() C.uint64_t) error {
	var rc C.uint64_t
	if err := d.lib.turn(nil, name, d.path, func() { rc = d.alone(call) }); err != nil {
		return err
	}
	return d.lib.fail(name, d.path, uint64(rc))
}

func (d *Disk) alone(call func() C.uint64_t) C.uint64_t {
	d.calling.Lock()
	defer d.calling.Unlock()
	return call()
}

// release closes what open opened.
func (d *Disk) release() error {
	var all []error
	if d.opened {
		all = append(all, d.mustControl("Close", func() C.uint64_t { return C.hb_close(d.lib.api, d.handle) }))
		d.opened = false
	}
	if d.connected {
		all = append(all, d.mustControl("Disconnect", func() C.uint64_t { return C.hb_disconnect(d.lib.api, d.connection) }))
		d.connected = false
	}
	return errors.Join(all...)
}

// Size is the capacity in bytes.
func (d *Disk) Size() int64 { return d.size }

// TransportMode is how the library reaches the disk: "nbdssl", "hotadd", ... or
// empty when it does not say.
func (d *Disk) TransportMode() string { return d.mode }

// ReadAt fills p from off. p and off are in sectors and within Size.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.transfer(opRead, p, off) }

// WriteAt writes p at off. p and off are in sectors and within Size.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) { return d.transfer(opWrite, p, off) }

// Flush makes durable what was written before it. After an error every later
// WriteAt and Flush of the disk fails.
func (d *Disk) Flush() error {
	d.closing.RLock()
	defer d.closing.RUnlock()
	d.flushing.Lock()
	defer d.flushing.Unlock()
	if err := d.may(opFlush, 0, 0); err != nil {
		return err
	}
	err := d.flushed()
	if err == nil {
		return nil
	}
	lost := d.failed(opFlush, d.size, 0, err)
	d.lost.Store(lost)
	return lost
}

func (d *Disk) flushed() error {
	s := d.take(true)
	if s == nil {
		return d.contradiction(opFlush)
	}
	defer d.give(s)
	d.submit(s, opFlush, 0, 0)
	return d.lib.fail(d.function(opFlush), d.path, d.result(s))
}

// may is every reason to refuse a request before it reaches the library.
func (d *Disk) may(op operation, length, off int64) error {
	var err error
	switch lost := d.lost.Load(); {
	case d.closed:
		err = fs.ErrClosed
	case d.broken.Load():
		err = fmt.Errorf("%w: the library contradicted itself before", syscall.EIO)
	case op != opRead && d.readOnly:
		err = syscall.EPERM
	case off < 0 || off > d.size || length > d.size-off:
		err = fmt.Errorf("%w: beyond the end at %d", syscall.EINVAL, d.size)
	case off%SectorSize != 0 || length%SectorSize != 0:
		err = fmt.Errorf("%w: not in whole sectors of %d bytes", syscall.EINVAL, SectorSize)
	case op != opRead && lost != nil:
		return lost
	}
	if err != nil {
		return d.failed(op, length, off, err)
	}
	return nil
}

func (d *Disk) failed(op operation, length, off int64, err error) *ioError {
	return &ioError{op.verb(), length, off, d.path, err}
}

// Close ends the disk after the calls under way have returned. It is idempotent
// and does not flush.
func (d *Disk) Close() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.queue)
	<-d.ended
	err := d.release()
	l := d.lib
	l.mu.Lock()
	delete(l.disks, d)
	l.mu.Unlock()
	l.giveSlots(d)
	return err
}

// stuck names the late call, or is empty.
func (d *Disk) stuck(limit time.Duration) string {
	for _, s := range d.slots {
		if s.late(limit) {
			return d.function(operation(s.op.Load()))
		}
	}
	return ""
}

// NextData returns the first allocated extent that ends beyond off, clipped to
// it, and io.EOF when there is none. See allocation.
func (d *Disk) NextData(off int64) (cbt.Extent, error) {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if err := d.may(opRead, 0, off/SectorSize*SectorSize); err != nil {
		return cbt.Extent{}, err
	}
	if off == d.size {
		return cbt.Extent{}, io.EOF
	}
	return d.blocks.next(off, d.query)
}
