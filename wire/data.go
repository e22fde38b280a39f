package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire/lz4block"
)

// Encoding says how the bytes of a record travel.
type Encoding uint8

// The encodings of protocol 1; append only.
const (
	EncRaw  Encoding = 1 // as they are
	EncLZ4  Encoding = 2 // one LZ4 block
	EncZero Encoding = 3 // not at all: zeros that stay allocated
	EncHole Encoding = 4 // not at all: zeros whose space is given back
	EncBad  Encoding = 5 // not at all: the source could not read it; it stays as it is
)

const (
	dataHeadLen = 24
	recordLen   = 68
	bindingLen  = 16
)

// MaxDataBody is the largest body of a Data frame: a batch that does not
// compress, with a record for each grain.
const MaxDataBody = dataHeadLen + cbt.BatchGrains*recordLen + cbt.BatchSize

// Position is what a binding fixes beside the record's own fields: data made
// for one disk, pass and epoch prove nothing for another.
type Position struct {
	Tag   [16]byte // Opened.Tag
	Pass  uint32
	Epoch uint64
}

// Binder computes bindings with the key of one link. It is for one goroutine.
type Binder struct {
	pos Position
	h   *blake3.Hasher
	in  [16 + 4 + 8 + recordLen - bindingLen]byte
	out [32]byte
}

// NewBinder derives the key of link's bindings; both ends derive the same.
func NewBinder(link Link, pos Position) (*Binder, error) {
	key, err := link.ExportKey("EXPORTER-haulback-binding", nil, 32)
	if err != nil {
		return nil, err
	}
	h, err := blake3.NewKeyed(key)
	if err != nil {
		return nil, err
	}
	b := &Binder{pos: pos, h: h}
	copy(b.in[:16], pos.Tag[:])
	binary.BigEndian.PutUint32(b.in[16:], pos.Pass)
	binary.BigEndian.PutUint64(b.in[20:], pos.Epoch)
	return b, nil
}

// sum is the binding of the record whose fields before the binding are rec.
func (b *Binder) sum(rec []byte) []byte {
	copy(b.in[28:], rec)
	b.h.Reset()
	_, _ = b.h.Write(b.in[:]) // never fails
	return b.h.Sum(b.out[:0])[:bindingLen]
}

// DataWriter builds Data frames in one buffer that it keeps. It is for one
// goroutine.
type DataWriter struct {
	buf    []byte
	binder *Binder
	lz     lz4block.Encoder
	raw    int64  // bytes of the disk in the frame
	pieces []byte // of a part record, side by side
}

// NewDataWriter builds frames in buf, which needs a capacity of DataBufferLen.
func NewDataWriter(buf []byte, b *Binder) *DataWriter { return &DataWriter{buf: buf[:0], binder: b} }

// DataBufferLen is the capacity a Data frame with its header may need.
const DataBufferLen = headerLen + MaxDataBody

// Reset begins the frame of a batch. A redo repeats grains that the target
// asked for.
func (w *DataWriter) Reset(batch int64, redo bool) {
	b := append(w.buf[:0], byte(TypeData), 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(batch))
	b = binary.BigEndian.AppendUint64(b, w.binder.pos.Epoch)
	b = binary.BigEndian.AppendUint32(b, w.binder.pos.Pass)
	flags := byte(0)
	if redo {
		flags = 1
	}
	w.buf, w.raw = append(b, 0, flags, 0, 0), 0
}

// record appends the head of a record and returns where it begins.
func (w *DataWriter) record(e cbt.Extent, enc Encoding, d *cbt.Digest) int {
	at := len(w.buf)
	b := binary.BigEndian.AppendUint64(w.buf, uint64(e.Off))
	b = binary.BigEndian.AppendUint32(b, uint32(e.Len))
	b = append(b, 0, 0, 0, 0, byte(enc), 0, 0, 0)
	b = append(b, d[:]...)
	w.buf = b[:at+recordLen]
	w.buf[headerLen+20]++
	return at
}

// seal fixes the encoding and length of the record at and binds it.
func (w *DataWriter) seal(at int, enc Encoding, n int) {
	rec := w.buf[at : at+recordLen]
	binary.BigEndian.PutUint32(rec[12:], uint32(n))
	rec[16] = byte(enc)
	copy(rec[recordLen-bindingLen:], w.binder.sum(rec[:recordLen-bindingLen]))
}

