package simvs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl/simvs"
)

const block = 64 << 10

// tracked is a VM with two points; between them every other block of the first n
// was written.
func tracked(t *testing.T, n int) (r *rig, since string, until types.ManagedObjectReference) {
	t.Helper()
	r = newRig(t, &simvs.VM{Name: "web", Disks: []simvs.Disk{{Size: 64 << 20}}, On: true}, simvs.Config{})
	r.track(true)
	s1 := r.snapshot("one")
	since = r.files(s1.Value)[0].ChangeID
	for i := range n {
		r.write(0, "x", int64(2*i)*block)
	}
	r.remove(s1)
	return r, since, r.snapshot("two")
}

func (r *rig) set(change func(*simvs.Switches)) {
	r.Switch(func(sw *simvs.Switches) {
		*sw = simvs.Switches{SlowTasks: map[string]time.Duration{}, FailAfter: map[string]int{}}
		change(sw)
	})
}

// TestTrackingSwitches shows of each switch of change tracking that it acts.
func TestTrackingSwitches(t *testing.T) {
	r, since, s2 := tracked(t, 8)
	true8 := r.areas(s2, since)
	if len(true8) != 8 {
		t.Fatalf("areas without a switch: %v", true8)
	}
	first := func() *types.DiskChangeInfo {
		t.Helper()
		info, err := r.changed(&s2, since, 0)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	r.set(func(sw *simvs.Switches) { sw.AreaCap = 3 })
	var all []types.DiskChangeExtent
	pages := 0
	for off := int64(0); off < 64<<20; pages++ {
		info, err := r.changed(&s2, since, off)
		if err != nil {
			t.Fatal(err)
		}
		if info.StartOffset != off || len(info.ChangedArea) > 3 || info.Length <= 0 {
			t.Fatalf("page %d: %+v", pages, info)
		}
		all, off = append(all, info.ChangedArea...), off+info.Length
	}
	if !slices.Equal(all, true8) || pages != 3 {
		t.Errorf("%d pages: %v", pages, all)
	}
	r.set(func(sw *simvs.Switches) { sw.AreaCap, sw.CapSilently = 3, true })
	if info := first(); len(info.ChangedArea) != 3 || info.Length != 64<<20 {
		t.Errorf("cut silently: %+v", info)
	}
	r.set(func(sw *simvs.Switches) { sw.ZeroPages = 1 })
	if info := first(); info.Length != 0 || len(info.ChangedArea) != 0 {
		t.Errorf("zero page: %+v", info)
	}
	if info := first(); info.Length == 0 {
		t.Error("more zero pages than asked for")
	}
	r.set(func(sw *simvs.Switches) { sw.Unsorted, sw.Overlap, sw.BeyondEnd = true, true, true })
	info := first()
	if slices.IsSortedFunc(info.ChangedArea, func(a, b types.DiskChangeExtent) int { return int(a.Start - b.Start) }) || len(info.ChangedArea) != 17 {
		t.Errorf("disorder: %v", info.ChangedArea)
	}
	if !slices.ContainsFunc(info.ChangedArea, func(a types.DiskChangeExtent) bool { return a.Start+a.Length > 64<<20 }) {
		t.Error("nothing ends beyond the disk")
	}
	r.set(func(sw *simvs.Switches) { sw.OverReport = true })
	if info = first(); len(info.ChangedArea) != 1 || info.ChangedArea[0].Length != 2<<20 {
		t.Errorf("too much: %v", info.ChangedArea)
	}
	r.set(func(sw *simvs.Switches) { sw.UnderReport = 2 })
	if info = first(); len(info.ChangedArea) != 4 {
		t.Errorf("too little: %v", info.ChangedArea)
	}
	r.set(func(sw *simvs.Switches) { sw.AreaCap, sw.FaultAtPage = 3, 2 })
	info = first()
	if _, err := r.changed(&s2, since, info.Length); err == nil || !strings.Contains(err.Error(), "Error caused by file") {
		t.Errorf("the second page: %v", err)
	}
}

func TestThousandsOfAreas(t *testing.T) {
	r := newRig(t, &simvs.VM{Name: "big", Disks: []simvs.Disk{{Size: 512 << 20}}, On: true}, simvs.Config{})
	r.track(true)
	s1 := r.snapshot("one")
	since := r.files(s1.Value)[0].ChangeID
	for i := range 2500 {
		r.write(0, "x", int64(2*i)*block)
	}
	s2 := r.snapshot("two")
	info, err := r.changed(&s2, since, 0)
	if err != nil || len(info.ChangedArea) != 2000 || info.Length != 3999*block {
		t.Fatalf("%d areas, length %d, %v", len(info.ChangedArea), info.Length, err)
	}
	if info, err = r.changed(&s2, since, info.Length); err != nil || len(info.ChangedArea) != 500 {
		t.Errorf("%d areas, %v", len(info.ChangedArea), err)
	}
}

func TestEpochs(t *testing.T) {
	r, since, s2 := tracked(t, 1)
	ctx := t.Context()
	epoch := func(id string) string { e, _, _ := strings.Cut(id, "/"); return e }
	cycle := func(name string) string {
		t.Helper()
		r.remove(s2)
		s2 = r.snapshot(name)
		return r.files(s2.Value)[0].ChangeID
	}
	r.wait(r.vm.PowerOff(ctx))
	r.wait(r.vm.PowerOn(ctx))
	if id := cycle("clean"); epoch(id) != epoch(since) {
		t.Error("a clean power cycle has begun a new epoch")
	}
	if err := r.PowerLoss("web"); err != nil {
		t.Fatal(err)
	}
	r.wait(r.vm.PowerOn(ctx))
	lost := cycle("lost")
	if epoch(lost) == epoch(since) {
		t.Error("the epoch has survived a loss of power")
	}
	if _, err := r.changed(&s2, since, 0); err == nil {
		t.Error("a change ID of the old epoch is answered")
	}
	r.set(func(sw *simvs.Switches) { sw.EpochResetOnPowerOn = true })
	r.wait(r.vm.PowerOff(ctx))
	r.wait(r.vm.PowerOn(ctx))
	if epoch(cycle("switch")) == epoch(lost) {
		t.Error("the switch EpochResetOnPowerOn does nothing")
	}
}

func TestStale(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	r.snapshot("in the way")
	r.track(true)
	s1 := r.snapshot("one")
	since := r.files(s1.Value)[0].ChangeID
	r.write(0, "x", 0)
	s2 := r.snapshot("two")
	if n := len(r.areas(s2, since)); n != 1 {
		t.Errorf("%d areas", n)
	}
	r.set(func(sw *simvs.Switches) { sw.StaleWithSnapshot = true })
	if n := len(r.areas(s2, since)); n != 0 {
		t.Errorf("%d areas although tracking began above a snapshot", n)
	}
	r, _, s2 = tracked(t, 3)
	ctx := t.Context()
	r.wait(r.vm.PowerOff(ctx))
	r.set(func(sw *simvs.Switches) { sw.StaleAfterRevert = true })
	r.wait(r.vm.PowerOn(ctx))
	r.write(0, "lost by the revert", 32<<20)
	id := r.files(r.snapshot("three").Value)[0].ChangeID
	r.wait(r.vm.PowerOff(ctx))
	r.wait(r.vm.RevertToSnapshot(ctx, s2.Value, true))
	s4 := r.snapshot("four")
	hidden := r.areas(s4, id)
	r.set(func(*simvs.Switches) {})
	if shown := r.areas(s4, id); len(hidden) != 0 || len(shown) != 1 {
		t.Errorf("after a revert: with the switch %v, without %v", hidden, shown)
	}
}

func TestExtend(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	r.track(true)
	s1 := r.snapshot("one")
	since := r.files(s1.Value)[0].ChangeID
	d := disks(r.props().Config)[0]
	d.CapacityInBytes, d.CapacityInKB = 16<<20, 16<<10
	if err := r.vm.EditDevice(ctx, d); err == nil {
		t.Error("a disk with a snapshot has grown")
	}
	r.remove(s1)
	d = disks(r.props().Config)[0]
	d.CapacityInBytes, d.CapacityInKB = 16<<20, 16<<10
	if err := r.vm.EditDevice(ctx, d); err != nil {
		t.Fatal(err)
	}
	s2 := r.snapshot("two")
	want := []types.DiskChangeExtent{{Start: 8 << 20, Length: 8 << 20}}
	if got := r.areas(s2, since); !slices.Equal(got, want) {
		t.Errorf("areas %v, want %v", got, want)
	}
	r.set(func(sw *simvs.Switches) { sw.FaultAfterExtend = true })
	if _, err := r.changed(&s2, since, 0); err == nil {
		t.Error("the switch FaultAfterExtend does nothing")
	}
}

func TestTaskSwitches(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	r.set(func(sw *simvs.Switches) { sw.SnapshotNoSpace = true })
	task, err := r.vm.CreateSnapshot(ctx, "no", "", false, false)
	if err := r.fails(task, err); !fault.Is(err, &types.NoDiskSpace{}) {
		t.Errorf("snapshot without space: %v", err)
	}
	r.set(func(sw *simvs.Switches) { sw.FailAfter["CreateSnapshot_Task"] = 1 })
	task, err = r.vm.CreateSnapshot(ctx, "acted", "", false, false)
	r.fails(task, err)
	tree := r.props().Snapshot.RootSnapshotList
	if len(tree) != 1 || tree[0].Name != "acted" {
		t.Fatalf("the task has not acted: %v", tree)
	}
	s1 := tree[0].Snapshot
	r.write(0, "later", 4<<20)
	r.wait(r.vm.PowerOff(ctx))
	r.set(func(sw *simvs.Switches) { sw.RevertDoesNothing = true })
	r.wait(r.vm.RevertToSnapshot(ctx, s1.Value, true))
	if !fileHas(t, r.files("")[0].Flat, "later", 4<<20) {
		t.Error("it has reverted")
	}
	r.set(func(sw *simvs.Switches) { sw.RevertWrongBytes = true })
	r.wait(r.vm.RevertToSnapshot(ctx, s1.Value, true))
	if f := r.files("")[0].Flat; fileHas(t, f, "later", 4<<20) || fileHas(t, f, strings.Repeat("\x00", 64), 4<<20) {
		t.Error("the revert has brought the right bytes, or none")
	}
	r.set(func(sw *simvs.Switches) { sw.SlowTasks["PowerOnVM_Task"] = time.Hour })
	on, err := r.vm.PowerOn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var slow mo.Task
	if err := property.DefaultCollector(r.c.Client).RetrieveOne(ctx, on.Reference(), []string{"info"}, &slow); err != nil || slow.Info.State != types.TaskInfoStateRunning {
		t.Errorf("the slow task is %s, %v", slow.Info.State, err)
	}
	if state := r.props().Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff { // and it can be read meanwhile
		t.Errorf("a slow task has ended: %s", state)
	}
}

func TestGuestPower(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	pc := property.DefaultCollector(r.c.Client)
	until := func(want types.VirtualMachinePowerState) {
		t.Helper()
		err := property.Wait(ctx, pc, r.vm.Reference(), []string{"runtime.powerState"}, func(pc []types.PropertyChange) bool {
			return pc[0].Val == want
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if r.props().Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		t.Error("the tools do not run")
	}
	r.set(func(sw *simvs.Switches) { sw.NoTools = true })
	if err := r.vm.ShutdownGuest(ctx); !fault.Is(err, &types.ToolsUnavailable{}) {
		t.Errorf("shutdown without tools: %v", err)
	}
	r.set(func(sw *simvs.Switches) { sw.IgnoreShutdown = true })
	if err := r.vm.ShutdownGuest(ctx); err != nil {
		t.Fatal(err)
	}
	r.write(0, "it still runs", 0)
	r.set(func(*simvs.Switches) {})
	if err := r.vm.ShutdownGuest(ctx); err != nil {
		t.Fatal(err)
	}
	until(types.VirtualMachinePowerStatePoweredOff)
	if _, err := r.guest.WriteAt(0, []byte("x"), 0); err == nil {
		t.Error("a guest that is off writes")
	}
	task, err := r.vm.PowerOff(ctx)
	if err := r.fails(task, err); !fault.Is(err, &types.InvalidPowerState{}) {
		t.Errorf("second power off: %v", err)
	}
	r.set(func(sw *simvs.Switches) { sw.PowerOnQuestion = true })
	task, err = r.vm.PowerOn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var question *types.VirtualMachineQuestionInfo
	err = property.Wait(ctx, pc, r.vm.Reference(), []string{"runtime.question"}, func(pc []types.PropertyChange) bool {
		if q, ok := pc[0].Val.(types.VirtualMachineQuestionInfo); ok {
			question = &q
		}
		return question != nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.vm.Answer(ctx, question.Id, "0"); err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if q := r.props().Runtime.Question; q != nil {
		t.Errorf("the question is still there: %+v", q)
	}
	r.wait(r.vm.Suspend(ctx))
	if r.props().Runtime.PowerState != types.VirtualMachinePowerStateSuspended {
		t.Error("not suspended")
	}
	r.wait(r.vm.PowerOff(ctx))
}

func TestEvents(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	s := r.snapshot("one")
	r.wait(r.vm.PowerOff(ctx))
	r.wait(r.vm.RevertToSnapshot(ctx, s.Value, true))
	list, err := event.NewManager(r.c.Client).QueryEvents(ctx, types.EventFilterSpec{
		Entity: &types.EventFilterSpecByEntity{Entity: r.vm.Reference(), Recursion: types.EventFilterSpecRecursionOptionSelf},
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range list {
		switch e := e.(type) {
		case *types.TaskEvent:
			seen[e.Info.DescriptionId] = true
		case *types.VmPoweredOffEvent:
			seen["off"] = true
		}
	}
	for _, want := range []string{"VirtualMachine.createSnapshot", "vm.Snapshot.revert", "off"} {
		if !seen[want] {
			t.Errorf("no event of %s in %v", want, seen)
		}
	}
	res, err := methods.RetrieveServiceContent(ctx, r.c.Client, &types.RetrieveServiceContent{This: types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"}})
	if err != nil || res.Returnval.About.Version != "8.0.2" {
		t.Errorf("version: %+v, %v", res, err)
	}
}
