package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
)

// The golden part record: pieces 0 and 2, the last and short, of a grain that
// ends 8196 bytes into a disk. Both are the letter A; the literal and the matches
// are as LZ4 has them.
const goldenPartsSize = 2*PartSize + 4

// TestGoldenParts makes a part record by the letter of doc.go.
func TestGoldenParts(t *testing.T) {
	p := bytes.Repeat([]byte("0123456789abcdef"), cbt.GrainSize/16)[:goldenPartsSize]
	pieces := append(bytes.Clone(p[:PartSize]), p[2*PartSize:]...)
	w := NewDataWriter(make([]byte, 0, DataBufferLen), testBinder(t))
	d := cbt.Digest(bytes32)
	w.Reset(0, false)
	w.AddParts(0, p, 0b101, &d, true)
	got := w.Frame()[headerLen+dataHeadLen:]
	want := unhex(t, "0000000000000000 00002004")
	want = binary.BigEndian.AppendUint32(want, uint32(len(got)-recordLen))
	want = append(want, unhex(t, "02 00 0005"+hex32)...)
	key := func(parts ...[]byte) []byte {
		h, err := blake3.NewKeyed(bytes32[:])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write(append(append([]byte{}, bytes16[:]...), 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8))
		for _, p := range parts {
			_, _ = h.Write(p)
		}
		return h.Sum(nil)[:16]
	}
	want = append(want, key(want[:52])...)
	want = append(want, key(want[:52], pieces)...)
	if !bytes.HasPrefix(got, want) || w.Raw() != PartSize+4 {
		t.Fatalf("encoded\n%x, of %d bytes; want it to begin with\n%x", got, w.Raw(), want)
	}
	var x Data
	if err := x.ParseData(w.Frame()[headerLen:], goldenPartsSize, testBinder(t)); err != nil {
		t.Fatal(err)
	}
	have := make([]byte, len(p))
	if err := x.Records[0].ExpandParts(have, testBinder(t)); err != nil || x.Raw != PartSize+4 {
		t.Fatalf("%v, %d bytes", err, x.Raw)
	}
	if !bytes.Equal(have[:PartSize], p[:PartSize]) || !bytes.Equal(have[2*PartSize:], p[2*PartSize:]) {
		t.Error("the pieces are not at their places")
	}
	if err := x.Records[0].Expand(have); err == nil {
		t.Error("a part record expands to a whole grain")
	}
}

// TestPartsRoundTrip sends random pieces of random grains.
func TestPartsRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	w := NewDataWriter(make([]byte, DataBufferLen), testBinder(t))
	in := testBinder(t)
	var d Data
	for range 200 {
		size := []int64{cbt.GrainSize, PartSize + 1, 2 * PartSize, cbt.GrainSize - 1, PartSize + 1 + r.Int64N(cbt.GrainSize-PartSize)}[r.IntN(5)]
		want := grainOf(r, r.IntN(4), int(size))
		parts := Mask(r.Uint32()) & PartsOf(size)
		if parts == 0 || parts == PartsOf(size) {
			continue
		}
		var dg cbt.Digest
		cbt.NewHasher().Sum(want, &dg)
		w.Reset(0, r.IntN(2) == 1)
		w.AddParts(0, want, parts, &dg, true)
		if err := d.ParseData(w.Frame()[headerLen:], size, in); err != nil {
			t.Fatalf("seed %d: pieces %x of %d bytes: %v", seed, parts, size, err)
		}
		got, n := make([]byte, size), int64(0)
		if err := d.Records[0].ExpandParts(got, in); err != nil {
			t.Fatalf("seed %d: pieces %x of %d bytes: %v", seed, parts, size, err)
		}
		for i := range GrainParts {
			if parts.Has(i) {
				lo, hi := i*PartSize, min((i+1)*PartSize, int(size))
				n += int64(hi - lo)
				if !bytes.Equal(got[lo:hi], want[lo:hi]) {
					t.Fatalf("seed %d: piece %d of %d bytes, of %x, is not what was sent", seed, i, size, parts)
				}
			}
		}
		if d.Raw != n || w.Raw() != n || d.Records[0].Bytes() != n || d.Mask != 1 {
			t.Fatalf("seed %d: %d and %d bytes in pieces %x of %d, want %d", seed, d.Raw, w.Raw(), parts, size, n)
		}
	}
}

// A payload that was made for another place, or another set of pieces, does not
// pass, though all around it is right.
func TestPartsCheckIsBound(t *testing.T) {
	p := grainOf(rand.New(rand.NewPCG(1, 1)), 0, cbt.GrainSize)
	frame := func(off int64, parts Mask) []byte {
		w := NewDataWriter(make([]byte, DataBufferLen), testBinder(t))
		var d cbt.Digest
		w.Reset(0, false)
		w.AddParts(off, p, parts, &d, true)
		return bytes.Clone(w.Frame()[headerLen:])
	}
	const payload = dataHeadLen + recordLen
	good := frame(0, 2)
	for name, other := range map[string][]byte{"place": frame(cbt.GrainSize, 2), "pieces": frame(0, 4)} {
		b := append(bytes.Clone(good[:payload]), other[payload:]...)
		var d Data
		if err := d.ParseData(b, cbt.BatchSize, testBinder(t)); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "payload of another "+name, d.Records[0].ExpandParts(make([]byte, cbt.GrainSize), testBinder(t)), CodeDigest)
	}
}