// Add appends grain p at off, whose digest is d, compressed where that gains
// at least a sixteenth, and returns how long its payload is.
func (w *DataWriter) Add(off int64, p []byte, d *cbt.Digest) int {
	at := w.record(cbt.Extent{Off: off, Len: int64(len(p))}, EncLZ4, d)
	enc, n := w.payload(p)
	w.seal(at, enc, n)
	w.raw += int64(len(p))
	return n
}

// Gains says whether p, a part of a grain that is to be added, compresses.
func (w *DataWriter) Gains(p []byte) bool {
	return w.lz.Encode(w.buf[len(w.buf):len(w.buf)+len(p)-len(p)/16], p) > 0
}

// payload appends p as it will travel: n bytes in encoding enc.
func (w *DataWriter) payload(p []byte) (enc Encoding, n int) {
	n = w.lz.Encode(w.buf[len(w.buf):len(w.buf)+len(p)-len(p)/16], p)
	if n == 0 {
		w.buf = append(w.buf, p...)
		return EncRaw, len(p)
	}
	w.buf = w.buf[:len(w.buf)+n]
	return EncLZ4, n
}

// AddRaw appends grain p at off, whose digest is d, as it is.
func (w *DataWriter) AddRaw(off int64, p []byte, d *cbt.Digest) {
	at := w.record(cbt.Extent{Off: off, Len: int64(len(p))}, EncRaw, d)
	w.buf = append(w.buf, p...)
	w.seal(at, EncRaw, len(p))
	w.raw += int64(len(p))
}

// AddEmpty appends an extent without payload (EncZero, EncHole or EncBad):
// whole grains of the batch, or up to the end of the disk.
func (w *DataWriter) AddEmpty(e cbt.Extent, enc Encoding) {
	var none cbt.Digest
	w.seal(w.record(e, enc, &none), enc, 0)
	if enc != EncBad {
		w.raw += e.Len
	}
}

// Records is the number of records added since Reset.
func (w *DataWriter) Records() int { return int(w.buf[headerLen+20]) }

// Raw is what the records added since Reset come to as Data.Raw.
func (w *DataWriter) Raw() int64 { return w.raw }

// Frame is the finished frame with its header, valid until Reset.
func (w *DataWriter) Frame() []byte {
	binary.BigEndian.PutUint32(w.buf[4:], uint32(len(w.buf)-headerLen))
	return w.buf
}

// Record is one extent of a Data frame.
type Record struct {
	Extent  cbt.Extent
	Enc     Encoding
	Parts   Mask       // the pieces of the grain that it carries; 0: the whole extent
	Digest  cbt.Digest // of all bytes of the extent; zero for encodings without payload
	Payload []byte     // aliases the frame
}

// Expand fills dst, which has exactly Extent.Len bytes, and returns a *Error
// with CodeDecompress when the payload is anything else than that. A record with
// Parts has ExpandParts.
func (r *Record) Expand(dst []byte) error { return r.expand(r.Payload, dst) }

func (r *Record) expand(payload, dst []byte) error {
	switch r.Enc {
	case EncRaw:
		if copy(dst, payload) != len(dst) {
			return Errorf(CodeDecompress, "%d bytes at %d instead of %d", len(payload), r.Extent.Off, len(dst))
		}
	case EncLZ4:
		n, err := lz4.UncompressBlock(payload, dst)
		if err != nil || n != len(dst) {
			return Errorf(CodeDecompress, "payload at %d does not expand to %d bytes", r.Extent.Off, len(dst))
		}
	case EncZero, EncHole:
		clear(dst)
	default:
		return Errorf(CodeDecompress, "record at %d has no bytes", r.Extent.Off)
	}
	return nil
}

// Data is a parsed Data frame: the grains of one batch that differ.
type Data struct {
	Batch   int64
	Pass    uint32
	Epoch   uint64
	Redo    bool
	Records []Record // in disk order, disjoint
	Raw     int64    // sum of the records' Bytes without EncBad
	Mask    Mask     // the grains they cover
}

