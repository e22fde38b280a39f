package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// copyOnto copies want to f in this process.
func copyOnto(ctx context.Context, e *mover.Engine, want []byte, f *movertest.Faulty) error {
	_, err := e.Run(ctx, mover.Job{
		Run: wire.RunID{1}, Mode: wire.ModeCopy, Source: endpoint("source", disk(want)),
		Target: mover.Endpoint{Name: "target", Open: func(context.Context, mover.Access) (mover.Disk, error) { return f, nil }},
	}, new(mover.Progress))
	return err
}

// other is a target of which every grain differs from an image.
func other(size int) (*movertest.Faulty, error) {
	m, err := disk(bytes.Repeat([]byte{2}, size)).Reopen(movertest.ReadWrite)
	return movertest.NewFaulty(m), err
}

// After a job was cancelled no call that writes begins, also of a batch whose
// first write has begun: a batch is up to 128 calls, which a disk that a later
// epoch has taken would still get, and its successor would wait for.
func TestNoWriteBeginsAfterCancel(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"WriteAt", "Zero"} {
		err := bubble(t, func(ctx context.Context) error {
			want := bytes.Repeat([]byte{1}, cbt.BatchSize) // one batch: zeros and data in turn
			for off := 0; off < len(want); off += 2 * cbt.GrainSize {
				clear(want[off : off+cbt.GrainSize])
			}
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			f, err := other(len(want))
			if err != nil {
				return err
			}
			f.Plan(movertest.Fault{Op: op, Nth: 2, Hook: func() {
				cancel()
				time.Sleep(time.Second)
			}})
			e, err := mover.NewEngine(mover.Config{Memory: 64 << 20}, memState{})
			if err != nil {
				return err
			}
			defer func() { _ = e.Close() }()
			if err := copyOnto(ctx, e, want, f); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("the job ended with %w", err)
			}
			if n := f.Calls("WriteAt") + f.Calls("Zero"); n > 4 {
				return fmt.Errorf("%d calls that write, of which at most 4 were made when the job was cancelled", n)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// The last batches are flushed together, not each by itself: a flush of the disk
// and two of the journal take longer than their writes.
func TestFlushesOfTheEndAreFew(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		err := bubble(t, func(ctx context.Context) error {
			f, err := other(40 << 20)
			if err != nil {
				return err
			}
			var n atomic.Int64
			f.Plan(
				movertest.Fault{Op: "WriteAt", Count: -1, Hook: func() { time.Sleep(time.Duration(10+n.Add(1)%7) * time.Millisecond) }},
				movertest.Fault{Op: "Flush", Count: -1, Hook: func() { time.Sleep(2 * time.Millisecond) }},
			)
			e, err := mover.NewEngine(mover.Config{Memory: 128 << 20, Workers: workers}, memState{})
			if err != nil {
				return err
			}
			defer func() { _ = e.Close() }()
			if err := copyOnto(ctx, e, image(rand.New(rand.NewPCG(1, 2)), 40<<20), f); err != nil {
				return err
			}
			if n := f.Calls("Flush"); n > 4 { // at the begin, a checkpoint, at the end
				return fmt.Errorf("%d flushes for 40 batches in 150 ms", n)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%d workers: %v", workers, err)
		}
	}
}

// A session that ends while frames wait to be written gives their buffers back:
// what is lent out of the store for ever, all disks of the daemon lack.
func TestFailedWriteGivesAllBack(t *testing.T) {
	t.Parallel()
	err := bubble(t, func(ctx context.Context) error {
		f, err := other(40 << 20)
		if err != nil {
			return err
		}
		f.Plan(movertest.Fault{Op: "WriteAt", Nth: 6, Count: -1, Err: syscall.EIO, Hook: func() { time.Sleep(time.Second) }})
		e, err := mover.NewEngine(mover.Config{Memory: 128 << 20}, memState{})
		if err != nil {
			return err
		}
		defer func() { _ = e.Close() }()
		missing := e.CountBuffers()
		want := make([]byte, 40<<20)
		rand.NewChaCha8([32]byte{}).Read(want)
		if err := copyOnto(ctx, e, want, f); err == nil {
			return errors.New("a copy with a failing write did not fail")
		}
		if n := missing(); n != 0 {
			return fmt.Errorf("%d buffers were not given back", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
