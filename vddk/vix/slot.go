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
// unbuffered hotadd wants it), and the number that the callback brings back.
// Slots are kept for ever, because a callback that comes too late, or twice,
// must find what it names.
type slot struct {
	key  cgo.Handle
	mem  []byte
	disk *Disk

	op    atomic.Uint32 // an operation; the watchdog reads it
	off   int64         // bytes
	len   int           // bytes
	done  chan uint64
	began atomic.Int64 // unix nanoseconds; 0 while nothing is asked for
	taken atomic.Bool  // between the hand-over to the library and its answer
}

func newSlot(size int) (*slot, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory for a request of %d bytes: %w", size, err)
	}
	s := &slot{mem: mem, done: make(chan uint64, 1)} // 1: the one answer
	s.key = cgo.NewHandle(s)
	return s, nil
}

// takeSlots gives a disk its slots, those of closed disks first.
func (l *Library) takeSlots(d *Disk, size, count int) error {
	for range count {
		s := l.spareSlot(size)
		if s == nil {
			var err error
			if s, err = newSlot(size); err != nil {
				l.giveSlots(d)
				return err
			}
		}
		s.disk = d
		d.slots = append(d.slots, s)
		d.free <- s
	}
	return nil
}

func (l *Library) spareSlot(size int) *slot {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.spare {
		if len(s.mem) == size {
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
		if !d.broken.Load() {
			s.disk = nil
			l.spare = append(l.spare, s)
		}
	}
	d.slots = nil
}

// answer ends the piece. Only the first answer to a piece counts.
func (s *slot) answer(rc uint64) bool {
	if !s.taken.CompareAndSwap(true, false) {
		return false
	}
	s.began.Store(0)
	s.done <- rc
	return true
}

//export haulbackVixDone
func haulbackVixDone(key C.uintptr_t, rc C.uint64_t) {
	s := cgo.Handle(key).Value().(*slot)
	d := s.disk // before the answer: after it the slot is another request's
	if s.answer(uint64(rc)) {
		d.landed()
	}
}

// late says whether the piece has been under way for longer than limit.
func (s *slot) late(limit time.Duration) bool {
	at := s.began.Load()
	return at != 0 && time.Since(time.Unix(0, at)) > limit
}
