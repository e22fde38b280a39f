package archive

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/haulback/haulback/cbt"
)

// content is seeded: a third zeros, a third text, a third noise, per grain.
func content(seed uint64, size int64) []byte {
	rng := mrand.New(mrand.NewPCG(seed, 1))
	b := make([]byte, size)
	for off := 0; off < len(b); off += cbt.GrainSize {
		p := b[off:min(off+cbt.GrainSize, len(b))]
		switch rng.IntN(3) {
		case 1:
			copy(p, bytes.Repeat([]byte("haulback "), len(p)/9+1))
		case 2:
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		}
	}
	return b
}

func header(kind Kind, size int64, m cbt.Map) *Header {
	h := &Header{
		Kind: kind, Size: size, Created: time.Unix(1790000000, 0).UTC(), Run: [16]byte{1, 2, 3}, Identity: "file:1",
		Reason: "because", Agent: "test/1", Labels: []Label{{"vm", "web"}, {"disk", "0"}}, Map: m,
	}
	if kind == Changed {
		h.Base.Root, h.Tracking, h.Since = cbt.Digest{7}, "bitmap:b", "b"
	}
	return h
}

// write makes a stream of what m has of b, as a dump does: batch by batch.
func write(t testing.TB, h *Header, b []byte, raw bool) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	enc, hash, room := Encoder{Raw: raw}, cbt.NewHasher(), make([]byte, cbt.BatchSize)
	for e := range h.Map.All() {
		for off := e.Off; off < e.End(); {
			n := min(e.End(), (off/cbt.BatchSize+1)*cbt.BatchSize) - off
			p := b[off : off+n]
			r := Record{Extent: cbt.Extent{Off: off, Len: n}, Zero: cbt.IsZero(p)}
			if !r.Zero {
				for g := int64(0); g*cbt.GrainSize < n; g++ {
					hash.Sum(p[g*cbt.GrainSize:min((g+1)*cbt.GrainSize, n)], &r.Grains[g])
				}
				enc.Encode(&r, p, room)
			}
			if err := w.Append(&r); err != nil {
				t.Fatal(err)
			}
			off += n
		}
	}
	tot, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if w.Written() != int64(out.Len()) || tot.DataBytes+tot.ZeroBytes != h.Map.Len() {
		t.Fatalf("%d bytes written, %d there; totals %+v", w.Written(), out.Len(), tot)
	}
	return out.Bytes()
}

// read gives back what a stream puts over base, or the error that ended it. It
// fails the test when bytes were handed out that are not those of want.
func read(t testing.TB, stream io.Reader, base, want []byte) (*Reader, []byte, error) {
	t.Helper()
	r, err := NewReader(stream)
	if err != nil {
		return nil, nil, err
	}
	h := r.Header()
	out := make([]byte, h.Size)
	if h.Kind == Changed {
		copy(out, base)
	}
	buf := make([]byte, cbt.BatchSize)
	for {
		it, err := r.Next(func(e cbt.Extent) []byte { return buf[:e.Len] })
		if err == io.EOF {
			return r, out, nil
		}
		if err != nil {
			return r, out, err
		}
		to := out[it.Extent.Off:it.Extent.End()]
		clear(to)
		copy(to, it.Data)
		if want != nil && !bytes.Equal(to, want[it.Extent.Off:it.Extent.End()]) {
			t.Fatalf("wrong bytes handed out at %v", it.Extent)
		}
	}
}

func mapOf(extents ...cbt.Extent) (m cbt.Map) {
	for _, e := range extents {
		m.Add(e)
	}
	return m
}

