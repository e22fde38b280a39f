package failback_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// The tests of this file are the rows of the acceptance list, by number.

func written(m []hosttest.Moved) (n int64) {
	for _, x := range m {
		for _, e := range x.Written {
			n += e.Len
		}
	}
	return n
}

// order is the host actions and passes of a log, of those named.
func (w *world) order(methods ...string) (list []string) {
	for _, ev := range w.log.Events() {
		if slices.Contains(methods, ev.Method) {
			list = append(list, ev.Method+" "+ev.Step)
		}
	}
	return list
}

func TestFB01OriginalMovesOnlyDifferences(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		differing := int64(2+3) * grain // one grain in ten of 20 and 30
		st := w.start(home())
		if st.Target.UUID != w.original.UUID {
			t.Errorf("target %+v", st.Target)
		}
		w.activity(failback.Deciding)
		w.equal(w.prod, w.original, w.dr, w.replica)
		if n := written(w.mover.Moves()); n > differing*11/10 || n == 0 {
			t.Errorf("%d bytes were written, %d differ", n, differing)
		}
		w.commit()
		w.clean(w.prod, w.original)
		w.clean(w.dr, w.replica, "protect-replica")
		w.noMistakes()
	})
}

func TestFB02ExistingIsNeverMade(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, _, err := w.e.Start(t.Context(), "fb1", "root", existing(), cbt.Digest{})
		refused(t, err, failback.ReasonVMGone)
		if ev := w.log.Events(); len(ev) > 0 {
			t.Errorf("actions before the error: %v", ev)
		}
		w.restore()
		w.start(existing())
		w.activity(failback.Deciding)
		w.equal(w.prod, w.restored, w.dr, w.replica)
		if n := written(w.mover.Moves()); n == 0 || n > 15*grain {
			t.Errorf("%d bytes were written", n)
		}
		w.noMistakes()
	})
}

func TestFB03NewHasDataAndConfiguration(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := fresh()
		thin := true
		s.Disks = []failback.DiskRule{{Disk: "scsi0:1", Grow: 31 * grain, Thin: &thin}}
		w.start(s)
		st := w.activity(failback.Deciding)
		vm, ok := w.prod.VM(st.Target.UUID)
		if !ok || vm.Name != "web-new" || vm.CPUs != 2 || vm.MemoryMiB != 512 || vm.NICs[0].Network != "lan" || !vm.Disks[1].Thin {
			t.Errorf("made %+v", vm)
		}
		if !bytes.Equal(w.prod.Bytes(vm.UUID, 0), w.dr.Bytes("r", 0)) || !bytes.Equal(w.prod.Bytes(vm.UUID, 1)[:30*grain], w.dr.Bytes("r", 1)) || len(w.prod.Bytes(vm.UUID, 1)) != 31*grain {
			t.Errorf("disks differ")
		}
		w.noMistakes()
	})
}

func TestFB04PlanSaysWhatMovesAndWhy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, err := w.e.Plan(t.Context(), home(), true)
		if err != nil || len(p.Problems) > 0 {
			t.Fatalf("%v %+v", err, p.Problems)
		}
		if p.Bytes == 0 || p.Bytes >= p.AtMost || !strings.Contains(p.Why, "differs") || p.Disks[0].Differing <= 0 || p.Disks[0].Mode != "hash" {
			t.Errorf("measured plan: %+v", p)
		}
		w.clean(w.dr, w.replica)
		full, err := w.e.Plan(t.Context(), fresh(), false)
		if err != nil || len(full.Problems) > 0 || full.Bytes <= p.Bytes || full.Disks[0].Mode != "full" {
			t.Errorf("plan of a new VM: %v %+v", err, full)
		}
		for _, pl := range []failback.Plan{p, full} {
			for _, a := range pl.Actions {
				if a.Text == "" || a.Number == 0 {
					t.Errorf("action %+v", a)
				}
			}
		}
		again, _ := w.e.Plan(t.Context(), home(), false)
		if again.Digest != p.Digest {
			t.Errorf("the digest of a plan depends on measuring it")
		}
		_, _, err = w.e.Start(t.Context(), "fb1", "root", home(), full.Digest)
		refused(t, err, failback.ReasonPlanChanged)
		if _, _, err = w.e.Start(t.Context(), "fb1", "root", home(), p.Digest); err != nil {
			t.Error(err)
		}
		st := w.activity(failback.Deciding)
		var did []string
		for _, s := range st.Steps {
			did = append(did, s.Name)
		}
		for _, a := range p.Actions { // what is printed is what is done
			if !slices.Contains(did, a.Step) {
				t.Errorf("planned %s was not done: %v", a.Step, did)
			}
		}
	})
}

