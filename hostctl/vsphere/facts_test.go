package vsphere

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/simvs"
)

// H1: the server goes away when it has taken the action, and comes back. The
// reference that was stored finds the task.
func TestH1ServerAwayInAction(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	s.Switch(func(sw *simvs.Switches) {
		sw.SlowTasks = map[string]time.Duration{"CreateSnapshot_Task": 300 * time.Millisecond}
	})
	op := s.op("protect")
	op.Started = func(task string) error {
		op.Task = task
		s.Down()
		return nil
	}
	_, err := s.c.Protect(t.Context(), op, s.vm.Ref, "")
	if err == nil || !retries(err) || op.Task == "" {
		t.Fatalf("got %v with the task %q, want a retryable error and a stored task", err, op.Task)
	}
	s.must(s.Up())
	again := &hostctl.Op{Run: op.Run, Step: op.Step, Task: op.Task, Started: func(string) error {
		t.Error("a second task was started")
		return nil
	}}
	if _, err := s.c.Protect(t.Context(), again, s.vm.Ref, ""); err != nil {
		t.Fatal(err)
	}
	if n := len(s.look().Snapshots); n != 1 {
		t.Errorf("%d snapshots, want 1", n)
	}
}

// H2: a task that outlives its caller is found by what it is on when nobody has
// stored it, and one that nobody knows any more is judged by what is there.
func TestH2TaskOutlivesCaller(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	s.Switch(func(sw *simvs.Switches) {
		sw.SlowTasks = map[string]time.Duration{"CreateSnapshot_Task": 500 * time.Millisecond}
	})
	ctx, cancel := context.WithCancel(t.Context())
	op := s.op("protect")
	op.Started = func(string) error { cancel(); return nil }
	if _, err := s.c.Protect(ctx, op, s.vm.Ref, ""); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}
	again := s.op("protect")
	again.Started = func(string) error { t.Error("a second task was started"); return nil }
	shot, err := s.c.Protect(t.Context(), again, s.vm.Ref, "")
	s.must(err)
	again.Task = "task-999999"
	if same, err := s.c.Protect(t.Context(), again, s.vm.Ref, ""); err != nil || same.ID != shot.ID {
		t.Errorf("with a task that nobody knows: %+v, %v", same, err)
	}
	s.must(s.c.Release(t.Context(), s.op("release"), s.vm.Ref, shot.ID))
}

// H4: what is off already is done; what is neither on nor safely off is refused.
func TestH4States(t *testing.T) {
	r := newRig(t, vpx())
	c := r.open()
	vm := r.prepare(c)
	r.edit(vm.Ref, func(vm *simulator.VirtualMachine) { vm.Runtime.PowerState = types.VirtualMachinePowerStateSuspended })
	for _, want := range []hostctl.Power{hostctl.On, hostctl.Off} {
		err := c.SetPower(t.Context(), &hostctl.Op{}, vm.Ref, want, time.Minute)
		if err == nil || retries(err) || !strings.Contains(err.Error(), "suspended") {
			t.Errorf("make it %d: got %v, want a final error that says suspended", want, err)
		}
	}
	r.edit(vm.Ref, func(vm *simulator.VirtualMachine) {
		vm.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOn
		vm.Runtime.Question = &types.VirtualMachineQuestionInfo{Text: "moved or\x1b copied?"}
	})
	err := c.SetPower(t.Context(), &hostctl.Op{}, vm.Ref, hostctl.Off, time.Minute)
	if !isQuestion(err) || !strings.Contains(err.Error(), "copied?") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %v, want the question", err)
	}
	// It was powered off by somebody else between the look and the call.
	r.edit(vm.Ref, func(vm *simulator.VirtualMachine) { vm.Runtime.Question = nil })
	a := c.powerAction(vm, hostctl.Off)
	looks := 0
	look := a.done
	a.done = func(ctx context.Context) (bool, error) {
		if looks++; looks == 1 {
			return false, nil
		}
		return look(ctx)
	}
	r.edit(vm.Ref, func(vm *simulator.VirtualMachine) { vm.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOff })
	if err := c.act(t.Context(), &hostctl.Op{}, a); err != nil || r.called("PowerOffVM_Task") == 0 {
		t.Errorf("InvalidPowerState of what is off: %v", err)
	}
}

