package vsphere

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// markPrefix begins the keys of our marks in a VM's extra configuration.
const markPrefix = "haulback."

// vmProps is what fill reads of a VM.
var vmProps = []string{
	"name", "config", "runtime", "guest.toolsRunningStatus", "snapshot", "recentTask",
	"disabledMethod", "capability.changeTrackingSupported", "datastore",
}

// maxReads bounds how often a VM is read when its snapshots go while that is
// done. Each time one more has gone.
const maxReads = 8

// read is the VM with everything that is known of it, and govmomi's own form.
func (c *Client) read(ctx context.Context, ref types.ManagedObjectReference) (vm hostctl.VM, o mo.VirtualMachine, err error) {
	there := false
	for range maxReads {
		err = c.observe(ctx, "look at VM "+clean(ref.Value), func(l *link) (err error) {
			vm, o, there, err = c.readOnce(ctx, l, ref)
			return err
		})
		// The VM is there and something of it is not: a snapshot that is being
		// removed, between the look at the tree and that at its disks.
		if !there || !isGone(err) {
			break
		}
	}
	if !there && isGone(err) {
		return vm, o, c.notFound("VM " + clean(ref.Value))
	}
	if err == nil && o.Config == nil {
		return vm, o, c.later("look at VM "+clean(o.Name), "its configuration cannot be read (%s); look whether its host and datastore are reachable", o.Runtime.ConnectionState)
	}
	return vm, o, err
}

// readOnce reads the VM, and whether it was there.
func (c *Client) readOnce(ctx context.Context, l *link, ref types.ManagedObjectReference) (vm hostctl.VM, o mo.VirtualMachine, there bool, err error) {
	pc := property.DefaultCollector(l.Client)
	if err := pc.RetrieveOne(ctx, ref, vmProps, &o); err != nil {
		return vm, o, false, err
	}
	if o.Config == nil {
		return vm, o, true, nil
	}
	shots, err := snapshotsOf(ctx, pc, o.Snapshot)
	if err != nil {
		return vm, o, true, err
	}
	vm = fill(c.cfg.Name, &o, shots)
	vm.Busy = busy(ctx, pc, o.RecentTask)
	vm.Version = version(ctx, pc, &o, l)
	return vm, o, true, networkNames(ctx, pc, o.Config.Hardware.Device, vm.NICs)
}

// fill is what o says, without what takes another call.
func fill(host string, o *mo.VirtualMachine, shots map[string]mo.VirtualMachineSnapshot) hostctl.VM {
	cfg := o.Config
	devices := object.VirtualDeviceList(cfg.Hardware.Device)
	vm := hostctl.VM{
		Ref:      hostctl.Ref{Host: host, ID: o.Self.Value, UUID: clean(cfg.InstanceUuid), Name: clean(o.Name)},
		BIOS:     clean(cfg.Uuid),
		Path:     clean(cfg.Files.VmPathName),
		Power:    power(o.Runtime.PowerState),
		Disks:    disks(devices),
		NICs:     nics(devices),
		CPUs:     int(cfg.Hardware.NumCPU),
		Firmware: cmp.Or(clean(cfg.Firmware), string(types.GuestOsDescriptorFirmwareTypeBios)),
		GuestOS:  clean(cfg.GuestId),
		CanTrack: o.Capability.ChangeTrackingSupported,
		Tracking: cfg.ChangeTrackingEnabled != nil && *cfg.ChangeTrackingEnabled,
		Marks:    marks(cfg.ExtraConfig),
		Disabled: tidy(o.DisabledMethod),
	}
	vm.MemoryMiB = int64(cfg.Hardware.MemoryMB)
	if o.Guest != nil {
		vm.Tools = o.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	}
	if q := o.Runtime.Question; q != nil {
		vm.Question = cmp.Or(clean(q.Text), "a question without a text")
	}
	if s := o.Snapshot; s != nil {
		vm.Snapshots = snapshots(s.RootSnapshotList, "", shots)
		if s.CurrentSnapshot != nil {
			vm.Current = s.CurrentSnapshot.Value
		}
	}
	return vm
}

