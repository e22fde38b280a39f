package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cbt/wide"
)

// Of a grain that differs often only some pieces do. Refinement finds out which:
// the source asks (Refine), the target tells short sums of the pieces of what it
// has (Parts), and the record of the grain carries only the pieces that differ.
const (
	// PartSize is the length of a piece of a grain in bytes: the block of most
	// file systems, and of most disks. The last one of a disk may be shorter.
	PartSize = wide.PieceSize
	// GrainParts is the number of pieces of a whole grain.
	GrainParts = cbt.GrainSize / PartSize
)

// PartSum is the first half of the BLAKE3-256 of a piece.
//
// It is cut because it proves nothing: it only says which pieces are sent. Two
// pieces with one sum would leave an old piece on the target; the grain then does
// not read back with its digest, all 32 bytes of it, and is sent whole.
type PartSum [16]byte

// Summer computes sums of pieces. It is for one goroutine.
type Summer struct {
	h   *wide.Hasher
	out [GrainParts][wide.Size]byte
}

// NewSummer is a Summer ready for use.
func NewSummer() *Summer { return &Summer{h: wide.New()} }

// Sum sets sums to those of the pieces of grain p, and what p has no bytes for to
// zero. All pieces of a whole grain are summed at once.
func (m *Summer) Sum(p []byte, sums *[GrainParts]PartSum) {
	m.h.Pieces(p, &m.out)
	for i := range sums {
		copy(sums[i][:], m.out[i][:])
	}
}

// Refine asks the target for the sums of the pieces of some grains of a batch
// that it has told and that has no verdict.
type Refine struct {
	Batch int64
	Mask  Mask // not 0
}

// Type implements Frame.
func (*Refine) Type() Type { return TypeRefine }

func (r *Refine) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Batch))
	return binary.BigEndian.AppendUint16(b, uint16(r.Mask))
}

func (r *Refine) parseBody(b []byte) error {
	f := fields{b: b}
	r.Batch, r.Mask = f.i64(), Mask(f.u16())
	f.bad = f.bad || r.Batch > maxBatch || r.Mask == 0
	return f.done(TypeRefine)
}

// Parts answers Refine. A grain of the question that is not in Mask has to come
// whole: the target could not read it, or does not want to.
type Parts struct {
	Batch int64
	Mask  Mask
	Sums  [cbt.BatchGrains][GrainParts]PartSum // of the grains in Mask; zero beyond the end of the disk
}

// Type implements Frame.
func (*Parts) Type() Type { return TypeParts }

const (
	partsHeadLen = 10
	partsLen     = GrainParts * len(PartSum{}) // of one grain
)

func (p *Parts) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.Batch))
	b = binary.BigEndian.AppendUint16(b, uint16(p.Mask))
	for g := range p.Sums {
		if p.Mask.Has(g) {
			for i := range p.Sums[g] {
				b = append(b, p.Sums[g][i][:]...)
			}
		}
	}
	return b
}

func (p *Parts) parseBody(b []byte) error {
	f := fields{b: b}
	p.Batch, p.Mask, p.Sums = f.i64(), Mask(f.u16()), [cbt.BatchGrains][GrainParts]PartSum{}
	f.bad = f.bad || p.Batch > maxBatch
	for g := range p.Sums {
		if p.Mask.Has(g) {
			for i := range p.Sums[g] {
				f.copy(p.Sums[g][i][:])
			}
		}
	}
	return f.done(TypeParts)
}

// PartsOf is the mask of all pieces of a grain of n bytes.
func PartsOf(n int64) Mask { return FullMask(int((n + PartSize - 1) / PartSize)) }

// PartBytes is how many bytes the pieces in parts of a grain of n bytes have.
func PartBytes(n int64, parts Mask) int64 {
	raw := int64(parts.Count()) * PartSize
	if last := int((n - 1) / PartSize); parts.Has(last) {
		raw -= int64(last+1)*PartSize - n
	}
	return raw
}

// partsFit says whether a record of n bytes and encoding enc may carry parts.
func partsFit(enc Encoding, n int64, parts Mask) bool {
	if parts == 0 {
		return true
	}
	return (enc == EncRaw || enc == EncLZ4) && n > 0 && n <= cbt.GrainSize && parts&^PartsOf(n) == 0 && parts != PartsOf(n)
}