// A question that comes up while the task runs ends the wait: no task ends before
// it is answered.
func TestH4QuestionInTask(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	s.Switch(func(sw *simvs.Switches) { sw.PowerOnQuestion = true })
	op := s.op("power-on")
	for range 2 { // asked again with its task, it says the same
		err := s.c.SetPower(t.Context(), op, s.vm.Ref, hostctl.On, 0)
		if !isQuestion(err) || !strings.Contains(err.Error(), "moved or copied") || op.Task == "" {
			t.Fatalf("got %v with the task %q, want the question", err, op.Task)
		}
	}
	problems, err := s.c.Check(t.Context(), s.vm.Ref, nil)
	if err != nil || len(problems) != 1 || problems[0].Reason != reasonQuestion {
		t.Errorf("check: %+v, %v", problems, err)
	}
}

// A guest that listens shuts down and needs no task; one that does not is powered
// off when the grace has passed, and a second try does not wait all of it again.
func TestGuestShutdown(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	s.must(s.PowerOn("web"))
	op := s.op("power-off")
	s.must(s.c.SetPower(t.Context(), op, s.vm.Ref, hostctl.Off, time.Minute))
	if s.look().Power != hostctl.Off || !strings.HasPrefix(op.Task, shutdownTask) {
		t.Errorf("power %d, task %q", s.look().Power, op.Task)
	}
	s.must(s.PowerOn("web"))
	s.Switch(func(sw *simvs.Switches) { sw.IgnoreShutdown = true })
	op = s.op("power-off")
	s.must(s.c.SetPower(t.Context(), op, s.vm.Ref, hostctl.Off, time.Second))
	if s.look().Power != hostctl.Off || !strings.HasPrefix(op.Task, "task-") {
		t.Errorf("deaf: power %d, task %q", s.look().Power, op.Task)
	}
	s.must(s.PowerOn("web"))
	op = s.op("power-off")
	op.Task = shutdownTask + time.Now().UTC().Format(time.RFC3339) // its grace is over
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.c.SetPower(ctx, op, s.vm.Ref, hostctl.Off, time.Hour); err != nil {
		t.Errorf("after a crash: %v", err)
	}
}

// H6: somebody else powers it on; the server restarts in the watch.
func TestH6WatchThroughRestart(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan hostctl.Event, 64)
	go func() {
		defer close(events)
		for e, err := range s.c.Watch(ctx, []hostctl.Ref{s.vm.Ref}) {
			if err == nil {
				events <- e
			} else if ctx.Err() == nil {
				t.Errorf("watch: %v", err)
			}
		}
	}()
	next := func(what string) hostctl.Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(time.Minute):
			t.Fatalf("no event: %s", what)
			return hostctl.Event{}
		}
	}
	if e := next("first"); e.Power != hostctl.Off {
		t.Errorf("first: %+v", e)
	}
	s.must(s.PowerOn("web"))
	if e := next("on"); e.Power != hostctl.On || e.VM.UUID != s.vm.UUID {
		t.Errorf("powered on from outside: %+v", e)
	}
	s.Down()
	s.DropSessions()
	s.must(s.PowerOff("web")) // nobody hears of it
	s.must(s.Up())
	if e := next("off"); e.Power != hostctl.Off {
		t.Errorf("powered off while the server was away: %+v", e)
	}
	s.DropSessions()
	s.must(s.PowerOn("web"))
	if e := next("on again"); e.Power != hostctl.On {
		t.Errorf("after a lost session: %+v", e)
	}
	cancel()
	for range events {
	}
}

// H7: a registration gives another ID. The UUID finds it; an ID of somebody else
// is not believed.
func TestH7AnotherID(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	old := s.vm.Ref
	s.must(s.c.Unregister(t.Context(), s.op("unregister"), old))
	ref, err := s.c.Register(t.Context(), s.op("register"), s.vm.Path, hostctl.Placement{})
	s.must(err)
	if ref.ID == old.ID || ref.UUID != old.UUID {
		t.Fatalf("registered as %+v, was %+v", ref, old)
	}
	s.must(s.c.Mark(t.Context(), s.op("mark"), old, "run", "r"))
	if s.look().Marks["run"] != "r" {
		t.Error("the mark is not on the VM")
	}
	_, err = s.AddVM(&simvs.VM{Name: "other", Disks: []simvs.Disk{{Size: 1 << 20}}})
	s.must(err)
	other, err := s.c.Find(t.Context(), hostctl.Query{Name: "other"})
	s.must(err)
	wrong := hostctl.Ref{ID: other.ID, UUID: old.UUID}
	s.must(s.c.Mark(t.Context(), s.op("mark"), wrong, "run", "r2"))
	if s.look().Marks["run"] != "r2" {
		t.Error("an ID that another VM has was believed against the UUID")
	}
}

