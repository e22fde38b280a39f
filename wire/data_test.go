package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
)

// fixedKey is a link that only has a key: the bytes 0 to 31.
type fixedKey struct{ Link }

func (fixedKey) ExportKey(label string, context []byte, n int) ([]byte, error) {
	if label != "EXPORTER-haulback-binding" || context != nil || n != 32 {
		return nil, errors.New("not the key of bindings")
	}
	return bytes.Clone(bytes32[:]), nil
}

var testPos = Position{Tag: bytes16, Pass: 2, Epoch: 8}

func testBinder(t testing.TB) *Binder {
	t.Helper()
	b, err := NewBinder(fixedKey{}, testPos)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The golden Data frame: batch 2 of a disk that ends 16 bytes into the fifth
// grain of it.
const (
	goldenSize  = 2*cbt.BatchSize + 4*cbt.GrainSize + 16
	goldenFrame = `08 000000 00000138
		0000000000000002 0000000000000008 00000002 04 00 0000
		0000000000200000 00020000 00000000 03 000000` + zero32 + `4640b75e210cc687a1936d2b78f68704
		0000000000220000 00010000 00000000 04 000000` + zero32 + `0ac688f15dd363b3323ce0c534e09d7c
		0000000000230000 00010000 00000000 05 000000` + zero32 + `6408c781314918fdcb59266bd29298e1
		0000000000240000 00000010 00000010 01 000000` + hex32 + `c3805e4f29a77d98712c2182077385a1
		30313233343536373839616263646566`
	zero32 = "0000000000000000000000000000000000000000000000000000000000000000"
	// The payload of a record in a disk of 100 bytes "A": one literal, a match
	// of 94 bytes at distance 1, five literals.
	goldenLZ4 = `08 000000 00000067
		0000000000000000 0000000000000008 00000002 01 01 0000
		0000000000000000 00000064 0000000b 02 000000` + hex32 + `129d3562155b8b47cb402b5a0a2d8926
		1f 41 0100 4b 50 4141414141`
)

func TestGoldenData(t *testing.T) {
	want := unhex(t, goldenFrame)
	w := NewDataWriter(make([]byte, 0, DataBufferLen), testBinder(t))
	d := cbt.Digest(bytes32)
	w.Reset(2, false)
	w.AddEmpty(cbt.Extent{Off: 2 << 20, Len: 2 * cbt.GrainSize}, EncZero)
	w.AddEmpty(cbt.Extent{Off: 2<<20 + 2*cbt.GrainSize, Len: cbt.GrainSize}, EncHole)
	w.AddEmpty(cbt.Extent{Off: 2<<20 + 3*cbt.GrainSize, Len: cbt.GrainSize}, EncBad)
	w.Add(2<<20+4*cbt.GrainSize, []byte("0123456789abcdef"), &d)
	if got := w.Frame(); !bytes.Equal(got, want) || w.Records() != 4 {
		t.Errorf("encoded %d records\n%x, want\n%x", w.Records(), got, want)
	}
	var got Data
	if err := got.ParseData(want[headerLen:], goldenSize, testBinder(t)); err != nil {
		t.Fatal(err)
	}
	if got.Batch != 2 || got.Pass != 2 || got.Epoch != 8 || got.Redo || got.Raw != 3*cbt.GrainSize+16 || got.Mask != 0x1f {
		t.Errorf("parsed %+v", got)
	}
	if !reflect.DeepEqual(got.Records, []Record{
		{Extent: cbt.Extent{Off: 0x200000, Len: 0x20000}, Enc: EncZero, Payload: []byte{}},
		{Extent: cbt.Extent{Off: 0x220000, Len: 0x10000}, Enc: EncHole, Payload: []byte{}},
		{Extent: cbt.Extent{Off: 0x230000, Len: 0x10000}, Enc: EncBad, Payload: []byte{}},
		{Extent: cbt.Extent{Off: 0x240000, Len: 16}, Enc: EncRaw, Digest: bytes32, Payload: []byte("0123456789abcdef")},
	}) {
		t.Errorf("records %+v", got.Records)
	}
}

func TestGoldenLZ4(t *testing.T) {
	var d Data
	if err := d.ParseData(unhex(t, goldenLZ4)[headerLen:], 100, testBinder(t)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	if err := d.Records[0].Expand(p); err != nil || !bytes.Equal(p, bytes.Repeat([]byte("A"), 100)) || !d.Redo {
		t.Errorf("expanded to %q, %v", p, err)
	}
}

// TestBinding computes a binding from what doc.go says.
func TestBinding(t *testing.T) {
	rec := unhex(t, goldenLZ4)[headerLen+dataHeadLen:][:recordLen]
	in := append([]byte{}, bytes16[:]...)
	in = append(in, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8)
	in = append(in, rec[:52]...)
	h, err := blake3.NewKeyed(bytes32[:])
	if err != nil {
		t.Fatal(err)
	}
	h.Write(in)
	if got := testBinder(t).sum(rec[:52]); !bytes.Equal(got, h.Sum(nil)[:16]) || !bytes.Equal(got, rec[52:]) {
		t.Errorf("binding %x, want %x, golden %x", got, h.Sum(nil)[:16], rec[52:])
	}
}

// TestBindingPlace puts data made for one place, disk, pass, epoch or link
// into another.
func TestBindingPlace(t *testing.T) {
	body := sampleFrame(t)
	for name, pos := range map[string]Position{
		"disk": {Tag: [16]byte{1}, Pass: 2, Epoch: 8},
		"bit":  {Tag: func() [16]byte { x := bytes16; x[15] ^= 1; return x }(), Pass: 2, Epoch: 8},
	} {
		b, err := NewBinder(fixedKey{}, pos)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, "another "+name, new(Data).ParseData(body, sampleSize, b), CodeBinding)
	}
	near, _ := Pipe(ID{1}, ID{2})
	other, err := NewBinder(near, testPos)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "another link", new(Data).ParseData(body, sampleSize, other), CodeBinding)
	// The same grain one grain further on, in a frame that is right otherwise.
	moved := record(t, 15*cbt.GrainSize, cbt.GrainSize, 0, EncHole, nil)
	binary.BigEndian.PutUint64(moved, 14*cbt.GrainSize)
	wantCode(t, "binding of the next grain", check(t, frameOf(0, moved), cbt.BatchSize), CodeBinding)
}

