package wire

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/haulback/haulback/cbt"
)

// Mask has one bit per grain of a batch, the lowest bit for the first grain.
type Mask uint16

// Count is the number of grains in the mask.
func (m Mask) Count() int { return bits.OnesCount16(uint16(m)) }

// Has reports whether grain g of the batch is in the mask.
func (m Mask) Has(g int) bool { return m&(1<<g) != 0 }

// FullMask is the mask of the first n grains.
func FullMask(n int) Mask { return Mask(1<<n - 1) }

const manifestHeadLen = 16

// Manifest tells the source what one batch of the target holds.
type Manifest struct {
	Batch   int64 // the batch begins at Batch * cbt.BatchSize bytes
	Grains  int   // 1 to cbt.BatchGrains; fewer only at the end of the disk
	Zero    Mask  // grains that read as zeros; they have no digest here
	Unread  Mask  // grains the target could not read; they count as different
	Skip    Mask  // grains that are not in the plan
	Digests [cbt.BatchGrains]cbt.Digest
}

// Type implements Frame.
func (*Manifest) Type() Type { return TypeManifest }

func (m *Manifest) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(m.Batch))
	b = append(b, byte(m.Grains), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Zero))
	b = binary.BigEndian.AppendUint16(b, uint16(m.Unread))
	b = binary.BigEndian.AppendUint16(b, uint16(m.Skip))
	for g := range m.Grains {
		if m.told().Has(g) {
			b = append(b, m.Digests[g][:]...)
		}
	}
	return b
}

// told is the grains that have a digest.
func (m *Manifest) told() Mask { return FullMask(m.Grains) &^ (m.Zero | m.Unread | m.Skip) }

func (m *Manifest) parseBody(b []byte) error {
	f := fields{b: b}
	m.Batch, m.Grains, m.Digests = f.i64(), int(f.u8()), [cbt.BatchGrains]cbt.Digest{}
	f.zero(1)
	m.Zero, m.Unread, m.Skip = Mask(f.u16()), Mask(f.u16()), Mask(f.u16())
	if m.Batch > maxBatch || m.Grains < 1 || m.Grains > cbt.BatchGrains || (m.Zero|m.Unread|m.Skip)&^FullMask(m.Grains) != 0 ||
		m.Zero&m.Unread != 0 || (m.Zero|m.Unread)&m.Skip != 0 || m.Skip == FullMask(m.Grains) {
		f.bad = true
		return f.done(TypeManifest)
	}
	for g := range m.Grains {
		if m.told().Has(g) {
			f.copy(m.Digests[g][:])
		}
	}
	return f.done(TypeManifest)
}

// Run is a range of batches.
type Run struct{ First, Count int64 }

// End is the first batch after the run.
func (r Run) End() int64 { return r.First + r.Count }

// run reads a Run that is not empty and cannot overflow.
func (f *fields) run() Run {
	r := Run{First: f.i64(), Count: f.i64()}
	if r.Count <= 0 || r.First > maxBatch || r.Count > maxBatch {
		f.bad = true
	}
	return r
}

// maxBatch bounds batch numbers so that offsets fit an int64.
const maxBatch = (1<<63 - 1) / cbt.BatchSize / 2

func appendRun(b []byte, r Run) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.First))
	return binary.BigEndian.AppendUint64(b, uint64(r.Count))
}

// Holes stands for a Manifest of each of its batches in which all is zero; the
// target did not have to read them.
type Holes struct{ Run Run }

// Type implements Frame.
func (*Holes) Type() Type { return TypeHoles }

func (h *Holes) appendBody(b []byte) []byte { return appendRun(b, h.Run) }

func (h *Holes) parseBody(b []byte) error {
	f := fields{b: b}
	h.Run = f.run()
	return f.done(TypeHoles)
}

const maxSameRuns = 512

// Same tells the target which batches are equal on both sides. A batch with a
// Data frame is not named here: that frame says which of its grains differ.
type Same struct{ Runs []Run } // 1 to MaxSameRuns

