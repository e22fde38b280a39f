package workload

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
)

// block is what changes are aligned to, and the smallest of them: a page of a
// guest, a block of its file system.
const block = 4 << 10

// write is one write of a guest: Len bytes at Off, of random bytes or, when
// From is not negative, of what the base holds there.
type write struct {
	Off, Len int64
	From     int64
	Seed     uint64
}

// source is a stream of random numbers for one use of a seed.
func source(seed uint64, use string) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	copy(key[8:], use)
	return rand.NewChaCha8(key)
}

// writes are the changes of a disk that was used for a while: of 4 to 64 KiB,
// powers of two, aligned to 4 KiB, seven in ten in the first fifth of the disk,
// until their lengths are share of the size. Half of them are random bytes and
// half copies from elsewhere. They may overlap; a later one wins.
func writes(seed uint64, size int64, share float64) (all []write) {
	r := rand.New(source(seed, "changes"))
	want := int64(share * float64(size))
	for sum := int64(0); sum < want; {
		w := write{Len: block << r.IntN(5), From: -1, Seed: r.Uint64()}
		area := size
		if r.IntN(10) < 7 {
			area = size / 5
		}
		w.Off = place(r, area, w.Len)
		if r.IntN(2) == 0 {
			w.From = place(r, size, w.Len)
		}
		all = append(all, w)
		sum += w.Len
	}
	return all
}

// place is where n bytes may lie in the first area bytes.
func place(r *rand.Rand, area, n int64) int64 {
	return r.Int64N((area-n)/block+1) * block
}

// Place is a range of a disk.
type Place struct {
	Off, Len int64
}

func (s Place) end() int64 { return s.Off + s.Len }

// spans are the places of writes: sorted, disjoint, and not adjacent, so that
// each write lies in one.
func spans(all []write) (merged []Place) {
	sorted := make([]Place, len(all))
	for i, w := range all {
		sorted[i] = Place{w.Off, w.Len}
	}
	slices.SortFunc(sorted, func(a, b Place) int { return int(a.Off/block - b.Off/block) })
	for _, s := range sorted {
		if n := len(merged); n > 0 && s.Off <= merged[n-1].end() {
			merged[n-1].Len = max(merged[n-1].end(), s.end()) - merged[n-1].Off
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// covered is how many bytes of whole extents of a size the spans touch.
func covered(all []Place, extent, size int64) (n int64) {
	last := int64(-1)
	for _, s := range all {
		for e := max(s.Off/extent, last+1); e*extent < s.end(); e++ {
			n += min(extent, size-e*extent)
			last = e
		}
	}
	return n
}

// Scattered are places of changes of so many bytes in all, spread evenly over a disk.
func Scattered(seed uint64, size, bytes int64) []Place {
	r := rand.New(source(seed, "scattered"))
	var all []write
	for sum := int64(0); sum < bytes; {
		w := write{Len: block << r.IntN(5)}
		w.Off = place(r, size, w.Len)
		all = append(all, w)
		sum += w.Len
	}
	return spans(all)
}

// Scribble writes random bytes to places of a file, and waits for the device.
func Scribble(path string, seed uint64, places []Place) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	stream := source(seed, "scribble")
	buf := make([]byte, 64<<10)
	for _, p := range places {
		for off := p.Off; off < p.end(); off += int64(len(buf)) {
			b := buf[:min(int64(len(buf)), p.end()-off)]
			_, _ = stream.Read(b) // it cannot fail
			if _, err := f.WriteAt(b, off); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}
