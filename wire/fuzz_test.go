package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// FuzzFrame reads whatever comes as a stream of frames. What parses must be
// what its frame encodes to, and nothing may cost more memory than twice the
// largest frame.
func FuzzFrame(f *testing.F) {
	var all []byte
	for _, g := range goldens {
		f.Add(unhex(f, g.hex))
		all = append(all, unhex(f, g.hex)...)
	}
	f.Add(all)
	f.Add(append([]byte{byte(TypeStatus), 0, 0, 0, 0, 0, 1, 0x0b}, append(counterList(33), 0, 0)...))
	f.Add([]byte{byte(TypeData), 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	buf := make([]byte, MaxControlBody)
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReaderBuffer(bytes.NewReader(in), buf)
		for at := 0; ; {
			var typ Type
			var body []byte
			var got Frame
			var err error
			cost := allocated(func() {
				if typ, body, err = r.Next(); err != nil {
					return
				}
				if got = newFrame(typ); got != nil {
					err = Parse(got, body)
				}
			})
			if cost > 2*MaxControlBody {
				t.Fatalf("%d bytes allocated for a frame of at most %d", cost, MaxControlBody)
			}
			if e, ok := err.(*Error); ok && e.Remote {
				got, err = e, nil
			}
			if err != nil || got == nil {
				return
			}
			again := AppendFrame(nil, got)
			compare(t, got, in[at:], again)
			at += headerLen + int(binary.BigEndian.Uint32(in[at+4:]))
		}
	})
}

// compare wants again, the encoding of got, to be how in begins. A list of
// counters of another version has another length; what we know of it stays.
func compare(t *testing.T, got Frame, in, again []byte) {
	t.Helper()
	switch got.(type) {
	case *Status, *Report:
		f := newFrame(got.Type())
		if err := Parse(f, again[headerLen:]); err != nil || !reflect.DeepEqual(f, got) {
			t.Fatalf("%+v encodes to something else: %+v, %v", got, f, err)
		}
	default:
		if !bytes.HasPrefix(in, again) {
			t.Fatalf("%+v parses from\n%x and encodes to\n%x", got, in[:min(len(in), len(again))], again)
		}
	}
}

// FuzzData parses Data frames. As no fuzzer guesses a binding, seal puts the
// right ones in, for the records as far as their lengths make sense.
func FuzzData(f *testing.F) {
	f.Add(unhex(f, goldenFrame)[headerLen:], int64(goldenSize), false)
	f.Add(unhex(f, goldenLZ4)[headerLen:], int64(100), true)
	f.Add(frameOf(0, record(f, 0, cbt.BatchSize, 0, EncHole, nil)), int64(cbt.BatchSize), true)
	f.Add(frameOf((1<<63-1)/cbt.BatchSize), int64(1<<63-1), true)
	f.Add(frameOf(0, record(f, 0, 100, 9, EncLZ4, bytes.Repeat([]byte{0xff}, 9))), int64(100), true)
	f.Add(sampleFrame(f), int64(sampleSize), false)
	binder := testBinder(f)
	d := Data{Records: make([]Record, 0, cbt.BatchGrains)}
	out := make([]byte, cbt.BatchSize)
	f.Fuzz(func(t *testing.T, body []byte, size int64, sealed bool) {
		if sealed {
			body = seal(bytes.Clone(body), binder)
		}
		var err error
		cost := allocated(func() { err = d.ParseData(body, size, binder) })
		if cost > 64<<10 {
			t.Fatalf("%d bytes allocated", cost)
		}
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok && !errors.Is(err, ErrFrame) || ok && e.Code != CodeExtent && e.Code != CodeFenced && e.Code != CodeBinding {
				t.Fatalf("an error without its code: %v", err)
			}
			return
		}
		if again := appendData(nil, &d, binder); !bytes.Equal(again, body) {
			t.Fatalf("parses from\n%x and encodes to\n%x", body, again)
		}
		end, raw, mask := d.Batch*cbt.BatchSize, int64(0), Mask(0)
		for _, r := range d.Records {
			if r.Extent.Check(size) != nil || r.Extent.Off < end || r.Extent.End() > (d.Batch+1)*cbt.BatchSize && r.Extent.End() != size {
				t.Fatalf("record %v of batch %d after %d on a disk of %d bytes", r.Extent, d.Batch, end, size)
			}
			end = r.Extent.End()
			for o := r.Extent.Off; o < end; o += cbt.GrainSize {
				mask |= 1 << (o / cbt.GrainSize % cbt.BatchGrains)
			}
			if r.Enc != EncBad {
				raw += r.Bytes()
			}
			if r.Parts != 0 && (r.Extent.Len > cbt.GrainSize || r.Bytes() < 1 || r.Bytes() >= r.Extent.Len) {
				t.Fatalf("record %v with pieces %x of %d bytes", r.Extent, r.Parts, r.Bytes())
			}
			err := expand(&r, out[:r.Extent.Len], binder)
			if e, _ := errors.AsType[*Error](err); err != nil && (e == nil || e.Code != CodeDecompress && (e.Code != CodeDigest || r.Parts == 0)) {
				t.Fatalf("expanding %+v: %v", r, err)
			}
		}
		if raw != d.Raw || mask != d.Mask || len(d.Records) < 1 || len(d.Records) > cbt.BatchGrains {
			t.Fatalf("%+v: %d raw bytes, mask %b", d, raw, mask)
		}
	})
}

// seal puts the right bindings, epoch and pass into the body of a Data frame.
func seal(b []byte, binder *Binder) []byte {
	if len(b) < dataHeadLen {
		return b
	}
	binary.BigEndian.PutUint64(b[8:], testPos.Epoch)
	binary.BigEndian.PutUint32(b[16:], testPos.Pass)
	for rest := b[dataHeadLen:]; len(rest) >= recordLen; {
		copy(rest[recordLen-bindingLen:], binder.sum(rest[:recordLen-bindingLen]))
		n := int64(binary.BigEndian.Uint32(rest[12:]))
		rest = rest[recordLen:]
		if n > int64(len(rest)) {
			break
		}
		rest = rest[n:]
	}
	return b
}
