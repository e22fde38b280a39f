package failback_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// guest writes to the replica, so many times a second, until the test ends.
func (w *world) guest(every time.Duration) {
	ctx := w.t.Context()
	go func() {
		for i := byte(0); ; i++ {
			select {
			case <-time.After(every):
				_ = w.dr.Write("r", 0, int64(i%20)*grain, []byte{i}) // it may be off
			case <-ctx.Done():
				return
			}
		}
	}()
}

func TestSwitchAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := home()
		at := time.Now().Add(2 * time.Hour)
		s.Switch = failback.Switch{When: failback.WhenAt, At: at}
		w.start(s)
		st := w.activity(failback.Standing)
		if st.State != failback.ReadyToSwitch || !strings.Contains(st.Wait, at.UTC().Format(time.RFC3339)) {
			t.Errorf("%s", tell(&st))
		}
		w.state(failback.ReadyToSwitch)
		st = w.activity(failback.Deciding)
		if now := time.Now(); now.Before(at) || now.After(at.Add(time.Minute)) {
			t.Errorf("switched at %v, not %v", now, at)
		}
		if n := len(st.Disks[0].Passes); n != 3 { // what was moved two hours ago is old
			t.Errorf("%d passes", n)
		}
	})
}

func TestBudgetRepeatsPasses(t *testing.T) {
	for _, x := range []struct {
		budget time.Duration
		ends   failback.Activity
	}{{time.Minute, failback.Deciding}, {time.Second, failback.Standing}} {
		bubble(t, func(t *testing.T, w *world) {
			w.mover.PerGrain = time.Second
			w.guest(5 * time.Second)
			s := home()
			s.Switch = failback.Switch{When: failback.WhenNow, Budget: x.budget, Passes: 4}
			w.start(s)
			st := w.activity(x.ends)
			t.Logf("%+v, downtime %v", st.Forecast, st.Downtime)
			if x.ends == failback.Standing {
				if !strings.Contains(st.Wait, "do not bring the downtime below") || st.Forecast.Passes != 4 {
					t.Errorf("%q after %d passes", st.Wait, st.Forecast.Passes)
				}
				if _, err := w.e.Switch(t.Context(), "fb1", s.Switch, 0); err != nil { // his word
					t.Fatal(err)
				}
				w.activity(failback.Deciding)
			} else if !st.Forecast.Within || st.Forecast.Downtime > x.budget {
				t.Errorf("%+v", st.Forecast)
			}
			w.equal(w.prod, w.original, w.dr, w.replica)
		})
	}
}

func TestTargetPoweredOnFromOutside(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.mover.PerGrain = time.Second
		w.start(home())
		time.Sleep(20 * time.Second) // in pass 1
		w.prod.Outside("o", hostctl.On)
		_ = w.prod.Write("o", 1, 29*grain, []byte("garbage"))
		st := w.activity(failback.Deciding)
		if len(st.Warnings) == 0 || !strings.Contains(strings.Join(st.Warnings, " "), "powered on from outside") {
			t.Errorf("not reported: %v", st.Warnings)
		}
		w.equal(w.prod, w.original, w.dr, w.replica)
		for _, m := range w.mover.Moves() {
			if m.Pass == 2 && m.Hint != nil {
				t.Errorf("the pass after it believed a hint")
			}
		}
	})
}

func TestReplicaPoweredOnInTheFinalPass(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.mover.PerGrain = time.Second
		s := home()
		s.Full = true // so that the final pass takes a while
		w.start(s)
		w.until("in the final pass", func(s *failback.Status) bool {
			d := s.Disks[0]
			return len(d.Passes) > 1 && d.Passes[1].Counters.Scanned > 0
		})
		w.dr.Outside("r", hostctl.On)
		if err := w.dr.Write("r", 0, 0, []byte("a user's")); err != nil {
			t.Fatal(err)
		}
		st := w.activity(failback.Deciding)
		w.equal(w.prod, w.original, w.dr, w.replica)
		if !strings.HasPrefix(string(w.prod.Bytes("o", 0)), "a user's") || !strings.Contains(strings.Join(st.Warnings, " "), "void") {
			t.Errorf("%s", tell(&st))
		}
		w.undo()
		if !strings.HasPrefix(string(w.dr.Bytes("r", 0)), "a user's") {
			t.Errorf("undo has lost what a user wrote")
		}
		w.clean(w.dr, w.replica)
	})
}