// ParseData parses the body of a Data frame for a disk of size bytes into d
// and checks everything but the payloads: position, order, lengths, bindings.
// It allocates only while d.Records has room for fewer than a batch. Errors
// are ErrFrame, or a *Error with CodeFenced, CodeExtent or CodeBinding.
func (d *Data) ParseData(b []byte, size int64, binder *Binder) error {
	f := fields{b: b}
	d.Batch, d.Epoch, d.Pass = f.i64(), f.u64(), f.u32()
	count, flags := int(f.u8()), f.u8()
	f.zero(2)
	if f.bad || flags > 1 || count < 1 || count > cbt.BatchGrains {
		return fmt.Errorf("%w: data head", ErrFrame)
	}
	d.Redo, d.Raw, d.Mask, d.Records = flags == 1, 0, 0, d.Records[:0]
	if d.Epoch != binder.pos.Epoch || d.Pass != binder.pos.Pass {
		return Errorf(CodeFenced, "data of pass %d epoch %d in a session of pass %d epoch %d", d.Pass, d.Epoch, binder.pos.Pass, binder.pos.Epoch)
	}
	if d.Batch > size/cbt.BatchSize {
		return Errorf(CodeExtent, "batch %d outside a disk of %d bytes", d.Batch, size)
	}
	for range count {
		if err := d.parseRecord(&f, size, binder); err != nil {
			return err
		}
	}
	return f.done(TypeData)
}

func (d *Data) parseRecord(f *fields, size int64, binder *Binder) error {
	head := f.take(recordLen)
	if head == nil {
		return fmt.Errorf("%w: data record cut short", ErrFrame)
	}
	h := fields{b: head}
	r := Record{Extent: cbt.Extent{Off: int64(h.u64()), Len: int64(h.u32())}}
	n := int(h.u32())
	r.Enc = Encoding(h.u8())
	r.Parts = h.parts()
	h.copy(r.Digest[:])
	if h.bad || !payloadFits(&r, n) || n == 0 && r.Digest != (cbt.Digest{}) {
		return errRecord(n, &r)
	}
	if r.Payload = f.take(n); f.bad {
		return fmt.Errorf("%w: data payload cut short", ErrFrame)
	}
	mask, err := d.place(&r, size)
	if err != nil {
		return err
	}
	if string(binder.sum(head[:recordLen-bindingLen])) != string(head[recordLen-bindingLen:]) {
		return Errorf(CodeBinding, "record for %v is not bound to this disk, pass, epoch and place", r.Extent)
	}
	d.Records, d.Mask = append(d.Records, r), d.Mask|mask
	if r.Enc != EncBad {
		d.Raw += r.Bytes()
	}
	return nil
}

// payloadFits says whether n bytes may carry what r says.
func payloadFits(r *Record, n int) bool {
	if !partsFit(r.Enc, r.Extent.Len, r.Parts) {
		return false
	}
	if r.Parts != 0 {
		n -= bindingLen
	}
	switch r.Enc {
	case EncRaw:
		return int64(n) == r.Bytes()
	case EncLZ4:
		return n > 0 && int64(n) < r.Bytes()
	case EncZero, EncHole, EncBad:
		return n == 0
	}
	return false
}

// place checks that r lies in the batch on whole grains, one grain unless it
// is zeros, after all records before it.
func (d *Data) place(r *Record, size int64) (Mask, error) {
	e, start := r.Extent, d.Batch*cbt.BatchSize
	whole := cbt.Extent{Off: start, Len: min(cbt.BatchSize, size-start)}
	if err := e.Check(size); err != nil || whole.Len <= 0 || !whole.Contains(e) ||
		e.Off%cbt.GrainSize != 0 || (e.Len%cbt.GrainSize != 0 && e.End() != size) {
		return 0, Errorf(CodeExtent, "record for %v does not lie on grains of batch %d", e, d.Batch)
	}
	if e.Len > cbt.GrainSize && len(r.Payload) > 0 {
		return 0, Errorf(CodeExtent, "record for %v is longer than a grain", e)
	}
	first := int(e.Off-start) / cbt.GrainSize
	grains := int((e.Len + cbt.GrainSize - 1) / cbt.GrainSize)
	mask := FullMask(first+grains) &^ FullMask(first)
	if d.Mask >= 1<<first {
		return 0, Errorf(CodeExtent, "record for %v overlaps, or comes after, one behind it", e)
	}
	return mask, nil
}
