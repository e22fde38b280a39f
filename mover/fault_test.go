package mover_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// TestDiskFaults is the matrix of reliability section 2.3: every fault is an
// error with a code of its own or is healed in the run, the target is never
// called Verified when it is not, and the next run heals what is left.
func TestDiskFaults(t *testing.T) {
	mid := cbt.Extent{Off: 2 << 20, Len: 1}
	always := -1
	for name, c := range map[string]struct {
		source, target []movertest.Fault
		code           wire.Code // CodeOK: healed in the run
		or             wire.Code // as good: which call meets a device that is gone first is chance
		state          wire.State
	}{
		"K1 source unreadable for good":            {source: []movertest.Fault{{Op: "ReadAt", Extent: mid, Count: always, Err: syscall.EIO}}, code: wire.CodeUnreadable, state: wire.StateInconsistent},
		"K1 source unreadable once":                {source: []movertest.Fault{{Op: "ReadAt", Extent: mid, Count: 2, Err: syscall.EIO}}, state: wire.StateVerified},
		"K2 write error":                           {target: []movertest.Fault{{Op: "WriteAt", Nth: 2, Err: syscall.EIO}}, code: wire.CodeWrite, state: wire.StateInconsistent},
		"K2 zero error":                            {target: []movertest.Fault{{Op: "Zero", Err: syscall.EIO}}, code: wire.CodeWrite, state: wire.StateInconsistent},
		"K3 flush error once":                      {target: []movertest.Fault{{Op: "Flush", Nth: 2, Err: syscall.EIO}}, state: wire.StateVerified},
		"K3 flush error twice":                     {target: []movertest.Fault{{Op: "Flush", Nth: 2, Count: always, Err: syscall.EIO}}, code: wire.CodePoisoned, state: wire.StatePoisoned},
		"K5 target full at a write":                {target: []movertest.Fault{{Op: "WriteAt", Nth: 2, Err: syscall.ENOSPC, Done: 512}}, code: wire.CodeNoSpace, state: wire.StateInconsistent},
		"K5 target full at the flush":              {target: []movertest.Fault{{Op: "Flush", Nth: 2, Err: syscall.ENOSPC}}, code: wire.CodeNoSpace, state: wire.StateInconsistent},
		"K6 short write with an error":             {target: []movertest.Fault{{Op: "WriteAt", Done: 4096, Err: syscall.EIO}}, code: wire.CodeWrite, state: wire.StateInconsistent},
		"K6 silently short write":                  {target: []movertest.Fault{{Op: "WriteAt", Nth: 2, Done: 4096, Silent: true}}, state: wire.StateVerified},
		"K7 one lying flush":                       {target: []movertest.Fault{{Op: "Flush", Nth: 2, Silent: true}}, state: wire.StateVerified},
		"K8 bit flipped in a write":                {target: []movertest.Fault{{Op: "WriteAt", Nth: 2, Flip: true}}, state: wire.StateVerified},
		"K8 bits flipped in every write":           {target: []movertest.Fault{{Op: "WriteAt", Count: always, Flip: true}}, code: wire.CodePoisoned, state: wire.StatePoisoned},
		"K9 bit flipped in a read":                 {target: []movertest.Fault{{Op: "ReadCold", Nth: 2, Flip: true}}, state: wire.StateVerified},
		"it was another's meanwhile":               {target: []movertest.Fault{{Op: "End", Nth: 1, Err: errors.New("it is attached elsewhere")}}, code: wire.CodeDiskChanged, state: wire.StateInconsistent},
		"K10 size changed":                         {target: []movertest.Fault{{Op: "Check", Nth: 2, Err: errors.New("size is 1 now, was 2")}}, code: wire.CodeDiskChanged, state: wire.StateInconsistent},
		"K11 target gone":                          {target: []movertest.Fault{{Op: "WriteAt", Nth: 3, Gone: true}}, code: wire.CodeWrite, or: wire.CodeDiskChanged, state: wire.StateInconsistent},
		"K11 target gone in read-back":             {target: []movertest.Fault{{Op: "ReadCold", Nth: 10, Gone: true}}, code: wire.CodeWrite, or: wire.CodeDiskChanged, state: wire.StateInconsistent},
		"K11 target unreadable, mended by writing": {target: []movertest.Fault{{Op: "ReadCold", Extent: mid, Count: 2, Err: syscall.EIO}}, state: wire.StateVerified},
		"K14 a write takes 3 minutes":              {target: []movertest.Fault{{Op: "WriteAt", Hook: func() { time.Sleep(3 * time.Minute) }}}, state: wire.StateVerified},
		"K14 a flush takes 3 minutes":              {target: []movertest.Fault{{Op: "Flush", Nth: 2, Hook: func() { time.Sleep(3 * time.Minute) }}}, state: wire.StateVerified},
		"K14 a source read takes 40 s":             {source: []movertest.Fault{{Op: "ReadAt", Nth: 5, Hook: func() { time.Sleep(40 * time.Second) }}}, state: wire.StateVerified},
		"closing the target fails":                 {target: []movertest.Fault{{Op: "Close", Err: syscall.EIO}}, state: wire.StateVerified},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(4, 4))
			want := image(rng, 6<<20+333)
			before := bytes.Clone(want)
			for off := 0; off < len(before); off += 96 << 10 { // something to write in every batch
				before[off] ^= 0x55
			}
			before[2<<20] ^= 1
			src, dst := disk(want), disk(before)
			state := movertest.NewCrashableState(movertest.NewPower())
			cfg := mover.Config{Memory: 64 << 20, Workers: 1, Checkpoint: 1 << 20, Window: 4 << 20}
			first := copyOnce(t, cfg, state, faulty(src, c.source), faulty(dst, c.target))
			if got := codeOf(first.err); got != c.code && (c.or == 0 || got != c.or) {
				t.Errorf("the run ended with %v, want code %v", first.err, c.code)
			}
			if first.journal.State != c.state {
				t.Errorf("the journal says %v (%s), want %v", first.journal.State, first.journal.Reason, c.state)
			}
			equal := bytes.Equal(dst.Bytes(), want)
			if first.journal.State == wire.StateVerified && !equal || first.err == nil && !equal {
				t.Error("Verified, and the disks differ")
			}
			next := copyOnce(t, cfg, state, faulty(src, nil), faulty(dst, nil))
			if next.err != nil || next.journal.State != wire.StateVerified || !bytes.Equal(dst.Bytes(), want) {
				t.Errorf("the next run did not heal the disk: %v, %v", next.err, next.journal.State)
			}
		})
	}
}

