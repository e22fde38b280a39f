package simvs_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl/simvs"
)

func fileHas(t *testing.T, path, text string, off int64) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, len(text))
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return string(p) == text
}

// disks are the disks of a configuration.
func disks(c *types.VirtualMachineConfigInfo) (list []*types.VirtualDisk) {
	for _, d := range object.VirtualDeviceList(c.Hardware.Device).SelectByType((*types.VirtualDisk)(nil)) {
		list = append(list, d.(*types.VirtualDisk))
	}
	return list
}

func backing(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	return d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
}

func TestSnapshotAndRevert(t *testing.T) {
	r := newRig(t, &simvs.VM{Name: "web", CPUs: 2, Disks: []simvs.Disk{{Size: 8 << 20}, {Size: 4 << 20}}, On: true}, simvs.Config{})
	ctx := t.Context()
	r.write(0, "before", 3<<20)
	s1 := r.snapshot("one")
	if got := backing(disks(r.props().Config)[0]).FileName; got != "[LocalDS_0] web/web-000001.vmdk" {
		t.Errorf("the leaf is %q", got)
	}
	r.write(0, "after!", 3<<20)
	r.write(1, "second", 0)
	r.wait(r.vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{
		NumCPUs: 4, Annotation: "changed", ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "haulback.run", Value: "r1"}},
	}))
	base, leaf := r.files(s1.Value)[0], r.files("")[0]
	if !fileHas(t, base.Flat, "before", 3<<20) || !fileHas(t, leaf.Flat, "after!", 3<<20) {
		t.Error("a write went to the wrong link")
	}
	var snap mo.VirtualMachineSnapshot
	if err := r.vm.Properties(ctx, s1, nil, &snap); err != nil {
		t.Fatal(err)
	}
	if got := backing(disks(&snap.Config)[0]).FileName; got != "[LocalDS_0] web/web.vmdk" {
		t.Errorf("the snapshot's file is %q", got)
	}
	r.wait(r.vm.PowerOff(ctx))
	r.wait(r.vm.RevertToSnapshot(ctx, s1.Value, true))
	now := r.props()
	if now.Config.Annotation != "" || now.Config.Hardware.NumCPU != 2 || now.Summary.Config.NumCpu != 2 {
		t.Errorf("after the revert: annotation %q, %d CPUs", now.Config.Annotation, now.Config.Hardware.NumCPU)
	}
	for _, o := range now.Config.ExtraConfig {
		if o.GetOptionValue().Key == "haulback.run" {
			t.Error("after the revert the mark is still there")
		}
	}
	leaf = r.files("")[0]
	if leaf.Name == "[LocalDS_0] web/web.vmdk" || !fileHas(t, leaf.Flat, "before", 3<<20) {
		t.Errorf("after the revert %s has other bytes", leaf.Name)
	}
	if now.Snapshot == nil || now.Snapshot.CurrentSnapshot == nil || *now.Snapshot.CurrentSnapshot != s1 {
		t.Errorf("current snapshot: %+v", now.Snapshot)
	}
	r.remove(s1)
	leaf = r.files("")[0]
	if now = r.props(); now.Snapshot != nil || leaf.Name != "[LocalDS_0] web/web.vmdk" || !fileHas(t, leaf.Flat, "before", 3<<20) {
		t.Errorf("after the consolidation: %s, snapshots %+v", leaf.Name, now.Snapshot)
	}
	entries, err := os.ReadDir(r.Datastores()["LocalDS_0"] + "/web")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "-00000") {
			t.Errorf("%s is left over", e.Name())
		}
	}
}

