package mover

import (
	"context"
	"io"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// leaves is what one side holds in one batch.
type leaves struct {
	batch   int64
	n       int       // grains
	zero    wire.Mask // read as zeros; no digest
	hole    wire.Mask // of zero: known from the map, not read
	unread  wire.Mask // could not be read; no digest
	skip    wire.Mask // not in the plan; no digest
	digests [cbt.BatchGrains]cbt.Digest
}

// fold adds the batch to root. A grain without a digest folds as zeros: a root
// over such a batch is never used as a proof.
func (v *leaves) fold(root *cbt.Root) {
	for g := range v.n {
		switch {
		case v.skip.Has(g):
			root.AddSkipped(1)
		case (v.zero | v.unread).Has(g):
			root.AddZeros(1)
		default:
			root.Add(&v.digests[g])
		}
	}
}

// differ is the grains in which two sides are not known to be equal.
func (v *leaves) differ(o *leaves) (m wire.Mask) {
	m = v.zero ^ o.zero | v.unread | o.unread
	both := wire.FullMask(v.n) &^ (v.zero | o.zero | m | v.skip)
	for g := range v.n {
		if both.Has(g) && v.digests[g] != o.digests[g] {
			m |= 1 << g
		}
	}
	return m
}

// reader reads and hashes batches of one disk with one block. It is for one
// goroutine.
type reader struct {
	layout
	read  func(p []byte, off int64) (int, error) // ReadAt or ReadCold
	holes *holes
	hash  *cbt.Hasher
	buf   []byte // cbt.BatchSize
	drop  bool   // nobody wants the bytes once they are hashed: all pieces lie at the start of buf
	base  int64  // with drop: the offset of what lies there
	pulse *pulse
	pace  *pacer    // nil: no limits
	retry int       // more tries of a grain that cannot be read
	far   bool      // a call costs more than its bytes: few and long ones are made
	near  wire.Mask // grains that may be read along with those that are wanted
	paid  bool      // whoever calls batch has asked pace for its cost

	bytes int64 // read so far, for counters
}

// batch reads batch b, of it only the grains in want, into r.buf at their
// places and fills v, all but v.skip. It returns the last read error, with
// v.unread saying where; everything else is filled. After an error that may pass
// nothing in v counts: the disk is gone, and what the buffer holds is of another
// time. Nothing counts either when ctx is done.
func (r *reader) batch(ctx context.Context, b int64, want wire.Mask, v *leaves) (err error) {
	v.batch, v.n, v.zero, v.hole, v.unread, v.skip = b, r.grains(b), 0, 0, 0, 0
	v.hole = r.holes.mask(r.layout, b) & want
	v.zero = v.hole
	want &= wire.FullMask(v.n) &^ v.hole
	step := readPiece / cbt.GrainSize
	if r.far {
		step = cbt.BatchGrains
	}
	for lo, hi := range spans(r.calls(want)) {
		for ; lo < hi; lo += step {
			end := min(hi, lo+step)
			if !r.paid {
				if e := r.pace.read(ctx, r.span(b, lo, end).Len); e != nil {
					return e
				}
			}
			if e := r.piece(b, lo, end, want, v); e != nil {
				err = e
			}
			if retryable(err) {
				v.unread = want
				return err
			}
		}
	}
	return err
}

// cost is how many bytes batch will read.
func (r *reader) cost(b int64, want wire.Mask) int64 {
	return r.maskBytes(b, r.calls(want&^r.holes.mask(r.layout, b)))
}

// calls is the grains that are read for those in want.
func (r *reader) calls(want wire.Mask) wire.Mask { return want | bridge(want)&r.near }

// bridge is m with its gaps of one and two grains closed: to read 64 KiB past
// the cache in a call of its own takes about as long as 150 KiB more in one that
// is made anyway (measured at the depth that saturates: 700 against 1700 MiB/s).
func bridge(m wire.Mask) wire.Mask {
	wide := uint32(m) | uint32(m)<<1 | uint32(m)<<2
	return wire.Mask(wide & (wide >> 1) & (wide >> 2))
}

// piece reads grains [lo, hi) of batch b and hashes those in want while they
// are in the cache.
func (r *reader) piece(b int64, lo, hi int, want wire.Mask, v *leaves) (err error) {
	whole := r.span(b, lo, hi)
	if r.drop {
		r.base = whole.Off
	}
	if r.into(whole) != nil { // find out which grains it is, one by one
		for g := lo; g < hi; g++ {
			if !want.Has(g) {
				continue
			}
			if e := r.tries(r.grain(b, g)); e != nil {
				v.unread |= 1 << g
				err = e
			}
			if retryable(err) {
				return err // the disk is gone, not a sector of it
			}
		}
	}
	for g := lo; g < hi; g++ {
		if !want.Has(g) {
			continue
		}
		if p := r.at(r.grain(b, g)); v.unread.Has(g) {
			clear(p)
		} else if cbt.IsZero(p) {
			v.zero |= 1 << g
		} else {
			r.hash.Sum(p, &v.digests[g])
		}
	}
	return err
}

// at is the place of e in the batch's buffer.
func (r *reader) at(e cbt.Extent) []byte {
	off := e.Off % cbt.BatchSize
	if r.drop {
		off = e.Off - r.base
	}
	return r.buf[off : off+e.Len]
}

func (r *reader) tries(e cbt.Extent) (err error) {
	for range 1 + r.retry {
		if err = r.into(e); err == nil || retryable(err) {
			break
		}
	}
	return r.pulse.insist(nil, err, func() error { return r.into(e) })
}

func (r *reader) into(e cbt.Extent) error {
	call, began := r.pulse.enter(), r.pace.began()
	n, err := r.read(r.at(e), e.Off)
	r.pulse.leave(call)
	r.pace.ended(TimeRead, began, int64(n))
	r.bytes += int64(n)
	if int64(n) == e.Len && (err == nil || err == io.EOF) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// cold is how to read past the cache of d, and what to call it.
func cold(d Disk) (func(p []byte, off int64) (int, error), string) {
	if c, ok := d.(ColdReader); ok {
		return c.ReadCold, c.Coldness()
	}
	return d.ReadAt, coldCached
}
