//go:build linux && amd64 && cgo

package vix

// #include "shim.h"
import "C"

import (
	"fmt"
	"runtime/cgo"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// operation is what the I/O thread is asked for.
type operation uint32

const (
	opRead operation = iota
	opWrite
	opFlush
)

func (o operation) verb() string { return [...]string{"read", "write", "flush"}[o] }

// function is the library's name of it.
func (d *Disk) function(o operation) string {
	if d.async {
		return [...]string{"ReadAsync", "WriteAsync", "Flush"}[o]
	}
	return [...]string{"Read", "Write", "Flush"}[o]
}

// slot is one piece of a request: memory outside of Go's heap, page-aligned (as
// unbuffered hotadd wants it), and the token that the callback brings back. The
// token has the slot's index in its low bits and a generation above, so that the
// callback of one piece answers no other: one that comes twice, too late or for
// nobody matches nothing. Slots and their memory are kept for ever, for those.
type slot struct {
	index      uint64
	generation uint64 // of whoever has the slot
	mem        []byte
	disk       atomic.Pointer[Disk]

	op      atomic.Uint32 // an operation; the watchdog reads it
	off     int64         // bytes
	len     int           // bytes
	done    chan uint64
	began   atomic.Int64  // unix nanoseconds; 0 while the library has nothing of it
	token   atomic.Uint64 // what the answer has to bring; 0 while none is awaited
	refused atomic.Uint64 // token of the last piece that the library did not take
	foul    atomic.Bool   // a callback came for it nevertheless: the memory is not ours
}

// slotBits is the part of a token that is an index.
const slotBits = 20

// newSlot adds one to the library's table, where callbacks look for it.
func (l *Library) newSlot(size int) (*slot, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory for a request of %d bytes: %w", size, err)
	}
	s := &slot{mem: mem, done: make(chan uint64, 1)} // 1: the one answer
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*slot
	if old := l.table.Load(); old != nil {
		all = *old
	}
	if len(all) >= 1<<slotBits {
		_ = unix.Munmap(mem) // nobody has seen it
		return nil, fmt.Errorf("more than %d requests at once", 1<<slotBits)
	}
	s.index = uint64(len(all))
	all = append(all, s) // readers have the old length
	l.table.Store(&all)
	return s, nil
}

// slotOf is the slot that a token names, or nil.
func (l *Library) slotOf(token uint64) *slot {
	all, i := l.table.Load(), token&(1<<slotBits-1)
	if all == nil || i >= uint64(len(*all)) {
		return nil
	}
	return (*all)[i]
}

// arm makes a new token, which the next answer has to bring.
func (s *slot) arm() {
	s.generation++
	s.token.Store(s.generation<<slotBits | s.index)
}

// takeSlots gives a disk its slots, those of closed disks first.
func (l *Library) takeSlots(d *Disk, size, count int) error {
	for range count {
		s := l.spareSlot(size)
		if s == nil {
			var err error
			if s, err = l.newSlot(size); err != nil {
				l.giveSlots(d)
				return err
			}
		}
		s.disk.Store(d)
		d.slots = append(d.slots, s)
		d.free <- s
	}
	return nil
}

func (l *Library) spareSlot(size int) *slot {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.spare {
		if len(s.mem) == size && !s.foul.Load() {
			l.spare[i] = l.spare[len(l.spare)-1]
			l.spare = l.spare[:len(l.spare)-1]
			return s
		}
	}
	return nil
}

func (l *Library) giveSlots(d *Disk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range d.slots {
		if !d.broken.Load() && !s.foul.Load() {
			s.disk.Store(nil)
			l.spare = append(l.spare, s)
		}
	}
	d.slots = nil
}

// answer ends the piece that token stands for, if it is under way.
func (s *slot) answer(token, rc uint64) bool {
	if token == 0 || !s.token.CompareAndSwap(token, 0) {
		return false
	}
	s.began.Store(0)
	s.done <- rc
	return true
}

//export haulbackVixDone
func haulbackVixDone(key C.uintptr_t, token, rc C.uint64_t) {
	cgo.Handle(key).Value().(*Library).completed(uint64(token), uint64(rc))
}

// completed is the library's callback.
func (l *Library) completed(token, rc uint64) {
	s := l.slotOf(token)
	if s == nil {
		l.note(Warning, fmt.Sprintf("the library called back for a request that was never made (%#x)", token))
		return
	}
	d := s.disk.Load() // before the answer: after it the slot is another request's
	if s.answer(token, rc) {
		d.landed()
		return
	}
	l.note(Warning, fmt.Sprintf("the library called back for a request that is not under way (%#x)", token))
	if token != 0 && s.refused.Load() == token { // it had the memory all the while, and others too
		s.foul.Store(true)
		if d != nil {
			d.breaks()
		}
	}
}

// begin starts the clock. What waits for its turn, behind a slow map of the disk,
// is not late: the map has a limit of its own.
func (s *slot) begin() { s.began.Store(time.Now().UnixNano()) }

// late says whether the piece has been under way for longer than limit.
func (s *slot) late(limit time.Duration) bool {
	at := s.began.Load()
	return at != 0 && time.Since(time.Unix(0, at)) > limit
}
