package mover_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// readCount is a memory disk that counts the bytes that are read of it.
type readCount struct {
	*movertest.Memory
	n *atomic.Int64
}

func (r readCount) ReadAt(p []byte, off int64) (int, error) {
	r.n.Add(int64(len(p)))
	return r.Memory.ReadAt(p, off)
}

func (r readCount) ReadCold(p []byte, off int64) (int, error) {
	r.n.Add(int64(len(p)))
	return r.Memory.ReadCold(p, off)
}

// Holes on both sides are neither read nor hashed, a hole at the source over
// data at the target is punched, and data over a hole are written.
func TestHoles(t *testing.T) {
	const size = 4 << 30 // sparse
	source, target := movertest.NewMemory(size), movertest.NewMemory(size)
	put := func(m *movertest.Memory, off int64, c byte) {
		if _, err := m.WriteAt(bytes.Repeat([]byte{c}, 3*cbt.GrainSize), off); err != nil {
			t.Fatal(err)
		}
	}
	put(source, 1<<30, 1)       // over a hole
	put(target, 2<<30, 2)       // under a hole
	put(source, 3<<30+65536, 3) // on both sides, and equal
	put(target, 3<<30+65536, 3)
	_, _ = source.Close(), target.Close()
	var read atomic.Int64
	open := func(m *movertest.Memory) mover.OpenDisk {
		return func(_ context.Context, a mover.Access) (mover.Disk, error) {
			mode := movertest.ReadOnly
			if a == mover.ReadWrite {
				mode = movertest.ReadWrite
			}
			d, err := m.Reopen(mode)
			return readCount{d, &read}, err
		}
	}
	rep, err := run(t, newEngine(t, mover.Config{}), mover.Job{
		Source: mover.Endpoint{Name: "source", Open: open(source)}, Target: mover.Endpoint{Name: "target", Open: open(target)},
	})
	if err != nil || rep.State != wire.StateVerified {
		t.Fatalf("copy: %v, %v", err, rep.State)
	}
	if off := source.FirstDifference(target); off >= 0 {
		t.Errorf("the disks differ at %d", off)
	}
	c := rep.Counters
	if c.Differing != 6*cbt.GrainSize || c.Zero != 3*cbt.GrainSize || c.Holes < size-8*cbt.BatchSize {
		t.Errorf("counters %+v", c)
	}
	// First and last batch of both, and the batches with data.
	if n := read.Load(); n > 10*cbt.BatchSize {
		t.Errorf("%d bytes were read of two disks with 9 grains of data", n)
	}
	if a := target.Allocated(); a > source.Allocated() {
		t.Errorf("the target has %d bytes allocated, the source %d", a, source.Allocated())
	}
}

// hearsay is a disk behind a server that calls its first 8 MiB a hole.
type hearsay struct{ *movertest.Memory }

func (hearsay) Coldness() string { return "server" }

func (h hearsay) NextData(off int64) (cbt.Extent, error) {
	off = max(off, 8<<20)
	if off >= h.Size() {
		return cbt.Extent{}, io.EOF
	}
	return cbt.Extent{Off: off, Len: h.Size() - off}, nil
}

// allData is a disk that knows no holes.
type allData struct{ *movertest.Memory }

func (d allData) NextData(off int64) (cbt.Extent, error) {
	if off >= d.Size() {
		return cbt.Extent{}, io.EOF
	}
	return cbt.Extent{Off: off, Len: d.Size() - off}, nil
}

// A server that calls data a hole does not make them equal to zeros of the
// source: a copy writes zeros there and reads them back, a comparison reads.
func TestServersMapIsHearsay(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	want := image(rng, 16<<20)
	clear(want[:8<<20+3*cbt.GrainSize])
	before := image(rng, len(want))
	for _, mode := range []wire.Mode{wire.ModeVerify, wire.ModeCopy} {
		src, dst := disk(want), disk(before)
		job := mover.Job{Mode: mode}
		job.Source = mover.Endpoint{Name: "source", Open: func(context.Context, mover.Access) (mover.Disk, error) {
			m, err := src.Reopen(movertest.ReadOnly)
			return allData{m}, err
		}}
		job.Target = mover.Endpoint{Name: "target", Open: func(_ context.Context, a mover.Access) (mover.Disk, error) {
			how := movertest.ReadOnly
			if a == mover.ReadWrite {
				how = movertest.ReadWrite
			}
			m, err := dst.Reopen(how)
			return hearsay{m}, err
		}}
		rep, err := run(t, newEngine(t, mover.Config{}), job)
		if mode == wire.ModeVerify {
			if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeVerify || rep.Equal {
				t.Errorf("verify: %v (%+v)", err, rep)
			}
			continue
		}
		if err != nil || !bytes.Equal(dst.Bytes(), want) {
			t.Errorf("copy: %v, equal bytes %t (%+v)", err, bytes.Equal(dst.Bytes(), want), rep)
		}
	}
}
