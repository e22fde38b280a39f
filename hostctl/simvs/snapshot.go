package simvs

import (
	"os"
	"slices"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sys/unix"
)

type vmHook struct {
	*hook
	m *machine
}

type snapshotHook struct {
	*hook
	m *machine
	p *point
}

// CreateSnapshotTask makes a snapshot of all disks at one moment.
func (h *vmHook) CreateSnapshotTask(ctx *simulator.Context, r *types.CreateSnapshot_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "CreateSnapshot_Task", "VirtualMachine.createSnapshot", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return h.m.protect(c, r.Name, r.Description, r.Memory, r.Quiesce)
	})
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: ref}}
}

// CreateSnapshotExTask does the same.
func (h *vmHook) CreateSnapshotExTask(ctx *simulator.Context, r *types.CreateSnapshotEx_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "CreateSnapshotEx_Task", "VirtualMachine.createSnapshotEx", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return h.m.protect(c, r.Name, r.Description, r.Memory, r.QuiesceSpec != nil)
	})
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: ref}}
}

// protect freezes the leaves and makes new ones that are copies of them. No
// write of a guest falls between two disks.
func (m *machine) protect(ctx *simulator.Context, name, text string, memory, quiesce bool) (types.AnyType, types.BaseMethodFault) {
	if m.s.switches().SnapshotNoSpace {
		return nil, &types.NoDiskSpace{FileFault: types.FileFault{File: m.vmx}, Datastore: m.disksStore()}
	}
	m.mu.Lock()
	if ds := m.full(); ds != "" {
		m.mu.Unlock()
		return nil, &types.NoDiskSpace{FileFault: types.FileFault{File: m.vmx}, Datastore: ds}
	}
	p := &point{disks: map[int32]link{}, changes: map[int32]string{}}
	if m.current != nil {
		ref := *m.current
		p.parent = &ref
	}
	m.stun()
	if err := m.grow(p); err != nil {
		m.mu.Unlock()
		return nil, fileFault(err.Error())
	}
	state := types.VirtualMachinePowerStatePoweredOff
	if memory {
		state = m.power
	}
	m.relock()
	m.mu.Unlock()
	for _, d := range m.disks { // only tasks change the list, and this is the task
		if id, err := d.track.take(m.s, p.disks[d.key], d); err != nil {
			return nil, fileFault(d.leaf.name())
		} else if id != "" {
			p.changes[d.key] = id
		}
	}
	m.serial++
	p.tree = types.VirtualMachineSnapshotTree{
		Vm: m.ref, Name: name, Description: text, Id: m.serial, CreateTime: time.Now(), State: state, Quiesced: quiesce,
		ReplaySupported: types.NewBool(false),
	}
	m.enter(ctx, p)
	m.saveVMX(ctx)
	return p.ref, nil
}

// full names a datastore without the space for new leaves. m.mu is held.
func (m *machine) full() string {
	need := map[*datastore]int64{}
	for _, d := range m.disks {
		var st unix.Stat_t
		if !d.independent && unix.Stat(d.leaf.flat(), &st) == nil {
			need[d.leaf.ds] += st.Blocks * 512
		}
	}
	for ds, n := range need {
		if _, free := m.s.used(ds); free < n {
			return ds.Name
		}
	}
	return ""
}

func (m *machine) disksStore() string {
	if len(m.disks) == 0 {
		return ""
	}
	return m.disks[0].leaf.ds.Name
}

// grow puts a new leaf on top of each disk. All or none.
func (m *machine) grow(p *point) error {
	fresh := map[int32]link{}
	undo := func() {
		for _, l := range fresh {
			_ = l.remove()
		}
	}
	for _, d := range m.disks {
		if d.independent {
			continue
		}
		l, err := d.leaf.next()
		if err == nil {
			fresh[d.key] = l
			err = d.copyTo(d.leaf, l)
		}
		if err != nil {
			undo()
			return err
		}
	}
	for _, d := range m.disks {
		l, ok := fresh[d.key]
		if !ok {
			continue
		}
		p.disks[d.key] = d.leaf
		if err := d.moveTo(l); err != nil {
			return err
		}
	}
	return nil
}