func TestPartsRefused(t *testing.T) {
	const g = cbt.GrainSize
	rec := func(off uint64, length, n uint32, enc Encoding, parts Mask, payload []byte) []byte {
		b := record(t, off, length, n, enc, payload)
		binary.BigEndian.PutUint16(b[18:], uint16(parts))
		copy(b[52:], testBinder(t).sum(b[:52]))
		return b
	}
	raw := make([]byte, 2*g)
	for _, tt := range []struct {
		name string
		rec  []byte
		size int64
		code Code
	}{
		{"all pieces", rec(0, g, g+16, EncRaw, 0xffff, raw[:g+16]), g, CodeOK},
		{"pieces of zeros", rec(0, g, 0, EncZero, 1, nil), g, CodeOK},
		{"pieces of a bad grain", rec(0, g, 0, EncBad, 1, nil), g, CodeOK},
		{"no check", rec(0, g, PartSize, EncRaw, 1, raw[:PartSize]), g, CodeOK},
		{"a piece too many", rec(0, g, 2*PartSize+16, EncRaw, 1, raw[:2*PartSize+16]), g, CodeOK},
		{"a piece too few", rec(0, g, PartSize+16, EncRaw, 3, raw[:PartSize+16]), g, CodeOK},
		{"LZ4 of a check", rec(0, g, 16, EncLZ4, 1, raw[:16]), g, CodeOK},
		{"LZ4 of half a check", rec(0, g, 8, EncLZ4, 1, raw[:8]), g, CodeOK},
		{"LZ4 without a gain", rec(0, g, PartSize+16, EncLZ4, 1, raw[:PartSize+16]), g, CodeOK},
		{"two grains", rec(0, 2*g, PartSize+16, EncRaw, 1, raw[:PartSize+16]), 2 * g, CodeOK},
		{"4 GiB", rec(0, 1<<32-1, PartSize+16, EncRaw, 1, raw[:PartSize+16]), 1 << 40, CodeOK},
		{"nothing", rec(0, 0, 16, EncRaw, 1, raw[:16]), g, CodeOK},
		{"beyond the tail", rec(0, PartSize+4, PartSize+16, EncRaw, 4, raw[:PartSize+16]), PartSize + 4, CodeOK},
		{"whole last piece of a short tail", rec(0, PartSize+4, PartSize+16, EncRaw, 2, raw[:PartSize+16]), PartSize + 4, CodeOK},
		{"the only piece", rec(0, PartSize, PartSize+16, EncRaw, 1, raw[:PartSize+16]), PartSize, CodeOK},
		{"half a grain", rec(0, PartSize+4, PartSize+16, EncRaw, 1, raw[:PartSize+16]), g, CodeExtent},
	} {
		wantCode(t, tt.name, check(t, frameOf(0, tt.rec), tt.size), tt.code)
	}
	body := frameOf(0, rec(0, PartSize+4, 20, EncRaw, 2, raw[:20]))
	if err := check(t, body, PartSize+4); err != nil {
		t.Errorf("a short last piece: %v", err)
	}
	for i := range body {
		if check(t, body[:i:i], PartSize+4) == nil {
			t.Errorf("%d of %d bytes parse", i, len(body))
		}
	}
}

func TestPartsAllocs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	w := NewDataWriter(make([]byte, DataBufferLen), testBinder(t))
	in, sums := testBinder(t), NewSummer()
	p, out := grainOf(r, 1, cbt.GrainSize), make([]byte, cbt.BatchSize)
	d := Data{Records: make([]Record, 0, cbt.BatchGrains)}
	var dg cbt.Digest
	var told, heard Parts
	var b []byte
	if n := leastAllocs(20, func() {
		told.Mask = 0xffff
		w.Reset(0, false)
		for g := range int64(16) {
			sums.Sum(p, &told.Sums[g])
			w.AddParts(g*cbt.GrainSize, p, 0x0110, &dg, true)
		}
		b = AppendFrame(b[:0], &told)
		err := Parse(&heard, b[headerLen:])
		if err == nil {
			err = d.ParseData(w.Frame()[headerLen:], cbt.BatchSize, in)
		}
		for i := range d.Records {
			e := d.Records[i].Extent
			if err == nil {
				err = d.Records[i].ExpandParts(out[e.Off:e.End()], in)
			}
		}
		if err != nil || heard != told {
			t.Errorf("%v", err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	if full := blake3.Sum256(p[:PartSize]); !bytes.Equal(full[:16], told.Sums[3][0][:]) {
		t.Errorf("sum %x of a piece with digest %x", told.Sums[3][0], full)
	}
}