func rootOf(t testing.TB, b []byte) cbt.Digest {
	t.Helper()
	r, h := cbt.NewRoot(int64(len(b))), cbt.NewHasher()
	for off := 0; off < len(b); off += cbt.GrainSize {
		var d cbt.Digest
		h.Sum(b[off:min(off+cbt.GrainSize, len(b))], &d)
		r.Add(&d)
	}
	d, err := r.Sum()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRoundTrip(t *testing.T) {
	const g = cbt.GrainSize
	for _, size := range []int64{1, 511, g, g + 1, 3*cbt.BatchSize + 12345, 5 * cbt.BatchSize} {
		for name, m := range map[string]cbt.Map{
			"all": mapOf(cbt.Extent{Len: size}), "none": {},
			"holes": mapOf(cbt.Extent{Off: 2 * g, Len: 20 * g}, cbt.Extent{Off: 40 * g, Len: g}).Clip(cbt.Extent{Len: size}),
			"end":   mapOf(cbt.Extent{Off: (size - 1) / g * g, Len: size - (size-1)/g*g}),
		} {
			for _, kind := range []Kind{Full, Changed} {
				for _, raw := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d/%s/%v/raw=%v", size, name, kind, raw), func(t *testing.T) {
						base, want := content(1, size), content(2, size)
						over := make([]byte, size)
						if kind == Changed {
							copy(over, base)
						}
						for e := range m.All() {
							copy(over[e.Off:e.End()], want[e.Off:])
						}
						h := header(kind, size, m)
						stream := write(t, h, want, raw)
						r, got, err := read(t, iotest.OneByteReader(bytes.NewReader(stream)), base, over)
						if size > g {
							r, got, err = read(t, bytes.NewReader(stream), base, over)
						}
						if err != nil || !bytes.Equal(got, over) {
							t.Fatalf("read back: %v, equal %v", err, bytes.Equal(got, over))
						}
						if r.Consumed() != int64(len(stream)) {
							t.Errorf("%d bytes consumed of %d", r.Consumed(), len(stream))
						}
						if root := r.Totals().Root; kind == Full && root != rootOf(t, over) {
							t.Errorf("root %v is not that of the disk", root)
						}
						if got := fmt.Sprintf("%+v", *r.Header()); got != fmt.Sprintf("%+v", *h) {
							t.Errorf("header %s\nwant   %+v", got, *h)
						}
					})
				}
			}
		}
	}
}

// small is a stream with a frame of every type.
func small(t testing.TB) (stream, want []byte) {
	const size = 3*cbt.GrainSize + 100
	want = make([]byte, size)
	copy(want[cbt.GrainSize+50:], "haulback haulback haulback")
	_, _ = rand.Read(want[3*cbt.GrainSize:])
	h := header(Changed, size, mapOf(cbt.Extent{Len: cbt.GrainSize}, cbt.Extent{Off: 2 * cbt.GrainSize, Len: cbt.GrainSize + 100}))
	h.Sampled = mapOf(cbt.Extent{Len: cbt.GrainSize})
	return write(t, h, want, false), want
}

// TestPrefixes: a stream that is cut anywhere is not taken for whole, and what
// is handed out before the cut is right.
func TestPrefixes(t *testing.T) {
	stream, want := small(t)
	for n := range stream {
		_, _, err := read(t, bytes.NewReader(stream[:n]), want, want)
		if err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(stream), err)
		}
	}
}

// TestFlips: one bit turned over anywhere is found before the bytes are out.
func TestFlips(t *testing.T) {
	stream, want := small(t)
	for i := range stream {
		for bit := range 8 {
			bad := bytes.Clone(stream)
			bad[i] ^= 1 << bit
			if _, _, err := read(t, bytes.NewReader(bad), want, want); err == nil {
				t.Fatalf("bit %d of byte %d of %d turned over: not found", bit, i, len(stream))
			}
		}
	}
}

// frames cuts a stream at its frames; the first piece is the magic.
func frames(stream []byte) (list [][]byte) {
	list = append(list, stream[:8])
	for b := stream[8:]; len(b) > 0; {
		n := frameLen + int(b[4])<<24 + int(b[5])<<16 + int(b[6])<<8 + int(b[7]) + 32 + int(b[8])<<24 + int(b[9])<<16 + int(b[10])<<8 + int(b[11])
		list, b = append(list, b[:n]), b[n:]
	}
	return list
}