func TestPipeEndsBindAlike(t *testing.T) {
	near, far := Pipe(ID{1}, ID{2})
	a, err := NewBinder(near, testPos)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBinder(far, testPos)
	if err != nil {
		t.Fatal(err)
	}
	rec := make([]byte, 52)
	if !bytes.Equal(bytes.Clone(a.sum(rec)), b.sum(rec)) {
		t.Error("the two ends of a link bind differently")
	}
}

// wantCode wants a *Error with code; with code 0 it wants ErrFrame.
func wantCode(t *testing.T, name string, err error, code Code) {
	t.Helper()
	if code == CodeOK {
		if !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v, want ErrFrame", name, err)
		}
		return
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != code || e.Remote {
		t.Errorf("%s: %v, want code %v", name, err, code)
	}
}

func check(t testing.TB, body []byte, size int64) error {
	t.Helper()
	return new(Data).ParseData(body, size, testBinder(t))
}

// grainOf is n bytes of one of the kinds of data that disks hold.
func grainOf(r *rand.Rand, kind, n int) []byte {
	p := make([]byte, n)
	switch kind {
	case 0: // noise
		for i := range p {
			p[i] = byte(r.Uint32())
		}
	case 1: // text
		for i := range p {
			p[i] = "the quick brown fox\n"[(i+r.IntN(100)/98)%20]
		}
	case 2: // one byte
		for i := range p {
			p[i] = 'A'
		}
	case 3: // half noise: about where LZ4 stops to gain
		for i := range p {
			if i < n*15/16 {
				p[i] = byte(r.Uint32())
			}
		}
	}
	return p
}

