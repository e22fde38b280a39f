package failback_test

import (
	"testing"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// TestUndoWithoutItsMover follows the operator's guide: the mover that compares the
// replica is away for long, so somebody makes the replica serve by the host's own
// means. Nothing is written to it, and the undo can be brought to its end without
// losing what its users have written since.
func TestUndoWithoutItsMover(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(home())
		w.activity(failback.Deciding)
		proceed := func() {
			t.Helper()
			if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
				t.Fatal(err)
			}
		}
		w.mover.Plan(hosttest.Fault{Method: "Compare", Times: 5, When: hosttest.Before})
		if _, err := w.e.Undo(t.Context(), "fb1", failback.UndoOptions{By: "root"}, 0); err != nil {
			t.Fatal(err)
		}
		w.until("the undo to wait", func(s *failback.Status) bool { return s.Activity == failback.Undoing && s.Wait != "" })
		w.dr.Change("r", func(vm *hostctl.VM) { vm.Power = hostctl.On }) // reverted and powered on by hand
		if err := w.dr.Write("r", 0, 100, []byte("since then")); err != nil {
			t.Fatal(err)
		}
		serves := w.bytes(w.dr, w.replica)
		if h := w.halted().Halted; h.Reason != failback.ReasonPoweredOn || h.Step != "undo-restore-replica" {
			t.Fatalf("%+v", h)
		}
		w.is(w.dr, w.replica, serves)
		w.dr.Change("r", func(vm *hostctl.VM) { vm.Power, vm.Snapshots = hostctl.Off, nil })
		proceed()
		if h := w.halted().Halted; h.Reason != failback.ReasonSnapshotGone {
			t.Fatalf("%+v", h)
		}
		proceed()
		w.activity(failback.Undone)
		w.state(failback.Failover)
		w.power(w.dr, w.replica, hostctl.On)
		w.is(w.dr, w.replica, serves)
		w.is(w.prod, w.original, w.before)
	})
}