// copyTo makes the link l with the bytes of another one.
func (d *disk) copyTo(from, l link) error {
	if err := copyFlat(from.flat(), l.flat(), d.size); err != nil {
		return err
	}
	return l.describe(d.size, d.uuid, d.thin)
}

// moveTo makes l the leaf; a guest that runs writes to it from now on.
func (d *disk) moveTo(l link) error {
	if d.file != nil {
		f, err := os.OpenFile(l.flat(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		d.file.Close()
		d.file = f
	}
	d.leaf = l
	return nil
}

// enter makes the snapshot known: with the configuration of now, whose disks are
// the frozen ones, and the VM's, whose disks are the new leaves.
func (m *machine) enter(ctx *simulator.Context, p *point) {
	o := &simulator.VirtualMachineSnapshot{}
	o.Vm = m.ref
	ctx.WithLock(m.vm, func() {
		o.Config = clone(*m.vm.Config)
	})
	for key, l := range p.disks {
		setBacking(object.VirtualDeviceList(o.Config.Hardware.Device), key, l, p.changes[key])
	}
	ctx.Map.Put(o)
	m.mu.Lock()
	p.ref, p.tree.Snapshot = o.Self, o.Self
	m.points[p.ref] = p
	ref := p.ref
	m.current = &ref
	m.showLeaves(ctx)
	m.showTree(ctx)
	m.mu.Unlock()
}

// showTree writes the snapshots into the VM's properties. m.mu is held.
func (m *machine) showTree(ctx *simulator.Context) {
	var roots []types.ManagedObjectReference
	tree := m.tree(nil)
	for _, t := range tree {
		roots = append(roots, t.Snapshot)
	}
	needed := false
	for _, p := range m.points {
		needed = needed || p.removed
	}
	changes := []types.PropertyChange{
		{Name: "runtime.consolidationNeeded", Val: needed},
		{Name: "summary.runtime.consolidationNeeded", Val: needed},
	}
	if len(tree) == 0 {
		changes = append(changes, types.PropertyChange{Name: "snapshot"}, types.PropertyChange{Name: "rootSnapshot"})
	} else {
		info := types.VirtualMachineSnapshotInfo{RootSnapshotList: tree, CurrentSnapshot: m.visible(m.current)}
		changes = append(changes, types.PropertyChange{Name: "snapshot", Val: info}, types.PropertyChange{Name: "rootSnapshot", Val: roots})
	}
	ctx.WithLock(m.vm, func() { ctx.Update(m.vm, changes) })
}

// visible is ref or the nearest one below it that is not removed.
func (m *machine) visible(ref *types.ManagedObjectReference) *types.ManagedObjectReference {
	for ref != nil {
		p := m.points[*ref]
		if p != nil && !p.removed {
			same := p.ref
			return &same
		}
		if p == nil {
			return nil
		}
		ref = p.parent
	}
	return nil
}

// tree is what stands on parent, oldest first; removed ones are left out and
// their children take their place.
func (m *machine) tree(parent *types.ManagedObjectReference) (list []types.VirtualMachineSnapshotTree) {
	for _, p := range m.children(parent) {
		if p.removed {
			list = append(list, m.tree(&p.ref)...)
			continue
		}
		t := p.tree
		t.ChildSnapshotList = m.tree(&p.ref)
		list = append(list, t)
	}
	return list
}

func (m *machine) children(parent *types.ManagedObjectReference) (list []*point) {
	for _, p := range m.points {
		if (parent == nil) == (p.parent == nil) && (parent == nil || *parent == *p.parent) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *point) int { return int(a.tree.Id - b.tree.Id) })
	return list
}