func TestDriftHalts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(manual(home)())
		w.activity(failback.Standing)
		w.dr.Change("r", func(vm *hostctl.VM) { vm.Disks[0].Size += grain })
		if _, err := w.e.Switch(t.Context(), "fb1", failback.Switch{}, 0); err != nil {
			t.Fatal(err)
		}
		if st := w.halted(); st.Halted.Reason != failback.ReasonDrift || !strings.Contains(st.Halted.Text, "scsi0:0") {
			t.Errorf("%+v", st.Halted)
		}
		w.dr.Change("r", func(vm *hostctl.VM) { vm.Disks[0].Size -= grain })
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Deciding)
	})
}

// TestUndoSnapshotWritten has somebody write to the protective snapshot, which some
// hosts allow: it is not what the final pass has read, and an undo says so.
func TestUndoSnapshotWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		spec := home()
		spec.Full = true // so that the final pass reads all of it
		w.start(spec)
		w.activity(failback.Deciding)
		vm, _ := w.dr.VM("r")
		i := slices.IndexFunc(vm.Snapshots, func(s hostctl.Snapshot) bool { return strings.Contains(s.Name, "protect-replica") })
		w.dr.WritePoint("r", vm.Snapshots[i].ID, 0, 0, []byte("written"))
		if _, err := w.e.Undo(t.Context(), "fb1", failback.UndoOptions{By: "root"}, 0); err != nil {
			t.Fatal(err)
		}
		h := w.halted().Halted
		if h.Reason != failback.ReasonSnapshotGone || h.Step != "undo-restore-replica" || !strings.Contains(h.Text, "somebody wrote to it") {
			t.Fatalf("%+v", h)
		}
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		if st := w.activity(failback.Undone); len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "nothing proves") {
			t.Errorf("warnings %q", st.Warnings)
		}
	})
}

// TestUndoWithoutSnapshots has somebody remove the snapshots that an undo needs: it
// stands still, and goes on to its end when an operator says so.
func TestUndoWithoutSnapshots(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(home())
		w.activity(failback.Deciding)
		frozen := w.bytes(w.dr, w.replica)
		none := func(vm *hostctl.VM) { vm.Snapshots = nil }
		w.dr.Change("r", none)
		w.prod.Change("o", none)
		if _, err := w.e.Undo(t.Context(), "fb1", failback.UndoOptions{By: "root"}, 0); err != nil {
			t.Fatal(err)
		}
		for _, step := range []string{"undo-restore-replica", "undo-restore-target"} {
			if h := w.halted().Halted; h.Reason != failback.ReasonSnapshotGone || h.Step != step || !strings.Contains(h.Remedy, "continue") {
				t.Fatalf("%+v", h)
			}
			if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
				t.Fatal(err)
			}
		}
		if st := w.activity(failback.Undone); len(st.Warnings) != 2 {
			t.Errorf("warnings %q", st.Warnings)
		}
		w.state(failback.Failover)
		w.power(w.dr, w.replica, hostctl.On)
		w.power(w.prod, w.original, hostctl.Off)
		w.is(w.dr, w.replica, frozen)
		w.clean(w.prod, w.original, hostctl.MarkInconsistent)
		if vm, _ := w.prod.VM("o"); vm.Marks[hostctl.MarkInconsistent] == "" {
			t.Error("half overwritten, and not marked so")
		}
		if list, err := w.e.Garbage(t.Context(), false); err != nil || len(list) > 0 {
			t.Errorf("gc: %+v, %v", list, err)
		}
		if _, _, err := w.e.Start(t.Context(), "fb2", "root", home(), cbt.Digest{}); err != nil {
			t.Errorf("the next failback: %v", err)
		}
	})
}

// TestQuestionInACommit has a VM that waits for an answer in the middle of its
// power-on be committed: what it waits for is said at once.
func TestQuestionInACommit(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(home())
		w.activity(failback.Deciding)
		w.prod.Change("o", func(vm *hostctl.VM) { vm.Busy, vm.Question = "powerOn", "moved or copied?" })
		if _, err := w.e.Commit(t.Context(), "fb1", failback.CommitOptions{By: "root"}, 0); err != nil {
			t.Fatal(err)
		}
		if h := w.halted().Halted; h.Reason != failback.ReasonQuestion || !strings.Contains(h.Text, "moved or copied?") {
			t.Errorf("%+v", h)
		}
		w.prod.Change("o", func(vm *hostctl.VM) { vm.Busy, vm.Question = "", "" })
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Committed)
	})
}