func TestFB05OnlyFromFailover(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx, got := t.Context(), map[string]bool{}
		try := func() {
			t.Helper()
			_, _, err := w.e.Start(ctx, "other", "root", home(), cbt.Digest{})
			got[asFailure(err).Reason] = true
		}
		if _, err := w.e.UndoFailover(ctx, "web", 0); err != nil {
			t.Fatal(err)
		}
		try() // Ready
		if _, err := w.e.Failover(ctx, "web", 0); err != nil {
			t.Fatal(err)
		}
		w.start(home())
		w.activity(failback.Deciding)
		try() // Failback
		s := home()
		s.VM = "unknown"
		_, _, err := w.e.Start(ctx, "other", "root", s, cbt.Digest{})
		refused(t, err, failback.ReasonUnknownVM)
		if !got[failback.ReasonVMReady] || !got[failback.ReasonVMFailback] {
			t.Errorf("reasons %v", got)
		}
	})
}

func TestFB10OriginalIsPoweredOffFirst(t *testing.T) {
	for _, on := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			want := 0
			if on {
				w.prod.Outside("o", hostctl.On)
				want = 1
			}
			s := home()
			s.PowerOn = false
			w.start(s)
			w.activity(failback.Deciding)
			var power, move int
			for i, ev := range w.log.Events() {
				if ev.Method == "SetPower" && ev.VM == "web" {
					power++
					if move > 0 {
						t.Errorf("powered off after a write (event %d)", i)
					}
				}
				if ev.Method == "Move" {
					move++
				}
			}
			if power != want || move == 0 {
				t.Errorf("%d power-offs, want %d; %d moves", power, want, move)
			}
		})
	}
}

func TestFB11DiffWhileReplicaServes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(manual(home)())
		st := w.activity(failback.Standing)
		w.power(w.dr, w.replica, hostctl.On)
		if d := st.Disks[0]; len(d.Passes) != 1 || d.Passes[0].Counters.Scanned != 20*grain || d.Passes[0].Counters.Differing != 2*grain {
			t.Errorf("the diff is not stored: %+v", st.Disks[0])
		}
	})
}

func TestFB12OnlyDifferencesAreWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(manual(home)())
		w.activity(failback.Standing)
		for _, m := range w.mover.Moves() {
			if !m.SourceOn {
				t.Errorf("pass %d: the replica was off", m.Pass)
			}
			for _, e := range m.Written {
				if e.Off%(10*grain) != 0 || e.Len != grain {
					t.Errorf("written %v, which does not differ", e)
				}
			}
		}
	})
}

func TestFB13ReplicaStaysOff(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(home())
		w.activity(failback.Deciding)
		w.power(w.dr, w.replica, hostctl.Off)
		for _, m := range w.mover.Moves() {
			if m.Pass > 1 && m.SourceOn {
				t.Errorf("the final pass ran while the replica was on")
			}
		}
		if got := w.order("SetPower"); !slices.Equal(got, []string{"SetPower power-off-replica", "SetPower power-on"}) {
			t.Errorf("power: %v", got)
		}
	})
}

func TestFB14ProtectiveSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		was := w.bytes(w.dr, w.replica)
		w.start(home())
		w.activity(failback.Deciding)
		vm, _ := w.dr.VM("r")
		if len(vm.Snapshots) != 1 || !strings.HasSuffix(vm.Snapshots[0].Name, "-protect-replica") {
			t.Fatalf("snapshots %+v", vm.Snapshots)
		}
		for i := range was {
			if !bytes.Equal(w.dr.Point("r", vm.Snapshots[0].ID, i), was[i]) {
				t.Errorf("disk %d of the protective snapshot is not what it was", i)
			}
		}
		want := []string{"SetPower power-off-replica", "Protect protect-replica"}
		if got := w.order("SetPower", "Protect"); !slices.Equal(got[2:4], want) {
			t.Errorf("order %v", got)
		}
	})
}

