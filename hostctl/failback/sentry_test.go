package failback_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// visit is somebody who starts a VM, uses it and stops it again.
func visit(w *world, f *hosttest.Fake, vm string, disk int, off int64, text string) {
	f.Outside(vm, hostctl.On)
	time.Sleep(time.Minute)
	if err := f.Write(vm, disk, off, []byte(text)); err != nil {
		w.t.Errorf("write: %v", err)
	}
	f.Outside(vm, hostctl.Off)
	time.Sleep(time.Second)
}

// before does something once before a step.
type before struct {
	step string
	do   func()
}

func (a *before) Run(_ context.Context, h failback.Hook) error {
	if h.Step == a.step && !h.After && a.do != nil {
		do := a.do
		a.do = nil
		do()
	}
	return nil
}

func (a *before) Named(string) []string { return nil }

// TestVisits has VMs that have to be off started and stopped while no pass looks:
// grain 29 is in no sample and in no hint.
func TestVisits(t *testing.T) {
	for _, x := range []struct {
		name, step string
		visit      func(w *world)
	}{
		{"target before the switch", "power-off-replica", func(w *world) { visit(w, w.prod, "o", 1, 29*grain, "garbage") }},
		{"target after the final pass", "state", func(w *world) { visit(w, w.prod, "o", 1, 29*grain, "garbage") }},
		{"replica before its snapshot", "release-tracking", func(w *world) { visit(w, w.dr, "r", 1, 29*grain, "a user's") }},
		{"replica after its snapshot", "final-pass", func(w *world) { visit(w, w.dr, "r", 1, 29*grain, "a user's") }},
		{"replica after the final pass", "state", func(w *world) { visit(w, w.dr, "r", 1, 29*grain, "a user's") }},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.conf.Hooks = &before{x.step, func() { x.visit(w) }}
				w.open()
				defer w.close()
				w.start(home())
				st := w.activity(failback.Deciding)
				w.equal(w.prod, w.original, w.dr, w.replica)
				if len(st.Warnings) == 0 {
					t.Errorf("nobody is told: %s", tell(&st))
				}
				want := w.bytes(w.dr, w.replica)
				w.undo()
				w.is(w.dr, w.replica, want)
				w.is(w.prod, w.original, w.before)
			})
		})
	}
}

// TestVisitWhileReadyToSwitch is the same, where nothing runs for hours.
func TestVisitWhileReadyToSwitch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := home()
		s.Switch.When = failback.WhenManual
		w.start(s)
		w.activity(failback.Standing)
		visit(w, w.prod, "o", 1, 29*grain, "garbage")
		if _, err := w.e.Switch(t.Context(), "fb1", failback.Switch{When: failback.WhenNow}, 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Deciding)
		w.equal(w.prod, w.original, w.dr, w.replica)
	})
}

// TestVisitWhileAway is the same while no controller runs: nobody can know, so the
// next controller compares everything, and does so before the switch.
func TestVisitWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := home()
		s.Switch.When = failback.WhenManual
		w.start(s)
		w.activity(failback.Standing)
		w.close()
		visit(w, w.prod, "o", 1, 29*grain, "garbage")
		w.open()
		if _, err := w.e.Switch(t.Context(), "fb1", failback.Switch{When: failback.WhenNow}, 0); err != nil {
			t.Fatal(err)
		}
		st := w.activity(failback.Deciding)
		w.equal(w.prod, w.original, w.dr, w.replica)
		passes := st.Disks[1].Passes
		if n := len(passes); n < 3 || passes[1].Used != "full" || passes[1].Final || passes[n-1].Used != "hint" {
			t.Errorf("want everything compared before the switch, and a last pass by change tracking: %+v", passes)
		}
	})
}

// TestMovedBack has hosts that say that they have reverted a VM, and visitors
// while it is compared and moved back: it carries the mark before a byte is
// written, and what a visitor wrote does not stay.
func TestMovedBack(t *testing.T) {
	for _, x := range []struct{ name, vm, method string }{
		{"target written to after the revert", "o", "Restore"},
		{"target written to while it is moved back", "o", "Moving"},
		{"replica written to after the revert", "r", "Restore"},
		{"replica written to while it is moved back", "r", "Moving"},
	} {
		t.Run(x.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.start(home())
				w.activity(failback.Deciding)
				want, f := w.before, w.prod
				if x.vm == "r" {
					want, f = w.bytes(w.dr, w.replica), w.dr
				}
				visits := 0
				once := func(m hosttest.Moment) error {
					if m.Method != x.method || !m.Done || m.Method == "Moving" && m.Step != "scsi0:1" || visits > 0 || m.VM != map[string]string{"o": "web", "r": "web-replica"}[x.vm] {
						return nil
					}
					visits++
					visit(w, f, x.vm, 1, 0, "garbage")
					return nil
				}
				f.Hook(once)
				w.mover.Hook(once)
				if x.method == "Moving" {
					f.Plan(hosttest.Fault{Method: "Restore", When: hosttest.Lied, Times: 1})
					visit(w, f, x.vm, 1, 5*grain, "what has to be reverted")
				}
				w.undo()
				if visits == 0 {
					t.Error("nobody came")
				}
				w.is(w.prod, w.original, w.before)
				w.is(f, map[string]hostctl.Ref{"o": w.original, "r": w.replica}[x.vm], want)
				w.noMistakes()
				w.clean(w.prod, w.original)
				w.clean(w.dr, w.replica)
			})
		})
	}
}

