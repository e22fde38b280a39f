package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
)

// Fake is a host in memory. It keeps true bytes for every disk and snapshot,
// powers VMs, tracks changes and runs its actions as tasks, like a vCenter.
// Faults are planned, not random: "the 2nd Protect loses its reply". Somebody
// outside can power its VMs. Safe for concurrent use.
type Fake struct {
	faults
	Name     string
	Networks []string // there are no others; empty: any
	log      *Log

	mu      sync.Mutex
	vms     []*fakeVM
	tasks   map[string]*task
	number  int           // of what was named last
	changed chan struct{} // closed at each change
	missing []hostctl.Problem
	free    int64
}

// fakeVM is a VM with its bytes.
type fakeVM struct {
	hostctl.VM
	listed bool
	leaf   map[string][]byte // by disk UUID
	points map[string]map[string][]byte
	marked map[string]map[string]string // by snapshot: the marks at that point
	writes map[string][]write
	epoch  int // of change tracking
	twin   *fakeVM
}

type write struct {
	seq int
	e   cbt.Extent
}

// task is one action of the host.
type task struct {
	done chan struct{}
	err  error
}

// NewFake makes a host without VMs. It has all abilities.
func NewFake(name string, log *Log) *Fake {
	return &Fake{Name: name, log: log, tasks: map[string]*task{}, changed: make(chan struct{}), free: 1 << 50}
}

// Host is the fake as the control plane sees it.
func (f *Fake) Host() *hostctl.Host {
	return &hostctl.Host{Name: f.Name, Kind: "fake", Compute: f, Storage: f, Registry: f, Tracker: f, Guard: f, Checker: f}
}

// Add puts a VM into the inventory. Names, UUIDs and keys that are left out are
// made; disks has the bytes of each disk, whose sizes they give.
func (f *Fake) Add(vm hostctl.VM, disks ...[]byte) hostctl.Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.add(vm, true, disks...).Ref
}

func (f *Fake) add(vm hostctl.VM, listed bool, disks ...[]byte) *fakeVM {
	id := f.next("vm-")
	vm.Host, vm.ID = f.Name, id
	if vm.UUID == "" {
		vm.UUID = "uuid-" + f.Name + "-" + id
	}
	if vm.Name == "" {
		vm.Name = id
	}
	if vm.Path == "" {
		vm.Path = "[ds] " + vm.Name + "/" + vm.Name + ".vmx"
	}
	if vm.Power == hostctl.PowerUnknown {
		vm.Power = hostctl.Off
	}
	vm.CanTrack = true
	vm.Marks = maps.Clone(vm.Marks)
	if vm.Marks == nil {
		vm.Marks = map[string]string{}
	}
	v := &fakeVM{VM: vm, listed: listed, leaf: map[string][]byte{}, points: map[string]map[string][]byte{}, writes: map[string][]write{}, epoch: 1}
	v.Disks = slices.Clone(vm.Disks)
	for i, b := range disks {
		if i == len(v.Disks) {
			v.Disks = append(v.Disks, hostctl.Disk{})
		}
		d := &v.Disks[i]
		d.Key, d.Size = int32(2000+i), int64(len(b))
		if d.Label == "" {
			d.Label = "scsi0:" + strconv.Itoa(i)
		}
		if d.UUID == "" {
			d.UUID = vm.UUID + "-disk" + strconv.Itoa(i)
		}
		if d.Datastore == "" {
			d.Datastore = "ds"
		}
		d.File = fmt.Sprintf("[%s] %s/disk%d.vmdk", d.Datastore, vm.Name, i)
		v.leaf[d.UUID] = bytes.Clone(b)
	}
	f.vms = append(f.vms, v)
	f.tell()
	return v
}

func (f *Fake) next(prefix string) string {
	f.number++
	return prefix + strconv.Itoa(f.number)
}

func (f *Fake) tell() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Twins makes a mistake of it when both VMs run at once.
func Twins(a *Fake, left hostctl.Ref, b *Fake, right hostctl.Ref) {
	l, r := a.by(left.UUID), b.by(right.UUID)
	l.twin, r.twin = r, l
}

func (f *Fake) by(uuid string) *fakeVM {
	for _, v := range f.vms {
		if v.UUID == uuid {
			return v
		}
	}
	return nil
}

// VM is a VM as it is, listed or not.
func (f *Fake) VM(uuid string) (hostctl.VM, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.by(uuid)
	if v == nil {
		return hostctl.VM{}, false
	}
	return v.show(), true
}

// Change changes a VM as somebody outside would.
func (f *Fake) Change(uuid string, change func(*hostctl.VM)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.by(uuid).VM)
	f.tell()
}