// TestRoundTrip sends random batches, also the short one at the end of a disk,
// and expands them again.
func TestRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	w := NewDataWriter(make([]byte, DataBufferLen), testBinder(t))
	in := testBinder(t)
	var d Data
	for range 150 {
		batch := r.Int64N(1 << 20)
		tail := []int64{cbt.BatchSize, 1, 15, 16, 17, 511, 4096, cbt.GrainSize - 1, cbt.GrainSize, cbt.GrainSize + 1, 1 + r.Int64N(cbt.BatchSize)}[r.IntN(11)]
		size := batch*cbt.BatchSize + tail
		if tail == cbt.BatchSize {
			size += r.Int64N(3 * cbt.BatchSize)
		}
		redo := r.IntN(2) == 1
		w.Reset(batch, redo)
		want, bad := make([]byte, tail), Mask(0)
		for i := range want {
			want[i] = 0xee // stays where nothing is sent
		}
		got := bytes.Clone(want)
		mask, raw, n := Mask(0), int64(0), 0
		for g := 0; int64(g)*cbt.GrainSize < tail; g++ {
			lo := int64(g) * cbt.GrainSize
			kind := r.IntN(8)
			if kind == 7 {
				continue // equal on both sides
			}
			run := 1
			if kind >= 4 {
				run += r.IntN(3)
			}
			hi := min(lo+int64(run)*cbt.GrainSize, tail)
			covered := FullMask(int((hi+cbt.GrainSize-1)/cbt.GrainSize)) &^ FullMask(g)
			mask |= covered
			e := cbt.Extent{Off: batch*cbt.BatchSize + lo, Len: hi - lo}
			switch kind {
			case 4, 5:
				clear(want[lo:hi])
				w.AddEmpty(e, []Encoding{EncZero, EncHole}[kind-4])
			case 6:
				bad |= covered
				w.AddEmpty(e, EncBad)
				raw -= e.Len
			default:
				var dg cbt.Digest
				copy(want[lo:hi], grainOf(r, kind, int(hi-lo)))
				cbt.NewHasher().Sum(want[lo:hi], &dg)
				w.Add(e.Off, want[lo:hi], &dg)
			}
			raw += e.Len
			n++
			g += run - 1
		}
		if n == 0 {
			continue
		}
		f := w.Frame()
		if typ, l, err := parseHeader(f); err != nil || typ != TypeData || l != len(f)-headerLen || w.Records() != n {
			t.Fatalf("seed %d: header: %v", seed, err)
		}
		if err := d.ParseData(f[headerLen:], size, in); err != nil {
			t.Fatalf("seed %d: batch %d of %d bytes: %v", seed, batch, size, err)
		}
		for _, rec := range d.Records {
			if rec.Enc == EncBad {
				continue
			}
			p := got[rec.Extent.Off-batch*cbt.BatchSize:][:rec.Extent.Len]
			if err := rec.Expand(p); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if !bytes.Equal(got, want) || d.Mask != mask || d.Raw != raw || d.Redo != redo || len(d.Records) != n || d.Batch != batch {
			t.Fatalf("seed %d: batch %d of %d bytes arrives as something else: mask %b, want %b", seed, batch, size, d.Mask, mask)
		}
		if !bytes.Equal(appendData(nil, &d, in), f[headerLen:]) {
			t.Fatalf("seed %d: encoded again it differs", seed)
		}
	}
}

// appendData encodes d the second time, by the letter of doc.go.
func appendData(b []byte, d *Data, binder *Binder) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(d.Batch))
	b = binary.BigEndian.AppendUint64(b, d.Epoch)
	b = binary.BigEndian.AppendUint32(b, d.Pass)
	b = append(b, byte(len(d.Records)), flag(d.Redo), 0, 0)
	for _, r := range d.Records {
		at := len(b)
		b = binary.BigEndian.AppendUint64(b, uint64(r.Extent.Off))
		b = binary.BigEndian.AppendUint32(b, uint32(r.Extent.Len))
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.Payload)))
		b = append(b, byte(r.Enc), 0)
		b = binary.BigEndian.AppendUint16(b, uint16(r.Parts))
		b = append(b, r.Digest[:]...)
		b = append(b, binder.sum(b[at:])...)
		b = append(b, r.Payload...)
	}
	return b
}

// frameOf is the body of a Data frame for batch with records as they are.
func frameOf(batch int64, records ...[]byte) []byte {
	b := appendData(nil, &Data{Batch: batch, Epoch: testPos.Epoch, Pass: testPos.Pass}, nil)
	b[20] = byte(len(records))
	return append(b, bytes.Join(records, nil)...)
}

// record is a record with a right binding, whatever else is in it.
func record(t testing.TB, off uint64, length, n uint32, enc Encoding, payload []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, off)
	b = binary.BigEndian.AppendUint32(b, length)
	b = binary.BigEndian.AppendUint32(b, n)
	b = append(b, byte(enc), 0, 0, 0)
	b = append(b, make([]byte, cbt.DigestSize)...)
	b = append(b, testBinder(t).sum(b)...)
	return append(b, payload...)
}

