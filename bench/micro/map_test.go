package micro

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// diskSize is 1 TiB: 16 million grains.
const diskSize = 1 << 40

// changes are n writes of 4 to 64 KiB at random places, most of them in the first
// fifth of the disk.
func changes(n int) []cbt.Extent {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	all := make([]cbt.Extent, n)
	for i := range all {
		end := int64(diskSize)
		if r.IntN(10) < 7 {
			end /= 5
		}
		all[i] = cbt.Extent{Off: r.Int64N(end>>16) << 16, Len: 4096 << r.IntN(5)}
	}
	return all
}

func mapOf(b *testing.B, n int) cbt.Map {
	m, err := cbt.FromAreas(changes(n), diskSize)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkMap is what planning does with what change tracking says.
func BenchmarkMap(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		areas, m := changes(n), mapOf(b, n)
		other := mapOf(b, n+1)
		for _, op := range []struct {
			name string
			do   func()
		}{
			{"areas", func() { _, _ = cbt.FromAreas(areas, diskSize) }}, // cannot fail: mapOf has done it
			{"align", func() { m.AlignGrains(diskSize) }},
			{"union", func() { m.Union(other) }},
			{"subtract", func() { m.Subtract(other) }},
			{"encode", func() { m.AppendTo(nil) }},
			{"grains", func() {
				for range m.Grains(diskSize) {
				}
			}},
		} {
			b.Run(fmt.Sprintf("op=%s/extents=%d", op.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					op.do()
				}
			})
		}
	}
}

// BenchmarkBitmap is a bit for each grain of 1 TiB, one in a hundred set.
func BenchmarkBitmap(b *testing.B) {
	m := cbt.NewBitmap(diskSize)
	r := rand.New(rand.NewPCG(4, 4))
	for range m.Grains() / 100 {
		m.Set(r.Int64N(m.Grains()))
	}
	i := int64(0)
	for _, op := range []struct {
		name string
		do   func()
	}{
		{"get", func() { m.Get(i % m.Grains()); i += 16 }},
		{"set", func() { m.Set(i % m.Grains()); i += 1601 }},
		{"next", func() {
			if i = m.NextSet(i) + 1; i <= 0 || i >= m.Grains() {
				i = 0
			}
		}},
		{"count", func() { m.Count() }},
	} {
		b.Run("op="+op.name, func(b *testing.B) {
			i = 0
			b.ReportAllocs()
			for b.Loop() {
				op.do()
			}
		})
	}
}
