package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// sampleFrame is the body of a Data frame with a record of each encoding, for
// the first batch of a disk of sampleSize bytes; the last is raw and short.
func sampleFrame(t testing.TB) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	w := NewDataWriter(make([]byte, DataBufferLen), testBinder(t))
	var d cbt.Digest
	add := func(g int64, p []byte) {
		cbt.NewHasher().Sum(p, &d)
		w.Add(g*cbt.GrainSize, p, &d)
	}
	w.Reset(0, false)
	w.AddEmpty(cbt.Extent{Off: cbt.GrainSize, Len: cbt.GrainSize}, EncZero)
	add(3, grainOf(r, 1, cbt.GrainSize))
	w.AddEmpty(cbt.Extent{Off: 4 * cbt.GrainSize, Len: 4 * cbt.GrainSize}, EncHole)
	add(9, grainOf(r, 0, cbt.GrainSize))
	w.AddEmpty(cbt.Extent{Off: 11 * cbt.GrainSize, Len: cbt.GrainSize}, EncBad)
	cbt.NewHasher().Sum(grainOf(r, 1, cbt.GrainSize), &d)
	w.AddParts(12*cbt.GrainSize, grainOf(r, 1, cbt.GrainSize), 0x8102, &d, true)
	w.AddParts(13*cbt.GrainSize, grainOf(r, 0, cbt.GrainSize), 0x0001, &d, true)
	add(15, grainOf(r, 0, 100))
	return bytes.Clone(w.Frame()[headerLen:])
}

const sampleSize = 15*cbt.GrainSize + 100

// field is a part of a head and the codes that a wrong bit in it may give;
// CodeOK stands for ErrFrame.
type field struct {
	name  string
	bytes int
	codes []Code
}

var headFields = []field{
	{"batch", 8, []Code{CodeExtent, CodeOK}},
	{"epoch", 8, []Code{CodeFenced}},
	{"pass", 4, []Code{CodeFenced}},
	{"count", 1, []Code{CodeOK, CodeExtent}},
	{"flags", 1, []Code{CodeOK}},
	{"reserved", 2, []Code{CodeOK}},
}

var recordFields = []field{
	{"off", 8, []Code{CodeExtent, CodeBinding}},
	{"len", 4, []Code{CodeOK, CodeExtent, CodeBinding}},
	{"payload length", 4, []Code{CodeOK, CodeBinding}},
	{"encoding", 1, []Code{CodeOK, CodeBinding}},
	{"reserved", 1, []Code{CodeOK}},
	{"pieces", 2, []Code{CodeOK, CodeBinding}},
	{"digest", 32, []Code{CodeBinding, CodeOK}},
	{"binding", 16, []Code{CodeBinding}},
}

// TestEveryHeadBit turns every single bit of the head and of the records'
// heads. All but the flag Redo must be refused, for the right reason.
func TestEveryHeadBit(t *testing.T) {
	body := sampleFrame(t)
	binder := testBinder(t)
	var d Data
	if err := d.ParseData(body, sampleSize, binder); err != nil {
		t.Fatal(err)
	}
	seen := map[Code]int{}
	flip := func(at int, fields []field) {
		for _, f := range fields {
			for bit := range 8 * f.bytes {
				b := bytes.Clone(body)
				b[at+bit/8] ^= 1 << (bit % 8)
				var d Data
				err := d.ParseData(b, sampleSize, binder)
				if f.name == "flags" && bit == 0 {
					if err != nil || !d.Redo {
						t.Errorf("flag Redo: %v", err)
					}
					continue
				}
				code := CodeInternal
				if e, ok := errors.AsType[*Error](err); ok {
					code = e.Code
				} else if errors.Is(err, ErrFrame) {
					code = CodeOK
				}
				if !slices.Contains(f.codes, code) {
					t.Errorf("record at %d, bit %d of %s: %v", at, bit, f.name, err)
				}
				seen[code]++
			}
			at += f.bytes
		}
	}
	flip(0, headFields)
	at := dataHeadLen
	for _, r := range d.Records {
		flip(at, recordFields)
		at += recordLen + len(r.Payload)
	}
	if at != len(body) || seen[CodeBinding] < len(d.Records)*16*8 || seen[CodeExtent] == 0 || seen[CodeFenced] != 96 || seen[CodeOK] == 0 {
		t.Errorf("%d of %d bytes, refusals %v", at, len(body), seen)
	}
}

// TestPayloadBits turns bits of payloads. The head cannot see that; either the
// payload does not expand, or it has another digest, or LZ4 had two ways to
// say the same.
func TestPayloadBits(t *testing.T) {
	body := sampleFrame(t)
	binder, hash := testBinder(t), cbt.NewHasher()
	var whole Data
	if err := whole.ParseData(body, sampleSize, binder); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	undone, digest, same := 0, 0, 0
	at := dataHeadLen
	for i, rec := range whole.Records {
		at += recordLen
		want, got := make([]byte, rec.Extent.Len), make([]byte, rec.Extent.Len)
		if len(rec.Payload) > 0 {
			if err := expand(&rec, want, binder); err != nil {
				t.Fatal(err)
			}
		}
		for n := range min(800, 8*len(rec.Payload)) {
			bit := r.IntN(8 * len(rec.Payload))
			if n < 64 {
				bit = n
			}
			b := bytes.Clone(body)
			b[at+bit/8] ^= 1 << (bit % 8)
			var d Data
			if err := d.ParseData(b, sampleSize, binder); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			err := expand(&d.Records[i], got, binder)
			var sum cbt.Digest
			hash.Sum(got, &sum)
			switch e, _ := errors.AsType[*Error](err); {
			case e != nil && rec.Parts != 0 && e.Code == CodeDigest:
				digest++
			case rec.Parts != 0 && err == nil: // LZ4
				if same++; !bytes.Equal(got, want) {
					t.Fatalf("seed %d: bit %d of record %d is not noticed", seed, bit, i)
				}
			case err != nil:
				wantCode(t, "payload", err, CodeDecompress)
				undone++
			case sum != rec.Digest:
				digest++
			case bytes.Equal(got, want):
				same++
			default:
				t.Fatalf("seed %d: bit %d of record %d is not noticed", seed, bit, i)
			}
		}
		at += len(rec.Payload)
	}
	if undone == 0 || digest == 0 || same > digest {
		t.Errorf("seed %d: %d do not expand, %d have another digest, %d mean the same", seed, undone, digest, same)
	}
}

// expand puts what r carries at its places in dst.
func expand(r *Record, dst []byte, binder *Binder) error {
	if r.Parts != 0 {
		return r.ExpandParts(dst, binder)
	}
	return r.Expand(dst)
}
