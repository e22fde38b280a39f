package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/haulback/haulback/cbt"
)

// Version is the protocol version this code speaks; ALPN carries it too.
const Version = 1

// Type is the first byte of a frame. Append only; never renumber, never reuse.
type Type uint8

// The frame types of protocol 1. doc.go has their layouts.
const (
	TypeHello    Type = 1
	TypeWelcome  Type = 2
	TypeError    Type = 3
	TypeOpen     Type = 4
	TypeOpened   Type = 5
	TypeManifest Type = 6
	TypeHoles    Type = 7
	TypeData     Type = 8
	TypeSame     Type = 9
	TypeDiff     Type = 10
	TypeAck      Type = 11
	TypeRedo     Type = 12
	TypeFinish   Type = 13
	TypeVerified Type = 14
	TypeProbed   Type = 15
	TypeOrder    Type = 16
	TypeStatus   Type = 17
	TypeReport   Type = 18
	TypePing     Type = 19
	TypePlan     Type = 20
	TypePace     Type = 21
	TypeRenew    Type = 22
	TypeHint     Type = 23
	TypeAreas    Type = 24
	TypeBase     Type = 25
	TypePath     Type = 26
	TypeRefine   Type = 30
	TypeParts    Type = 31
)

// headerLen is type, flags, reserved and length.
const headerLen = 8

// maxBody is the largest body of each type in bytes; a frame that says more
// is refused before anything is read or allocated for it.
var maxBody = [...]int{
	TypeHello:    2048,
	TypeWelcome:  512,
	TypeError:    4 + maxText,
	TypeOpen:     1024,
	TypeOpened:   1024,
	TypeManifest: manifestHeadLen + cbt.BatchGrains*cbt.DigestSize,
	TypeHoles:    16,
	TypeData:     MaxDataBody,
	TypeSame:     2 + maxSameRuns*16,
	TypeDiff:     12,
	TypeAck:      64,
	TypeRedo:     12,
	TypeFinish:   64,
	TypeVerified: 128,
	TypeProbed:   2048,
	TypeOrder:    2048,
	TypeStatus:   512,
	TypeReport:   4096,
	TypePing:     8,
	TypeRenew:    2 * (2 + MaxTicket),
	TypePlan:     2 + maxPlanSteps*planStepLen,
	TypePace:     paceLen,
	TypeHint:     1024,
	TypeAreas:    2 + maxAreas*areaLen,
	TypeBase:     8,
	TypePath:     pathLen + 2 + maxText,
	TypeRefine:   10,
	TypeParts:    partsHeadLen + cbt.BatchGrains*partsLen,
	TypeJoin:     576,
	TypeJoined:   320,
}

// maxText bounds every text from a peer.
const maxText = 256

// MaxControlBody is the largest body of the frames other than Data.
const MaxControlBody = 2 + maxSameRuns*16

// Frame is one frame's contents. The types of this package that have these
// methods are all there are.
type Frame interface {
	// Type is the frame's type byte.
	Type() Type
	// appendBody appends the body, exactly as doc.go lays it out.
	appendBody(b []byte) []byte
	// parseBody fills the frame from a whole body. It returns ErrFrame for
	// anything that appendBody cannot have made. Slices alias b.
	parseBody(b []byte) error
}

// AppendFrame appends the header and body of f to b.
func AppendFrame(b []byte, f Frame) []byte {
	at := len(b)
	b = append(b, byte(f.Type()), 0, 0, 0, 0, 0, 0, 0)
	b = f.appendBody(b)
	binary.BigEndian.PutUint32(b[at+4:], uint32(len(b)-at-headerLen))
	return b
}

// Parse fills f from body, the body of a frame whose header said f.Type().
// Slices in f alias body.
func Parse(f Frame, body []byte) error { return f.parseBody(body) }

// parseHeader checks a frame header and gives type and body length.
func parseHeader(h []byte) (Type, int, error) {
	t, n := Type(h[0]), binary.BigEndian.Uint32(h[4:])
	switch {
	case h[1] != 0 || h[2] != 0 || h[3] != 0:
		return 0, 0, fmt.Errorf("%w: type %d with unknown flags %x", ErrFrame, t, h[1:4])
	case int(t) >= len(maxBody) || maxBody[t] == 0:
		return 0, 0, fmt.Errorf("%w: unknown type %d", ErrFrame, t)
	case n > uint32(maxBody[t]):
		return 0, 0, fmt.Errorf("%w: type %d of %d bytes, at most %d may be", ErrFrame, t, n, maxBody[t])
	}
	return t, int(n), nil
}