// TestGarbageOfUnknownRun has a controller that lost its store: what its former self
// left is listed with what to do by hand, is not removed, and the plan says the same.
func TestGarbageOfUnknownRun(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const run = "164fa49a-d938-43b7-91bf-46a770d409a7"
		w.prod.Change("o", func(vm *hostctl.VM) {
			vm.Marks[hostctl.MarkRun], vm.Marks[hostctl.MarkInconsistent] = run+"@home", run
			vm.Disabled = []string{"RelocateVM_Task"}
			vm.Snapshots = []hostctl.Snapshot{{ID: "s1", Name: hostctl.SnapshotPrefix + run + "-protect-target"}, {ID: "s2", Name: "haulback-mine"}}
		})
		want := map[string]string{"run": "haulback.run out", "inconsistent": "haulback.inconsistent out", "RelocateVM_Task": "enable", hostctl.SnapshotPrefix + run + "-protect-target": "remove it on its host"}
		for _, remove := range []bool{false, true, true} {
			list, err := w.e.Garbage(t.Context(), remove)
			if err != nil || len(list) != len(want) {
				t.Fatalf("%+v, %v", list, err)
			}
			for _, l := range list {
				if want[l.Name] == "" || !strings.Contains(l.Error, want[l.Name]) {
					t.Errorf("%s: %q", l.Name, l.Error)
				}
			}
		}
		_, _, err := w.e.Start(t.Context(), "fb1", "root", home(), cbt.Digest{})
		if f := refused(t, err, failback.ReasonForeignRun); !strings.Contains(f.Text, "haulback.run off") {
			t.Error(f.Text)
		}
	})
}

// TestEndClosesRows ends failbacks that stand still in a step: by a cancel, an
// undo, and a commit of a VM that does not start.
func TestEndClosesRows(t *testing.T) {
	for _, x := range []struct {
		step, method string
		end          func(w *world)
		want         failback.StepState
	}{
		{"pair-disks", "Compare", func(w *world) {
			_, _ = w.e.Cancel(t.Context(), "fb1", 0)
			w.activity(failback.Canceled)
		}, failback.Compensated},
		{"power-on", "SetPower", func(w *world) { w.undo() }, failback.Compensated},
		{"power-on", "SetPower", func(w *world) { w.commit() }, failback.Skipped},
	} {
		t.Run(x.step+" "+string(x.want), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				fault := hosttest.Fault{Method: x.method, When: hosttest.Before, Final: true, Text: "no"}
				if x.method == "Compare" {
					w.mover.Plan(fault)
				} else {
					fault.Step = x.step
					w.prod.Plan(fault)
				}
				w.start(home())
				if at := w.halted().Halted.Step; at != x.step {
					t.Fatalf("halted at %s", at)
				}
				x.end(w)
				st := w.get()
				for _, row := range st.Steps {
					if row.Name == x.step && row.State != x.want {
						t.Errorf("step %s is %s, want %s", row.Name, row.State, x.want)
					}
				}
			})
		})
	}
}

func TestTrackingThatFailsOrLies(t *testing.T) {
	for name, fault := range map[string]hosttest.Fault{
		"no answer": {Method: "Changed", Times: -1, When: hosttest.Before, Final: true, Text: "FileFault"},
		"liar":      {Method: "Changed", Times: -1, When: hosttest.Lied},
		"cannot":    {Method: "EnableTracking", Times: -1, When: hosttest.Before, Final: true, Text: "not licensed"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.dr.Plan(fault)
				w.mover.Hook(func(m hosttest.Moment) error {
					if m.Method == "Moving" {
						_ = w.dr.Write("r", 0, 0, []byte("changed"))
						_ = w.dr.Write("r", 1, 4*grain, []byte("changed"))
					}
					return nil
				})
				w.start(home())
				st := w.activity(failback.Deciding)
				w.equal(w.prod, w.original, w.dr, w.replica)
				p := st.Disks[0].Passes[len(st.Disks[0].Passes)-1]
				if p.Used != "full" || name == "no answer" && !strings.Contains(p.Reason, "FileFault") {
					t.Errorf("final pass: %+v", p)
				}
			})
		})
	}
}

func TestPolicyEndsIt(t *testing.T) {
	for _, undo := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			s := home()
			s.Policy = failback.Policy{After: 24 * time.Hour, Undo: undo}
			w.start(s)
			w.activity(failback.Deciding)
			time.Sleep(23 * time.Hour)
			w.close()
			w.open()
			w.activity(failback.Deciding)
			want := failback.Committed
			if undo {
				want = failback.Undone
			}
			w.activity(want)
		})
	}
}

