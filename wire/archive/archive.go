package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/haulback/haulback/cbt"
)

var (
	// ErrFormat means that the bytes are no archive at all, or of a version
	// that this program does not know.
	ErrFormat = errors.New("not a haulback stream of a known version")
	// ErrDamaged means that an archive is cut, changed, out of order, or
	// followed by something.
	ErrDamaged = errors.New("the stream is damaged or cut")
)

// Kind says what of the disk a stream has. Append only; never renumber.
type Kind uint8

const (
	// Full has all of the disk.
	Full Kind = 1
	// Changed has what change tracking calls changed, and a sample of the rest.
	Changed Kind = 2
)

// String is "full" or "changed".
func (k Kind) String() string {
	switch k {
	case Full:
		return "full"
	case Changed:
		return "changed"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Base is what a changed stream builds on: what the disk held, or the stream
// that brought it there.
type Base struct {
	Root cbt.Digest
	Run  [16]byte
}

// IsZero reports whether nothing is known.
func (b Base) IsZero() bool { return b == Base{} }

// Label is a word that a caller wants back.
type Label struct{ Key, Value string }

// Header is what a stream says of itself. Map and Sampled are written as frames
// of their own and are here so that nobody can forget them.
type Header struct {
	Kind     Kind
	Size     int64 // of the disk, bytes
	Created  time.Time
	Run      [16]byte
	Base     Base
	Identity string // of the source disk
	Tracking string // how changes were tracked, as asked for
	Since    string // the point of tracking that the changes are since
	Reason   string // why this Kind
	Agent    string
	Labels   []Label
	Map      cbt.Map // what the stream carries, whole grains
	Sampled  cbt.Map // of it: what change tracking calls unchanged
}

// Totals is the trailer.
type Totals struct {
	Data, Zero           int64 // frames
	DataBytes, ZeroBytes int64
	PayloadBytes         int64
	Root                 cbt.Digest
	Sum                  cbt.Digest // of the whole stream
}

const (
	magic   = "\x89HBA\r\n\x1a\n"
	version = 1

	typeHeader  = 1
	typeMap     = 2
	typeSampled = 3
	typeData    = 4
	typeZero    = 5
	typeTrailer = 6

	encRaw = 1
	encLZ4 = 2

	frameLen   = 12
	headerLen  = 120
	extentLen  = 16
	dataLen    = 48
	zeroLen    = 16
	trailerLen = 72
	maxText    = 1024
	maxLabels  = 64
	perFrame   = 4096 // extents
)

// MaxExtents bounds a map, and so the memory of a reader. A writer that has
// more joins some: what lies between is then read and written for nothing.
const MaxExtents = 1 << 20

// MaxSize bounds a disk: 1 PiB. A reader folds a digest for each grain that a
// stream leaves out, and a few bytes must not keep it busy for a year.
const MaxSize = 1 << 50

// limits are the shortest and longest head of a type, and its longest payload.
func limits(t byte) (least, most, payload uint32, known bool) {
	switch t {
	case typeHeader:
		return headerLen + 11, headerLen + 5*(2+maxText) + 1 + maxLabels*2*(2+maxText)/2, 0, true
	case typeMap, typeSampled:
		return extentLen, perFrame * extentLen, 0, true
	case typeData:
		return dataLen + cbt.DigestSize, dataLen + cbt.BatchGrains*cbt.DigestSize, cbt.BatchSize, true
	case typeZero:
		return zeroLen, zeroLen, 0, true
	case typeTrailer:
		return trailerLen, trailerLen, 0, true
	}
	return 0, 0, 0, false
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// check says whether h makes sense.
func (h *Header) check() error {
	switch {
	case h.Kind != Full && h.Kind != Changed:
		return fmt.Errorf("%v", h.Kind)
	case h.Size < 1 || h.Size > MaxSize:
		return fmt.Errorf("a disk of %d bytes", h.Size)
	case h.Run == [16]byte{}:
		return errors.New("no run")
	case h.Kind == Full && !h.Base.IsZero():
		return errors.New("a full stream with a base")
	case h.Kind == Changed && h.Base.IsZero():
		return errors.New("a changed stream without a base")
	case len(h.Labels) > maxLabels:
		return fmt.Errorf("%d labels, at most %d", len(h.Labels), maxLabels)
	}
	return nil
}

// checkMaps says whether the maps of h fit it.
func (h *Header) checkMaps() error {
	for _, m := range []cbt.Map{h.Map, h.Sampled} {
		if m.Count() > MaxExtents {
			return fmt.Errorf("a map of %d extents, at most %d", m.Count(), MaxExtents)
		}
		for e := range m.All() {
			if err := onGrains(e, h.Size); err != nil {
				return err
			}
		}
	}
	if h.Kind == Full && !h.Sampled.Empty() {
		return errors.New("samples in a full stream")
	}
	if !h.Sampled.Subtract(h.Map).Empty() {
		return errors.New("samples beside the map")
	}
	return nil
}

// onGrains says whether e is whole grains of a disk of size bytes.
func onGrains(e cbt.Extent, size int64) error {
	if err := e.Check(size); err != nil {
		return err
	}
	if e.Off%cbt.GrainSize != 0 || e.Len%cbt.GrainSize != 0 && e.End() != size {
		return fmt.Errorf("extent %v is not whole grains", e)
	}
	return nil
}

// printable reports whether s may be shown: no control characters that break a
// log line or move a cursor.
func printable(s string) bool {
	if len(s) > maxText || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// CheckLabels says whether a header takes these labels.
func CheckLabels(list []Label) error {
	h := Header{Kind: Full, Size: 1, Run: [16]byte{1}, Labels: list}
	_, err := h.append(nil)
	return err
}

// append appends the head of the Header frame.
func (h *Header) append(b []byte) ([]byte, error) {
	if err := errors.Join(h.check(), h.checkMaps()); err != nil {
		return b, err
	}
	be := binary.BigEndian
	b = be.AppendUint16(b, version)
	b = append(b, byte(h.Kind), 0)
	b = be.AppendUint32(b, cbt.GrainSize)
	b = be.AppendUint64(b, uint64(h.Size))
	b = be.AppendUint64(b, uint64(h.Created.Unix()))
	b = append(b, h.Run[:]...)
	b = append(b, h.Base.Root[:]...)
	b = append(b, h.Base.Run[:]...)
	for _, m := range []cbt.Map{h.Map, h.Sampled} {
		b = be.AppendUint64(b, uint64(m.Count()))
		b = be.AppendUint64(b, uint64(m.Len()))
	}
	texts := []string{h.Identity, h.Tracking, h.Since, h.Reason, h.Agent}
	for _, l := range h.Labels {
		texts = append(texts, l.Key, l.Value)
	}
	for i, s := range texts {
		if i == 5 {
			b = append(b, byte(len(h.Labels)))
		}
		if !printable(s) {
			return b, fmt.Errorf("%q is no text of at most %d printable bytes", s, maxText)
		}
		b = append(be.AppendUint16(b, uint16(len(s))), s...)
	}
	if len(h.Labels) == 0 {
		b = append(b, 0)
	}
	if _, most, _, _ := limits(typeHeader); len(b) > int(most) {
		return b, fmt.Errorf("labels of %d bytes are too long", len(b))
	}
	return b, nil
}

// announced is what a header says of the maps that follow.
type announced struct{ count, bytes int64 }

// parse takes the head of a Header frame.
func (h *Header) parse(b []byte) (maps, samples announced, err error) {
	f := fields{b: b}
	if v := f.u16(); v != version {
		return maps, samples, fmt.Errorf("%w: version %d, known is %d", ErrFormat, v, version)
	}
	h.Kind = Kind(f.u8())
	f.zero(1)
	grain := f.u32()
	h.Size = f.i64()
	h.Created = time.Unix(f.i64(), 0).UTC()
	f.copy(h.Run[:])
	f.copy(h.Base.Root[:])
	f.copy(h.Base.Run[:])
	maps.count, maps.bytes = f.i64(), f.i64()
	samples.count, samples.bytes = f.i64(), f.i64()
	for _, to := range []*string{&h.Identity, &h.Tracking, &h.Since, &h.Reason, &h.Agent} {
		*to = f.text()
	}
	for range f.u8() {
		h.Labels = append(h.Labels, Label{f.text(), f.text()})
	}
	switch {
	case f.bad || len(f.b) != 0:
		err = errors.New("header")
	case grain != cbt.GrainSize:
		err = fmt.Errorf("grains of %d bytes, known are %d", grain, cbt.GrainSize)
	case maps.count > MaxExtents || samples.count > MaxExtents:
		err = fmt.Errorf("maps of %d and %d extents, at most %d", maps.count, samples.count, MaxExtents)
	default:
		err = h.check()
	}
	return maps, samples, err
}

// append appends the head of the Trailer frame.
func (t *Totals) append(b []byte) []byte {
	for _, v := range []int64{t.Data, t.Zero, t.DataBytes, t.ZeroBytes, t.PayloadBytes} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return append(b, t.Root[:]...)
}

// fields reads the fields of a head; bad is set when one is missing or wrong.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.b) {
		f.bad = true
		return nil
	}
	out := f.b[:n]
	f.b = f.b[n:]
	return out
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

// i64 is a number of bytes or things: never negative.
func (f *fields) i64() int64 {
	p := f.take(8)
	if p == nil || p[0] >= 0x80 {
		f.bad = true
		return 0
	}
	return int64(binary.BigEndian.Uint64(p))
}

func (f *fields) zero(n int) {
	for _, c := range f.take(n) {
		f.bad = f.bad || c != 0
	}
}

func (f *fields) copy(to []byte) { copy(to, f.take(len(to))) }

func (f *fields) text() string {
	s := string(f.take(int(f.u16())))
	f.bad = f.bad || !printable(s)
	return s
}