func TestFB15FinalPassMovesWhatChangedMeanwhile(t *testing.T) {
	for _, spec := range []func() failback.Spec{home, fresh} {
		bubble(t, func(t *testing.T, w *world) {
			w.mover.Hook(func(m hosttest.Moment) error {
				if m.Method == "Moving" && !strings.Contains(w.replica.Name, "off") { // half way: to both sides of it
					_ = w.dr.Write("r", 0, 100, []byte("already compared"))
					_ = w.dr.Write("r", 0, 19*grain, []byte("not compared yet"))
				}
				return nil
			})
			w.start(spec())
			st := w.activity(failback.Deciding)
			w.equal(w.prod, st.Target, w.dr, w.replica)
			last := st.Disks[0].Passes[len(st.Disks[0].Passes)-1]
			if last.Used != "hint" || last.Counters.Scanned != 2*grain {
				t.Errorf("the final pass read %d bytes (%s): %+v", last.Counters.Scanned, last.Used, last)
			}
			if got := st.Disks[0].Sampled; got != "sampled 0 B of 72.0 KiB" {
				t.Errorf("the proof is told as %q", got)
			}
		})
	}
}

func TestFB16StateOnlyAfterTheFinalPass(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.mover.Plan(hosttest.Fault{Method: "Move", Step: "scsi0:1", Skip: 1, When: hosttest.Before, Final: true, Text: "disk on fire"})
		w.start(home())
		st := w.halted()
		if st.State == failback.Failback || st.Halted.Number != 6 || !strings.Contains(st.Halted.Text, "on fire") || st.Halted.Remedy == "" {
			t.Errorf("halted %+v in state %s", st.Halted, st.State)
		}
		if p, _ := w.e.Pair(t.Context(), "web"); p.State == failback.Failback {
			t.Errorf("the pair is in Failback")
		}
		if !st.Disks[0].Verified || st.Disks[1].Verified {
			t.Errorf("one disk's result is the other's: %v %v", st.Disks[0].Verified, st.Disks[1].Verified)
		}
		before := len(w.mover.Moves())
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Deciding)
		w.state(failback.Failback)
		if n := len(w.mover.Moves()) - before; n != 1 {
			t.Errorf("%d disks were moved after the halt, 1 was open", n)
		}
	})
}

func TestFB17ReplicationIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		refused(t, w.e.CheckReplication(t.Context(), "web"), failback.ReasonReplicationOver)
		w.start(home())
		w.activity(failback.Deciding)
		refused(t, w.e.CheckReplication(t.Context(), "web"), failback.ReasonHeld)
		if !slices.Equal(w.repl.held, []string{"web"}) {
			t.Errorf("held %v", w.repl.held)
		}
		w.commit()
		if err := w.e.CheckReplication(t.Context(), "web"); err != nil || len(w.repl.held) > 0 {
			t.Errorf("after commit: %v, held %v", err, w.repl.held)
		}
	})
}

func TestFB18OriginalIsReplacedInTheMap(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.restore()
		w.start(existing())
		w.activity(failback.Deciding)
		p := w.state(failback.Failback)
		if p.Original.UUID != "t" || p.Former == nil || p.Former.UUID != "o" || len(p.Disks) != 2 {
			t.Errorf("pair %+v", p)
		}
		w.undo()
		if p = w.state(failback.Failover); p.Original.UUID != "o" || p.Former != nil || len(p.Disks) != 0 {
			t.Errorf("after undo: %+v", p)
		}
	})
	bubble(t, func(t *testing.T, w *world) { // original: nothing to replace
		w.start(home())
		w.activity(failback.Deciding)
		if p := w.state(failback.Failback); p.Original.UUID != "o" || p.Former != nil {
			t.Errorf("pair %+v", p)
		}
	})
}

func TestFB19PowerOnIsLastAndOnlyIfAsked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := home()
		s.PowerOn = false
		w.start(s)
		w.activity(failback.Deciding)
		w.power(w.prod, w.original, hostctl.Off)
	})
	bubble(t, func(t *testing.T, w *world) {
		w.prod.Plan(hosttest.Fault{Method: "SetPower", Step: "power-on", Times: 1, When: hosttest.Before, Final: true, Text: "no resources"})
		w.start(home())
		st := w.halted()
		if st.State != failback.Failback || st.Halted.Step != "power-on" || !strings.Contains(st.Halted.Text, "no resources") {
			t.Errorf("%s", tell(&st))
		}
		moves := len(w.mover.Moves())
		if _, err := w.e.Continue(t.Context(), "fb1", 0); err != nil {
			t.Fatal(err)
		}
		w.activity(failback.Deciding)
		w.power(w.prod, w.original, hostctl.On)
		if len(w.mover.Moves()) != moves {
			t.Errorf("copied again")
		}
	})
}

func TestFB20To22NewIsRegisteredWhenComplete(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(fresh())
		w.activity(failback.Deciding)
		got := w.order("Create", "Move", "Register", "SetPower")
		i := slices.Index(got, "Register register")
		if i < 0 || got[0] != "Create create-target" || got[len(got)-1] != "SetPower power-on" || slices.ContainsFunc(got[i:], func(s string) bool { return strings.HasPrefix(s, "Move") }) {
			t.Errorf("order %v", got)
		}
	})
}

