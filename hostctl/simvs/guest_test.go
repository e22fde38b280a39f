package simvs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl/simvs"
	"github.com/haulback/haulback/vddk"
)

// TestSnapshotIsOneMoment writes numbers one behind the other, each to the first
// disk and then to the second one: a snapshot of both has the same numbers on
// both, or one more on the first, and no number is missing in the end.
func TestSnapshotIsOneMoment(t *testing.T) {
	const size, most = 32 << 20, 1 << 19
	image := filepath.Join(t.TempDir(), "full")
	if err := os.WriteFile(image, bytes.Repeat([]byte{0xff}, size), 0o600); err != nil { // a copy takes its time
		t.Fatal(err)
	}
	r := newRig(t, &simvs.VM{Name: "db", Disks: []simvs.Disk{{Image: image}, {Image: image}}, On: true}, simvs.Config{})
	stop := make(chan struct{})
	var guest sync.WaitGroup
	last := 0
	guest.Go(func() {
		p := make([]byte, 8)
		for n := range most {
			select {
			case <-stop:
				return
			default:
			}
			binary.LittleEndian.PutUint64(p, uint64(n))
			for disk := range 2 {
				if _, err := r.guest.WriteAt(disk, p, int64(8*n)); err != nil {
					t.Error(err)
					return
				}
			}
			last = n + 1
		}
	})
	var snaps []types.ManagedObjectReference
	for i := range 5 {
		snaps = append(snaps, r.snapshot(fmt.Sprint(i)))
	}
	r.remove(snaps[2])
	r.remove(snaps[0])
	close(stop)
	guest.Wait()
	// numbers counts those that stand at the beginning of a disk.
	numbers := func(path string) (n int) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n < most && binary.LittleEndian.Uint64(text[8*n:]) == uint64(n) {
			n++
		}
		if rest := text[8*n : 8*most]; bytes.Count(rest, []byte{0xff}) != len(rest) {
			t.Errorf("%s: the number %d is missing, and later ones are there", path, n)
		}
		return n
	}
	for _, i := range []int{1, 3, 4} {
		f := r.files(snaps[i].Value)
		if a, b := numbers(f[0].Flat), numbers(f[1].Flat); a != b && a != b+1 {
			t.Errorf("snapshot %d: %d and %d numbers", i, a, b)
		}
	}
	for _, f := range r.files("") {
		if n := numbers(f.Flat); n != last {
			t.Errorf("%s: %d numbers were written, %d are there", f.Name, last, n)
		}
	}
	t.Logf("%d numbers", last)
}

func TestChurn(t *testing.T) {
	contents := func() string {
		t.Helper()
		r := newRig(t, &simvs.VM{Name: "web", Disks: []simvs.Disk{{Size: 1 << 20}}, On: true}, simvs.Config{})
		n, err := r.guest.Churn(t.Context(), simvs.Churn{Rate: 1 << 30, Seed: 7, Limit: 256 << 10})
		if err != nil || n != 256<<10 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		return r.read(0, 1<<20, 0)
	}
	if a, b := contents(), contents(); a != b {
		t.Error("one seed has written two contents")
	}
	r := newRig(t, nil, simvs.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := r.guest.Churn(ctx, simvs.Churn{}); err != nil || n > 64<<10 {
		t.Errorf("stopped: %d bytes, %v", n, err)
	}
}

// TestMany is for the race detector: VMs that do everything at once.
func TestMany(t *testing.T) {
	s := start(t, simvs.Config{})
	c := admin(t, s)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			name := fmt.Sprintf("vm%d", i)
			ref, err := s.AddVM(&simvs.VM{Name: name, Disks: []simvs.Disk{{Size: 1 << 20}, {Size: 1 << 20}}, On: true})
			if err != nil {
				t.Error(err)
				return
			}
			vm := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: ref})
			if err := life(t.Context(), s, vm); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := object.NewSearchIndex(c.Client).FindAllByUuid(t.Context(), nil, ref, true, types.NewBool(true)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// life is what happens to a VM in a failback, roughly.
func life(ctx context.Context, s *simvs.Server, vm *object.VirtualMachine) error {
	done := func(task *object.Task, err error) error {
		if err != nil {
			return err
		}
		return task.Wait(ctx)
	}
	g, err := s.Guest(vm.Reference().Value)
	if err != nil {
		return err
	}
	ctx2, stop := context.WithCancel(ctx)
	var churn sync.WaitGroup
	churn.Go(func() { _, _ = g.Churn(ctx2, simvs.Churn{Rate: 1 << 20}) }) // ends when the VM does
	defer churn.Wait()
	defer stop()
	yes := true
	if err := done(vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &yes})); err != nil {
		return err
	}
	for range 2 {
		if err := done(vm.CreateSnapshot(ctx, "s", "", false, false)); err != nil {
			return err
		}
	}
	if err := done(vm.PowerOff(ctx)); err != nil {
		return err
	}
	if err := done(vm.RevertToCurrentSnapshot(ctx, true)); err != nil {
		return err
	}
	if err := done(vm.PowerOn(ctx)); err != nil {
		return err
	}
	if err := done(vm.RemoveAllSnapshot(ctx, &yes)); err != nil {
		return err
	}
	if err := done(vm.PowerOff(ctx)); err != nil {
		return err
	}
	return done(vm.Destroy(ctx))
}

// TestLockedFiles shows what a reader that holds a snapshot's disk keeps from
// happening, and that it happens later.
func TestLockedFiles(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	s1 := r.snapshot("one")
	r.write(0, "after", 0)
	d, err := vddk.Open(ctx, "vmdk://"+r.files(s1.Value)[0].Descriptor, vddk.Options{Mode: vddk.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	task, err := r.vm.RemoveSnapshot(ctx, s1.Value, false, types.NewBool(true))
	if err := r.fails(task, err); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("removal while a reader has the base: %v", err)
	}
	now := r.props()
	if now.Snapshot != nil || !now.Runtime.ConsolidationNeeded {
		t.Errorf("snapshots %+v, consolidation needed: %v", now.Snapshot, now.Runtime.ConsolidationNeeded)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	res, err := methods.ConsolidateVMDisks_Task(ctx, r.c.Client, &types.ConsolidateVMDisks_Task{This: r.vm.Reference()})
	if err != nil {
		t.Fatal(err)
	}
	r.wait(object.NewTask(r.c.Client, res.Returnval), nil)
	if f := r.files("")[0]; f.Name != "[LocalDS_0] web/web.vmdk" || !fileHas(t, f.Flat, "after", 0) {
		t.Errorf("after the consolidation the leaf is %s", f.Name)
	}
	if now = r.props(); now.Runtime.ConsolidationNeeded {
		t.Error("consolidation is still needed")
	}
	if r.read(0, 5, 0) != "after" {
		t.Error("the guest reads other bytes")
	}
}
