package failback_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

// TestRefusedBeforeAnyAction has what is wrong before the start: each is refused
// with a reason and a remedy, and nothing was done to a host.
func TestRefusedBeforeAnyAction(t *testing.T) {
	outside := func(f func(*world), reason string, spec failback.Spec) (out struct {
		f      func(*world)
		reason string
		spec   failback.Spec
	},
	) {
		out.f, out.reason, out.spec = f, reason, spec
		return out
	}
	vm := func(uuid string, f func(*hostctl.VM)) func(*world) {
		return func(w *world) {
			if w.restore(); uuid == "r" {
				w.dr.Change(uuid, f)
			} else {
				w.prod.Change(uuid, f)
			}
		}
	}
	with := func(s failback.Spec, f func(*failback.Spec)) failback.Spec { f(&s); return s }
	nothing := func(*world) {}
	another := func(original, replica string) func(*world) {
		return func(w *world) {
			w.restore()
			w.dr.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "r2", Name: "db-replica"}, Power: hostctl.On}, disk(7, 20))
			at := map[string]hostctl.Ref{"o": w.original, "t": w.restored, "r": w.replica, "r2": {Host: "dr", UUID: "r2"}}
			if _, err := w.e.PutPair(context.Background(), failback.Pair{Name: "db", Original: at[original], Replica: at[replica]}, 0); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for name, x := range map[string]struct {
		f      func(*world)
		reason string
		spec   failback.Spec
	}{
		"unknown VM":            outside(nothing, failback.ReasonUnknownVM, with(home(), func(s *failback.Spec) { s.VM = "nobody" })),
		"unknown target":        outside(nothing, failback.ReasonVMGone, existing()),
		"unknown host":          outside(nothing, failback.ReasonHostUnknown, with(existing(), func(s *failback.Spec) { s.TargetHost = "mars" })),
		"replica gone":          outside(func(w *world) { delete(w.conf.Hosts, "dr") }, failback.ReasonHostUnknown, home()),
		"replica off":           outside(vm("r", func(v *hostctl.VM) { v.Power = hostctl.Off }), failback.ReasonReplicaOff, home()),
		"replica suspended":     outside(vm("r", func(v *hostctl.VM) { v.Power = hostctl.Suspended }), failback.ReasonSuspended, home()),
		"replica has snapshots": outside(vm("r", func(v *hostctl.VM) { v.Snapshots = []hostctl.Snapshot{{ID: "s"}} }), failback.ReasonSnapshots, home()),
		"running target":        outside(vm("t", func(v *hostctl.VM) { v.Power = hostctl.On }), failback.ReasonTargetOn, existing()),
		"target suspended":      outside(vm("o", func(v *hostctl.VM) { v.Power = hostctl.Suspended }), failback.ReasonSuspended, home()),
		"target busy":           outside(vm("o", func(v *hostctl.VM) { v.Busy = "RelocateVM" }), failback.ReasonBusy, home()),
		"target asks":           outside(vm("o", func(v *hostctl.VM) { v.Question = "moved or copied?" }), failback.ReasonQuestion, home()),
		"target too small":      outside(vm("o", func(v *hostctl.VM) { v.Disks[0].Size -= 512 }), failback.ReasonTooSmall, home()),
		"target is the replica": outside(nothing, failback.ReasonSameVM, with(existing(), func(s *failback.Spec) { s.TargetHost, s.Target = "dr", hostctl.Query{UUID: "r"} })),
		"replica of another":    outside(another("t", "r"), failback.ReasonOtherVM, home()),
		"home is a replica":     outside(another("t", "o"), failback.ReasonOtherVM, home()),
		"target of another":     outside(another("t", "r2"), failback.ReasonOtherVM, existing()),
		"disk unfit":            outside(vm("r", func(v *hostctl.VM) { v.Disks[1].Unfit = "independent persistent" }), failback.ReasonDiskUnfit, home()),
		"disk missing":          outside(vm("o", func(v *hostctl.VM) { v.Disks = v.Disks[:1] }), failback.ReasonDiskUnmatched, home()),
		"rule for no disk":      outside(nothing, failback.ReasonDiskUnmatched, with(home(), func(s *failback.Spec) { s.Disks = []failback.DiskRule{{Disk: "ide0:0"}} })),
		"all excluded": outside(nothing, failback.ReasonDiskUnmatched, with(home(), func(s *failback.Spec) {
			s.Disks = []failback.DiskRule{{Disk: "scsi0:0", Exclude: true}, {Disk: "scsi0:1", Exclude: true}}
		})),
		"two for one": outside(nothing, failback.ReasonDiskAmbiguous, with(home(), func(s *failback.Spec) {
			s.Disks = []failback.DiskRule{{Disk: "scsi0:0", Target: "scsi0:1"}}
		})),
		"ambiguous": outside(vm("o", func(v *hostctl.VM) {
			v.Disks[0].Label, v.Disks[1].Label, v.Disks[1].Size = "nvme0:0", "nvme0:1", v.Disks[0].Size
		}), failback.ReasonDiskAmbiguous, home()),
		"missing privilege": outside(func(w *world) {
			w.prod.Missing(hostctl.Problem{Reason: failback.ReasonPrivilege, Text: "login lacks VirtualMachine.Interact.PowerOff", Remedy: "give its role that"})
		}, failback.ReasonPrivilege, home()),
		"no space":    outside(func(w *world) { w.prod.SetFree(grain) }, failback.ReasonNoSpace, home()),
		"foreign run": outside(vm("o", func(v *hostctl.VM) { v.Marks[hostctl.MarkRun] = "1@elsewhere" }), failback.ReasonForeignRun, home()),
		"mover":       outside(func(w *world) { w.mover.Plan(hosttest.Fault{Method: "Check", Times: -1, When: hosttest.Before}) }, failback.ReasonMover, home()),
		"name taken":  outside(func(w *world) { w.prod.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-new"}}) }, failback.ReasonNameTaken, fresh()),
		"ambiguous VM": outside(func(w *world) {
			w.prod.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-restored"}})
			w.restore()
		}, failback.ReasonVMAmbiguous, existing()),
		"host down":       outside(func(w *world) { w.prod.Down(true) }, failback.ReasonHostDown, home()),
		"tracking":        outside(nothing, failback.ReasonTracking, with(home(), func(s *failback.Spec) { s.Tracking = failback.FirstCBT })),
		"isolated":        outside(nothing, failback.ReasonNoAbility, with(home(), func(s *failback.Spec) { s.Isolated = true })),
		"no destination":  outside(nothing, failback.ReasonInvalid, with(home(), func(s *failback.Spec) { s.Destination = "moon" })),
		"new cannot hold": outside(nothing, failback.ReasonTooSmall, with(fresh(), func(s *failback.Spec) { s.Disks = []failback.DiskRule{{Disk: "scsi0:0", Grow: grain}} })),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				x.f(w)
				w.log.Mistakes() // of the set-up
				before := len(w.log.Events())
				p, planErr := w.e.Plan(t.Context(), x.spec, true)
				_, _, err := w.e.Start(t.Context(), "fb1", "root", x.spec, cbt.Digest{})
				f := refused(t, err, x.reason)
				if !strings.Contains(f.Text, ";") && x.reason != failback.ReasonInvalid {
					t.Errorf("says no remedy: %s", f.Text)
				}
				if strings.Contains(f.Text, "hostctl:") {
					t.Errorf("names a package: %s", f.Text)
				}
				if planErr == nil && len(p.Problems) == 0 {
					t.Errorf("the plan has no problem")
				}
				if len(p.Actions) > 0 && len(p.Disks) == 0 {
					t.Errorf("the plan has actions on disks that nobody knows: %+v", p.Actions[0])
				}
				if ev := w.log.Events(); len(ev) != before {
					t.Errorf("actions before the refusal: %v", ev[before:])
				}
				if list, _, _ := w.db.List(t.Context(), "failback."); len(list) > 0 {
					t.Errorf("something is stored of it")
				}
			})
		})
	}
}

