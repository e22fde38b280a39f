package mover_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

// TestRestoreCrashPoints cuts the power in each durable action of a small
// restore in turn, and restores again.
func TestRestoreCrashPoints(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rng := rand.New(rand.NewPCG(11, 0))
	want := image(rng, 2<<20+777)
	before := bytes.Clone(want)
	scribble(rng, before, 20)
	e, root := newEngine(t, mover.Config{}), cbt.Digest{1}
	full, _ := dump(t, e, disk(want), mover.DumpOptions{})
	changed, _ := changedDump(t, e, before, want, archive.Base{Root: root}, 0xe)
	for _, survive := range []int{0, 50, 100} {
		for kind, stream := range map[string][]byte{"full": full, "changed": changed} {
			n := 1
			for cut := true; cut; n++ {
				synctest.Test(t, func(t *testing.T) { cut = restoreCut(t, stream, root, before, want, n, survive) })
			}
			if n < 20 {
				t.Errorf("only %d crash points: the restore is too small to prove anything", n)
			}
			t.Logf("figure: restore, %s: %d crash points with %d %% surviving", kind, n-2, survive)
		}
	}
}

func restoreCut(t *testing.T, stream []byte, root cbt.Digest, before, want []byte, n, survive int) (cut bool) {
	power := movertest.NewPower()
	state, dev := movertest.NewCrashableState(power), movertest.NewCrashableFrom(power, before)
	open := func(_ context.Context, a mover.Access) (mover.Disk, error) {
		mode := movertest.ReadOnly
		if a == mover.ReadWrite {
			mode = movertest.ReadWrite
		}
		return dev.Open(mode)
	}
	life := func() error {
		e, err := mover.NewEngine(mover.Config{Memory: 64 << 20, Workers: 1, Checkpoint: 1 << 20, Window: 4 << 20, Batches: 64, Refine: []mover.Choice{mover.Off, mover.On}[n%2]}, state.Mount())
		if err != nil {
			t.Fatal(err)
		}
		_, err = restore(t, e, mover.Endpoint{Name: "target", Open: open}, bytes.NewReader(stream), mover.RestoreOptions{Base: root})
		_ = e.Close() // after a crash it can only fail
		return err
	}
	power.CutAt(n)
	err := life()
	cut = power.IsCut()
	power.Crash(rand.New(rand.NewPCG(uint64(n), uint64(survive))), survive)
	d, derr := dev.Open(movertest.ReadOnly)
	if derr != nil {
		t.Fatal(derr)
	}
	st, jerr := mover.ReadJournal(state.Mount(), d.Identity())
	_ = d.Close()
	have := dev.Durable()
	equal, touched := bytes.Equal(have, want), !bytes.Equal(have, before)
	switch {
	case jerr != nil:
		t.Fatalf("cut in action %d: journal: %v", n, jerr)
	case (st.State == wire.StateVerified || err == nil) && !equal:
		t.Fatalf("cut in action %d: Verified (%v, %v) and different", n, st.State, err)
	case touched && st.State != wire.StateInconsistent && st.State != wire.StateVerified && st.State != wire.StateCopied:
		t.Fatalf("cut in action %d: touched, and the journal says %v", n, st.State)
	}
	if cut {
		if err := life(); err != nil || !bytes.Equal(dev.Bytes(), want) {
			t.Fatalf("cut in action %d: the second restore: %v", n, err)
		}
	}
	return cut
}

// TestRestoreSlowStream: who changes a tape is given the time. One worker: a bubble
// has no time for those that wait for a mutex.
func TestRestoreSlowStream(t *testing.T) {
	want := image(rand.New(rand.NewPCG(5, 5)), 6<<20)
	stream, _ := dump(t, newEngine(t, mover.Config{}), disk(want), mover.DumpOptions{})
	synctest.Test(t, func(t *testing.T) {
		e, err := mover.NewEngine(mover.Config{Memory: 64 << 20, Workers: 1}, movertest.NewCrashableState(movertest.NewPower()).Mount())
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		r, err := archive.NewReader(io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), tape{bytes.NewReader(stream[len(stream)/2:]), 10 * time.Minute}))
		if err != nil {
			t.Fatal(err)
		}
		dst := disk(make([]byte, len(want)))
		rep, err := e.Restore(t.Context(), endpoint("target", dst), r, mover.RestoreOptions{}, new(mover.Progress))
		if err != nil || rep.State != wire.StateVerified || !bytes.Equal(dst.Bytes(), want) {
			t.Errorf("%v, %v", err, rep.State)
		}
	})
}

// tape is slow at every read.
type tape struct {
	io.Reader
	wait time.Duration
}

func (r tape) Read(p []byte) (int, error) {
	time.Sleep(r.wait)
	return r.Reader.Read(p)
}
