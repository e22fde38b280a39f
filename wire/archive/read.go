package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
)

// Reader reads one stream. After an error it is of no more use: Next returns
// the same one again. It is for one goroutine.
type Reader struct {
	in      *bufio.Reader
	chain   chain
	cur     cursor
	h       Header
	tot     Totals
	buf     []byte // head of the frame, with the 12 bytes before it
	payload []byte // of an LZ4 block
	hash    *cbt.Hasher
	block   *blake3.Hasher
	n       int64
	err     error
}

// Item is a piece of the disk that was checked.
type Item struct {
	Extent cbt.Extent
	Data   []byte // nil: all zero
}

// NewReader reads the header and the maps. Errors are ErrFormat, ErrDamaged,
// or what r returned.
func NewReader(r io.Reader) (*Reader, error) {
	a := &Reader{in: bufio.NewReaderSize(r, 256<<10), chain: newChain(), buf: make([]byte, 0, 4<<10), hash: cbt.NewHasher(), block: blake3.New()}
	if err := a.begin(); err != nil {
		return nil, err
	}
	a.cur = newCursor(&a.h)
	return a, nil
}

func (a *Reader) begin() error {
	var m [len(magic)]byte
	n, err := io.ReadFull(a.in, m[:])
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF && string(m[:n]) != magic[:n]:
		return fmt.Errorf("%w: it has %d bytes", ErrFormat, n)
	case err != nil:
		return cut(err)
	case string(m[:]) != magic:
		return fmt.Errorf("%w: it begins with % x", ErrFormat, m)
	}
	a.n += int64(len(m))
	t, head, _, err := a.frame()
	if err != nil {
		return err
	}
	if t != typeHeader {
		return damaged("frame of type %d where the header has to be", t)
	}
	maps, samples, err := a.h.parse(head)
	if err == nil {
		if a.h.Map, err = a.extents(typeMap, maps); err == nil {
			a.h.Sampled, err = a.extents(typeSampled, samples)
		}
		if err == nil {
			err = a.h.checkMaps()
		}
	}
	if err == nil || errors.Is(err, ErrFormat) || errors.Is(err, ErrDamaged) {
		return err
	}
	if _, ok := errors.AsType[*readError](err); ok {
		return err
	}
	return damaged("%w", err)
}

// readError is an error of what the stream is read from.
type readError struct{ err error }

func (e *readError) Error() string { return "read the stream: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// cut is the error of a read that did not bring all.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged("it ends in the middle")
	}
	return &readError{err}
}

// extents reads the frames of one map.
func (a *Reader) extents(want byte, n announced) (m cbt.Map, err error) {
	end := int64(-1)
	for left := n.count; left > 0; {
		t, head, _, err := a.frame()
		if err != nil {
			return m, err
		}
		if t != want || len(head)%extentLen != 0 || int64(len(head)/extentLen) > left {
			return m, errorf("frame of type %d with %d bytes where %d extents of a map have to come", t, len(head), left)
		}
		for f := (fields{b: head}); len(f.b) > 0; left-- {
			e := cbt.Extent{Off: f.i64(), Len: f.i64()}
			if f.bad || e.Off <= end {
				return m, errorf("the map goes back to %d", e.Off)
			}
			if err := onGrains(e, a.h.Size); err != nil {
				return m, err
			}
			m.Add(e)
			end = e.End()
		}
	}
	if m.Len() != n.bytes {
		return m, errorf("a map of %d bytes, the header says %d", m.Len(), n.bytes)
	}
	return m, nil
}

// frame reads the next frame up to its payload and checks its sum. head is valid
// until the next call.
func (a *Reader) frame() (t byte, head []byte, payload int, err error) {
	b := a.buf[:frameLen]
	if _, err := io.ReadFull(a.in, b); err != nil {
		return 0, nil, 0, cut(err)
	}
	n, p := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	least, most, maxPayload, known := limits(b[0])
	if !known || b[1]|b[2]|b[3] != 0 || n < least || n > most || p > maxPayload {
		return 0, nil, 0, damaged("no frame: % x", b)
	}
	need := frameLen + int(n) + cbt.DigestSize
	if need > cap(a.buf) {
		a.buf = append(make([]byte, 0, need), b...)
	}
	b = a.buf[:need]
	if _, err := io.ReadFull(a.in, b[frameLen:]); err != nil {
		return 0, nil, 0, cut(err)
	}
	body := b[:frameLen+int(n)]
	if *a.chain.next(body) != cbt.Digest(b[len(body):]) {
		return 0, nil, 0, damaged("the sum of a frame of type %d after %d bytes is wrong", b[0], a.n)
	}
	a.n += int64(need)
	return b[0], body[frameLen:], int(p), nil
}

// Header is what the stream says of itself. Its maps must not be changed.
func (a *Reader) Header() *Header { return &a.h }

// Totals is the trailer, once Next has returned io.EOF.
func (a *Reader) Totals() Totals { return a.tot }

// Consumed is the number of bytes of the stream that were read and checked.
func (a *Reader) Consumed() int64 { return a.n }