// faulty opens m with the same planned faults for all its opens.
func faulty(m *movertest.Memory, faults []movertest.Fault) mover.OpenDisk {
	plan := movertest.NewFaulty(nil, faults...)
	return func(_ context.Context, a mover.Access) (mover.Disk, error) {
		mode := movertest.ReadOnly
		if a == mover.ReadWrite {
			mode = movertest.ReadWrite
		}
		d, err := m.Reopen(mode)
		if err != nil {
			return nil, err
		}
		return plan.On(d), nil
	}
}

func codeOf(err error) wire.Code {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	if err != nil {
		return wire.CodeInternal
	}
	return wire.CodeOK
}

type ending struct {
	rep     mover.Report
	err     error
	journal mover.JournalState
}

// copyOnce runs one copy with its own engine, run ID and bubble.
func copyOnce(t *testing.T, cfg mover.Config, state *movertest.CrashableState, from, to mover.OpenDisk) (e ending) {
	runs++
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		engine, err := mover.NewEngine(cfg, state.Mount())
		if err != nil {
			t.Fatal(err)
		}
		job := mover.Job{
			Run: wire.RunID{runs}, Mode: wire.ModeCopy, Retry: 10 * time.Minute,
			Source: mover.Endpoint{Name: "source", Open: from}, Target: mover.Endpoint{Name: "target", Open: to},
		}
		e.rep, e.err = engine.Run(ctx, job, new(mover.Progress))
		_ = engine.Close() // a planned fault of Close
		d, err := to(ctx, mover.ReadOnly)
		if err != nil {
			t.Fatal(err)
		}
		e.journal, err = mover.ReadJournal(state.Mount(), d.Identity())
		_ = d.Close() // only read
		if err != nil {
			t.Fatal(err)
		}
	})
	return e
}