// Reader reads frames from a stream into one buffer that it keeps. It is for
// one goroutine.
type Reader struct {
	r    io.Reader
	buf  []byte
	head [headerLen]byte
}

// NewReader returns a Reader whose bodies may have up to limit bytes
// (MaxControlBody or MaxDataBody); a longer frame is refused.
func NewReader(r io.Reader, limit int) *Reader {
	return NewReaderBuffer(r, make([]byte, limit))
}

// NewReaderBuffer is NewReader with the caller's buffer.
func NewReaderBuffer(r io.Reader, buf []byte) *Reader { return &Reader{r: r, buf: buf} }

// Next reads the next frame. The body is valid until the next call. An Error
// frame is returned as a *Error with Remote set. At the end of the stream it
// returns io.EOF between frames and io.ErrUnexpectedEOF within one.
func (r *Reader) Next() (Type, []byte, error) {
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return 0, nil, err
	}
	t, n, err := parseHeader(r.head[:])
	if err != nil {
		return 0, nil, err
	}
	if n > len(r.buf) {
		return 0, nil, fmt.Errorf("%w: type %d may not come on this stream", ErrFrame, t)
	}
	if _, err := io.ReadFull(r.r, r.buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if t == TypeError {
		return 0, nil, parseError(r.buf[:n])
	}
	return t, r.buf[:n], nil
}

// Expect reads the next frame, which has to be of f's type, into f.
func (r *Reader) Expect(f Frame) error {
	t, body, err := r.Next()
	if err != nil {
		return err
	}
	if t != f.Type() {
		return fmt.Errorf("%w: type %d where %d has to come", ErrFrame, t, f.Type())
	}
	return f.parseBody(body)
}

// ExpectWithin is Expect with a deadline on s, the stream that r reads; the
// deadline is taken off again.
func (r *Reader) ExpectWithin(s Stream, d time.Duration, f Frame) error {
	if err := s.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if err := r.Expect(f); err != nil {
		return err
	}
	return s.SetReadDeadline(time.Time{})
}

// fields reads big-endian fields from a body; after the last one, done says
// whether the body had exactly the fields that were read.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.b) {
		f.bad = true
		return nil
	}
	p := f.b[:n]
	f.b = f.b[n:]
	return p
}

func (f *fields) u8() uint8 {
	if p := f.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if p := f.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if p := f.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// i64 is a count or an offset: a u64 whose top bit has to be clear.
func (f *fields) i64() int64 {
	v := int64(f.u64())
	if v < 0 {
		f.bad = true
	}
	return v
}

func (f *fields) u64() uint64 {
	if p := f.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// flag is a byte that is 0 or 1.
func (f *fields) flag() bool {
	v := f.u8()
	f.bad = f.bad || v > 1
	return v == 1
}

// flag is the byte of a bool.
func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (f *fields) copy(dst []byte) { copy(dst, f.take(len(dst))) }

// text is a u16 length and that many bytes of printable UTF-8, at most maxText.
func (f *fields) text() string {
	n := int(f.u16())
	if n > maxText {
		f.bad = true
	}
	p := f.take(n)
	if f.bad || !printable(p) {
		f.bad = true
		return ""
	}
	return string(p)
}

// bytes is a u16 length, at most limit, and that many bytes, in a copy; nil for
// none.
func (f *fields) bytes(limit int) []byte {
	n := int(f.u16())
	if n > limit {
		f.bad = true
	}
	if n == 0 || f.bad {
		return nil
	}
	return append([]byte(nil), f.take(n)...)
}

func appendBytes(b, p []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
}

// zero skips n reserved bytes, which have to be zero.
func (f *fields) zero(n int) {
	for _, c := range f.take(n) {
		if c != 0 {
			f.bad = true
		}
	}
}

// done returns ErrFrame unless all fields were there and nothing follows.
func (f *fields) done(t Type) error {
	if f.bad || len(f.b) != 0 {
		return fmt.Errorf("%w: type %d has a wrong body", ErrFrame, t)
	}
	return nil
}
