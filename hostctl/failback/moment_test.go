package failback_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// TestSwitchTakenBack has an operator who says now and then not yet, while the
// replica serves: it is not powered off.
func TestSwitchTakenBack(t *testing.T) {
	for _, x := range []failback.Switch{{When: failback.WhenManual}, {When: failback.WhenAt, At: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}} {
		bubble(t, func(t *testing.T, w *world) {
			w.mover.PerGrain = time.Minute
			w.start(manual(home)())
			w.activity(failback.Standing)
			w.guest(time.Second)
			time.Sleep(10 * time.Second)
			for _, s := range []failback.Switch{{When: failback.WhenNow}, x} {
				if _, err := w.e.Switch(t.Context(), "fb1", s, 0); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second) // in the pass that follows the word
			}
			st := w.until("stands or is home", func(s *failback.Status) bool {
				return s.Activity == failback.Standing || s.Activity == failback.Deciding
			})
			if st.Activity != failback.Standing {
				t.Errorf("%s", tell(&st))
			}
			w.power(w.dr, w.replica, hostctl.On)
		})
	}
}

// TestSwitchWhileItWaitsForItsTurn is the same, in the queue for the final pass.
func TestSwitchWhileItWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.conf.MaxVMs = 1
		w.open()
		defer w.close()
		w.start(manual(home)())
		w.activity(failback.Standing)
		w.mover.PerGrain = time.Minute
		o := w.prod.Add(hostctl.VM{Ref: hostctl.Ref{Name: "db"}}, disk(1, 10))
		r := w.dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: "db"}, Power: hostctl.On}, disk(2, 10))
		if _, err := w.e.PutPair(t.Context(), failback.Pair{Name: "db", Original: o, Replica: r, State: failback.Failover}, 0); err != nil {
			t.Fatal(err)
		}
		s := manual(home)()
		s.VM = "db"
		if _, _, err := w.e.Start(t.Context(), "fb2", "root", s, cbt.Digest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, when := range []failback.When{failback.WhenNow, failback.WhenManual} {
			if _, err := w.e.Switch(t.Context(), "fb1", failback.Switch{When: when}, 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		st := w.activity(failback.Standing)
		if !strings.Contains(st.Wait, "word") {
			t.Errorf("%s", tell(&st))
		}
		w.power(w.dr, w.replica, hostctl.On)
	})
}

// TestNoCommitWithTheMark has step 9 halted before the mark of an inconsistent
// VM is off the target: a commit would leave it there for ever.
func TestNoCommitWithTheMark(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.prod.Plan(hosttest.Fault{Method: "Mark", Step: "unmark-target", When: hosttest.Before, Final: true})
		w.start(home())
		w.halted()
		_, err := w.e.Commit(t.Context(), "fb1", failback.CommitOptions{}, 0)
		refused(t, err, failback.ReasonSwitching)
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Deciding)
		w.commit()
		w.clean(w.prod, w.original)
	})
}

// TestGroupWithAHaltedMember has the first VM of a group halted: the second one
// says what it waits for, and goes on when the first is given up.
func TestGroupWithAHaltedMember(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.dr.Plan(hosttest.Fault{Method: "Protect", VM: "web-replica", When: hosttest.Before, Final: true})
		o := w.prod.Add(hostctl.VM{Ref: hostctl.Ref{Name: "db"}}, disk(1, 10))
		r := w.dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: "db"}, Power: hostctl.On}, disk(2, 10))
		if _, err := w.e.PutPair(t.Context(), failback.Pair{Name: "db", Original: o, Replica: r, State: failback.Failover}, 0); err != nil {
			t.Fatal(err)
		}
		s := home()
		s.Group = "shop"
		w.start(s)
		s.VM, s.Order = "db", 1
		if _, _, err := w.e.Start(t.Context(), "fb2", "root", s, cbt.Digest{}); err != nil {
			t.Fatal(err)
		}
		w.halted()
		time.Sleep(time.Minute)
		st, err := w.e.Get(t.Context(), "fb2")
		if err != nil || st.Activity != failback.Standing || !strings.Contains(st.Wait, "web (halted") {
			t.Errorf("%v %s", err, tell(&st))
		}
		if _, err := w.e.Cancel(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Canceled)
		time.Sleep(time.Minute)
		if st, err = w.e.Get(t.Context(), "fb2"); err != nil || st.Activity != failback.Deciding {
			t.Errorf("%v %s", err, tell(&st))
		}
	})
}