// TestRearranged: frames that are whole and in the wrong place are refused.
func TestRearranged(t *testing.T) {
	size := int64(4 * cbt.BatchSize)
	want := content(3, size)
	h := header(Full, size, mapOf(cbt.Extent{Len: size}))
	a := frames(write(t, h, want, false))
	h.Run[0]++
	b := frames(write(t, h, want, false))
	last := len(a) - 1
	for name, list := range map[string][][]byte{
		"swapped":           {a[0], a[1], a[2], a[4], a[3], a[5], a[6], a[7]},
		"repeated":          {a[0], a[1], a[2], a[3], a[3], a[4], a[5], a[6], a[7]},
		"left out":          {a[0], a[1], a[2], a[3], a[5], a[6], a[7]},
		"trailer too early": {a[0], a[1], a[2], a[3], a[4], a[5], a[last]},
		"of another stream": {a[0], a[1], a[2], b[3], a[4], a[5], a[6], a[7]},
		"joined":            append(append([][]byte{}, a[:4]...), b[4:]...),
		"two streams":       append(append([][]byte{}, a...), b...),
		"garbage behind":    append(append([][]byte{}, a...), []byte{0}),
		"no magic":          a[1:],
	} {
		if _, _, err := read(t, bytes.NewReader(bytes.Join(list, nil)), nil, want); err == nil {
			t.Errorf("%s: taken for a stream", name)
		}
	}
	if len(a) != 8 {
		t.Fatalf("%d frames: the cases above need 8", len(a))
	}
	if _, _, err := read(t, bytes.NewReader(bytes.Join(a, nil)), nil, want); err != nil {
		t.Errorf("put together again as it was: %v", err)
	}
}

// forge writes frames with right sums that no Writer would write.
type forge struct{ *Writer }

func (f forge) frame(t byte, head, payload []byte) { f.Writer.frame(t, payload, head) }