func power(p types.VirtualMachinePowerState) hostctl.Power {
	switch p {
	case types.VirtualMachinePowerStatePoweredOff:
		return hostctl.Off
	case types.VirtualMachinePowerStatePoweredOn:
		return hostctl.On
	case types.VirtualMachinePowerStateSuspended:
		return hostctl.Suspended
	}
	return hostctl.PowerUnknown
}

// tidy is the texts cleaned, sorted, each once.
func tidy(all []string) (clear []string) {
	for _, s := range all {
		if s = clean(s); s != "" {
			clear = append(clear, s)
		}
	}
	slices.Sort(clear)
	return slices.Compact(clear)
}

// marks are ours of a VM's extra configuration.
func marks(all []types.BaseOptionValue) map[string]string {
	found := map[string]string{}
	for _, o := range all {
		v := o.GetOptionValue()
		key, ok := strings.CutPrefix(v.Key, markPrefix)
		if s, isText := v.Value.(string); ok && isText && s != "" {
			found[clean(key)] = clean(s)
		}
	}
	return found
}

// snapshotsOf reads the configuration that each snapshot of a tree keeps.
func snapshotsOf(ctx context.Context, pc *property.Collector, tree *types.VirtualMachineSnapshotInfo) (map[string]mo.VirtualMachineSnapshot, error) {
	if tree == nil {
		return nil, nil
	}
	refs := treeRefs(tree.RootSnapshotList, nil)
	if len(refs) == 0 {
		return nil, nil
	}
	var all []mo.VirtualMachineSnapshot
	if err := pc.Retrieve(ctx, refs, []string{"config"}, &all); err != nil {
		return nil, err
	}
	byID := make(map[string]mo.VirtualMachineSnapshot, len(all))
	for i := range all {
		byID[all[i].Self.Value] = all[i]
	}
	return byID, nil
}

func treeRefs(tree []types.VirtualMachineSnapshotTree, refs []types.ManagedObjectReference) []types.ManagedObjectReference {
	for i := range tree {
		refs = treeRefs(tree[i].ChildSnapshotList, append(refs, tree[i].Snapshot))
	}
	return refs
}

// snapshots flattens a tree, parents before their children.
func snapshots(tree []types.VirtualMachineSnapshotTree, parent string, shots map[string]mo.VirtualMachineSnapshot) (all []hostctl.Snapshot) {
	for i := range tree {
		t := &tree[i]
		s := hostctl.Snapshot{
			ID: t.Snapshot.Value, Name: clean(t.Name), Text: clean(t.Description), Parent: parent, Created: t.CreateTime.UTC(),
		}
		if o, ok := shots[s.ID]; ok {
			s.Disks = disks(o.Config.Hardware.Device)
			for k := range s.Disks {
				s.Disks[k].ChangeID = stamp(s.Disks[k].ChangeID, s.Created, s.Disks[k].Size)
			}
		}
		all = append(append(all, s), snapshots(t.ChildSnapshotList, s.ID, shots)...)
	}
	return all
}

// busy names a task that has not ended.
func busy(ctx context.Context, pc *property.Collector, tasks []types.ManagedObjectReference) string {
	for _, ref := range tasks {
		var t mo.Task
		if pc.RetrieveOne(ctx, ref, []string{"info"}, &t) == nil && !ended(&t.Info) {
			return cmp.Or(clean(t.Info.DescriptionId), clean(t.Info.Name), "a task without a name")
		}
	}
	return ""
}

// version is the product that runs the VM; the vCenter's where the login may not
// look at the VM's host.
func version(ctx context.Context, pc *property.Collector, o *mo.VirtualMachine, l *link) string {
	about := l.ServiceContent.About
	if o.Runtime.Host != nil {
		var h mo.HostSystem
		if pc.RetrieveOne(ctx, *o.Runtime.Host, []string{"config.product"}, &h) == nil && h.Config != nil {
			about = h.Config.Product
		}
	}
	return strings.TrimSpace(clean(about.Name) + " " + clean(about.Version) + " " + build(about.Build))
}

func build(s string) string {
	if s = clean(s); s == "" {
		return ""
	}
	return "build-" + s
}
