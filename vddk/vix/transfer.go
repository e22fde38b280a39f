//go:build linux && amd64 && cgo

package vix

// #include "shim.h"
import "C"

import (
	"fmt"
	"runtime/cgo"
	"syscall"
	"unsafe"
)

// window is how many pieces of one request are under way at once.
const window = 4

// transfer moves p in pieces. It takes the first slot that comes free, and more
// of them only when nobody has to wait for it: two requests that each hold some
// slots and want more would wait for ever.
func (d *Disk) transfer(op operation, p []byte, off int64) (int, error) {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if err := d.may(op, int64(len(p)), off); err != nil {
		return 0, err
	}
	if op == opWrite {
		d.blocks.wrote(off, len(p)) // before the data can be there
	}
	var (
		flying      [window]*slot // a ring, in the order of the disk
		first, many int
		asked, done int // bytes
		failure     error
	)
	for asked < len(p) && failure == nil || many > 0 {
		if asked < len(p) && failure == nil && many < window {
			s := d.take(many == 0)
			if s == nil && many == 0 {
				failure = d.failed(op, int64(len(p)-asked), off+int64(asked), d.contradiction(op))
				continue
			}
			if s != nil {
				n := min(len(p)-asked, d.piece)
				if op == opWrite {
					copy(s.mem, p[asked:asked+n])
				}
				d.submit(s, op, off+int64(asked), n)
				flying[(first+many)%window] = s
				asked, many = asked+n, many+1
				continue
			}
		}
		s := flying[first]
		first, many = (first+1)%window, many-1
		rc := d.result(s)
		switch {
		case failure != nil:
		case rc != 0:
			failure = d.failed(op, int64(s.len), s.off, d.lib.fail(d.function(op), d.path, rc))
		default:
			if op == opRead {
				copy(p[done:], s.mem[:s.len])
			}
			done += s.len
		}
		d.give(s)
	}
	return done, failure
}

// result waits for the answer. Success of a broken disk is none.
func (d *Disk) result(s *slot) uint64 {
	rc := <-s.done
	if rc == 0 && d.broken.Load() {
		rc = rcContradiction
	}
	return rc
}

// take returns nil when there is no slot and wait is false, or when the disk is
// broken.
func (d *Disk) take(wait bool) *slot {
	if wait {
		select {
		case s := <-d.free:
			return s
		case <-d.dead:
			return nil
		}
	}
	select {
	case s := <-d.free:
		return s
	default:
		return nil
	}
}

// give makes the slot free again. Those of a broken disk never are: the library
// may still write to their memory.
func (d *Disk) give(s *slot) {
	if !d.broken.Load() {
		d.free <- s
	}
}

// breaks makes all later requests fail: what the library says about this disk
// cannot be believed any more.
func (d *Disk) breaks() {
	if d.broken.CompareAndSwap(false, true) {
		close(d.dead)
	}
}

func (d *Disk) contradiction(op operation) error {
	return d.lib.fail(d.function(op), d.path, rcContradiction)
}

// submit never blocks: the queue has room for every slot.
func (d *Disk) submit(s *slot, op operation, off int64, length int) {
	s.off, s.len = off, length
	s.op.Store(uint32(op))
	s.arm()
	d.queue <- s
}

func (d *Disk) departed() {
	d.flight.Lock()
	defer d.flight.Unlock()
	d.inFlight++
}

// landed is the end of a piece, on whatever thread it came.
func (d *Disk) landed() {
	d.flight.Lock()
	defer d.flight.Unlock()
	if d.inFlight--; d.inFlight == 0 {
		d.idle.Broadcast()
	}
}

// settle waits until the library has answered all it took.
func (d *Disk) settle() {
	d.flight.Lock()
	defer d.flight.Unlock()
	for d.inFlight > 0 {
		d.idle.Wait()
	}
}

// startThread makes the I/O thread: a new one, because the library wants threads
// that began after InitEx, and C's, because Go cannot promise one.
func (d *Disk) startThread() error {
	key := cgo.NewHandle(d)
	if errno := C.hb_thread(C.uintptr_t(key)); errno != 0 {
		key.Delete()
		return fmt.Errorf("open %s: thread: %w", d.path, syscall.Errno(errno))
	}
	return nil
}

//export haulbackVixThread
func haulbackVixThread(key C.uintptr_t) {
	h := cgo.Handle(key)
	d := h.Value().(*Disk)
	h.Delete()
	defer close(d.ended)
	for s := range d.queue {
		switch token := s.token.Load(); {
		case d.broken.Load():
			s.answer(token, rcContradiction)
		case operation(s.op.Load()) == opFlush:
			s.answer(token, d.flush(s))
		default:
			d.hand(s, token)
		}
	}
	d.rest()
}

// hand passes a piece to the library, and answers when no callback will come.
func (d *Disk) hand(s *slot, token uint64) {
	d.calling.Lock()
	defer d.calling.Unlock()
	var write C.int
	if operation(s.op.Load()) == opWrite {
		write = 1
	}
	s.begin()
	d.departed() // before the call: its callback may be faster than its return
	rc := uint64(C.hb_transfer(d.lib.api, d.handle, write, C.uint64_t(s.off/SectorSize), C.uint64_t(s.len/SectorSize),
		unsafe.Pointer(unsafe.SliceData(s.mem)), C.uint64_t(token)))
	if rc == codeAsync && d.async {
		return
	}
	if d.async {
		s.refused.Store(token)
	}
	if rc == 0 && d.async {
		// Neither "later" nor an error. To take it for done could be a lie, and
		// the callback may still come and write to memory of another request.
		d.breaks()
		rc = rcContradiction
	}
	if !s.answer(token, rc) {
		d.breaks() // the callback of a request that was refused was here first
		return
	}
	d.landed()
}

// flush is Wait, then Flush.
func (d *Disk) flush(s *slot) uint64 {
	d.calling.Lock()
	defer d.calling.Unlock()
	s.begin()
	if rc := uint64(C.hb_wait(d.lib.api, d.handle)); rc != 0 {
		return rc
	}
	d.settle() // the library's promise is not taken on trust
	if d.broken.Load() {
		return rcContradiction
	}
	return uint64(C.hb_flush(d.lib.api, d.handle))
}

// rest lets the library come out of its last callbacks, before Close.
func (d *Disk) rest() {
	d.calling.Lock()
	defer d.calling.Unlock()
	C.hb_wait(d.lib.api, d.handle) // every request was answered: its result says nothing new
}