// AddParts appends the pieces in parts, some and not all, of grain p at off,
// compressed if pack is set and that gains at least a sixteenth. d is the digest of
// the whole grain. It returns how long the pieces are as they travel.
func (w *DataWriter) AddParts(off int64, p []byte, parts Mask, d *cbt.Digest, pack bool) (n int) {
	at := w.record(cbt.Extent{Off: off, Len: int64(len(p))}, EncLZ4, d)
	binary.BigEndian.PutUint16(w.buf[at+18:], uint16(parts))
	w.buf = append(w.buf, w.binder.out[:bindingLen]...) // room for the check
	if w.pieces == nil {
		w.pieces = make([]byte, 0, cbt.GrainSize)
	}
	w.pieces = w.pieces[:0]
	for i := range GrainParts {
		if parts.Has(i) {
			w.pieces = append(w.pieces, p[i*PartSize:min((i+1)*PartSize, len(p))]...)
		}
	}
	enc := EncRaw
	if pack {
		enc, n = w.payload(w.pieces)
	} else {
		w.buf, n = append(w.buf, w.pieces...), len(w.pieces)
	}
	w.seal(at, enc, bindingLen+n)
	rec := w.buf[at : at+recordLen]
	copy(w.buf[at+recordLen:], w.binder.check(rec[:recordLen-bindingLen], w.pieces))
	w.raw += int64(len(w.pieces))
	return n
}

// check is the sum that the payload of a part record begins with: of the fields
// rec before the binding, with the position, and of the pieces.
func (b *Binder) check(rec, pieces []byte) []byte {
	copy(b.in[28:], rec)
	b.h.Reset()
	_, _ = b.h.Write(b.in[:]) // never fails
	_, _ = b.h.Write(pieces)
	return b.h.Sum(b.out[:0])[:bindingLen]
}

// Bytes is how many bytes of the disk the record carries, or stands for.
func (r *Record) Bytes() int64 {
	if r.Parts == 0 {
		return r.Extent.Len
	}
	return PartBytes(r.Extent.Len, r.Parts)
}

// ExpandParts puts the pieces of a part record at their places in dst, the room
// of the whole grain; what lies between them is left with anything. They are
// checked: a *Error with CodeDecompress or CodeDigest says that they are not what
// was sent for this place. It uses binder for a moment.
func (r *Record) ExpandParts(dst []byte, binder *Binder) error {
	p := dst[:r.Bytes()]
	if err := r.expand(r.Payload[bindingLen:], p); err != nil {
		return err
	}
	var head [recordLen - bindingLen]byte
	binary.BigEndian.PutUint64(head[:], uint64(r.Extent.Off))
	binary.BigEndian.PutUint32(head[8:], uint32(r.Extent.Len))
	binary.BigEndian.PutUint32(head[12:], uint32(len(r.Payload)))
	head[16] = byte(r.Enc)
	binary.BigEndian.PutUint16(head[18:], uint16(r.Parts))
	copy(head[20:], r.Digest[:])
	sum := r.Payload[:bindingLen]
	good := string(binder.check(head[:], p)) == string(sum)
	for i := GrainParts - 1; i >= 0; i-- { // from the end, so that none is overwritten before it has moved
		if r.Parts.Has(i) {
			lo := i * PartSize
			n := min(PartSize, len(dst)-lo)
			copy(dst[lo:lo+n], p[len(p)-n:])
			p = p[:len(p)-n]
		}
	}
	if !good {
		return Errorf(CodeDigest, "pieces of %v do not have their check", r.Extent)
	}
	return nil
}

// parts reads the mask of pieces of a record.
func (f *fields) parts() Mask {
	f.zero(1)
	return Mask(f.u16())
}

// errRecord is what is wrong with the lengths of a record.
func errRecord(n int, r *Record) error {
	return fmt.Errorf("%w: data record of %d bytes for %v, encoding %d, pieces %x", ErrFrame, n, r.Extent, r.Enc, r.Parts)
}
