package vddk

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"

	"github.com/haulback/haulback/cbt"
)

// ReadAt reads through the page cache.
func (v *VMDK) ReadAt(p []byte, off int64) (int, error) {
	return v.read(p, off, "read", (*File).ReadAt)
}

// ReadCold reads past the page cache; Coldness says how.
func (v *VMDK) ReadCold(p []byte, off int64) (int, error) {
	return v.read(p, off, "cold read", (*File).ReadCold)
}

func (v *VMDK) read(p []byte, off int64, op string, how func(*File, []byte, int64) (int, error)) (n int, err error) {
	if off < 0 {
		return 0, v.fail(op, int64(len(p)), off, cbt.ErrBounds)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.dir < 0 {
		return 0, v.fail(op, int64(len(p)), off, fs.ErrClosed)
	}
	if off >= v.size {
		return 0, eofUnlessEmpty(p)
	}
	want := int(min(int64(len(p)), v.size-off))
	for i := v.find(off); n < want; i++ {
		part := &v.parts[i]
		in := off + int64(n) - part.Off
		q := p[n : n+int(min(int64(want-n), part.Len-in))]
		m := len(q)
		if part.file == nil {
			clear(q)
		} else if m, err = how(part.file, q, part.at+in); err != nil {
			return n + m, v.fail(op, int64(len(p)), off, beyond(err))
		}
		n += m
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// beyond keeps the end of a file from being taken for the end of the disk.
func beyond(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// find returns the index of the part with byte off, which is on the disk.
func (v *VMDK) find(off int64) int {
	low, high := 0, len(v.parts)-1
	for low < high {
		middle := (low + high + 1) / 2
		if v.parts[middle].Off <= off {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}

// WriteAt writes all of p, or refuses it whole when it reaches beyond Size or
// has data for an extent that holds none (ZERO).
func (v *VMDK) WriteAt(p []byte, off int64) (n int, err error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.mayWrite(int64(len(p)), off); err != nil {
		return 0, v.fail("write", int64(len(p)), off, err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := v.refuseZero(p, off); err != nil {
		return 0, v.fail("write", int64(len(p)), off, err)
	}
	if err := v.renew(); err != nil {
		return 0, err
	}
	for i := v.find(off); n < len(p); i++ {
		part := &v.parts[i]
		in := off + int64(n) - part.Off
		q := p[n : n+int(min(int64(len(p)-n), part.Len-in))]
		m := len(q)
		if part.file != nil {
			if m, err = part.file.WriteAt(q, part.at+in); err != nil {
				return n + m, v.fail("write", int64(len(p)), off, err)
			}
		}
		n += m
	}
	return n, nil
}

// mayWrite is every reason to refuse a write before its first byte.
func (v *VMDK) mayWrite(length, off int64) error {
	if v.dir < 0 {
		return fs.ErrClosed
	}
	if v.readOnly {
		return ErrReadOnly
	}
	if off < 0 || off > v.size || length > v.size-off {
		return cbt.ErrBounds
	}
	if lost := v.lost.Load(); lost != nil {
		return lost
	}
	return nil
}

// refuseZero looks for data in p that would fall into an extent without a file.
func (v *VMDK) refuseZero(p []byte, off int64) error {
	end := off + int64(len(p))
	for i := v.find(off); i < len(v.parts) && v.parts[i].Off < end; i++ {
		part := &v.parts[i]
		if part.file != nil {
			continue
		}
		from, to := max(part.Off, off)-off, min(part.End(), end)-off
		if !allZero(p[from:to]) {
			return fmt.Errorf("%w: extent %d is of type ZERO and holds no data", ErrReadOnly, i+1)
		}
	}
	return nil
}

func allZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[:len(p)-1], p[1:])
}

// Zero makes e read as zeros in each file that it touches.
func (v *VMDK) Zero(e cbt.Extent, how cbt.Allocation) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	err := v.mayWrite(e.Len, e.Off)
	if err == nil {
		err = e.Check(v.size)
	}
	if err == nil {
		err = v.renew()
	}
	for i := 0; err == nil && i < len(v.parts); i++ {
		part := &v.parts[i]
		inside := part.Intersect(e)
		if inside.Len == 0 || part.file == nil {
			continue
		}
		err = part.file.Zero(cbt.Extent{Off: part.at + inside.Off - part.Off, Len: inside.Len}, how)
	}
	if err != nil {
		return v.fail("zero", e.Len, e.Off, err)
	}
	return nil
}

// Flush makes every file durable. Its first error is remembered and returned
// for ever, for the whole disk.
func (v *VMDK) Flush() error {
	v.flushMu.Lock()
	defer v.flushMu.Unlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.mayWrite(0, 0); err != nil {
		return v.fail("flush", v.size, 0, err)
	}
	for i := range v.parts {
		f := v.parts[i].file
		if f == nil {
			continue
		}
		if err := f.Flush(); err != nil {
			lost := &ioError{"flush", v.path, cbt.Extent{Len: v.size}, err}
			v.lost.Store(lost)
			return lost
		}
	}
	return nil
}

// NextData asks the files; an extent of type ZERO is a hole.
func (v *VMDK) NextData(off int64) (cbt.Extent, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case v.dir < 0:
		return cbt.Extent{}, v.fail("map", 0, off, fs.ErrClosed)
	case off < 0:
		return cbt.Extent{}, v.fail("map", 0, off, cbt.ErrBounds)
	case off >= v.size:
		return cbt.Extent{}, io.EOF
	}
	for i := v.find(off); i < len(v.parts); i++ {
		part := &v.parts[i]
		if part.file == nil {
			continue
		}
		from := max(off, part.Off)
		e, err := part.file.NextData(part.at + from - part.Off)
		if err != nil && err != io.EOF {
			return cbt.Extent{}, v.fail("map", v.size-off, off, err)
		}
		e.Off += part.Off - part.at
		if e = e.Intersect(part.Extent); err == nil && e.Len > 0 {
			return e, nil
		}
	}
	return cbt.Extent{}, io.EOF
}

// Coldness is that of the file whose reads are the least cold.
func (v *VMDK) Coldness() string {
	worst := coldDirect
	for i := range v.parts {
		f := v.parts[i].file
		if f == nil {
			continue
		}
		switch how := f.Coldness(); {
		case how == coldCached, how == coldDropped && worst == coldDirect:
			worst = how
		}
	}
	return worst
}

// fail wraps err once more with the disk: the error of a file names the place
// in the file.
func (v *VMDK) fail(op string, length, off int64, err error) error {
	if lost, ok := err.(*ioError); ok && lost.path == v.path {
		return lost
	}
	return &ioError{op, v.path, cbt.Extent{Off: off, Len: length}, err}
}
