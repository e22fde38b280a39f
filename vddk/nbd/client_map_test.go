package nbd

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// mapServer answers status requests with extents of 64 KiB whose flags are
// those of flags, and counts them. Everything else succeeds.
func mapServer(t *testing.T, flags func(grain int64) uint32, asked *atomic.Int64) URI {
	return listen(t, func(s hostile) {
		s.answer(nil)
		for {
			cmd, cookie, e := s.request()
			switch {
			case cookie == 0:
				return
			case cmd == cmdBlockStatus:
				asked.Add(1)
				payload := [][]byte{be32(7)}
				for off := e.Off; off < e.End(); off += cbt.GrainSize {
					payload = append(payload, be32(cbt.GrainSize), be32(flags(off/cbt.GrainSize)))
				}
				s.chunk(cookie, chunkFlagDone, chunkBlockStatus, payload...)
			default:
				s.chunk(cookie, chunkFlagDone, chunkNone)
			}
		}
	})
}

// TestMapCountsOnZeroOnly: of the four combinations of HOLE and ZERO, those
// with ZERO are holes.
func TestMapCountsOnZeroOnly(t *testing.T) {
	var asked atomic.Int64
	u := mapServer(t, func(g int64) uint32 { return uint32(g % 4) }, &asked)
	c, err := Open(t.Context(), Config{URI: u})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for g := int64(0); g < hostileSize/cbt.GrainSize; g += 4 {
		for off := g; off < g+2; off++ {
			e, err := c.NextData(off * cbt.GrainSize)
			if want := (cbt.Extent{Off: off * cbt.GrainSize, Len: (g + 2 - off) * cbt.GrainSize}); err != nil || e != want {
				t.Fatalf("NextData in grain %d: got %v, %v, want %v", off, e, err, want)
			}
		}
	}
	if _, err := c.NextData(hostileSize - 1); err != io.EOF {
		t.Errorf("NextData in the last hole: got %v, want EOF", err)
	}
	if n := asked.Load(); n > 2 {
		t.Errorf("a walk of 8 MiB asked %d times", n)
	}
}

// TestMapOfEachGrain: a caller that asks for each grain of a disk of holes does
// not send a request for each.
func TestMapOfEachGrain(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "memory", "1T")
	c := openServer(t, s, Config{})
	before := c.conns[0].progress.Load()
	for g := range int64(1000) {
		if _, err := c.NextData(g * cbt.GrainSize); err != io.EOF {
			t.Fatalf("NextData of an empty disk: got %v, want EOF", err)
		}
	}
	if n := c.conns[0].progress.Load() - before; n > 200_000 {
		t.Errorf("1000 questions brought %d bytes of answers", n)
	}
}