func TestFB23NewIsTheSameMachine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(fresh())
		st := w.activity(failback.Deciding)
		var names []string
		for _, s := range st.Steps {
			names = append(names, s.Name)
		}
		want := []string{"create-target", "pass-1", "power-off-replica", "protect-replica", "final-pass", "state", "hold-replication", "register", "rebind", "power-on"}
		got := slices.DeleteFunc(names, func(s string) bool { return !slices.Contains(want, s) })
		if !slices.Equal(got, want) {
			t.Errorf("steps %v, want %v", got, want)
		}
	})
}

func TestFB30StaysUntilSomebodyDecides(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start(home())
		was := w.activity(failback.Deciding)
		for range 3 {
			w.close()
			time.Sleep(100 * 24 * time.Hour)
			w.open()
			st := w.get()
			if st.State != failback.Failback || st.Activity != failback.Deciding || st.Spec.PowerOn != was.Spec.PowerOn {
				t.Fatalf("%s", tell(&st))
			}
		}
		w.undo()
	})
}

func TestFB31CommitIsReady(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.restore()
		w.start(existing())
		w.activity(failback.Deciding)
		w.commit()
		p := w.state(failback.Ready)
		if p.Original.UUID != "t" || len(p.Excluded) != 1 || p.Excluded[0].UUID != "o" || p.Held != "" {
			t.Errorf("pair %+v", p)
		}
		st, err := w.e.Commit(t.Context(), "fb1", failback.CommitOptions{}, 0) // O2: twice is the same
		if err != nil || st.Activity != failback.Committed {
			t.Errorf("second commit: %v %s", err, st.Activity)
		}
		_, err = w.e.Undo(t.Context(), "fb1", failback.UndoOptions{}, 0)
		refused(t, err, failback.ReasonCommitted)
	})
}

func TestFB32UndoIsTheStateBefore(t *testing.T) {
	for name, fault := range map[string]hosttest.Fault{
		"host reverts":       {Method: "none"},
		"host cannot":        {Method: "Restore", Times: -1, When: hosttest.Before, Final: true, Text: "not supported"},
		"host lies":          {Method: "Restore", Times: -1, When: hosttest.Lied},
		"host is slow":       {Method: "Restore", Times: -1, Delay: time.Hour},
		"host loses replies": {Method: "Restore", Times: 3, When: hosttest.Lost},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.dr.Plan(fault)
				w.prod.Plan(fault)
				was := w.bytes(w.dr, w.replica)
				w.start(home())
				w.activity(failback.Deciding)
				// Somebody has looked at home, and at the replica, in the meantime.
				_ = w.prod.Write("o", 0, 0, []byte("written at home"))
				w.dr.Outside("r", hostctl.On)
				_ = w.dr.Write("r", 0, 0, []byte("written at the replica"))
				w.dr.Outside("r", hostctl.Off)
				if _, err := w.e.Undo(t.Context(), "fb1", failback.UndoOptions{}, 0); err != nil {
					t.Fatal(err)
				}
				st := w.activity(failback.Undone)
				w.is(w.dr, w.replica, was)
				w.is(w.prod, w.original, w.before)
				w.power(w.dr, w.replica, hostctl.On)
				w.power(w.prod, w.original, hostctl.Off)
				w.clean(w.prod, w.original)
				w.clean(w.dr, w.replica)
				// That the replica was on may have been seen as well, and told.
				hosts := slices.DeleteFunc(st.Warnings, func(s string) bool { return strings.Contains(s, "powered on from outside") })
				if warned := len(hosts) > 0; warned != (name == "host lies" || name == "host cannot") {
					t.Errorf("warnings %v", hosts)
				}
			})
		})
	}
}

func TestFB33ProtectiveSnapshotIsKeptOrDeleted(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			w.start(home())
			w.activity(failback.Deciding)
			if _, err := w.e.Commit(context.Background(), "fb1", failback.CommitOptions{DeleteProtective: deleted}, 0); err != nil {
				t.Fatal(err)
			}
			w.activity(failback.Committed)
			vm, _ := w.dr.VM("r")
			if kept := len(vm.Snapshots) == 1; kept == deleted {
				t.Errorf("deleted %v: %+v", deleted, vm.Snapshots)
			}
			list, err := w.e.Garbage(t.Context(), true)
			if err != nil || len(list) > 0 {
				t.Errorf("the restore point is garbage: %v %+v", err, list)
			}
		})
	}
}