// A guard is a disabled method of the VM, and goes away after a crash too.
func TestGuard(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	s.must(s.c.Hold(t.Context(), s.op("guard"), s.vm.Ref))
	if vm := s.look(); !slices.Contains(vm.Disabled, held) || vm.Marks[markGuard] == "" {
		t.Errorf("held: disabled %v, marks %v", vm.Disabled, vm.Marks)
	}
	later := s.open(s.User(), s.Password())
	s.must(later.Free(t.Context(), &hostctl.Op{Run: "another"}, s.vm.Ref))
	if vm := s.look(); slices.Contains(vm.Disabled, held) || vm.Marks[markGuard] != "" {
		t.Errorf("freed: disabled %v, marks %v", vm.Disabled, vm.Marks)
	}
}

// What the login may not do is named.
func TestPrivilegeNamed(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	s.AddUser("poor@vsphere.local", "poor", "System.View", "System.Read")
	poor := s.open("poor@vsphere.local", "poor")
	_, err := poor.Protect(t.Context(), s.op("protect"), s.vm.Ref, "")
	p, ok := errors.AsType[*hostctl.PrivilegeError](err)
	if !ok || !slices.Contains(p.Missing, "VirtualMachine.State.CreateSnapshot") {
		t.Errorf("got %v, want the privilege", err)
	}
}

// A snapshot whose files somebody holds is not released before they are free.
func TestReleaseWaitsForConsolidation(t *testing.T) {
	s := newSite(t, simvs.VCenter)
	shot := s.protect("protect")
	f, err := os.OpenFile(s.flat(shot.Disks[0]), os.O_RDWR, 0)
	s.must(err)
	defer f.Close()
	s.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	err = s.c.Release(t.Context(), s.op("release"), s.vm.Ref, shot.ID)
	if err == nil || !retries(err) {
		t.Fatalf("got %v, want an error that a retry may cure", err)
	}
	s.must(f.Close())
	s.must(s.c.Release(t.Context(), s.op("release"), s.vm.Ref, shot.ID))
	if vm := s.look(); len(vm.Snapshots) != 0 || vm.Disks[0].File != s.vm.Disks[0].File {
		t.Errorf("released: %d snapshots, disk on %s", len(vm.Snapshots), vm.Disks[0].File)
	}
}

// tracked is a site with tracking on and a first snapshot.
func tracked(t *testing.T) (*site, hostctl.Snapshot) {
	s := newSite(t, simvs.VCenter)
	s.must(s.c.EnableTracking(t.Context(), s.op("enable"), s.vm.Ref))
	return s, s.protect("track-1")
}

// spots writes at places of the first disk that are apart.
func (s *site) spots(n int) (areas []cbt.Extent) {
	vm := s.look()
	for i := range n {
		off := int64(2*i) * block
		s.WriteDisk(s.t, vm, vm.Disks[0], off, []byte{1})
		areas = append(areas, cbt.Extent{Off: off, Len: 1})
	}
	return areas
}

func (s *site) changed(now, base hostctl.Snapshot) cbt.Hint {
	s.t.Helper()
	hint, err := s.c.Changed(s.t.Context(), s.vm.Ref, now.ID, now.Disks[0], base.Disks[0].ChangeID)
	s.must(err)
	if want := "since " + base.Created.UTC().Format(time.RFC3339); hint.Since != want && strings.Contains(base.Disks[0].ChangeID, stampMark) {
		s.t.Errorf("the point is told as %q, want %q", hint.Since, want)
	}
	return hint
}