func TestSnapshotTree(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	ctx := t.Context()
	var refs []types.ManagedObjectReference
	for _, text := range []string{"a", "b", "c"} {
		r.write(0, text, 0)
		refs = append(refs, r.snapshot(text))
	}
	r.wait(r.vm.PowerOff(ctx))
	r.wait(r.vm.RevertToSnapshot(ctx, refs[0].Value, true))
	r.wait(r.vm.PowerOn(ctx))
	r.write(0, "d", 0)
	refs = append(refs, r.snapshot("d")) // a branch beside b
	r.write(0, "e", 0)
	tree := r.props().Snapshot.RootSnapshotList
	if len(tree) != 1 || len(tree[0].ChildSnapshotList) != 2 || len(tree[0].ChildSnapshotList[0].ChildSnapshotList) != 1 {
		t.Fatalf("tree: %+v", tree)
	}
	for i, text := range []string{"a", "b", "c", "d"} {
		if f := r.files(refs[i].Value)[0]; !fileHas(t, f.Flat, text, 0) {
			t.Errorf("snapshot %s has other bytes", text)
		}
	}
	r.remove(refs[0])
	r.remove(refs[2])
	for i, text := range map[int]string{1: "b", 3: "d"} {
		if f := r.files(refs[i].Value)[0]; !fileHas(t, f.Flat, text, 0) {
			t.Errorf("after removals snapshot %s has other bytes", text)
		}
	}
	r.wait(r.vm.RemoveAllSnapshot(ctx, types.NewBool(true)))
	if f := r.files("")[0]; !fileHas(t, f.Flat, "e", 0) || r.props().Snapshot != nil {
		t.Error("the leaf has not survived the removal of all snapshots")
	}
	if found, _ := os.ReadDir(r.Datastores()["LocalDS_0"] + "/web"); slices.ContainsFunc(found, func(e os.DirEntry) bool { return strings.Contains(e.Name(), "-00000") }) {
		t.Errorf("files are left over: %v", found)
	}
}

func (r *rig) changed(snap *types.ManagedObjectReference, since string, off int64) (*types.DiskChangeInfo, error) {
	res, err := methods.QueryChangedDiskAreas(r.t.Context(), r.c.Client, &types.QueryChangedDiskAreas{
		This: r.vm.Reference(), Snapshot: snap, DeviceKey: 2000, StartOffset: off, ChangeId: since,
	})
	if err != nil {
		return nil, err
	}
	return &res.Returnval, nil
}

func (r *rig) areas(snap types.ManagedObjectReference, since string) []types.DiskChangeExtent {
	r.t.Helper()
	info, err := r.changed(&snap, since, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return info.ChangedArea
}

func TestChangeTracking(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	old := r.snapshot("untracked")
	if id := r.files(old.Value)[0].ChangeID; id != "" {
		t.Errorf("change ID %q without tracking", id)
	}
	r.remove(old)
	r.track(true)
	s1 := r.snapshot("one")
	id := r.files(s1.Value)[0].ChangeID
	r.write(0, string(bytes.Repeat([]byte{1}, 8)), 5<<20-4) // straddles a block's end
	r.write(0, "x", 8<<20-1)
	r.remove(s1)
	s2 := r.snapshot("two")
	want := []types.DiskChangeExtent{{Start: 5<<20 - 64<<10, Length: 128 << 10}, {Start: 8<<20 - 64<<10, Length: 64 << 10}}
	if got := r.areas(s2, id); !slices.Equal(got, want) {
		t.Errorf("areas %v, want %v", got, want)
	}
	if got := r.areas(s2, r.files(s2.Value)[0].ChangeID); len(got) != 0 {
		t.Errorf("since itself: %v", got)
	}
	if _, err := r.changed(&s2, id, 8<<20); err == nil {
		t.Error("startOffset at the capacity is answered")
	}
	if _, err := r.changed(&s2, "52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 00/1", 0); err == nil || !strings.Contains(err.Error(), "Error caused by file") {
		t.Errorf("foreign epoch: %v", err)
	}
	r.track(false)
	r.remove(s2)
	r.track(true)
	s3 := r.snapshot("three")
	if _, err := r.changed(&s3, id, 0); err == nil {
		t.Error("a change ID of before the reset is answered")
	}
}
