package vddk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctl and its structures, from linux/fiemap.h.
const (
	fsIocFiemap     = 0xc020660b // _IOWR('f', 11, struct fiemap)
	fiemapHeaderLen = 32
	fiemapExtentLen = 56
	fiemapSync      = 1 << 0 // write the file back first

	fiemapLast      = 1 << 0
	fiemapUnwritten = 1 << 11
	fiemapMerged    = 1 << 12
	fiemapShared    = 1 << 13
)

// fiemapPage is the number of extents asked for at once: 56 KiB.
const fiemapPage = 1000

// errFiemap is an answer that no file can have.
var errFiemap = errors.New("the file system's answer makes no sense")

// run is a part of a file as the file system places it. What lies between runs
// is a hole.
type run struct {
	off, end int64
	at       int64 // place on the medium
	kind     runKind
}

type runKind uint8

const (
	// runUnknown: the place says nothing about the bytes. Of a compressed
	// extent, the place is that of the whole of it, whatever part is meant; an
	// inline or packed one shares its block; a delayed one has no place yet.
	runUnknown runKind = iota
	// runZero is allocated and reads as zeros.
	runZero
	// runOwn has a place of its own, that no other file has.
	runOwn
	// runShared has a place that another file has too. Whoever writes to it
	// through either file gets another place.
	runShared
)

// fiemapBuffer is a page of the map.
type fiemapBuffer struct {
	raw  [fiemapHeaderLen + fiemapPage*fiemapExtentLen]byte
	runs []run
}

// read returns the runs of [off, size) that fit into a page, and the end of
// what is told: from off to there, what is in no run is a hole.
func (b *fiemapBuffer) read(fd int, off, size int64) (runs []run, told int64, err error) {
	clear(b.raw[:fiemapHeaderLen])
	order := binary.NativeEndian
	order.PutUint64(b.raw[0:], uint64(off))
	order.PutUint64(b.raw[8:], uint64(size-off))
	order.PutUint32(b.raw[16:], fiemapSync)
	order.PutUint32(b.raw[24:], fiemapPage)
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIocFiemap, uintptr(unsafe.Pointer(&b.raw)))
		if errno == 0 {
			break
		}
		if errno != unix.EINTR {
			return nil, 0, errno
		}
	}
	b.runs, told, err = parseFiemap(b.runs[:0], b.raw[:], off, size)
	return b.runs, told, err
}

// parseFiemap reads the answer to a question for [off, size). That an extent is
// the last one is not believed: whoever asks goes on until nothing is told.
func parseFiemap(runs []run, raw []byte, off, size int64) ([]run, int64, error) {
	if len(raw) < fiemapHeaderLen {
		return nil, 0, fmt.Errorf("%w: %d bytes", errFiemap, len(raw))
	}
	order := binary.NativeEndian
	count := uint64(order.Uint32(raw[20:]))
	if count > uint64(len(raw)-fiemapHeaderLen)/fiemapExtentLen {
		return nil, 0, fmt.Errorf("%w: %d extents in a page of %d bytes", errFiemap, count, len(raw))
	}
	pos := off
	for i := range int(count) {
		e := raw[fiemapHeaderLen+i*fiemapExtentLen:]
		logical, physical, length, flags := order.Uint64(e), order.Uint64(e[8:]), order.Uint64(e[16:]), order.Uint32(e[40:])
		if logical > math.MaxInt64 || length > math.MaxInt64-logical || length == 0 || physical > math.MaxInt64-length {
			return nil, 0, fmt.Errorf("%w: extent of %d bytes at %d, on the medium at %d", errFiemap, length, logical, physical)
		}
		r := run{int64(logical), int64(logical + length), int64(physical), kindOf(flags)}
		if i == 0 && r.off < off && r.end > off { // btrfs tells the whole of it
			r.at, r.off = r.at+off-r.off, off
		}
		if r.off < pos {
			return nil, 0, fmt.Errorf("%w: extent at %d, when %d was reached", errFiemap, r.off, pos)
		}
		pos = r.end
		if r.off >= size {
			break
		}
		r.end = min(r.end, size)
		runs = append(runs, r)
	}
	if count == 0 {
		pos = size
	}
	return runs, min(pos, size), nil
}

// kindOf knows few flags; a new one may mean anything.
func kindOf(flags uint32) runKind {
	if flags&^(fiemapLast|fiemapUnwritten|fiemapMerged|fiemapShared) != 0 {
		return runUnknown
	}
	switch {
	case flags&fiemapUnwritten != 0:
		return runZero
	case flags&fiemapShared != 0:
		return runShared
	}
	return runOwn
}

// walk calls differ for each part of [off, end) whose bytes may differ, by the
// runs of two files, in order. unknown says that a place was not told.
func walk(a, b []run, off, end int64, differ func(off, end int64, unknown bool)) {
	for off < end {
		x, stop1 := at(&a, off, end)
		y, stop2 := at(&b, off, end)
		stop := min(stop1, stop2)
		if !sameBytes(x, y, off) {
			differ(off, stop, x != nil && x.kind == runUnknown || y != nil && y.kind == runUnknown)
		}
		off = stop
	}
}

// at is the run with byte off, or nil for a hole, and where that ends. Runs that
// lie behind are dropped.
func at(runs *[]run, off, end int64) (*run, int64) {
	for len(*runs) > 0 && (*runs)[0].end <= off {
		*runs = (*runs)[1:]
	}
	if len(*runs) == 0 {
		return nil, end
	}
	r := &(*runs)[0]
	if r.off > off {
		return nil, min(r.off, end)
	}
	return r, min(r.end, end)
}

// sameBytes reports whether byte off is surely the same in both: zero in both,
// or one place on the medium, which the file system says is shared.
func sameBytes(x, y *run, off int64) bool {
	zero1, zero2 := x == nil || x.kind == runZero, y == nil || y.kind == runZero
	if zero1 || zero2 {
		return zero1 && zero2
	}
	return x.kind == runShared && y.kind == runShared && x.at+(off-x.off) == y.at+(off-y.off)
}
