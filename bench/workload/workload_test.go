package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/haulback/haulback/bench/result"
)

// TestWrites holds the generator against what its comment promises.
func TestWrites(t *testing.T) {
	const size = 4 << 30
	all := writes(1, size, 0.1)
	if !reflect.DeepEqual(all, writes(1, size, 0.1)) {
		t.Fatal("the same seed gives other changes")
	}
	if reflect.DeepEqual(all, writes(2, size, 0.1)) {
		t.Fatal("another seed gives the same changes")
	}
	var sum, first, copies int64
	lengths := map[int64]int{}
	for _, w := range all {
		if w.Off%block != 0 || w.Off < 0 || w.Off+w.Len > size || w.From > size-w.Len || w.From >= 0 && w.From%block != 0 {
			t.Fatalf("write %+v", w)
		}
		sum += w.Len
		lengths[w.Len]++
		if w.Off+w.Len <= size/5 {
			first++
		}
		if w.From >= 0 {
			copies++
		}
	}
	n := float64(len(all))
	if sum < size/10 || sum > size/10+64<<10 {
		t.Errorf("%d bytes in all, want a tenth of %d", sum, int64(size))
	}
	// 0.7 go into the first fifth on purpose, and a fifth of the others by chance.
	if share := float64(first) / n; math.Abs(share-0.76) > 0.02 {
		t.Errorf("%.3f of the writes are in the first fifth, want about 0.76", share)
	}
	if share := float64(copies) / n; math.Abs(share-0.5) > 0.02 {
		t.Errorf("%.3f of the writes are copies, want about 0.5", share)
	}
	for l := int64(4 << 10); l <= 64<<10; l *= 2 {
		if share := float64(lengths[l]) / n; math.Abs(share-0.2) > 0.02 {
			t.Errorf("%.3f of the writes have %d bytes, want about 0.2", share, l)
		}
		delete(lengths, l)
	}
	if len(lengths) > 0 {
		t.Errorf("writes of other lengths: %v", lengths)
	}
	// facts of the trial's generator: 1735 and 16 863 writes
	if n < 16000 || n > 18000 {
		t.Errorf("%d writes for 10 %% of 4 GiB", len(all))
	}
}

// TestSpans compares with a bitmap of blocks.
func TestSpans(t *testing.T) {
	const size = 4 << 20
	for seed := range uint64(50) {
		all := writes(seed, size, 0.3)
		var want, got [size / block]bool
		for _, w := range all {
			for b := w.Off / block; b < (w.Off+w.Len)/block; b++ {
				want[b] = true
			}
		}
		last := int64(-1)
		for _, s := range spans(all) {
			if s.Off <= last {
				t.Fatalf("seed %d: a span at %d, the one before ends at %d", seed, s.Off, last)
			}
			last = s.end()
			for b := s.Off / block; b < s.end()/block; b++ {
				got[b] = true
			}
		}
		if got != want {
			t.Fatalf("seed %d: the spans are not what was written", seed)
		}
		extents := map[int64]bool{}
		for b, set := range want {
			if set {
				extents[int64(b)*block/(64<<10)] = true
			}
		}
		if n := covered(spans(all), 64<<10, size); n != int64(len(extents))*64<<10 {
			t.Fatalf("seed %d: %d bytes of extents, want %d", seed, n, len(extents)*64<<10)
		}
	}
}

