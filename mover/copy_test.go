package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// newEngine is an engine with its journals in a directory of its own.
func newEngine(t *testing.T, cfg mover.Config) *mover.Engine {
	t.Helper()
	dir, err := mover.DirState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e, err := mover.NewEngine(cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	e.GuardBuffers()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
		_ = dir.Close()
	})
	return e
}

// disk is a memory disk with content, not open.
func disk(content []byte) *movertest.Memory {
	m := movertest.NewMemoryFrom(content)
	_ = m.Close()
	return m
}

// endpoint opens m anew for each use.
func endpoint(name string, m *movertest.Memory) mover.Endpoint {
	return mover.Endpoint{Name: name, Open: func(_ context.Context, a mover.Access) (mover.Disk, error) {
		mode := movertest.ReadOnly
		if a == mover.ReadWrite {
			mode = movertest.ReadWrite
		}
		return m.Reopen(mode)
	}}
}

// image is seeded content: about a third zeros, the rest half text, half noise.
func image(rng *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for off := 0; off < size; off += cbt.GrainSize {
		p := b[off:min(off+cbt.GrainSize, size)]
		switch rng.IntN(3) {
		case 1:
			for i := range p {
				p[i] = "haulback "[(i+off/7)%9]
			}
		case 2:
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		}
	}
	return b
}

// scribble changes n places of b by up to 64 KiB each.
func scribble(rng *rand.Rand, b []byte, n int) {
	for range n {
		off := rng.IntN(len(b))
		p := b[off:min(len(b), off+1+rng.IntN(64<<10))]
		if rng.IntN(3) == 0 {
			clear(p)
			continue
		}
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
	}
}

func run(t *testing.T, e *mover.Engine, job mover.Job) (mover.Report, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if job.Mode == 0 {
		job.Mode = wire.ModeCopy
	}
	if job.Run == (wire.RunID{}) {
		job.Run = wire.RunID{1}
	}
	return e.Run(ctx, job, new(mover.Progress))
}

func TestCopyMakesEqual(t *testing.T) {
	const mib = 1 << 20
	for _, size := range []int{1, 777, 64 << 10, mib, mib + 1, 5*mib + 777, 40 * mib} {
		for _, kind := range []string{"empty", "same", "changed", "other"} {
			t.Run(fmt.Sprintf("%d/%s", size, kind), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(size), 1))
				want := image(rng, size)
				var target []byte
				switch kind {
				case "same":
					target = bytes.Clone(want)
				case "changed":
					target = bytes.Clone(want)
					scribble(rng, target, 1+size/mib)
				case "other":
					target = image(rng, size)
				}
				if target == nil {
					target = make([]byte, size) // all hole
				}
				src, dst := disk(want), disk(target)
				e := newEngine(t, mover.Config{})
				job := mover.Job{Source: endpoint("source", src), Target: endpoint("target", dst)}
				rep, err := run(t, e, job)
				if err != nil {
					t.Fatalf("copy: %v (%+v)", err, rep)
				}
				if !bytes.Equal(dst.Bytes(), want) {
					t.Fatal("the target differs from the source")
				}
				if rep.State != wire.StateVerified || !rep.Equal || rep.Counters.Verified != int64(size) || rep.Counters.Scanned != int64(size) {
					t.Errorf("report %+v of an equal pair of %d bytes", rep, size)
				}
				if kind == "same" && rep.Counters.Sent != 0 {
					t.Errorf("sent %d bytes of equal disks", rep.Counters.Sent)
				}
				again, err := run(t, e, job)
				if err != nil || again.Counters.Sent != 0 || again.Root != rep.Root {
					t.Errorf("second copy: %v, sent %d, roots %x %x", err, again.Counters.Sent, again.Root, rep.Root)
				}
				ver, err := run(t, e, mover.Job{Mode: wire.ModeVerify, Source: job.Source, Target: job.Target})
				if err != nil || !ver.Equal || ver.Root != rep.Root {
					t.Errorf("verify: %v, equal %v", err, ver.Equal)
				}
			})
		}
	}
}

func TestVerifyFindsDifferences(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	a := image(rng, 9<<20+99)
	b := bytes.Clone(a)
	for _, off := range []int{0, 3<<20 + 17, 9<<20 + 98} {
		b[off]++
	}
	src, dst := disk(a), disk(b)
	e := newEngine(t, mover.Config{})
	rep, err := run(t, e, mover.Job{Mode: wire.ModeVerify, Source: endpoint("a", src), Target: endpoint("b", dst)})
	if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeVerify {
		t.Fatalf("verify of different disks: %v", err)
	}
	if rep.Equal || len(rep.Bad) != 3 || rep.Counters.Bad != 3 || rep.Bad[1].Off != 3<<20 {
		t.Errorf("report %+v", rep)
	}
	if !bytes.Equal(dst.Bytes(), b) {
		t.Error("verify wrote to the target")
	}
}