// TestGroup brings 8 VMs with 2 disks each home at once, in the order of a group
// and within the bounds.
func TestGroup(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.close()
		w.conf.MaxVMs, w.conf.MaxDisks = 3, 4
		w.open()
		w.mover.PerGrain = 100 * time.Millisecond
		var mu sync.Mutex
		var off []string
		w.dr.Hook(func(m hosttest.Moment) error {
			if m.Done && m.Step == "power-off-replica" {
				mu.Lock()
				defer mu.Unlock()
				off = append(off, m.VM)
			}
			return nil
		})
		type twin struct{ o, r hostctl.Ref }
		vms := map[string]twin{}
		for i := range 8 {
			name := fmt.Sprintf("vm%d", i)
			a, b := disk(uint64(20+i), 10), disk(uint64(40+i), 12)
			x := twin{w.prod.Add(hostctl.VM{Ref: hostctl.Ref{Name: name}}, a, b), w.dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: name}, Power: hostctl.On}, differ(a, 60, 3), differ(b, 61, 3))}
			vms[name] = x
			if _, err := w.e.PutPair(t.Context(), failback.Pair{Name: name, Original: x.o, Replica: x.r, State: failback.Failover}, 0); err != nil {
				t.Fatal(err)
			}
			s := home()
			s.VM, s.Group, s.Order = name, "shop", 7-i // the last one first
			if _, _, err := w.e.Start(t.Context(), "fb-"+name, "root", s, cbt.Digest{}); err != nil {
				t.Fatal(err)
			}
		}
		for name, x := range vms {
			for range 2000 {
				st, err := w.e.Get(t.Context(), "fb-"+name)
				if err != nil || st.Halted != nil {
					t.Fatalf("%v %s", err, tell(&st))
				}
				if st.Activity == failback.Deciding {
					break
				}
				time.Sleep(time.Second)
			}
			w.equal(w.prod, x.o, w.dr, x.r)
		}
		for i, name := range off {
			if want := fmt.Sprintf("vm%d", 7-i); name != want {
				t.Errorf("switched in the order %v", off)
				break
			}
		}
		if len(off) != 8 || w.mover.Most() > 8 { // 4 of running replicas, 4 of final passes
			t.Errorf("%d switched, %d disks at once", len(off), w.mover.Most())
		}
	})
}

func TestGarbage(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(manual(home)())
		w.activity(failback.Standing)
		if list, err := w.e.Garbage(t.Context(), true); err != nil || len(list) > 0 {
			t.Errorf("what a live run needs is garbage: %v %+v", err, list)
		}
		st := w.get()
		if _, err := w.e.Cancel(context.Background(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Canceled)
		left := &hostctl.Op{Run: st.Run, Step: "track-replica-1"}
		other := &hostctl.Op{Run: "11111111-2222-3333-4444-555555555555", Step: "protect-target"}
		for _, op := range []*hostctl.Op{left, other} {
			if _, err := w.dr.Protect(t.Context(), op, w.replica, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.prod.Mark(t.Context(), left, w.original, hostctl.MarkRun, st.Run+"@home"); err != nil {
			t.Fatal(err)
		}
		list, err := w.e.Garbage(t.Context(), false)
		if err != nil || len(list) != 3 {
			t.Fatalf("%v %+v", err, list)
		}
		if list, err = w.e.Garbage(t.Context(), true); err != nil || len(list) != 3 {
			t.Fatalf("%v %+v", err, list)
		}
		list, err = w.e.Garbage(t.Context(), true)
		if err != nil || len(list) != 1 || list[0].Run != other.Run || list[0].Error == "" {
			t.Errorf("left %v %+v", err, list)
		}
		w.clean(w.dr, w.replica, "1111")
		w.clean(w.prod, w.original)
	})
}

// TestHostDownForLong halts, names the host, and goes on at the same step.
func TestHostDownForLong(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(manual(home)())
		w.activity(failback.Standing)
		w.dr.Down(true)
		if _, err := w.e.Switch(t.Context(), "fb1", failback.Switch{}, 0); err != nil {
			t.Fatal(err)
		}
		st := w.until("waits", func(s *failback.Status) bool { return strings.Contains(s.Wait, "again") })
		if st.Halted != nil {
			t.Errorf("halted at once: %+v", st.Halted)
		}
		if st = w.halted(); st.Halted.Reason != failback.ReasonHostDown || !strings.Contains(st.Halted.Text, "host dr") {
			t.Errorf("%+v", st.Halted)
		}
		w.dr.Down(false)
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Deciding)
		w.equal(w.prod, w.original, w.dr, w.replica)
	})
}