// A tracker that answers oddly is put in order; one that cannot be right is
// distrusted. What was written is never lost silently.
func TestTrackerMisbehaves(t *testing.T) {
	for _, c := range []struct {
		name     string
		before   func(s *site) // before the second snapshot
		sw       func(*simvs.Switches)
		distrust string // part of the remark; empty: it is trusted and covers all
	}{
		{name: "as it should"},
		{name: "B3 cut at few areas", sw: func(sw *simvs.Switches) { sw.AreaCap = 3 }},
		{name: "B4 unsorted", sw: func(sw *simvs.Switches) { sw.Unsorted = true }},
		{name: "B4 overlapping", sw: func(sw *simvs.Switches) { sw.Overlap = true }},
		{name: "over-reporting", sw: func(sw *simvs.Switches) { sw.OverReport = true }},
		{name: "zero pages", sw: func(sw *simvs.Switches) { sw.ZeroPages = 100 }, distrust: "answered nothing"},
		{name: "B1 FileFault", sw: func(sw *simvs.Switches) { sw.FaultAtPage = 1 }, distrust: "FileFault"},
		{name: "B1 FileFault in mid-paging", sw: func(sw *simvs.Switches) { sw.AreaCap, sw.FaultAtPage = 3, 2 }, distrust: "FileFault"},
		{
			name: "B1 another count after power-on", sw: func(sw *simvs.Switches) { sw.EpochResetOnPowerOn = true },
			before: func(s *site) { s.must(s.PowerOn("web")); s.must(s.PowerOff("web")) }, distrust: "another count",
		},
		{
			name: "a revert", distrust: "revert",
			before: func(s *site) {
				vm := s.look()
				s.must(s.c.Restore(s.t.Context(), s.op("restore"), vm.Ref, vm.Current))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, first := tracked(t)
			if c.sw != nil {
				s.Switch(c.sw)
			}
			if c.before != nil {
				c.before(s)
			}
			areas := s.spots(10)
			second := s.protect("track-2")
			hint := s.changed(second, first)
			if c.distrust != "" {
				if hint.Trust != cbt.Distrusted || !strings.Contains(strings.ToLower(hint.Remark), strings.ToLower(c.distrust)) {
					t.Errorf("got %v, %q; want distrust that says %q", hint.Trust, hint.Remark, c.distrust)
				}
				return
			}
			m, _, err := hint.Changed(second.Disks[0].Size)
			if err != nil {
				t.Fatalf("%v (%+v)", err, hint)
			}
			for _, e := range areas {
				if !m.Covers(e) {
					t.Errorf("%v was written and is not in %v", e, hint.Areas)
				}
			}
		})
	}
}

// A reset that is interrupted after each of its tasks goes on where it was.
func TestResetInterrupted(t *testing.T) {
	died := errors.New("died")
	for stop := 1; stop < 2 || !testing.Short(); stop++ {
		s, first := tracked(t)
		s.must(s.c.Release(t.Context(), s.op("release"), s.vm.Ref, first.ID))
		n, task := 0, ""
		op := s.op("reset")
		op.Started = func(ref string) error {
			task = ref
			if n++; n == stop {
				return died
			}
			return nil
		}
		err := s.c.ResetTracking(t.Context(), op, s.vm.Ref)
		again := s.op("reset")
		again.Task = task
		s.must(s.c.ResetTracking(t.Context(), again, s.vm.Ref))
		vm := s.look()
		if !vm.Tracking || len(vm.Snapshots) != 0 || len(vm.Marks) != 0 {
			t.Fatalf("stopped at task %d: tracking %v, snapshots %+v, marks %v", stop, vm.Tracking, vm.Snapshots, vm.Marks)
		}
		third := s.protect("after")
		if hint := s.changed(third, first); hint.Trust != cbt.Distrusted {
			t.Errorf("stopped at task %d: what was known before is still believed: %+v", stop, hint)
		}
		if err == nil {
			if stop < 5 {
				t.Errorf("a reset took %d tasks only", n)
			}
			return
		}
		if !errors.Is(err, died) {
			t.Fatalf("stopped at task %d: %v", stop, err)
		}
	}
}

// A datastore without room is told apart from a host that refuses: somebody can
// free some and go on.
func TestNoRoomForASnapshot(t *testing.T) {
	s := newSite(t, "vcenter")
	s.Switch(func(sw *simvs.Switches) { sw.SnapshotNoSpace = true })
	_, err := s.c.Protect(t.Context(), s.op("protect-target"), s.vm.Ref, "text")
	if !errors.Is(err, hostctl.ErrNoSpace) || !strings.Contains(err.Error(), "web") {
		t.Errorf("%v", err)
	}
}
