package micro

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// flat is a disk of one buffer that allocates nothing when it is used.
type flat struct{ b []byte }

func (f *flat) ReadAt(p []byte, off int64) (int, error)  { return copy(p, f.b[off:]), nil }
func (f *flat) WriteAt(p []byte, off int64) (int, error) { return copy(f.b[off:], p), nil }
func (f *flat) Size() int64                              { return int64(len(f.b)) }
func (f *flat) Identity() string                         { return "flat" }
func (f *flat) Flush() error                             { return nil }
func (f *flat) Close() error                             { return nil }

// BenchmarkPass is a whole pass with both halves in this process, from disk in
// memory to disk in memory over a pipe: reading, hashing, comparing, compression,
// writing, reading back. Throughput is of the size of one disk.
func BenchmarkPass(b *testing.B) {
	for _, change := range []struct {
		name    string
		percent int
	}{{"none", 0}, {"10%", 10}, {"all", 100}} {
		for _, kind := range kinds {
			b.Run("changed="+change.name+"/content="+kind.name, func(b *testing.B) {
				pass(b, content(b, kind.name), change.percent)
			})
		}
	}
}

func pass(b *testing.B, p []byte, percent int) {
	const copies = 4
	source := bytes.Repeat(p, copies)
	target := bytes.Clone(source)
	changed := spoil(target, percent)
	e, err := mover.NewEngine(mover.Config{}, movertest.NewCrashableState(movertest.NewPower()).Mount())
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	open := func(p []byte) mover.OpenDisk {
		return func(context.Context, mover.Access) (mover.Disk, error) { return &flat{p}, nil }
	}
	var sent, wireBytes int64
	n := 0
	b.SetBytes(int64(len(source)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for _, g := range changed {
			target[g*cbt.GrainSize] ^= 0xff
		}
		n++
		b.StartTimer()
		r, err := e.Run(b.Context(), mover.Job{
			Run: wire.RunID{byte(n), byte(n >> 8), 1}, Mode: wire.ModeCopy,
			Source: mover.Endpoint{Name: "source", Open: open(source)}, Target: mover.Endpoint{Name: "target", Open: open(target)},
		}, new(mover.Progress))
		if err != nil {
			b.Fatal(err)
		}
		sent, wireBytes = r.Counters.Sent, r.Counters.Wire
	}
	if want := int64(len(changed)) * cbt.GrainSize; sent > want || sent == 0 && want > 0 {
		b.Fatalf("%d bytes were sent, %d are in grains that differ", sent, want)
	}
	b.ReportMetric(float64(sent)/(1<<20), "MiB-sent")
	b.ReportMetric(float64(wireBytes)/(1<<20), "MiB-wire")
}

// spoil names percent of the grains of p, seeded; who flips a bit in each makes
// them different.
func spoil(p []byte, percent int) (grains []int) {
	for _, g := range rand.New(rand.NewPCG(5, 5)).Perm(len(p) / cbt.GrainSize) {
		if len(grains)*100 < percent*(len(p)/cbt.GrainSize) {
			grains = append(grains, g)
		}
	}
	return grains
}