// TestTwoFailbacks has O3: of one VM, and of two VMs onto one disk.
func TestTwoFailbacks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		other := w.dr.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "r2", Name: "db-replica"}, Power: hostctl.On}, disk(7, 20), disk(8, 30))
		p := w.pair()
		p.Name, p.Replica = "db", other
		if _, err := w.e.PutPair(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
		first := w.start(manual(home)())
		again, created, err := w.e.Start(t.Context(), "fb1", "root", manual(home)(), cbt.Digest{})
		if err != nil || created || again.Run != first.Run {
			t.Errorf("the same start: %v, created %v", err, created)
		}
		_, _, err = w.e.Start(t.Context(), "fb1", "root", home(), cbt.Digest{})
		refused(t, err, failback.ReasonExists)
		_, _, err = w.e.Start(t.Context(), "fb2", "root", home(), cbt.Digest{})
		refused(t, err, failback.ReasonOpen)
		s := home()
		s.VM = "db"
		_, _, err = w.e.Start(t.Context(), "fb3", "root", s, cbt.Digest{})
		if f := asFailure(err); f == nil || f.Reason != failback.ReasonDiskClaimed && f.Reason != failback.ReasonForeignRun {
			t.Errorf("onto the same disks: %v", err)
		}
		w.activity(failback.Standing)
		_, err = w.e.Commit(t.Context(), "fb1", failback.CommitOptions{}, 0)
		refused(t, err, failback.ReasonNotSwitched)
		st := w.get()
		_, err = w.e.Cancel(t.Context(), "fb1", st.Revision+1000)
		refused(t, err, failback.ReasonConflict)
		if _, err = w.e.Cancel(t.Context(), "fb1", st.Revision); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Canceled)
		w.is(w.prod, w.original, w.before)
		w.clean(w.prod, w.original)
		w.clean(w.dr, w.replica)
	})
}

