package mover_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// flat is a disk of one buffer that allocates nothing when used.
type flat struct{ b []byte }

func (f *flat) ReadAt(p []byte, off int64) (int, error)  { return copy(p, f.b[off:]), nil }
func (f *flat) WriteAt(p []byte, off int64) (int, error) { return copy(f.b[off:], p), nil }
func (f *flat) Size() int64                              { return int64(len(f.b)) }
func (f *flat) Identity() string                         { return "flat" }
func (f *flat) Flush() error                             { return nil }
func (f *flat) Close() error                             { return nil }

// mallocs is how many allocations a copy makes.
func mallocs(t *testing.T, e *mover.Engine, from, to []byte) uint64 {
	t.Helper()
	open := func(b []byte) mover.OpenDisk {
		return func(context.Context, mover.Access) (mover.Disk, error) { return &flat{b}, nil }
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := e.Run(ctx, mover.Job{
		Run: wire.RunID{1}, Mode: wire.ModeCopy, Source: mover.Endpoint{Open: open(from)}, Target: mover.Endpoint{Open: open(to)},
	}, new(mover.Progress))
	runtime.ReadMemStats(&after)
	if err != nil || !bytes.Equal(from, to) {
		t.Fatalf("copy: %v", err)
	}
	return after.Mallocs - before.Mallocs
}

// TestDataPathAllocatesNothing compares a copy with one of four times the size:
// what it allocates more is less than one allocation per grain,
// which leaves the pools that fill up, control frames and checkpoints, of which there is one per many
// batches, the more of them the slower the machine is.
func TestDataPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const small, large = 32 << 20, 160 << 20
	for _, kind := range []string{"equal", "different", "refined"} {
		t.Run(kind, func(t *testing.T) {
			e := newEngine(t, mover.Config{Refine: map[string]mover.Choice{"refined": mover.On}[kind]})
			want := image(rand.New(rand.NewPCG(1, 1)), large)
			target := func(n int) []byte {
				if kind != "different" {
					b := bytes.Clone(want[:n])
					for at := 100; at < n && kind == "refined"; at += 20 << 10 { // in all grains that are no zeros, in three places
						b[at] ^= b[at]>>1 | 1
					}
					return b
				}
				return bytes.Repeat([]byte{7}, n)
			}
			mallocs(t, e, want[:small], target(small)) // fills the pools
			few, many := mallocs(t, e, want[:small], target(small)), mallocs(t, e, want, target(large))
			perBatch := (float64(many) - float64(few)) / ((large - small) >> 20)
			t.Logf("%d allocations for 32 MiB, %d for 160 MiB: %.2f per MiB", few, many, perBatch)
			if perBatch > 16 {
				t.Errorf("%.2f allocations per batch of 16 grains: something is allocated per grain", perBatch)
			}
		})
	}
}

// BenchmarkEqual compares two equal disks in memory: what all that is asked per
// piece costs on top of reading and hashing.
func BenchmarkEqual(b *testing.B) {
	const size = 256 << 20
	content := bytes.Repeat([]byte("haulback "), size/9+1)[:size]
	open := func(context.Context, mover.Access) (mover.Disk, error) { return &flat{content}, nil }
	e, err := mover.NewEngine(mover.Config{}, memState{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(2 * size)
	for b.Loop() {
		_, err := e.Run(b.Context(), mover.Job{
			Run: wire.RunID{1}, Mode: wire.ModeVerify, Source: mover.Endpoint{Open: open}, Target: mover.Endpoint{Open: open},
		}, new(mover.Progress))
		if err != nil {
			b.Fatal(err)
		}
	}
	_ = e.Close() // holds nothing
}
