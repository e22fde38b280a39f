package mover

import (
	"errors"
	"io"
	"sync"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

// streamBatches is the window of a restore. What is not settled may be asked
// for again and cannot be read twice, so it is kept: as many MiB as a checkpoint
// and its window take.
const streamBatches = 96

// streamDisk is a stream as the disk of a source half, so that a restore is a
// copy: the same session, target half, journal and proof. The engine reads
// batches in disk order with several workers; what is read stays until the
// target has settled it.
//
// The last batch is given out only after the trailer was checked and the stream
// has ended, so that no restore of a stream that is cut can end Verified.
type streamDisk struct {
	h   *archive.Header
	low func() int64 // the batches below are settled

	mu    sync.Mutex
	r     *archive.Reader
	held  map[int64][]byte // batches with data in them
	spare [][]byte
	made  int   // buffers, all in all
	gone  int64 // batches below are not held any more
	at    int64 // the stream below is read
	done  bool  // it was read to its end
	err   error // for good
}

var (
	_ Disk    = (*streamDisk)(nil)
	_ Mapper  = (*streamDisk)(nil)
	_ Checker = (*streamDisk)(nil)
)

func newStreamDisk(r *archive.Reader) *streamDisk {
	return &streamDisk{h: r.Header(), r: r, held: make(map[int64][]byte), low: func() int64 { return 0 }}
}

// feed makes d the source of s, which then compares what the stream carries.
func (d *streamDisk) feed(s *source) {
	d.low, s.claim = s.low, d.root
	s.track = wire.TrackingStrict // a stream cannot be read again from its start
	p := cbt.PlanFull(d.h.Size)
	p.Reason = d.h.Reason
	if d.h.Kind == archive.Changed {
		p = cbt.Plan{Size: d.h.Size, Read: d.h.Map, Sampled: d.h.Sampled, Mode: cbt.ModeHint, Reason: d.h.Reason}
	}
	s.usePlan(p)
}

// low is the first batch that is not settled.
func (s *source) low() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled
}

// root is that of the trailer; zero before it was read.
func (d *streamDisk) root() cbt.Digest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Totals().Root
}

// Size implements Disk.
func (d *streamDisk) Size() int64 { return d.h.Size }

// Identity implements Disk.
func (d *streamDisk) Identity() string { return "stream:" + wire.RunID(d.h.Run).String() }

// Close implements Disk. The stream is its owner's.
func (d *streamDisk) Close() error { return nil }

// Check implements Checker: a stream that is damaged is no bad sector.
func (d *streamDisk) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// NextData implements Mapper.
func (d *streamDisk) NextData(off int64) (cbt.Extent, error) {
	e, ok := d.h.Map.Next(off)
	if !ok {
		return cbt.Extent{}, io.EOF
	}
	return e, nil
}

// ReadAt implements Disk, within the window.
func (d *streamDisk) ReadAt(p []byte, off int64) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off >= d.h.Size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), d.h.Size-off)]
	for len(want) > 0 {
		b := off / cbt.BatchSize
		end := min((b+1)*cbt.BatchSize, d.h.Size)
		k := int(min(int64(len(want)), end-off))
		if err := d.need(b, end); err != nil {
			return n, err
		}
		if have := d.held[b]; have != nil {
			copy(want[:k], have[off-b*cbt.BatchSize:])
		} else {
			clear(want[:k])
		}
		want, off, n = want[k:], off+int64(k), n+k
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var errStreamPassed = errors.New("the stream cannot be read twice")

// need reads the stream up to end, the end of batch b, or to its own end with
// the last batch.
func (d *streamDisk) need(b, end int64) error {
	if d.err == nil && b < d.gone {
		return errStreamPassed
	}
	for d.err == nil && !d.done {
		next, ok := d.h.Map.Next(d.at)
		if end < d.h.Size && (!ok || max(next.Off, d.at) >= end) {
			break
		}
		if d.made > streamBatches+1 {
			d.err = wire.Errorf(wire.CodeInternal, "%d batches of a stream are kept, the window has %d", d.made, streamBatches)
			break
		}
		it, err := d.r.Next(d.place)
		switch err {
		case nil:
			d.at = it.Extent.End()
		case io.EOF:
			d.done = true
		default:
			d.err = err
		}
	}
	return d.err
}

// place is where the bytes of e go: into the buffer of their batch, which is
// all zero where nothing came.
func (d *streamDisk) place(e cbt.Extent) []byte {
	b := e.Off / cbt.BatchSize
	buf := d.held[b]
	if buf == nil {
		buf = d.buffer()
		d.held[b] = buf
	}
	return buf[e.Off%cbt.BatchSize:][:e.Len]
}

// buffer takes a buffer from what is settled. There are never more than the
// window has batches, and those that Next reads ahead of it: one.
func (d *streamDisk) buffer() []byte {
	if len(d.spare) == 0 {
		low := d.low()
		for b, buf := range d.held {
			if b < low {
				d.spare = append(d.spare, buf)
				delete(d.held, b)
			}
		}
		d.gone = max(d.gone, low)
	}
	k := len(d.spare)
	if k == 0 {
		d.made++
		return make([]byte, cbt.BatchSize)
	}
	buf := d.spare[k-1]
	d.spare = d.spare[:k-1]
	clear(buf)
	return buf
}