// Next reads and checks the next piece of the disk. The bytes of one that is not
// all zero are put into place(its extent), which has its length. At the end,
// when the trailer and the root are right and nothing follows, it returns io.EOF.
func (a *Reader) Next(place func(cbt.Extent) []byte) (Item, error) {
	if a.err != nil {
		return Item{}, a.err
	}
	it, err := a.next(place)
	if err != nil && err != io.EOF && !errors.Is(err, ErrDamaged) {
		if _, ok := errors.AsType[*readError](err); !ok {
			err = damaged("%w", err)
		}
	}
	a.err = err
	return it, err
}

func (a *Reader) next(place func(cbt.Extent) []byte) (Item, error) {
	t, head, p, err := a.frame()
	if err != nil {
		return Item{}, err
	}
	f := fields{b: head}
	switch t {
	case typeZero:
		e := cbt.Extent{Off: f.i64(), Len: f.i64()}
		if f.bad {
			return Item{}, errorf("zeros at %v", e)
		}
		if err := a.cur.accept(e, 0); err != nil {
			return Item{}, err
		}
		a.cur.root.AddZeros(cbt.Grains(e.Len))
		a.tot.Zero++
		a.tot.ZeroBytes += e.Len
		return Item{Extent: e}, nil
	case typeData:
		return a.data(&f, p, place)
	case typeTrailer:
		return Item{}, a.end(&f)
	}
	return Item{}, errorf("frame of type %d among the data", t)
}

// data reads the payload of a Data frame.
func (a *Reader) data(f *fields, p int, place func(cbt.Extent) []byte) (Item, error) {
	e := cbt.Extent{Off: f.i64(), Len: int64(f.u32())}
	enc := f.u8()
	f.zero(3)
	var sum cbt.Digest
	f.copy(sum[:])
	if f.bad || e.Len < 1 || int64(len(f.b)) != cbt.Grains(e.Len)*cbt.DigestSize {
		return Item{}, errorf("data at %v with %d bytes of digests", e, len(f.b))
	}
	if !fits(enc, int64(p), e.Len, &sum) {
		return Item{}, errorf("data at %v: %d bytes in encoding %d", e, p, enc)
	}
	if err := a.cur.accept(e, cbt.BatchSize); err != nil {
		return Item{}, err
	}
	to := place(e)
	if err := a.expand(enc, p, &sum, to); err != nil {
		return Item{}, err
	}
	var d cbt.Digest
	for off := 0; off < len(to); off += cbt.GrainSize {
		a.hash.Sum(to[off:min(off+cbt.GrainSize, len(to))], &d)
		if want := f.take(cbt.DigestSize); d != cbt.Digest(want) {
			return Item{}, errorf("the bytes at %d are not those that were dumped", e.Off+int64(off))
		}
		a.cur.root.Add(&d)
	}
	a.n += int64(p)
	a.tot.Data++
	a.tot.DataBytes += e.Len
	a.tot.PayloadBytes += int64(p)
	return Item{Extent: e, Data: to}, nil
}

// fits says whether p bytes of payload may stand for raw bytes.
func fits(enc byte, p, raw int64, sum *cbt.Digest) bool {
	switch enc {
	case encRaw:
		return p == raw && *sum == cbt.Digest{}
	case encLZ4:
		return p > 0 && p < raw
	}
	return false
}

// expand reads p bytes of payload and leaves what they stand for in to.
func (a *Reader) expand(enc byte, p int, sum *cbt.Digest, to []byte) error {
	if enc == encRaw {
		if _, err := io.ReadFull(a.in, to); err != nil {
			return cut(err)
		}
		return nil
	}
	if a.payload == nil {
		a.payload = make([]byte, cbt.BatchSize)
	}
	b := a.payload[:p]
	if _, err := io.ReadFull(a.in, b); err != nil {
		return cut(err)
	}
	var d cbt.Digest
	a.block.Reset()
	_, _ = a.block.Write(b) // never fails
	a.block.Sum(d[:0])
	if d != *sum {
		return errors.New("a payload is not what was written")
	}
	if n, err := lz4.UncompressBlock(b, to); err != nil || n != len(to) {
		return errorf("a payload does not expand to %d bytes", len(to))
	}
	return nil
}

// end checks the trailer and that nothing follows.
func (a *Reader) end(f *fields) error {
	var said Totals
	for _, to := range []*int64{&said.Data, &said.Zero, &said.DataBytes, &said.ZeroBytes, &said.PayloadBytes} {
		*to = f.i64()
	}
	f.copy(said.Root[:])
	root, err := a.cur.end()
	if err != nil {
		return err
	}
	a.tot.Root = root
	if f.bad || said != a.tot {
		return errorf("the trailer says %+v, there was %+v", said, a.tot)
	}
	a.tot.Sum = a.chain.last
	if _, err := a.in.ReadByte(); err == nil {
		return errors.New("something follows the trailer")
	} else if err != io.EOF {
		return &readError{err}
	}
	return io.EOF
}