// TestHostile: right sums, wrong contents.
func TestHostile(t *testing.T) {
	u := func(v ...uint64) (b []byte) {
		for _, n := range v {
			for s := 56; s >= 0; s -= 8 {
				b = append(b, byte(n>>s))
			}
		}
		return b
	}
	const g = cbt.GrainSize
	data := func(off, n uint64, enc byte, grains int) []byte {
		b := append(u(off), byte(n>>24), byte(n>>16), byte(n>>8), byte(n), enc, 0, 0, 0)
		return append(b, make([]byte, 32+32*grains)...)
	}
	for name, c := range map[string]struct {
		want string
		do   func(f forge)
	}{
		"zeros overlap":         {"has to come", func(f forge) { f.frame(typeZero, u(0, 2*g), nil); f.frame(typeZero, u(g, g), nil) }},
		"zeros out of order":    {"has to come", func(f forge) { f.frame(typeZero, u(g, g), nil) }},
		"beyond the disk":       {"outside the disk", func(f forge) { f.frame(typeZero, u(0, 9*g), nil) }},
		"leaves the map":        {"of the map", func(f forge) { f.frame(typeZero, u(0, 4*g), nil) }},
		"negative":              {"zeros", func(f forge) { f.frame(typeZero, u(1<<63, g), nil) }},
		"overflow":              {"outside the disk", func(f forge) { f.frame(typeZero, u(g, 1<<63-1), nil) }},
		"no grain":              {"whole grains", func(f forge) { f.frame(typeZero, u(0, 5), nil) }},
		"empty":                 {"outside", func(f forge) { f.frame(typeZero, u(0, 0), nil) }},
		"digests missing":       {"digests", func(f forge) { f.frame(typeData, data(0, 2*g, encRaw, 1), make([]byte, 2*g)) }},
		"raw of other length":   {"encoding", func(f forge) { f.frame(typeData, data(0, g, encRaw, 1), make([]byte, g-1)) }},
		"unknown encoding":      {"encoding", func(f forge) { f.frame(typeData, data(0, g, 3, 1), make([]byte, 9)) }},
		"LZ4 without a payload": {"encoding", func(f forge) { f.frame(typeData, data(0, g, encLZ4, 1), nil) }},
		"LZ4 of another sum":    {"payload", func(f forge) { f.frame(typeData, data(0, g, encLZ4, 1), make([]byte, 99)) }},
		"digest of other bytes": {"not those", func(f forge) { f.frame(typeData, data(0, g, encRaw, 1), make([]byte, g)) }},
		"type 7":                {"no frame", func(f forge) { f.frame(7, make([]byte, 16), nil) }},
		"second header":         {"among the data", func(f forge) { h, _ := header(Full, 9, cbt.Map{}).append(nil); f.frame(typeHeader, h, nil) }},
		"trailer too early":     {"missing", func(f forge) { f.frame(typeTrailer, make([]byte, trailerLen), nil) }},
		"other counts":          {"trailer says", func(f forge) { f.frame(typeZero, u(0, 3*g), nil); f.frame(typeTrailer, make([]byte, trailerLen), nil) }},
		"huge head":             {"no frame", func(f forge) { f.buf = appendFrame(f.buf[:0], typeZero, 1<<31, 0); f.seal(nil) }},
		"huge payload":          {"no frame", func(f forge) { f.buf = appendFrame(f.buf[:0], typeData, 80, 1<<30); f.seal(nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			w, err := NewWriter(&out, header(Full, 5*g, mapOf(cbt.Extent{Len: 3 * g})))
			if err != nil {
				t.Fatal(err)
			}
			c.do(forge{w})
			if err := w.out.Flush(); err != nil {
				t.Fatal(err)
			}
			if _, _, err = read(t, &out, nil, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want damaged with %q", err, c.want)
			}
		})
	}
}

// TestWrongHeaders: neither end takes a header that makes no sense.
func TestWrongHeaders(t *testing.T) {
	for name, change := range map[string]func(h *Header){
		"no disk":          func(h *Header) { h.Size = 0 },
		"kind":             func(h *Header) { h.Kind = 3 },
		"no run":           func(h *Header) { h.Run = [16]byte{} },
		"full with a base": func(h *Header) { h.Base.Run[3] = 1 },
		"changed, no base": func(h *Header) { h.Kind = Changed },
		"samples of full":  func(h *Header) { h.Sampled = h.Map },
		"beyond the disk":  func(h *Header) { h.Map = mapOf(cbt.Extent{Len: 1 << 30}) },
		"no grains":        func(h *Header) { h.Map = mapOf(cbt.Extent{Off: 1, Len: 9}) },
		"escape sequence":  func(h *Header) { h.Identity = "\x1b[2J" },
		"line break":       func(h *Header) { h.Labels[0].Value = "a\nb" },
		"not UTF-8":        func(h *Header) { h.Reason = "\xff" },
		"long text":        func(h *Header) { h.Since = strings.Repeat("x", 1025) },
		"many labels":      func(h *Header) { h.Labels = make([]Label, 65) },
		"long labels":      func(h *Header) { h.Labels = labels(64, 1024) },
		"samples beside map": func(h *Header) {
			h.Kind, h.Base.Run[0] = Changed, 1
			h.Sampled = mapOf(cbt.Extent{Off: 2 * cbt.GrainSize, Len: cbt.GrainSize})
		},
	} {
		h := header(Full, 4*cbt.GrainSize, mapOf(cbt.Extent{Len: cbt.GrainSize}))
		change(h)
		if _, err := NewWriter(io.Discard, h); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func labels(n, length int) (list []Label) {
	for range n {
		list = append(list, Label{strings.Repeat("k", length), strings.Repeat("v", length)})
	}
	return list
}

// TestReadErrors: an error of the pipe is not taken for damage of the stream.
func TestReadErrors(t *testing.T) {
	stream, want := small(t)
	broken := errors.New("broken pipe")
	for _, n := range []int{0, 3, 8, 30, 300, 700, len(stream) - 1, len(stream)} {
		_, _, err := read(t, io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken)), want, want)
		if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
			t.Errorf("broken after %d of %d bytes: %v", n, len(stream), err)
		}
	}
	if _, _, err := read(t, strings.NewReader("just some text file\n"), nil, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("a text file: %v", err)
	}
}

