package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.hex)
			if got := AppendFrame([]byte("x"), g.frame); !bytes.Equal(got[1:], want) {
				t.Errorf("encoded\n%x, want\n%x", got[1:], want)
			}
			f := newFrame(g.frame.Type())
			if err := Parse(f, want[headerLen:]); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(f, g.frame) {
				t.Errorf("parsed %+v, want %+v", f, g.frame)
			}
		})
	}
}

// TestEveryType fails when a frame type is added without a golden.
func TestEveryType(t *testing.T) {
	for i, most := range maxBody {
		f := newFrame(Type(i))
		if known := f != nil || Type(i) == TypeData; known != (most > 0) {
			t.Errorf("type %d: golden %t, limit %d", i, known, most)
		}
		if f != nil && f.Type() != Type(i) {
			t.Errorf("type %d says that it is %d", i, f.Type())
		}
		if Type(i) != TypeData && most > MaxControlBody {
			t.Errorf("type %d: %d bytes, above MaxControlBody", i, most)
		}
	}
}

// TestReuse parses into a frame that held something else before.
func TestReuse(t *testing.T) {
	for _, g := range goldens {
		f, body := newFrame(g.frame.Type()), unhex(t, g.hex)[headerLen:]
		litter(reflect.ValueOf(f).Elem())
		if err := Parse(f, body); err != nil {
			t.Fatal(err)
		}
		if e, ok := f.(*Error); ok {
			e.Err = nil // never on the wire
		}
		if !reflect.DeepEqual(f, g.frame) {
			t.Errorf("%s: something is left over in %+v", g.name, f)
		}
	}
}

// litter sets every number and byte of v to something.
func litter(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			litter(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			litter(v.Index(i))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("left over")
	case reflect.Int, reflect.Int64:
		v.SetInt(77)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(77)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 9, 9))
	}
}