func TestDataRefused(t *testing.T) {
	const g, size = cbt.GrainSize, 3*cbt.BatchSize + 2*cbt.GrainSize + 100
	zero := func(off uint64, n uint32) []byte { return record(t, off, n, 0, EncZero, nil) }
	raw := make([]byte, 2*g)
	many := make([][]byte, 17)
	for i := range many {
		many[i] = zero(uint64(i)*g, g)
	}
	with := func(at int, c byte) []byte {
		b := frameOf(0, zero(0, g))
		b[at] = c
		return b
	}
	reserved := zero(0, g)
	reserved[17] = 1
	dirty := zero(0, g)
	dirty[25] = 1
	copy(dirty[52:], testBinder(t).sum(dirty[:52]))
	for _, tt := range []struct {
		name string
		body []byte
		code Code
	}{
		{"no records", frameOf(0), CodeOK},
		{"17 records", frameOf(0, many...), CodeOK},
		{"count above the records", with(20, 2), CodeOK},
		{"unknown flag", with(21, 2), CodeOK},
		{"reserved in the head", with(22, 1), CodeOK},
		{"negative batch", with(0, 0x80), CodeOK},
		{"batch beyond the disk", with(7, 4), CodeExtent},
		{"batch whose offset overflows", with(0, 0x7f), CodeExtent},
		{"another batch", with(7, 1), CodeExtent},
		{"epoch before", with(15, 7), CodeFenced},
		{"epoch after", with(15, 9), CodeFenced},
		{"pass before", with(19, 1), CodeFenced},
		{"reserved in the record", frameOf(0, reserved), CodeOK},
		{"zeros with a digest", frameOf(0, dirty), CodeOK},
		{"encoding 0", frameOf(0, record(t, 0, g, 0, 0, nil)), CodeOK},
		{"encoding 6", frameOf(0, record(t, 0, g, 0, 6, nil)), CodeOK},
		{"zeros with a payload", frameOf(0, record(t, 0, g, 1, EncZero, raw[:1])), CodeOK},
		{"bad with a payload", frameOf(0, record(t, 0, g, 1, EncBad, raw[:1])), CodeOK},
		{"raw too short", frameOf(0, record(t, 0, g, g-1, EncRaw, raw[:g-1])), CodeOK},
		{"raw too long", frameOf(0, record(t, 0, g, g+1, EncRaw, raw[:g+1])), CodeOK},
		{"raw of nothing", frameOf(0, record(t, 0, 0, 0, EncRaw, nil)), CodeExtent},
		{"LZ4 of nothing", frameOf(0, record(t, 0, g, 0, EncLZ4, nil)), CodeOK},
		{"LZ4 without a gain", frameOf(0, record(t, 0, g, g, EncLZ4, raw[:g])), CodeOK},
		{"payload cut short", frameOf(0, record(t, 0, g, g, EncRaw, raw[:g-1])), CodeOK},
		{"payload of 4 GiB", frameOf(0, record(t, 0, 1<<32-1, 1<<32-1, EncRaw, raw)), CodeOK},
		{"a byte too many", append(frameOf(0, zero(0, g)), 0), CodeOK},
		{"raw of two grains", frameOf(0, record(t, 0, 2*g, 2*g, EncRaw, raw)), CodeExtent},
		{"LZ4 of two grains", frameOf(0, record(t, 0, 2*g, 9, EncLZ4, raw[:9])), CodeExtent},
		{"no length", frameOf(0, zero(0, 0)), CodeExtent},
		{"unaligned", frameOf(0, zero(512, g)), CodeExtent},
		{"not whole grains", frameOf(0, zero(0, g-512)), CodeExtent},
		{"beyond the batch", frameOf(0, zero(15*g, 2*g)), CodeExtent},
		{"before the batch", frameOf(1, zero(15*g, g)), CodeExtent},
		{"beyond the disk", frameOf(3, zero(3*cbt.BatchSize+3*g, g)), CodeExtent},
		{"across the end of the disk", frameOf(3, zero(3*cbt.BatchSize, 3*g)), CodeExtent},
		{"tail too short", frameOf(3, zero(3*cbt.BatchSize+2*g, 99)), CodeExtent},
		{"negative offset", frameOf(0, zero(1<<64-g, g)), CodeExtent},
		{"end overflows", frameOf(0, zero(1<<63-g, g)), CodeExtent},
		{"length 4 GiB", frameOf(0, zero(0, 1<<32-1)), CodeExtent},
		{"twice", frameOf(0, zero(0, g), zero(0, g)), CodeExtent},
		{"overlap", frameOf(0, zero(0, 2*g), zero(g, 2*g)), CodeExtent},
		{"contained", frameOf(0, zero(0, 4*g), zero(g, g)), CodeExtent},
		{"out of order", frameOf(0, zero(g, g), zero(0, g)), CodeExtent},
	} {
		wantCode(t, tt.name, check(t, tt.body, size), tt.code)
	}
	for name, body := range map[string][]byte{
		"whole batch":  frameOf(0, zero(0, cbt.BatchSize)),
		"16 records":   frameOf(0, many[:16]...),
		"tail":         frameOf(3, zero(3*cbt.BatchSize+2*g, 100)),
		"to the tail":  frameOf(3, zero(3*cbt.BatchSize, 2*g+100)),
		"next to each": frameOf(0, zero(0, g), zero(g, 15*g)),
	} {
		if err := check(t, body, size); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantCode(t, "batch at the end of a whole disk", check(t, frameOf(1, zero(cbt.BatchSize, g)), cbt.BatchSize), CodeExtent)
	wantCode(t, "disk of nothing", check(t, frameOf(0, zero(0, g)), 0), CodeExtent)
	// The last batch of the largest disk.
	const last = (1<<63 - 1) / cbt.BatchSize
	if err := check(t, frameOf(last, zero(last*cbt.BatchSize, g)), 1<<63-1); err != nil {
		t.Errorf("largest disk: %v", err)
	}
	body := unhex(t, goldenFrame)[headerLen:]
	for i := range body {
		if err := check(t, body[:i:i], goldenSize); err == nil {
			t.Errorf("%d of %d bytes parse", i, len(body))
		}
	}
}

func TestExpandRefused(t *testing.T) {
	dst := make([]byte, 100)
	for name, r := range map[string]Record{
		"raw short":         {Enc: EncRaw, Payload: make([]byte, 99)},
		"bad":               {Enc: EncBad},
		"no encoding":       {},
		"LZ4 of nothing":    {Enc: EncLZ4},
		"LZ4 ends early":    {Enc: EncLZ4, Payload: unhex(t, "1f 41 0100 4a 50 4141414141")},
		"LZ4 bomb":          {Enc: EncLZ4, Payload: append(append(unhex(t, "1f 41 0100"), bytes.Repeat([]byte{0xff}, 1000)...), unhex(t, "00 50 4141414141")...)},
		"LZ4 one too many":  {Enc: EncLZ4, Payload: unhex(t, "1f 41 0100 4c 50 4141414141")},
		"LZ4 looks back":    {Enc: EncLZ4, Payload: unhex(t, "1f 41 0200 4b 50 4141414141")},
		"LZ4 distance 0":    {Enc: EncLZ4, Payload: unhex(t, "1f 41 0000 4b 50 4141414141")},
		"LZ4 cut":           {Enc: EncLZ4, Payload: unhex(t, "1f 41 0100 4b 50 414141")},
		"LZ4 endless count": {Enc: EncLZ4, Payload: bytes.Repeat([]byte{0xff}, 99)},
	} {
		guard := append(bytes.Clone(dst), "guard"...)
		var err error
		if n := allocated(func() { err = r.Expand(guard[:100:100]) }); n > 64<<10 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
		wantCode(t, name, err, CodeDecompress)
		if string(guard[100:]) != "guard" {
			t.Errorf("%s: written beyond the buffer", name)
		}
	}
}

func TestDataAllocs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	w := NewDataWriter(make([]byte, DataBufferLen), testBinder(t))
	in, hash := testBinder(t), cbt.NewHasher()
	noise, text, out := grainOf(r, 0, cbt.GrainSize), grainOf(r, 1, cbt.GrainSize), make([]byte, cbt.BatchSize)
	d := Data{Records: make([]Record, 0, cbt.BatchGrains)}
	var dg cbt.Digest
	if n := leastAllocs(20, func() {
		w.Reset(0, false)
		for g := range int64(14) {
			p := noise
			if g%2 == 1 {
				p = text
			}
			hash.Sum(p, &dg)
			w.Add(g*cbt.GrainSize, p, &dg)
		}
		w.AddEmpty(cbt.Extent{Off: 14 * cbt.GrainSize, Len: 2 * cbt.GrainSize}, EncHole)
		err := d.ParseData(w.Frame()[headerLen:], cbt.BatchSize, in)
		for i := range d.Records {
			e := d.Records[i].Extent
			if err == nil {
				err = d.Records[i].Expand(out[e.Off:e.End()])
			}
		}
		if err != nil || d.Records[0].Enc != EncRaw || d.Records[1].Enc != EncLZ4 {
			t.Errorf("%v", err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}