// TestWriterOrder: what does not come next is not written.
func TestWriterOrder(t *testing.T) {
	w, err := NewWriter(io.Discard, header(Full, 9*cbt.GrainSize, mapOf(cbt.Extent{Len: 9 * cbt.GrainSize})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("finished without the data")
	}
	if err := w.Append(&Record{Zero: true, Extent: cbt.Extent{Off: cbt.GrainSize, Len: cbt.GrainSize}}); err == nil {
		t.Error("appended out of order")
	}
	if err := w.Append(&Record{Zero: true, Extent: cbt.Extent{Len: 9 * cbt.GrainSize}}); err == nil {
		t.Error("appended after an error")
	}
}

// TestAllocations: nothing is allocated per record, at either end.
func TestAllocations(t *testing.T) {
	size := int64(64 * cbt.BatchSize)
	b := content(5, size)
	stream := write(t, header(Full, size, mapOf(cbt.Extent{Len: size})), b, false)
	r, err := NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, cbt.BatchSize)
	place := func(e cbt.Extent) []byte { return buf[:e.Len] }
	if n := testing.AllocsPerRun(50, func() {
		if _, err := r.Next(place); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations per record read", n)
	}
	w, err := NewWriter(io.Discard, header(Full, size, mapOf(cbt.Extent{Len: size})))
	if err != nil {
		t.Fatal(err)
	}
	enc, rec, room, at := Encoder{}, Record{}, make([]byte, cbt.BatchSize), int64(0)
	if n := testing.AllocsPerRun(50, func() {
		rec.Extent = cbt.Extent{Off: at, Len: cbt.BatchSize}
		enc.Encode(&rec, b[at:at+cbt.BatchSize], room)
		at += cbt.BatchSize
		if err := w.Append(&rec); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations per record written", n)
	}
}

// FuzzRead: no bytes make a reader panic, take much memory, or hand out what
// lies outside the disk; what it takes is what a writer would have written.
func FuzzRead(f *testing.F) {
	stream, _ := small(f)
	f.Add(stream)
	f.Add(write(f, header(Full, 100, cbt.Map{}), make([]byte, 100), false))
	f.Add([]byte(magic))
	buf := make([]byte, cbt.BatchSize)
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := NewReader(bytes.NewReader(p))
		if err != nil {
			return
		}
		var again bytes.Buffer
		w, err := NewWriter(&again, r.Header())
		if err != nil {
			t.Fatalf("a header that was read is not written: %v", err)
		}
		for {
			it, err := r.Next(func(e cbt.Extent) []byte { return buf[:e.Len] })
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			if it.Extent.Check(r.Header().Size) != nil {
				t.Fatalf("%v outside of the disk", it.Extent)
			}
			rec := Record{Extent: it.Extent, Zero: it.Data == nil}
			h := cbt.NewHasher()
			for g := 0; g*cbt.GrainSize < len(it.Data); g++ {
				h.Sum(it.Data[g*cbt.GrainSize:min((g+1)*cbt.GrainSize, len(it.Data))], &rec.Grains[g])
			}
			if enc := (Encoder{}); it.Data != nil {
				enc.Encode(&rec, it.Data, make([]byte, cbt.BatchSize))
			}
			if err := w.Append(&rec); err != nil {
				t.Fatalf("a record that was read is not written: %v", err)
			}
		}
		if tot, err := w.Finish(); err != nil || tot.Root != r.Totals().Root {
			t.Fatalf("written again: %v, roots %v and %v", err, tot.Root, r.Totals().Root)
		}
	})
}

// FuzzResealed is FuzzRead with sums that are right, so that the rest is
// reached.
func FuzzResealed(f *testing.F) {
	stream, _ := small(f)
	f.Add(stream)
	buf := make([]byte, cbt.BatchSize)
	f.Fuzz(func(t *testing.T, p []byte) {
		c, out := newChain(), append([]byte{}, magic...)
		for b := p[min(len(p), len(magic)):]; len(b) >= frameLen; {
			n := int(b[5])<<16 + int(b[6])<<8 + int(b[7])
			if len(b) < frameLen+n+cbt.DigestSize {
				break
			}
			out = append(append(out, b[:frameLen+n]...), c.next(b[:frameLen+n])[:]...)
			b = b[frameLen+n+cbt.DigestSize:]
			k := min(len(b), int(p[len(out)-n-cbt.DigestSize-2])<<8) // any number does
			out, b = append(out, b[:k]...), b[k:]
		}
		r, err := NewReader(bytes.NewReader(out))
		for err == nil {
			var it Item
			if it, err = r.Next(func(e cbt.Extent) []byte { return buf[:e.Len] }); err == nil && it.Extent.Check(r.Header().Size) != nil {
				t.Fatalf("%v outside of the disk", it.Extent)
			}
		}
	})
}