func TestPrefixes(t *testing.T) {
	for _, g := range goldens {
		whole := unhex(t, g.hex)
		body := whole[headerLen:]
		for i := range body {
			if err := Parse(newFrame(g.frame.Type()), body[:i:i]); !errors.Is(err, ErrFrame) {
				t.Errorf("%s: %d of %d bytes of the body: %v", g.name, i, len(body), err)
			}
		}
		for _, c := range []byte{0, 1, 0xff} {
			if err := Parse(newFrame(g.frame.Type()), append(bytes.Clone(body), c)); !errors.Is(err, ErrFrame) {
				t.Errorf("%s followed by %x: %v", g.name, c, err)
			}
		}
		for i := range whole {
			want := io.ErrUnexpectedEOF
			if i == 0 {
				want = io.EOF
			}
			r := NewReader(iotest.HalfReader(bytes.NewReader(whole[:i])), MaxControlBody)
			if _, _, err := r.Next(); err != want {
				t.Errorf("%s: %d of %d bytes of the frame: %v, want %v", g.name, i, len(whole), err, want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, g := range goldens {
		body := unhex(t, g.hex)[headerLen:]
		for _, at := range g.zero {
			for bit := range 8 {
				b := bytes.Clone(body)
				b[at] ^= 1 << bit
				if err := Parse(newFrame(g.frame.Type()), b); !errors.Is(err, ErrFrame) {
					t.Errorf("%s: bit %d of the reserved byte %d: %v", g.name, bit, at, err)
				}
			}
		}
		for _, p := range g.wrong {
			if err := Parse(newFrame(g.frame.Type()), p.with(t, body)); !errors.Is(err, ErrFrame) {
				t.Errorf("%s with %s at %d: %v", g.name, p.hex, p.at, err)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	for _, f := range []Frame{&Hello{Op: OpPush, Mode: ModeCopy}, &Welcome{}} {
		b := AppendFrame(nil, f)
		b[headerLen+1]++
		// What follows the version may be anything in another version.
		for _, body := range [][]byte{b[headerLen:], append(b[headerLen:], "more"...), b[headerLen : headerLen+2]} {
			if err := Parse(newFrame(f.Type()), body); !errors.Is(err, ErrVersion) || errors.Is(err, ErrFrame) {
				t.Errorf("type %d of the next version: %v", f.Type(), err)
			}
		}
	}
}

// onlyHead gives the header of a frame and fails the test if a byte of the
// body is asked for.
type onlyHead struct {
	t    *testing.T
	head []byte
}

func (o *onlyHead) Read(p []byte) (int, error) {
	if len(o.head) == 0 {
		o.t.Errorf("%d bytes asked for after a header that has to be refused", len(p))
		return 0, io.ErrNoProgress
	}
	n := copy(p, o.head)
	o.head = o.head[n:]
	return n, nil
}

func TestHeader(t *testing.T) {
	head := func(t Type, flags uint32, n int) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(t)<<24|flags)
		return binary.BigEndian.AppendUint32(b, uint32(n))
	}
	refuse := func(name string, h []byte, limit int) {
		t.Helper()
		r := NewReader(&onlyHead{t, h}, limit)
		if _, _, err := r.Next(); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: % x: %v", name, h, err)
		}
	}
	for i, most := range maxBody {
		if most == 0 {
			continue
		}
		refuse("a byte too long", head(Type(i), 0, most+1), MaxDataBody)
		refuse("4 GiB", head(Type(i), 0, 1<<32-1), MaxDataBody)
		for bit := range 24 {
			refuse("flag", head(Type(i), 1<<bit, 0), MaxDataBody)
		}
	}
	for i := range 256 {
		if i >= len(maxBody) || maxBody[i] == 0 {
			refuse("unknown type", head(Type(i), 0, 0), MaxDataBody)
		}
	}
	refuse("data on a control stream", head(TypeData, 0, MaxControlBody+1), MaxControlBody)
	refuse("too long for the buffer", head(TypeSame, 0, 101), 100)
}

// TestOversizeCostsNothing refuses a length before anything is allocated for it.
func TestOversizeCostsNothing(t *testing.T) {
	src := &repeated{b: []byte{byte(TypeData), 0, 0, 0, 0xff, 0xff, 0xff, 0xff}}
	r := NewReader(src, MaxControlBody)
	if n := allocated(func() { r.Next() }); n > 64<<10 {
		t.Errorf("%d bytes allocated to refuse a frame of 4 GiB", n)
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// repeated is an endless stream of b.
type repeated struct {
	b  []byte
	at int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.at:])
	r.at = (r.at + n) % len(r.b)
	return n, nil
}

func TestReaderStream(t *testing.T) {
	var all []byte
	for _, g := range goldens {
		all = AppendFrame(all, g.frame)
	}
	r := NewReader(iotest.OneByteReader(bytes.NewReader(all)), MaxControlBody)
	for _, g := range goldens {
		if g.frame.Type() == TypeError {
			_, _, err := r.Next()
			if e, ok := errors.AsType[*Error](err); !ok || !e.Remote || e.Code != CodeFenced || e.Text != "over" {
				t.Errorf("an Error frame gives %#v", err)
			}
			continue
		}
		f := newFrame(g.frame.Type())
		if err := r.Expect(f); err != nil || !reflect.DeepEqual(f, g.frame) {
			t.Errorf("%s: %+v, %v", g.name, f, err)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if err := NewReader(bytes.NewReader(all), MaxControlBody).Expect(new(Ack)); !errors.Is(err, ErrFrame) {
		t.Errorf("Expect an Ack of a Hello: %v", err)
	}
}

// TestLargest fills every frame to the brim: the limits must let it through.
func TestLargest(t *testing.T) {
	long := strings.Repeat("x", maxText)
	runs := make([]Run, MaxSameRuns)
	for i := range runs {
		runs[i] = Run{int64(2 * i), 1}
	}
	for _, f := range []Frame{
		&Hello{Op: OpPush, Mode: ModeCopy, Export: long, Agent: long}, &Welcome{Agent: long}, &Error{Text: long, Remote: true},
		&Open{Mode: ModeCopy, Streams: MaxDataStreams, Window: 1, Identity: long}, &Opened{Cold: long, Identity: long},
		&Manifest{Grains: 16}, &Same{runs}, &Probed{Identity: long, Kind: long, Cold: long},
		&Order{Address: long, Export: long, Transport: long}, &Status{Text: long}, &Report{Text: long, Cold: long},
	} {
		_, body, err := NewReader(bytes.NewReader(AppendFrame(nil, f)), MaxControlBody).Next()
		if e, ok := f.(*Error); ok {
			if got, ok := err.(*Error); !ok || *got != *e {
				t.Errorf("longest error: %v", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("type %d: %v", f.Type(), err)
			continue
		}
		got := newFrame(f.Type())
		if err := Parse(got, body); err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("type %d: %v", f.Type(), err)
		}
	}
	if most := len(AppendFrame(nil, &Same{runs})) - headerLen; most != MaxControlBody {
		t.Errorf("the longest control frame has %d bytes, MaxControlBody is %d", most, MaxControlBody)
	}
}

// TestMasks checks the arithmetic on masks at both ends.
func TestMasks(t *testing.T) {
	if FullMask(0) != 0 || FullMask(1) != 1 || FullMask(15) != 0x7fff || FullMask(16) != 0xffff {
		t.Error("FullMask")
	}
	m := Mask(0x8001)
	if !m.Has(0) || m.Has(1) || !m.Has(15) || m.Count() != 2 {
		t.Error("Mask")
	}
	// The largest run that may come still has an offset.
	r := Run{maxBatch, maxBatch}
	if end := r.End() * (1 << 20); end <= 0 || end>>20 != r.End() {
		t.Errorf("the end of %v overflows: %d", r, end)
	}
}

func TestReaderAllocs(t *testing.T) {
	b := AppendFrame(nil, &Ack{Settled: 1})
	b = AppendFrame(b, &Manifest{Grains: 16})
	r := NewReader(&repeated{b: b}, MaxControlBody)
	var a Ack
	var m Manifest
	if n := leastAllocs(100, func() {
		_, body, err := r.Next()
		if err == nil {
			err = a.parseBody(body)
		}
		if err == nil {
			_, body, err = r.Next()
		}
		if err == nil {
			err = m.parseBody(body)
		}
		if err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for two frames", n)
	}
}
