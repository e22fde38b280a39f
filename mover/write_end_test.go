package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// After a job was cancelled no call that writes begins, also of a batch whose
// first write has begun: a batch is up to 128 calls, which a fenced disk would
// still get, and its successor would wait for.
func TestNoWriteBeginsAfterCancel(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"WriteAt", "Zero"} {
		err := bubble(t, func(ctx context.Context) error {
			want := bytes.Repeat([]byte{1}, cbt.BatchSize) // one batch: data and zeros in turn
			for off := 0; off < len(want); off += 2 * cbt.GrainSize {
				copy(want[off:], make([]byte, cbt.GrainSize))
			}
			m, err := disk(bytes.Repeat([]byte{2}, len(want))).Reopen(movertest.ReadWrite)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(ctx)
			f := movertest.NewFaulty(m)
			f.Plan(movertest.Fault{Op: op, Nth: 2, Hook: func() {
				cancel()
				time.Sleep(time.Second)
			}})
			e, err := mover.NewEngine(mover.Config{Memory: 64 << 20}, memState{})
			if err != nil {
				return err
			}
			defer e.Close()
			_, err = e.Run(ctx, mover.Job{
				Run: wire.RunID{1}, Mode: wire.ModeCopy, Source: endpoint("source", disk(want)),
				Target: mover.Endpoint{Name: "target", Open: func(context.Context, mover.Access) (mover.Disk, error) { return f, nil }},
			}, new(mover.Progress))
			if !errors.Is(err, context.Canceled) {
				return fmt.Errorf("the job ended with %v", err)
			}
			if n := f.Calls("WriteAt") + f.Calls("Zero"); n > 4 {
				return fmt.Errorf("%d calls that write, of which 4 were made when the job was cancelled", n)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}