// TestNeverTwo has the former original started from outside before the VM that
// takes its place, or its replica, would be.
func TestNeverTwo(t *testing.T) {
	for _, step := range []string{"power-on", "undo-power-on-replica"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.restore()
			w.conf.Hooks = &before{step, func() { w.prod.Outside("o", hostctl.On) }}
			w.open()
			defer w.close()
			w.start(existing())
			if step != "power-on" {
				w.activity(failback.Deciding)
				if _, err := w.e.Undo(t.Context(), "fb1", failback.UndoOptions{}, 0); err != nil {
					t.Fatal(err)
				}
			}
			if st := w.halted(); st.Halted.Reason != failback.ReasonTwoOn || st.Halted.Step != step {
				t.Errorf("%s", tell(&st))
			}
			w.prod.Outside("o", hostctl.Off)
			if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
				t.Fatal(err)
			}
			w.until("goes on", func(s *failback.Status) bool {
				return s.Activity == failback.Deciding || s.Activity == failback.Undone
			})
		})
	}
}

// TestTakenBackWithoutItsTarget has the target deleted: an undo and a cancel halt,
// and go on without it when an operator says so; the replica serves again.
func TestTakenBackWithoutItsTarget(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			want := w.bytes(w.dr, w.replica)
			s, at, end := home(), failback.Deciding, failback.Undone
			if cancel {
				s, at, end = manual(home)(), failback.Standing, failback.Canceled
			}
			w.start(s)
			w.activity(at)
			w.prod.Outside("o", hostctl.Off)
			if err := w.prod.Host().Registry.Unregister(t.Context(), &hostctl.Op{}, w.original); err != nil {
				t.Fatal(err)
			}
			if _, err := w.e.Undo(t.Context(), "fb1", failback.UndoOptions{}, 0); err != nil {
				t.Fatal(err)
			}
			if h := w.halted().Halted; h.Reason != failback.ReasonVMGone || !strings.Contains(h.Remedy, "without it") {
				t.Errorf("%+v", h)
			}
			if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
				t.Fatal(err)
			}
			st := w.activity(end)
			if len(st.Warnings) == 0 {
				t.Errorf("nobody is told: %s", tell(&st))
			}
			w.is(w.dr, w.replica, want)
			w.power(w.dr, w.replica, hostctl.On)
			w.clean(w.dr, w.replica)
			w.state(failback.Failover)
			// It was not deleted after all: it says that it is half overwritten, and
			// its rollback point is not garbage.
			path, _ := w.prod.VM("o")
			if _, err := w.prod.Host().Registry.Register(t.Context(), &hostctl.Op{}, path.Path, hostctl.Placement{}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.e.Garbage(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			is, _ := w.prod.VM("o")
			if cancel && is.Marks[hostctl.MarkInconsistent] == "" || len(is.Snapshots) != 1 {
				t.Errorf("marks %v, snapshots %v", is.Marks, is.Snapshots)
			}
		})
	}
}

// TestReplicaStartedWhileItIsHome tells people that two of one VM run (FB-13).
func TestReplicaStartedWhileItIsHome(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(home())
		w.activity(failback.Deciding)
		w.dr.Outside("r", hostctl.On)
		st := w.until("is told", func(s *failback.Status) bool { return len(s.Warnings) > 0 })
		if !strings.Contains(st.Warnings[0], "web-replica was powered on from outside") || st.Activity != failback.Deciding {
			t.Errorf("%s", tell(&st))
		}
	})
}

// TestNoPolicyOverTwo has no policy commit while both run.
func TestNoPolicyOverTwo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := home()
		s.Policy.After = time.Hour
		w.start(s)
		w.activity(failback.Deciding)
		w.dr.Outside("r", hostctl.On)
		if st := w.halted(); st.Activity != failback.Deciding || st.Halted.Reason != failback.ReasonTwoOn {
			t.Errorf("%s", tell(&st))
		}
		w.dr.Outside("r", hostctl.Off)
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Committed)
	})
}