// MaxSameRuns bounds the runs of one Same frame.
const MaxSameRuns = maxSameRuns

// Type implements Frame.
func (*Same) Type() Type { return TypeSame }

func (s *Same) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Runs)))
	for _, r := range s.Runs {
		b = appendRun(b, r)
	}
	return b
}

func (s *Same) parseBody(b []byte) error {
	f := fields{b: b}
	n := int(f.u16())
	if n < 1 || n > maxSameRuns || len(f.b) != n*16 {
		f.bad = true
		return f.done(TypeSame)
	}
	s.Runs = slices.Grow(s.Runs[:0], n)
	for range n {
		s.Runs = append(s.Runs, f.run())
	}
	return f.done(TypeSame)
}

// Diff settles a batch in ModeVerify: the grains in Mask are not equal, all
// others are. Nothing is written.
type Diff struct {
	Batch  int64
	Mask   Mask
	Unread Mask // of Mask: what the source cannot read
}

// Type implements Frame.
func (*Diff) Type() Type { return TypeDiff }

func (d *Diff) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(d.Batch))
	b = binary.BigEndian.AppendUint16(b, uint16(d.Mask))
	return binary.BigEndian.AppendUint16(b, uint16(d.Unread))
}

func (d *Diff) parseBody(b []byte) error {
	f := fields{b: b}
	d.Batch, d.Mask, d.Unread = f.i64(), Mask(f.u16()), Mask(f.u16())
	f.bad = f.bad || d.Batch > maxBatch || d.Mask == 0 || d.Unread&^d.Mask != 0
	return f.done(TypeDiff)
}

// Ack is what is true at the target. Its numbers only grow within a session.
type Ack struct {
	Settled  int64 // every batch below is equal on both sides, or known as different for good
	Received int64 // bytes of Data of this link, by raw length, taken off the wire
	Durable  int64 // of Received: durable
	Verified int64 // bytes of the disk known to be equal, in this session
	ReadBack int64 // bytes read back after a write, in this session
	Busy     bool  // a call to the target disk has taken long and is not back yet
}

// Type implements Frame.
func (*Ack) Type() Type { return TypeAck }

func (a *Ack) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(a.Settled))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Received))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Durable))
	b = binary.BigEndian.AppendUint64(b, uint64(a.Verified))
	b = binary.BigEndian.AppendUint64(b, uint64(a.ReadBack))
	return append(b, flag(a.Busy))
}

func (a *Ack) parseBody(b []byte) error {
	f := fields{b: b}
	a.Settled, a.Received, a.Durable, a.Verified, a.ReadBack = f.i64(), f.i64(), f.i64(), f.i64(), f.i64()
	a.Busy = f.flag()
	return f.done(TypeAck)
}

// Redo asks for grains again: read back, they did not have their digest.
type Redo struct {
	Batch int64
	Mask  Mask
	Round uint8 // 1 is the first time for this batch
}

// Type implements Frame.
func (*Redo) Type() Type { return TypeRedo }

func (r *Redo) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Batch))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Mask))
	return append(b, r.Round, 0)
}

func (r *Redo) parseBody(b []byte) error {
	f := fields{b: b}
	r.Batch, r.Mask, r.Round = f.i64(), Mask(f.u16()), f.u8()
	f.zero(1)
	f.bad = f.bad || r.Batch > maxBatch || r.Mask == 0 || r.Round == 0
	return f.done(TypeRedo)
}

// Ping asks the source for a sign of life: another run wants the disk, and a
// source that was killed does not say goodbye. The source sends it back with
// Reply set.
type Ping struct {
	Seq   uint32
	Reply bool
}

// Type implements Frame.
func (*Ping) Type() Type { return TypePing }

func (p *Ping) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, p.Seq)
	return append(b, flag(p.Reply), 0, 0, 0)
}

func (p *Ping) parseBody(b []byte) error {
	f := fields{b: b}
	p.Seq, p.Reply = f.u32(), f.flag()
	f.zero(3)
	return f.done(TypePing)
}