var runs byte // run IDs of copyOnce, one after another

// The whole run is refused before anything is touched.
func TestRefusedBeforeItBegins(t *testing.T) {
	want := image(rand.New(rand.NewPCG(1, 9)), 3<<20)
	t.Run("no space for the journal", func(t *testing.T) {
		state := movertest.NewCrashableState(movertest.NewPower())
		state.SetSpace(1 << 20)
		dst := disk(make([]byte, len(want)))
		engine, err := mover.NewEngine(mover.Config{}, state.Mount())
		if err != nil {
			t.Fatal(err)
		}
		defer engine.Close() // holds nothing
		_, err = run(t, engine, mover.Job{Source: endpoint("source", disk(want)), Target: endpoint("target", dst)})
		if codeOf(err) != wire.CodeNoSpace || !cbt.IsZero(dst.Bytes()) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("empty source", func(t *testing.T) {
		dst := disk(make([]byte, 5))
		for _, mode := range []wire.Mode{wire.ModeCopy, wire.ModeVerify} {
			rep, err := run(t, newEngine(t, mover.Config{}), mover.Job{Mode: mode, Source: endpoint("source", disk(nil)), Target: endpoint("target", dst)})
			if codeOf(err) != wire.CodeTooSmall || rep.Equal {
				t.Errorf("mode %d: nothing was compared, and the run ended with %v", mode, err)
			}
		}
	})
	t.Run("source and target swapped after an interrupted copy", func(t *testing.T) {
		src, dst := disk(want), disk(make([]byte, len(want)))
		e := newEngine(t, mover.Config{})
		broken := faulty(dst, []movertest.Fault{{Op: "WriteAt", Nth: 2, Err: syscall.EIO}})
		if _, err := run(t, e, mover.Job{Source: endpoint("source", src), Target: mover.Endpoint{Name: "target", Open: broken}}); codeOf(err) != wire.CodeWrite {
			t.Fatalf("the first copy ended with %v", err)
		}
		_, err := run(t, e, mover.Job{Run: wire.RunID{2}, Source: endpoint("target", dst), Target: endpoint("source", src)})
		if codeOf(err) != wire.CodeRole || !bytes.Equal(src.Bytes(), want) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("target too small", func(t *testing.T) {
		dst := disk(make([]byte, len(want)-1))
		_, err := run(t, newEngine(t, mover.Config{}), mover.Job{Source: endpoint("source", disk(want)), Target: endpoint("target", dst)})
		if codeOf(err) != wire.CodeTooSmall || !cbt.IsZero(dst.Bytes()) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("same disk on both sides", func(t *testing.T) {
		both := disk(want)
		_, err := run(t, newEngine(t, mover.Config{}), mover.Job{Source: endpoint("source", both), Target: endpoint("target", both)})
		if codeOf(err) != wire.CodeBusy {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("target held by another", func(t *testing.T) {
		dst := movertest.NewMemory(int64(len(want)))
		defer dst.Close() // still open: the test holds it
		_, err := run(t, newEngine(t, mover.Config{}), mover.Job{Source: endpoint("source", disk(want)), Target: endpoint("target", dst)})
		if codeOf(err) != wire.CodeBusy {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("larger target", func(t *testing.T) {
		tail := []byte("what lies behind stays")
		dst := disk(append(make([]byte, len(want)), tail...))
		rep, err := run(t, newEngine(t, mover.Config{}), mover.Job{Source: endpoint("source", disk(want)), Target: endpoint("target", dst)})
		if err != nil || rep.Larger != int64(len(tail)) || !bytes.Equal(dst.Bytes(), append(bytes.Clone(want), tail...)) {
			t.Errorf("ended with %v, larger %d", err, rep.Larger)
		}
	})
}
