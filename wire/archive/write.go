package archive

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// Record is one Data or Zero frame to be written. Encoder makes them, many at
// once on many goroutines; Writer.Append puts them in order.
type Record struct {
	Extent  cbt.Extent
	Zero    bool
	Grains  [cbt.BatchGrains]cbt.Digest // of the bytes, when not Zero
	Payload []byte                      // as stored; aliases what Encode was given
	lz4     bool
	sum     cbt.Digest // of Payload, when lz4
}

// Encoder compresses payloads. It is for one goroutine.
type Encoder struct {
	Raw bool // never compress
	lz  lz4.Compressor
	h   *blake3.Hasher
}

// Encode makes the payload of r, whose Extent and Grains are set, of the bytes
// p: an LZ4 block in room where that gains at least a sixteenth, else p itself.
// room has at least the length of p. It returns how much of room is used.
func (e *Encoder) Encode(r *Record, p, room []byte) int {
	r.Payload, r.lz4, r.sum = p, false, cbt.Digest{}
	if e.Raw || len(p) < 16 {
		return 0
	}
	n, err := e.lz.CompressBlock(p, room[:len(p)-len(p)/16])
	if err != nil || n == 0 {
		return 0
	}
	if e.h == nil {
		e.h = blake3.New()
	}
	r.Payload, r.lz4 = room[:n], true
	e.h.Reset()
	_, _ = e.h.Write(r.Payload) // never fails
	e.h.Sum(r.sum[:0])
	return n
}

// Writer writes one stream. After an error it is of no more use. It is for one
// goroutine.
type Writer struct {
	out   *bufio.Writer
	chain chain
	cur   cursor
	buf   []byte
	tot   Totals
	n     int64
	err   error
}

// NewWriter writes the header and the maps of h to w. The maps must not be
// changed before Finish.
func NewWriter(w io.Writer, h *Header) (*Writer, error) {
	head, err := h.append(nil)
	if err != nil {
		return nil, fmt.Errorf("stream header: %w", err)
	}
	a := &Writer{out: bufio.NewWriterSize(w, 64<<10), chain: newChain(), cur: newCursor(h), buf: make([]byte, 0, 4<<10)}
	a.write([]byte(magic))
	a.frame(typeHeader, nil, head)
	a.extents(typeMap, h.Map)
	a.extents(typeSampled, h.Sampled)
	return a, a.err
}

// extents writes the frames of one map.
func (a *Writer) extents(t byte, m cbt.Map) {
	head := make([]byte, 0, perFrame*extentLen)
	for e := range m.All() {
		head = binary.BigEndian.AppendUint64(head, uint64(e.Off))
		head = binary.BigEndian.AppendUint64(head, uint64(e.Len))
		if len(head) == cap(head) {
			a.frame(t, nil, head)
			head = head[:0]
		}
	}
	if len(head) > 0 {
		a.frame(t, nil, head)
	}
}

// frame writes one frame.
func (a *Writer) frame(t byte, payload, head []byte) {
	a.buf = append(appendFrame(a.buf[:0], t, len(head), len(payload)), head...)
	a.seal(payload)
}

// seal writes the frame that stands in buf, its sum and its payload.
func (a *Writer) seal(payload []byte) {
	a.buf = append(a.buf, a.chain.next(a.buf)[:]...)
	a.write(a.buf)
	a.write(payload)
}

func (a *Writer) write(p []byte) {
	if a.err != nil || len(p) == 0 {
		return
	}
	n, err := a.out.Write(p)
	a.n += int64(n)
	if err != nil {
		a.err = fmt.Errorf("write the stream: %w", err)
	}
}

// Append writes r, which has to be what comes next in the map.
func (a *Writer) Append(r *Record) error {
	if a.err != nil {
		return a.err
	}
	within := int64(cbt.BatchSize)
	if r.Zero {
		within = 0
	}
	if err := a.cur.accept(r.Extent, within); err != nil {
		a.err = fmt.Errorf("stream out of order: %w", err)
		return a.err
	}
	n := int(cbt.Grains(r.Extent.Len))
	be := binary.BigEndian
	if r.Zero {
		b := appendFrame(a.buf[:0], typeZero, zeroLen, 0)
		b = be.AppendUint64(b, uint64(r.Extent.Off))
		a.buf = be.AppendUint64(b, uint64(r.Extent.Len))
		a.cur.root.AddZeros(int64(n))
		a.tot.Zero++
		a.tot.ZeroBytes += r.Extent.Len
		a.seal(nil)
		return a.err
	}
	enc := byte(encRaw)
	if r.lz4 {
		enc = encLZ4
	}
	b := appendFrame(a.buf[:0], typeData, dataLen+n*cbt.DigestSize, len(r.Payload))
	b = be.AppendUint64(b, uint64(r.Extent.Off))
	b = be.AppendUint32(b, uint32(r.Extent.Len))
	b = append(b, enc, 0, 0, 0)
	b = append(b, r.sum[:]...)
	for i := range n {
		b = append(b, r.Grains[i][:]...)
		a.cur.root.Add(&r.Grains[i])
	}
	a.buf = b
	a.tot.Data++
	a.tot.DataBytes += r.Extent.Len
	a.tot.PayloadBytes += int64(len(r.Payload))
	a.seal(r.Payload)
	return a.err
}

// Written is the number of bytes of the stream so far.
func (a *Writer) Written() int64 { return a.n }

// Finish writes the trailer, when all of the map was appended. What was written
// to is not closed and not flushed beyond the Writer's own buffer.
func (a *Writer) Finish() (Totals, error) {
	if a.err != nil {
		return Totals{}, a.err
	}
	var err error
	if a.tot.Root, err = a.cur.end(); err != nil {
		return Totals{}, fmt.Errorf("stream not finished: %w", err)
	}
	a.frame(typeTrailer, nil, a.tot.append(nil))
	a.tot.Sum = a.chain.last
	if err := a.out.Flush(); err != nil && a.err == nil {
		a.err = fmt.Errorf("write the stream: %w", err)
	}
	return a.tot, a.err
}
