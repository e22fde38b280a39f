//go:build linux && amd64 && cgo

package vix

// #include "shim.h"
import "C"

import (
	"bytes"
	"fmt"
	"io"
	"syscall"

	"github.com/haulback/haulback/cbt"
)

// zeros is what is written where a disk has to be zeroed: the library has no call.
var zeros [1 << 20]byte

// query asks for allocated blocks, on the main thread and while no request of
// the disk is under way.
func (d *Disk) query(e cbt.Extent, mark func(cbt.Extent)) error {
	const name = "QueryAllocatedBlocks"
	if C.hb_has_blocks(d.lib.api) == 0 {
		return syscall.ENOTSUP
	}
	var list *C.hb_blocks
	err := d.mustControl(name, func() C.uint64_t {
		d.settle()
		return C.hb_query_blocks(d.lib.api, d.handle, C.uint64_t(e.Off/SectorSize), C.uint64_t(e.Len/SectorSize), chunkSize/SectorSize, &list)
	})
	switch {
	case err != nil:
	case list == nil: // no list is not an empty one: it would make a hole of all
		err = fmt.Errorf("VixDiskLib_%s %s: it returned 0 and no list", name, d.path)
	default:
		err = each(list, e, mark)
	}
	if list != nil {
		_ = d.lib.turn(nil, "FreeBlockList", d.path, func() { C.hb_free_blocks(d.lib.api, list) }) // it fails when the library is closed only
	}
	if err != nil {
		d.lib.note(Warning, fmt.Sprintf("holes of %s are not known, all of it counts as data: %v", d.path, err))
	}
	return err
}

// each refuses a list that cannot be true: a block outside of what was asked for.
func each(list *C.hb_blocks, e cbt.Extent, mark func(cbt.Extent)) error {
	n := C.hb_block_count(list)
	if n > windowChunks {
		return fmt.Errorf("VixDiskLib_QueryAllocatedBlocks: %d blocks for %d chunks", n, e.Len/chunkSize)
	}
	first, last := uint64(e.Off/SectorSize), uint64(e.End()/SectorSize)
	for i := range n {
		b := C.hb_block_at(list, i)
		off, length := uint64(b.offset), uint64(b.length)
		if off < first || off > last || length > last-off {
			return fmt.Errorf("VixDiskLib_QueryAllocatedBlocks: block of %d sectors at %d is outside of [%d, %d)", length, off, first, last)
		}
		if length > 0 {
			mark(cbt.Extent{Off: int64(off) * SectorSize, Len: int64(length) * SectorSize})
		}
	}
	return nil
}

// Zero makes e, whole sectors, read as zeros. With Deallocate what is a hole
// already stays one: zeros written to a thin disk would allocate it. The map
// alone does not make a hole, it may be wrong: what it leaves out is read, and
// written where it has data.
func (d *Disk) Zero(e cbt.Extent, how cbt.Allocation) error {
	if err := d.mayZero(e); err != nil {
		return err
	}
	for e.Len > 0 {
		part, hole := e, false
		if how == cbt.Deallocate {
			var err error
			if part, hole, err = d.runIn(e); err != nil {
				return err
			}
		}
		part.Len = min(part.Len, int64(len(zeros)))
		if err := d.zero(part, hole); err != nil {
			return err
		}
		e = cbt.Extent{Off: part.End(), Len: e.End() - part.End()}
	}
	return nil
}

// runIn is what e begins with: data, or a hole, as far as the map tells.
func (d *Disk) runIn(e cbt.Extent) (run cbt.Extent, hole bool, err error) {
	data, err := d.NextData(e.Off)
	switch {
	case err == io.EOF || err == nil && data.Off >= e.End():
		return e, true, nil
	case err != nil:
		return e, false, err
	case data.Off > e.Off:
		return cbt.Extent{Off: e.Off, Len: data.Off - e.Off}, true, nil
	}
	return cbt.Extent{Off: e.Off, Len: min(data.End(), e.End()) - e.Off}, false, nil
}

// zero writes zeros to e, at most len(zeros) bytes; in a hole only to those of
// its chunks that do not read as zeros.
func (d *Disk) zero(e cbt.Extent, hole bool) error {
	if !hole {
		_, err := d.WriteAt(zeros[:e.Len], e.Off)
		return err
	}
	d.zeroing.Lock()
	defer d.zeroing.Unlock()
	if d.look == nil {
		d.look = make([]byte, len(zeros))
	}
	if _, err := d.ReadAt(d.look[:e.Len], e.Off); err != nil {
		return err
	}
	for at := int64(0); at < e.Len; {
		n := min(e.Len-at, chunkSize-(e.Off+at)%chunkSize)
		if !bytes.Equal(d.look[at:at+n], zeros[:n]) {
			if _, err := d.WriteAt(zeros[:n], e.Off+at); err != nil {
				return err
			}
		}
		at += n
	}
	return nil
}

// mayZero refuses what WriteAt would, also where there is nothing to write.
func (d *Disk) mayZero(e cbt.Extent) error {
	d.closing.RLock()
	defer d.closing.RUnlock()
	return d.may(opWrite, e.Len, e.Off)
}