// TestSecondController is refused on the same store, and on the same VMs.
func TestSecondController(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		second := *w
		f := refused(t, second.try(), failback.ReasonFenced)
		if f.Exit != 11 {
			t.Errorf("exit %d", f.Exit)
		}
		w.start(manual(home)())
		w.activity(failback.Standing)
		third := *w
		third.db, third.conf.Controller = newMemory(), "elsewhere"
		if err := third.try(); err != nil {
			t.Fatal(err)
		}
		defer third.close()
		_, _, err := third.e.Start(t.Context(), "x", "root", home(), cbt.Digest{})
		refused(t, err, failback.ReasonForeignRun)
	})
}

// TestOnAFile restarts a controller on the store that daemons use, in every
// activity.
func TestOnAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failback.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var fence uint64
		reopen := func() {
			t.Helper()
			db, err := bolt.Open(bolt.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			w.conf.Store, w.conf.Lease = db, db
			w.open()
			t.Cleanup(func() { _ = db.Close() })
		}
		shut := func() {
			w.close()
			_ = w.conf.Store.(*bolt.DB).Close()
		}
		reopen()
		w.start(manual(home)())
		for range 6 {
			time.Sleep(300 * time.Millisecond)
			shut()
			reopen()
		}
		w.activity(failback.Standing)
		shut()
		reopen()
		if _, err := w.e.Switch(context.Background(), "fb1", failback.Switch{When: failback.WhenNow}, 0); err != nil {
			t.Fatal(err)
		}
		st := w.activity(failback.Deciding)
		for _, s := range st.Steps {
			if s.Epoch < fence {
				t.Errorf("step %s was written by fence %d after %d", s.Name, s.Epoch, fence)
			}
			fence = s.Epoch
		}
		seen := 0
		ctx, cancel := context.WithCancel(context.Background())
		for s, err := range w.e.Watch(ctx, "fb1", 1) {
			if err != nil {
				break
			}
			if seen++; s.Activity == failback.Deciding {
				cancel()
			}
		}
		cancel()
		if seen < 20 {
			t.Errorf("a watch from the beginning told %d changes", seen)
		}
		w.commit()
		w.equal(w.prod, w.original, w.dr, w.replica)
		shut()
	})
}

// TestEqualSizedDisksSwapped has the silent killer of the field: two disks of one
// size whose labels are swapped. Nothing may be written.
func TestEqualSizedDisksSwapped(t *testing.T) {
	for _, ruled := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a, b := disk(11, 32), disk(12, 32)
			o := w.prod.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "o2", Name: "db"}}, a, b)
			r := w.dr.Add(hostctl.VM{Ref: hostctl.Ref{UUID: "r2", Name: "db-replica"}, Power: hostctl.On}, b, a)
			if _, err := w.e.PutPair(t.Context(), failback.Pair{Name: "db", Original: o, Replica: r, State: failback.Failover}, 0); err != nil {
				t.Fatal(err)
			}
			s := home()
			s.VM = "db"
			if ruled {
				s.Disks = []failback.DiskRule{{Disk: "scsi0:0", Target: "scsi0:1"}, {Disk: "scsi0:1", Target: "scsi0:0"}}
			}
			w.start(s)
			if ruled {
				w.activity(failback.Deciding)
				return
			}
			st := w.halted()
			if st.Halted.Reason != failback.ReasonContradiction || !strings.Contains(st.Halted.Remedy, "scsi0:1") || st.Halted.Number != 2 {
				t.Errorf("halted %+v", st.Halted)
			}
			if fmt.Sprint(w.prod.Bytes("o2", 0)) != fmt.Sprint(a) || written(w.mover.Moves()) > 0 {
				t.Errorf("something was written")
			}
		})
	}
}
