package failback_test

import (
	"context"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// slow reads a disk in a minute.
type slow struct{ *hosttest.Mover }

func (s slow) Compare(ctx context.Context, m *failback.Move) (failback.Likeness, error) {
	time.Sleep(time.Minute)
	return s.Mover.Compare(ctx, m)
}

// TestMeasuredPlanSaysHowLong: what was read tells how long pass 1 takes at most;
// without reading nobody says a time.
func TestMeasuredPlanSaysHowLong(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.close()
		w.conf.Mover = slow{w.mover}
		w.open()
		plan := func(measure bool) failback.Plan {
			t.Helper()
			p, err := w.e.Plan(t.Context(), home(), measure)
			if err != nil || len(p.Problems) > 0 {
				t.Fatalf("%v %+v", err, p.Problems)
			}
			return p
		}
		if p := plan(false); p.Time != 0 {
			t.Errorf("%v, and nothing was measured", p.Time)
		}
		if p := plan(true); p.Time < 2*time.Minute { // two disks
			t.Errorf("pass 1 takes %v, and a sample took two minutes", p.Time)
		}
	})
}