// TestMapAfterOwnWrites: a hole that we write to is data at once, whatever was
// answered before; a question that is under way cannot undo that.
func TestMapAfterOwnWrites(t *testing.T) {
	var asked atomic.Int64
	u := mapServer(t, func(g int64) uint32 { return allocationHole | allocationZero }, &asked)
	c, err := Open(t.Context(), Config{URI: u, Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantNext := func(off int64, want cbt.Extent, wantErr error) {
		t.Helper()
		if e, err := c.NextData(off); err != wantErr || e != want {
			t.Errorf("NextData(%d): got %v, %v, want %v, %v", off, e, err, want, wantErr)
		}
	}
	wantNext(0, cbt.Extent{}, io.EOF)
	for _, e := range []cbt.Extent{{Off: 5 << 20, Len: 10}, {Off: 1 << 20, Len: 4096}, {Off: 1<<20 + 4096, Len: 1}, {Off: 2 << 20, Len: 7}, {Off: 1<<20 - 5, Len: 6}} {
		if _, err := c.WriteAt(make([]byte, e.Len), e.Off); err != nil {
			t.Fatal(err)
		}
	}
	wantNext(1, cbt.Extent{Off: 1<<20 - 5, Len: 4096 + 6}, nil)
	wantNext(1<<20+10000, cbt.Extent{Off: 2 << 20, Len: 7}, nil)
	wantNext(3<<20, cbt.Extent{Off: 5 << 20, Len: 10}, nil)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want 1", n)
	}
}

// TestMapWriteWhileAsking: what is written after the cache was looked at, and
// before the answer is taken in, is in neither, and counts.
func TestMapWriteWhileAsking(t *testing.T) {
	var asked atomic.Int64
	c, err := Open(t.Context(), Config{Writable: true, URI: mapServer(t, func(int64) uint32 { return allocationHole | allocationZero }, &asked)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := &c.cache
	m.at = time.Now()
	m.fillLocked(0, []StatusExtent{{cbt.Extent{Len: 1 << 20}, allocationZero}})
	_, next, ok := m.find(0, c.Size())
	if ok || next != 1<<20 {
		t.Fatalf("find in a known hole: %d, %v", next, ok)
	}
	want := cbt.Extent{Off: 64 << 10, Len: 4096}
	if _, err := c.WriteAt(make([]byte, want.Len), want.Off); err != nil {
		t.Fatal(err)
	}
	if err := c.learn(0, next); err != nil {
		t.Fatal(err)
	}
	if e, err := c.NextData(1); err != nil || e != want {
		t.Errorf("got %v, %v, want %v", e, err, want)
	}
}

// TestMapSecondWalk: a walk that begins where the last one did asks anew.
func TestMapSecondWalk(t *testing.T) {
	var asked atomic.Int64
	var flags atomic.Uint32
	flags.Store(allocationHole | allocationZero)
	c, err := Open(t.Context(), Config{URI: mapServer(t, func(int64) uint32 { return flags.Load() }, &asked)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.NextData(0); err != io.EOF {
		t.Fatal(err)
	}
	flags.Store(0) // another client writes
	if e, err := c.NextData(0); err != nil || e.Off != 0 {
		t.Errorf("got %v, %v, want data", e, err)
	}
}

// TestMapStress has walkers and writers share a client: once a write returned,
// its block is data for everybody.
func TestMapStress(t *testing.T) {
	const grains, writers = hostileSize / cbt.GrainSize, 4
	u := listen(t, func(s hostile) {
		var written [grains]bool
		s.answer(nil)
		for {
			cmd, cookie, e := s.request()
			switch {
			case cookie == 0:
				return
			case cmd == cmdBlockStatus: // short answers: a walk has to ask often
				payload := [][]byte{be32(7)}
				for g := e.Off / cbt.GrainSize; g < min(e.Off/cbt.GrainSize+4, grains); g++ {
					flags := uint32(allocationHole | allocationZero)
					if written[g] {
						flags = 0
					}
					payload = append(payload, be32(cbt.GrainSize), be32(flags))
				}
				s.chunk(cookie, chunkFlagDone, chunkBlockStatus, payload...)
			default:
				written[e.Off/cbt.GrainSize] = true
				s.chunk(cookie, chunkFlagDone, chunkNone)
			}
		}
	})
	for range 20 {
		c, err := Open(t.Context(), Config{URI: u, Writable: true, Connections: 1})
		if err != nil {
			t.Fatal(err)
		}
		var writing, walking sync.WaitGroup
		var end atomic.Bool
		walking.Go(func() {
			for off := int64(0); !end.Load(); off = (off + cbt.GrainSize) % hostileSize {
				if _, err := c.NextData(off); err != nil && err != io.EOF {
					t.Errorf("walk: %v", err)
					return
				}
			}
		})
		for w := range int64(writers) {
			writing.Go(func() {
				for g := grains - 1 - w; g >= 0; g -= writers {
					off := g * cbt.GrainSize
					if _, err := c.WriteAt(make([]byte, 512), off); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					if e, err := c.NextData(off); err != nil || e.Off >= off+512 {
						t.Errorf("after a write of 512 bytes at %d NextData says %v, %v", off, e, err)
						return
					}
				}
			})
		}
		writing.Wait()
		end.Store(true)
		walking.Wait()
		c.Close()
	}
}

// TestMapForgets: a new walk, and an old answer, ask again: others may write.
func TestMapForgets(t *testing.T) {
	var m clientMap
	now := time.Now()
	fill := func() {
		m.at = now
		m.fillLocked(0, []StatusExtent{{Extent: cbt.Extent{Len: 1 << 30}}})
	}
	fill()
	m.walk(1<<20, now)
	if _, _, ok := m.findLocked(1 << 20); !ok {
		t.Error("forgotten on the way")
	}
	m.walk(0, now)
	if _, _, ok := m.findLocked(0); ok {
		t.Error("kept when the walk went back")
	}
	fill()
	m.walk(4096, now.Add(mapAge+1))
	if _, _, ok := m.findLocked(4096); ok {
		t.Error("kept though old")
	}
}

// TestMapInsert compares insertLocked with a bitmap, for many random writes.
func TestMapInsert(t *testing.T) {
	const size = 200
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := clientMap{known: cbt.Extent{Off: 20, Len: size - 40}}
		var naive [size]bool
		for range r.IntN(40) {
			e := cbt.Extent{Off: r.Int64N(size), Len: 1 + r.Int64N(12)}
			m.wrote(e)
			for i := max(20, e.Off); i < min(size-20, e.End()); i++ {
				naive[i] = true
			}
		}
		var got [size]bool
		last := int64(-1)
		for _, e := range m.data {
			if e.Off <= last || e.Len <= 0 {
				t.Fatalf("seed %d: %v is not sorted and disjoint", seed, m.data)
			}
			for i := e.Off; i < e.End(); i++ {
				got[i] = true
			}
			last = e.End()
		}
		if got != naive {
			t.Fatalf("seed %d: got %v, want %v", seed, got, naive)
		}
	}
}

// TestCover compares clientReply.cover with a bitmap.
func TestCover(t *testing.T) {
	const size = 100
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		var p clientReply
		var naive [size]bool
		for range 30 {
			e := cbt.Extent{Off: r.Int64N(size), Len: 1 + r.Int64N(8)}
			e.Len = min(e.Len, size-e.Off)
			twice := slices.Contains(naive[e.Off:e.End()], true)
			if err := p.cover(e); (err != nil) != twice {
				t.Fatalf("seed %d: cover %v on %v: got %v, want an error: %v", seed, e, p.covered, err, twice)
			}
			if !twice {
				for i := e.Off; i < e.End(); i++ {
					naive[i] = true
				}
			}
		}
		if all := !slices.Contains(naive[:], false); p.all(cbt.Extent{Len: size}) != all {
			t.Fatalf("seed %d: %v: all is %v, want %v", seed, p.covered, !all, all)
		}
	}
}

// TestStatusOfRealServers: a sparse file's map, told by both servers, by extents
// that follow each other.
func TestStatusOfRealServers(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(5 << 30); err != nil { // more than one request asks about
		t.Fatal(err)
	}
	want := []cbt.Extent{{Off: 1 << 20, Len: 64 << 10}, {Off: 3<<30 - 65536, Len: 128 << 10}, {Off: 5<<30 - 65536, Len: 65536}}
	for _, e := range want {
		if _, err := f.WriteAt(make([]byte, e.Len), e.Off); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*nbdtest.Server{nbdtest.Unix(t, "nbdkit", "-f", "file", img), nbdtest.Unix(t, "qemu-nbd", "-t", "-f", "raw", img)} {
		c := openServer(t, s, Config{})
		var got []cbt.Extent
		for off := int64(0); ; {
			e, err := c.NextData(off)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got); n > 0 && got[n-1].End() == e.Off {
				got[n-1].Len += e.Len
			} else {
				got = append(got, e)
			}
			off = e.End()
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", s.Cmd.Args, got, want)
		}
	}
}

// TestDirtyBitmapCoarsens: beyond a million extents more is marked, never less.
func TestDirtyBitmapCoarsens(t *testing.T) {
	const size = 1 << 40
	grain := int64(1)
	var dirty []cbt.Extent
	for off := int64(0); off < 3_000_000*8192; off += 8192 {
		dirty = appendDirty(dirty, cbt.Extent{Off: off, Len: 512}, grain, size)
		if len(dirty) > maxDirtyExtents {
			grain = max(cbt.GrainSize, grain*2)
			dirty = coarser(dirty, grain, size)
		}
	}
	if len(dirty) > maxDirtyExtents {
		t.Errorf("%d extents", len(dirty))
	}
	for off := int64(0); off < 3_000_000*8192; off += 8192 * 1001 {
		if e := (cbt.Extent{Off: off, Len: 512}); !contains(dirty, e) {
			t.Fatalf("%v is lost", e)
		}
	}
}

func contains(all []cbt.Extent, e cbt.Extent) bool {
	i, _ := slices.BinarySearchFunc(all, e.Off, func(d cbt.Extent, off int64) int {
		if d.End() <= off {
			return -1
		}
		return 1
	})
	return i < len(all) && all[i].Contains(e)
}