// Outside powers a VM as somebody outside would.
func (f *Fake) Outside(uuid string, p hostctl.Power) {
	f.log.add(Event{Host: f.Name, Method: "outside", VM: uuid, Text: fmt.Sprint(p)})
	f.Change(uuid, func(vm *hostctl.VM) { vm.Power = p })
}

// Missing is what Check answers.
func (f *Fake) Missing(list ...hostctl.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missing = list
}

// SetFree is what Space answers.
func (f *Fake) SetFree(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = n
}

// Bytes are those of a disk's leaf.
func (f *Fake) Bytes(vm string, disk int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.by(vm)
	return bytes.Clone(v.leaf[v.Disks[disk].UUID])
}

// Point are the bytes of a disk at a snapshot.
func (f *Fake) Point(vm, snapshot string, disk int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.by(vm)
	return bytes.Clone(v.points[snapshot][v.Disks[disk].UUID])
}

// WritePoint writes to a snapshot, as some hosts let one.
func (f *Fake) WritePoint(vm, snapshot string, disk int, off int64, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.by(vm)
	copy(v.points[snapshot][v.Disks[disk].UUID][off:], b)
}

// Write is a guest's: the VM has to be on.
func (f *Fake) Write(vm string, disk int, off int64, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.by(vm)
	if v.Power != hostctl.On {
		return errors.New("hosttest: the VM is off")
	}
	v.write(v.Disks[disk].UUID, off, b, f.count())
	return nil
}

func (f *Fake) count() int { f.number++; return f.number }

func (v *fakeVM) write(disk string, off int64, b []byte, seq int) {
	copy(v.leaf[disk][off:], b)
	if v.Tracking {
		v.writes[disk] = append(v.writes[disk], write{seq, cbt.Extent{Off: off, Len: int64(len(b))}})
	}
}

// show is the VM for a caller: nothing is shared.
func (v *fakeVM) show() hostctl.VM {
	vm := v.VM
	vm.Disks, vm.NICs, vm.Disabled = slices.Clone(vm.Disks), slices.Clone(vm.NICs), slices.Clone(vm.Disabled)
	vm.Marks = maps.Clone(vm.Marks)
	vm.Snapshots = slices.Clone(vm.Snapshots)
	for i := range vm.Snapshots {
		vm.Snapshots[i].Disks = slices.Clone(vm.Snapshots[i].Disks)
	}
	return vm
}

// Find implements hostctl.Compute.
func (f *Fake) Find(ctx context.Context, q hostctl.Query) (hostctl.VM, error) {
	if err := f.reach(ctx); err != nil {
		return hostctl.VM{}, err
	}
	if x := f.faults.next("Find", "", ""); x.When == Before {
		return hostctl.VM{}, x.err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []*fakeVM
	for _, v := range f.vms {
		hit := q.Name == v.Name
		switch {
		case q.UUID != "":
			hit = q.UUID == v.UUID
		case q.ID != "":
			hit = q.ID == v.ID
		case q.Path != "":
			hit = q.Path == v.Path
		}
		if hit && v.listed {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return hostctl.VM{}, fmt.Errorf("host %s: %+v: %w", f.Name, q, hostctl.ErrNotFound)
	case 1:
		return found[0].show(), nil
	}
	e := &hostctl.AmbiguousError{What: fmt.Sprintf("VM %+v", q)}
	for _, v := range found {
		e.Found = append(e.Found, v.UUID)
	}
	return hostctl.VM{}, e
}

// Watch implements hostctl.Compute.
func (f *Fake) Watch(ctx context.Context, vms []hostctl.Ref) iter.Seq2[hostctl.Event, error] {
	return func(yield func(hostctl.Event, error) bool) {
		last, gone := map[string]hostctl.VM{}, map[string]bool{}
		for {
			f.mu.Lock()
			changed := f.changed
			var events []hostctl.Event
			for _, ref := range vms {
				ev := hostctl.Event{VM: ref, At: time.Now(), Gone: true}
				if v := f.by(ref.UUID); v != nil && v.listed {
					ev.Power, ev.Gone = v.Power, false
					old, known := last[ref.UUID]
					last[ref.UUID] = v.show()
					if known && old.Power == v.Power && slices.Equal(old.Disks, v.Disks) {
						continue
					}
					ev.Disks = known && !slices.Equal(old.Disks, v.Disks)
					delete(gone, ref.UUID)
				} else if gone[ref.UUID] {
					continue
				} else {
					gone[ref.UUID] = true
					delete(last, ref.UUID)
				}
				events = append(events, ev)
			}
			f.mu.Unlock()
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(hostctl.Event{}, ctx.Err())
				return
			}
		}
	}
}
