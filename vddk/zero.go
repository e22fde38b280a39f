package vddk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// zeros is what is written where the kernel cannot zero by itself.
var zeros [256 << 10]byte

// Zero makes e read as zeros. Deallocate punches a hole, Keep zeroes in place;
// zeros are written where neither works. On a block device the same two calls
// are used (Deallocate is a WRITE ZEROES that may unmap, Keep is BLKZEROOUT):
// the kernel guarantees that the extent reads as zeros afterwards, which
// BLKDISCARD does not, and keeps its cache of the device in step.
func (r *raw) Zero(e cbt.Extent, how cbt.Allocation) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	err := r.mayWrite(e.Len, e.Off)
	if err == nil {
		err = e.Check(r.size)
	}
	if err == nil {
		err = r.zero(e, how)
	}
	if err != nil {
		return r.fail("zero", int(e.Len), e.Off, err)
	}
	return nil
}

// zero does whole sectors by fallocate and the partial ones at both ends by
// writing.
func (r *raw) zero(e cbt.Extent, how cbt.Allocation) error {
	start := (e.Off + r.sector - 1) / r.sector * r.sector
	end := e.End() / r.sector * r.sector
	if start >= end {
		return r.writeZeros(e)
	}
	inner := cbt.Extent{Off: start, Len: end - start}
	err := r.fallocate(inner, how)
	if how == cbt.Deallocate && cannotZero(err) {
		// A device that cannot give space back is zeroed by the kernel, past
		// the cache: the second call falls back to writing, the first does not.
		err = r.fallocate(inner, cbt.Keep)
	}
	if cannotZero(err) {
		return r.writeZeros(e)
	}
	if err != nil {
		return err
	}
	if err := r.writeZeros(cbt.Extent{Off: e.Off, Len: start - e.Off}); err != nil {
		return err
	}
	return r.writeZeros(cbt.Extent{Off: end, Len: e.End() - end})
}

func (r *raw) fallocate(e cbt.Extent, how cbt.Allocation) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if how == cbt.Deallocate {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	for {
		if err := unix.Fallocate(r.fd, mode, e.Off, e.Len); err != unix.EINTR {
			return err
		}
	}
}

// cannotZero tells "this disk has no such call" from a failure. File systems
// say EOPNOTSUPP, some devices and old kernels the others.
func cannotZero(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)
}

func (r *raw) writeZeros(e cbt.Extent) error {
	for e.Len > 0 {
		n, err := pwriteFull(r.fd, zeros[:min(e.Len, int64(len(zeros)))], e.Off)
		if err != nil {
			return fmt.Errorf("write zeros: %w", err)
		}
		if err := r.startWriteback(int64(n)); err != nil {
			return err
		}
		e.Off, e.Len = e.Off+int64(n), e.Len-int64(n)
	}
	return nil
}