func TestScattered(t *testing.T) {
	const size = 1 << 40
	places := Scattered(3, size, 10<<20)
	var sum int64
	for _, p := range places {
		if p.Off < 0 || p.end() > size {
			t.Fatalf("place %+v", p)
		}
		sum += p.Len
	}
	if sum < 10<<20 || sum > 11<<20 || places[len(places)-1].Off < size*9/10 {
		t.Errorf("%d bytes, the last at %d", sum, places[len(places)-1].Off)
	}
	name := filepath.Join(t.TempDir(), "f")
	small := []Place{{0, 4096}, {1 << 20, 200 << 10}}
	for range 2 { // the second time it overwrites
		if err := errors.Join(Sparse(name, 2<<20), Scribble(name, 3, small)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil || len(b) != 2<<20 || bytes.Count(b[:4096], []byte{0}) > 100 || bytes.Count(b[1<<20:1<<20+200<<10], []byte{0}) > 2000 {
		t.Errorf("%d bytes, %v: the places are not random", len(b), err)
	}
	if bytes.Count(b[4096:1<<20], []byte{0}) != 1<<20-4096 || bytes.Count(b[1<<20+200<<10:], []byte{0}) != 1<<20-200<<10 {
		t.Error("something was written elsewhere")
	}
}

// tree is a few files for images.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 40 {
		name := filepath.Join(dir, "a", fmt.Sprintf("f%02d", i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, bytes.Repeat([]byte{byte(i), 'x', 'y'}, 500*i), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestImage makes an image with mke2fs, runs cases on it, and breaks it.
func TestImage(t *testing.T) {
	if _, err := lookSbin("mke2fs"); err != nil {
		t.Fatal("mke2fs, of e2fsprogs: ", err)
	}
	dir := t.TempDir()
	spec := Spec{Size: MinSize, Seed: 7, Roots: []string{tree(t)}}
	var said []string
	open := func() *Image {
		t.Helper()
		said = nil
		m, err := Open(t.Context(), dir, spec, func(s string) { said = append(said, s) })
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := open()
	if m.Zero < 0.1 || m.Zero > 0.5 {
		t.Errorf("%.2f of the extents are zeros, want about 0.3", m.Zero)
	}
	if _, err := Open(t.Context(), dir, spec, func(string) {}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	base := read(t, m.Target())
	if !bytes.Equal(base, read(t, m.Source())) || base[1024+56] != 0x53 || base[1024+57] != 0xef {
		t.Fatal("source and target are not the same ext4")
	}
	for _, c := range []result.Case{result.OnePercent, result.TenPercent, result.Same} {
		i, err := m.Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		source := read(t, m.Source())
		var changed int64
		for off := 0; off < len(base); off += block {
			if !bytes.Equal(base[off:off+block], source[off:off+block]) {
				changed += block
			}
		}
		if changed != i.Changed || (changed == 0) != (c == result.Same) || i.Extents < i.Changed {
			t.Errorf("%s: %d bytes differ, the image says %+v", c, changed, i)
		}
		if err := os.WriteFile(m.Target(), source, 0o600); err != nil { // as a peer would
			t.Fatal(err)
		}
		if err := m.Reset(t.Context(), c); err != nil || !bytes.Equal(read(t, m.Target()), base) {
			t.Errorf("%s: the target is not put back: %v", c, err)
		}
	}
	m.Close()

	if m = open(); len(said) != 1 || !strings.Contains(said[0], "checked") {
		t.Errorf("opening it again: %q", said)
	}
	if _, err := m.Prepare(t.Context(), result.TenPercent); err != nil {
		t.Fatal(err)
	}
	testCopy(t, m, base)
	if _, err := m.Prepare(t.Context(), result.TenPercent); err != nil { // and the program ends here
		t.Fatal(err)
	}
	m.Close()
	if m = open(); len(said) != 1 || !bytes.Equal(read(t, m.Source()), base) {
		t.Errorf("after an end in the middle: %q", said)
	}
	m.Close()
	f, err := os.OpenFile(m.Target(), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("broken"), MinSize-100)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if m = open(); len(said) < 2 || !strings.Contains(said[0], "digest") {
		t.Errorf("a broken target was taken: %q", said)
	}
	if _, err := m.Prepare(t.Context(), result.Same); err != nil {
		t.Error(err)
	}
	m.Close()
}

// testCopy: a copy of an image, whatever its disks are just now, is one of the
// base, has all of its cases, and leaves the image alone.
func testCopy(t *testing.T, m *Image, base []byte) {
	c, err := m.Copy(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, c.Source()), base) || !bytes.Equal(read(t, c.Target()), base) {
		t.Error("the copy is not the base")
	}
	for _, one := range []result.Case{result.OnePercent, result.TenPercent} {
		if i, err := c.Prepare(t.Context(), one); err != nil || i.Changed == 0 || bytes.Equal(read(t, c.Source()), base) {
			t.Errorf("%s on the copy: %+v, %v", one, i, err)
		}
	}
	if !bytes.Equal(read(t, m.Source()), base) {
		t.Error("the copy's changes are in the image")
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, size := range []int64{0, 1 << 20, MinSize + 1} {
		if _, err := Open(t.Context(), t.TempDir(), Spec{Size: size}, func(string) {}); err == nil || !strings.Contains(err.Error(), "size") {
			t.Errorf("size %d: %v", size, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := Open(ctx, dir, Spec{Size: MinSize, Roots: []string{tree(t)}}, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	for _, name := range left {
		if b := filepath.Base(name); b != "lock" {
			t.Errorf("left behind: %s", name)
		}
	}
}

// Text that is made up has to compress about as programs do, and to be the same each time.
func TestProse(t *testing.T) {
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		p := &prose{r: rand.New(source(1, "text"))}
		if _, err := io.CopyN(w, p, 256<<10); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("not deterministic")
	}
}
