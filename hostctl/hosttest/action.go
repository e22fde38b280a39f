package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
)

// act is every action: it looks whether the end state is there, then whether an
// earlier task has ended, and only then does it, as a task that goes on without
// its caller.
func (f *Fake) act(ctx context.Context, method string, op *hostctl.Op, uuid string, there func(*fakeVM) bool, do func(*fakeVM) error) error {
	if err := f.reach(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	v := f.by(uuid)
	if v == nil {
		f.mu.Unlock()
		return fmt.Errorf("host %s: VM %s: %w", f.Name, uuid, hostctl.ErrNotFound)
	}
	called := v.Name
	earlier := f.tasks[op.Task]
	f.mu.Unlock()
	if earlier != nil {
		if err := f.wait(ctx, earlier); err != nil {
			return err
		}
		f.mu.Lock()
		v = f.by(uuid)
		over := v == nil || there == nil || there(v)
		f.mu.Unlock()
		if over { // else somebody has undone it since
			return nil
		}
	}
	x := f.faults.next(method, op.Step, called)
	if x.When == Before {
		return x.err()
	}
	if x.When == Lied {
		return nil
	}
	m := Moment{Host: f.Name, Method: method, Step: op.Step, VM: called}
	if err := f.at(m); err != nil {
		return err
	}
	f.mu.Lock()
	if v = f.by(uuid); v == nil || there != nil && there(v) {
		f.mu.Unlock()
		f.log.mistake(fmt.Sprintf("%s of %s in step %s: it is so already", method, called, op.Step))
		return nil
	}
	t := &task{done: make(chan struct{})}
	id := f.next("task-")
	f.tasks[id] = t
	v.Busy = ""
	finish := func() {
		t.err = do(v)
		v.Busy = ""
		if t.err == nil {
			f.log.add(Event{Host: f.Name, Method: method, Step: op.Step, VM: called})
		}
		f.tell()
		close(t.done)
	}
	if x.Delay > 0 {
		v.Busy = method
		go func() {
			time.Sleep(x.Delay)
			f.mu.Lock()
			defer f.mu.Unlock()
			finish()
		}()
	} else {
		finish()
	}
	f.mu.Unlock()
	m.Done = true
	if err := f.at(m); err != nil {
		return err
	}
	if x.When == Lost {
		return x.err()
	}
	if op.Started != nil {
		if err := op.Started(id); err != nil {
			return err
		}
	}
	return f.wait(ctx, t)
}

func (f *Fake) wait(ctx context.Context, t *task) error {
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetPower implements hostctl.Compute.
func (f *Fake) SetPower(ctx context.Context, op *hostctl.Op, vm hostctl.Ref, want hostctl.Power, _ time.Duration) error {
	if want != hostctl.On && want != hostctl.Off {
		return errors.New("a VM is powered on or off, nothing else")
	}
	return f.act(ctx, "SetPower", op, vm.UUID, func(v *fakeVM) bool { return v.Power == want }, func(v *fakeVM) error {
		switch {
		case !v.listed:
			return errors.New("the VM is not in the inventory")
		case v.Power == hostctl.Suspended:
			return errors.New("the VM is suspended")
		}
		v.Power = want
		if want == hostctl.On {
			if v.Marks[hostctl.MarkInconsistent] != "" {
				f.log.mistake(v.Name + " was powered on while it is inconsistent")
			}
			if v.twin != nil && v.twin.Power == hostctl.On {
				f.log.mistake("two of one VM run: " + v.Name + " and " + v.twin.Name)
			}
		}
		return nil
	})
}

// Mark implements hostctl.Compute.
func (f *Fake) Mark(ctx context.Context, op *hostctl.Op, vm hostctl.Ref, key, value string) error {
	return f.act(ctx, "Mark", op, vm.UUID, func(v *fakeVM) bool { return v.Marks[key] == value }, func(v *fakeVM) error {
		if v.Marks[key] = value; value == "" {
			delete(v.Marks, key)
		}
		return nil
	})
}

// Protect implements hostctl.Storage.
func (f *Fake) Protect(ctx context.Context, op *hostctl.Op, vm hostctl.Ref, text string) (s hostctl.Snapshot, err error) {
	name := hostctl.SnapshotName(op)
	find := func(v *fakeVM) bool {
		i := slices.IndexFunc(v.Snapshots, func(s hostctl.Snapshot) bool { return s.Name == name })
		if i >= 0 {
			s = v.show().Snapshots[i]
		}
		return i >= 0
	}
	err = f.act(ctx, "Protect", op, vm.UUID, find, func(v *fakeVM) error {
		n := hostctl.Snapshot{ID: f.next("snapshot-"), Name: name, Text: text, Parent: v.Current, Created: time.Now()}
		v.points[n.ID] = map[string][]byte{}
		if v.marked == nil {
			v.marked = map[string]map[string]string{}
		}
		v.marked[n.ID] = maps.Clone(v.Marks)
		for i := range v.Disks {
			d := &v.Disks[i]
			at := *d
			if v.Tracking {
				at.ChangeID = fmt.Sprintf("%d/%d", v.epoch, f.number)
			}
			n.Disks = append(n.Disks, at)
			v.points[n.ID][d.UUID] = bytes.Clone(v.leaf[d.UUID])
			d.File = fmt.Sprintf("[%s] %s/disk%d-%06d.vmdk", d.Datastore, v.Name, i, f.number)
		}
		v.Snapshots, v.Current = append(v.Snapshots, n), n.ID
		return nil
	})
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if v := f.by(vm.UUID); v != nil {
			find(v)
		}
	}
	return s, err
}

func (v *fakeVM) snapshot(id string) *hostctl.Snapshot {
	for i := range v.Snapshots {
		if v.Snapshots[i].ID == id {
			return &v.Snapshots[i]
		}
	}
	return nil
}

// Restore implements hostctl.Storage.
func (f *Fake) Restore(ctx context.Context, op *hostctl.Op, vm hostctl.Ref, snapshot string) error {
	return f.act(ctx, "Restore", op, vm.UUID, nil, func(v *fakeVM) error {
		s := v.snapshot(snapshot)
		switch {
		case s == nil:
			return fmt.Errorf("snapshot %s: %w", snapshot, hostctl.ErrNotFound)
		case v.Power != hostctl.Off:
			return errors.New("the VM is not off")
		}
		v.Disks = slices.Clone(s.Disks)
		for i := range v.Disks {
			d := &v.Disks[i]
			d.ChangeID = ""
			d.File = fmt.Sprintf("[%s] %s/disk%d-%06d.vmdk", d.Datastore, v.Name, i, f.count())
			v.leaf[d.UUID] = bytes.Clone(v.points[snapshot][d.UUID])
		}
		v.Current = snapshot
		// The configuration, too, as vSphere does it: marks are a part of it.
		if v.Marks = maps.Clone(v.marked[snapshot]); v.Marks == nil {
			v.Marks = map[string]string{}
		}
		v.epoch++
		return nil
	})
}

// Release implements hostctl.Storage.
func (f *Fake) Release(ctx context.Context, op *hostctl.Op, vm hostctl.Ref, snapshot string) error {
	return f.act(ctx, "Release", op, vm.UUID, func(v *fakeVM) bool { return v.snapshot(snapshot) == nil }, func(v *fakeVM) error {
		gone := *v.snapshot(snapshot)
		v.Snapshots = slices.DeleteFunc(v.Snapshots, func(s hostctl.Snapshot) bool { return s.ID == snapshot })
		for i := range v.Snapshots {
			if v.Snapshots[i].Parent == snapshot {
				v.Snapshots[i].Parent = gone.Parent
			}
		}
		if v.Current == snapshot {
			v.Current = gone.Parent
		}
		delete(v.points, snapshot)
		return nil
	})
}

// Space implements hostctl.Storage.
func (f *Fake) Space(ctx context.Context, _ hostctl.Ref) ([]hostctl.Space, error) {
	if err := f.reach(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return []hostctl.Space{{Datastore: "ds", Free: f.free, Size: 1 << 50}}, nil
}

// Create implements hostctl.Registry.
func (f *Fake) Create(ctx context.Context, op *hostctl.Op, vm hostctl.NewVM) (hostctl.VM, error) {
	if err := f.reach(ctx); err != nil {
		return hostctl.VM{}, err
	}
	if err := fits(&vm); err != nil {
		return hostctl.VM{}, err
	}
	x := f.faults.next("Create", op.Step, vm.Name)
	if x.When == Before {
		return hostctl.VM{}, x.err()
	}
	m := Moment{Host: f.Name, Method: "Create", Step: op.Step, VM: vm.Name}
	f.mu.Lock()
	for _, v := range f.vms {
		if v.Marks[hostctl.MarkMade] == op.Run {
			defer f.mu.Unlock()
			return v.show(), nil
		}
	}
	f.mu.Unlock()
	if err := f.at(m); err != nil {
		return hostctl.VM{}, err
	}
	f.mu.Lock()
	made := vm.Like
	made.Ref = hostctl.Ref{Name: vm.Name}
	made.Path, made.Power, made.Disks, made.Snapshots, made.Current, made.Tracking = "", hostctl.Off, nil, nil, "", false
	made.Marks = map[string]string{hostctl.MarkMade: op.Run}
	made.NICs = slices.Clone(vm.Like.NICs)
	for i := range made.NICs {
		if to := vm.Networks[made.NICs[i].Network]; to != "" {
			made.NICs[i].Network = to
		}
		made.NICs[i].Connected = vm.Connected
	}
	var disks [][]byte
	for _, d := range vm.Disks {
		made.Disks = append(made.Disks, hostctl.Disk{Label: d.Like.Label, Datastore: d.Datastore, Thin: d.Thin})
		disks = append(disks, make([]byte, d.Size))
	}
	v := f.add(made, vm.Registered, disks...)
	shown := v.show()
	f.log.add(Event{Host: f.Name, Method: "Create", Step: op.Step, VM: vm.Name})
	f.mu.Unlock()
	m.Done = true
	if err := f.at(m); err != nil {
		return hostctl.VM{}, err
	}
	if x.When == Lost {
		return hostctl.VM{}, x.err()
	}
	return shown, nil
}

// fits refuses what no host can make.
func fits(vm *hostctl.NewVM) error {
	switch {
	case vm.Name == "":
		return errors.New("a VM needs a name")
	case len(vm.Disks) == 0 || slices.ContainsFunc(vm.Disks, func(d hostctl.NewDisk) bool { return d.Size <= 0 }):
		return errors.New("a VM needs disks, and a disk needs a size")
	case vm.Place.Datastore != "" && vm.Place.Datastore != "ds":
		return fmt.Errorf("no datastore %q; there is ds", vm.Place.Datastore)
	}
	return nil
}

func (f *Fake) path(path string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.vms {
		if v.Path == path {
			return v.UUID
		}
	}
	return ""
}

// Register implements hostctl.Registry.
func (f *Fake) Register(ctx context.Context, op *hostctl.Op, path string, _ hostctl.Placement) (ref hostctl.Ref, err error) {
	err = f.act(ctx, "Register", op, f.path(path), func(v *fakeVM) bool { ref = v.Ref; return v.listed }, func(v *fakeVM) error {
		v.listed, v.ID = true, f.next("vm-")
		ref = v.Ref
		return nil
	})
	return ref, err
}

// Unregister implements hostctl.Registry.
func (f *Fake) Unregister(ctx context.Context, op *hostctl.Op, vm hostctl.Ref) error {
	return f.act(ctx, "Unregister", op, vm.UUID, func(v *fakeVM) bool { return !v.listed }, func(v *fakeVM) error {
		if v.Power != hostctl.Off {
			return errors.New("the VM is not off")
		}
		v.listed = false
		return nil
	})
}

// Destroy implements hostctl.Registry.
func (f *Fake) Destroy(ctx context.Context, op *hostctl.Op, path string) error {
	if f.path(path) == "" {
		return f.reach(ctx)
	}
	return f.act(ctx, "Destroy", op, f.path(path), nil, func(v *fakeVM) error {
		if v.Marks[hostctl.MarkMade] != op.Run {
			return errors.New("the VM was not made by this run")
		}
		if v.Power != hostctl.Off {
			return errors.New("the VM is not off")
		}
		f.vms = slices.DeleteFunc(f.vms, func(o *fakeVM) bool { return o == v })
		return nil
	})
}

// Rebind implements hostctl.Registry.
func (f *Fake) Rebind(ctx context.Context, op *hostctl.Op, vm hostctl.Ref, networks map[string]string) error {
	return f.act(ctx, "Rebind", op, vm.UUID, nil, func(v *fakeVM) error {
		for _, to := range networks {
			if len(f.Networks) > 0 && !slices.Contains(f.Networks, to) {
				return fmt.Errorf("no network %q", to)
			}
		}
		for i := range v.NICs {
			if to, ok := networks[v.NICs[i].Network]; ok {
				v.NICs[i].Network = to
			}
		}
		return nil
	})
}

// EnableTracking implements hostctl.Tracker.
func (f *Fake) EnableTracking(ctx context.Context, op *hostctl.Op, vm hostctl.Ref) error {
	return f.act(ctx, "EnableTracking", op, vm.UUID, func(v *fakeVM) bool { return v.Tracking }, func(v *fakeVM) error {
		if len(v.Snapshots) > 0 {
			return errors.New("the VM has snapshots")
		}
		v.Tracking = true
		return nil
	})
}

// ResetTracking implements hostctl.Tracker.
func (f *Fake) ResetTracking(ctx context.Context, op *hostctl.Op, vm hostctl.Ref) error {
	return f.act(ctx, "ResetTracking", op, vm.UUID, nil, func(v *fakeVM) error {
		v.epoch++
		return nil
	})
}

// Changed implements hostctl.Tracker.
func (f *Fake) Changed(ctx context.Context, vm hostctl.Ref, snapshot string, disk hostctl.Disk, since string) (cbt.Hint, error) {
	if err := f.reach(ctx); err != nil {
		return cbt.Hint{}, err
	}
	if x := f.faults.next("Changed", "", ""); x.When == Before {
		return cbt.Hint{}, x.err()
	} else if x.When == Lied {
		return cbt.Hint{Provider: "fake", Since: since, Size: disk.Size, Trust: cbt.Exact}, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.by(vm.UUID)
	if v == nil || v.snapshot(snapshot) == nil {
		return cbt.Hint{}, fmt.Errorf("snapshot %s: %w", snapshot, hostctl.ErrNotFound)
	}
	epoch, from, _ := strings.Cut(since, "/")
	first, err := strconv.Atoi(from)
	if err != nil || epoch != strconv.Itoa(v.epoch) {
		return cbt.Hint{}, fmt.Errorf("change ID %q is of another epoch", since)
	}
	_, to, _ := strings.Cut(disk.ChangeID, "/")
	last, err := strconv.Atoi(to)
	if err != nil {
		return cbt.Hint{}, fmt.Errorf("snapshot %s is not tracked", snapshot)
	}
	h := cbt.Hint{Provider: "fake", Since: since, Size: disk.Size, Granularity: 512, Trust: cbt.OverReports}
	for _, w := range v.writes[disk.UUID] {
		if w.seq > first && w.seq <= last {
			h.Areas = append(h.Areas, w.e)
		}
	}
	return h, nil
}

// Hold implements hostctl.Guard.
func (f *Fake) Hold(ctx context.Context, op *hostctl.Op, vm hostctl.Ref) error {
	return f.act(ctx, "Hold", op, vm.UUID, nil, func(v *fakeVM) error {
		v.Disabled = []string{"Relocate"}
		return nil
	})
}

// Free implements hostctl.Guard.
func (f *Fake) Free(ctx context.Context, op *hostctl.Op, vm hostctl.Ref) error {
	return f.act(ctx, "Free", op, vm.UUID, nil, func(v *fakeVM) error {
		v.Disabled = nil
		return nil
	})
}

// Check implements hostctl.Checker.
func (f *Fake) Check(ctx context.Context, vm hostctl.Ref, _ []hostctl.Need) ([]hostctl.Problem, error) {
	if err := f.reach(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if (vm.ID != "" || vm.UUID != "") && !slices.ContainsFunc(f.vms, func(v *fakeVM) bool { return v.UUID == vm.UUID || v.ID == vm.ID }) {
		return nil, fmt.Errorf("host %s: VM %s: %w", f.Name, vm.ID, hostctl.ErrNotFound)
	}
	return slices.Clone(f.missing), nil
}
