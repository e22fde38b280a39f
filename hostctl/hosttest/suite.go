package hosttest

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// Kit is a host with what a test needs around it.
type Kit struct {
	Host *hostctl.Host
	// VM is a VM that is off, with two disks or more that can be tracked, one
	// network adapter or more, no snapshots, no marks, tracking off.
	VM hostctl.Query
	// Twin names two VMs; empty: the host has no such pair.
	Twin hostctl.Query
	// Lose makes the host execute its next change and lose the reply; nil: the
	// host cannot.
	Lose func()
	// Bytes reaches the contents of disks; nil: the host keeps none.
	Bytes Bytes
	// Shallow is set for a host that forgets what a VM is made of when it is
	// unregistered, as govmomi's plain simulator does.
	Shallow bool
	// Copies is set for a host whose snapshots have files of their own and no
	// parents, as volumes have.
	Copies bool
	// Place is where VMs are made.
	Place hostctl.Placement
	// Network is one that the VM is not connected to; empty: there is none.
	Network string
	// Poor is the same host with a login that lacks Lacks on VM; nil: there is none.
	Poor  *hostctl.Host
	Lacks string
}

// Bytes reads and writes the disks of a VM that is off, as its guest would.
type Bytes interface {
	ReadDisk(t *testing.T, vm hostctl.VM, d hostctl.Disk, off int64, p []byte)
	WriteDisk(t *testing.T, vm hostctl.VM, d hostctl.Disk, off int64, p []byte)
}

// TestHost checks a host against the contract of package hostctl. open makes a
// new one, with its VMs, for each part.
func TestHost(t *testing.T, open func(t *testing.T) *Kit) {
	for _, part := range []struct {
		name string
		test func(*suite)
	}{
		{"find", (*suite).find},
		{"power", (*suite).power},
		{"mark", (*suite).mark},
		{"protect", (*suite).protect},
		{"interrupted", (*suite).interrupted},
		{"lost replies", (*suite).lost},
		{"restore", (*suite).restore},
		{"register", (*suite).register},
		{"create", (*suite).create},
		{"rebind", (*suite).rebind},
		{"track", (*suite).track},
		{"guard", (*suite).guard},
		{"check", (*suite).check},
		{"watch", (*suite).watch},
		{"canceled", (*suite).canceled},
	} {
		t.Run(part.name, func(t *testing.T) {
			s := &suite{T: t, Kit: open(t)}
			part.test(s)
		})
	}
}

// retrier is an error that says whether a retry may help.
type retrier interface {
	error
	Retryable() bool
}

// suite is one part of TestHost.
type suite struct {
	*testing.T
	*Kit
}

const suiteRun = "0f8a1b9c-5d0e-4c7f-9a52-6f2f3f6c1d77"

// op is an Op that keeps its task, as a controller does.
func (s *suite) op(step string) *hostctl.Op {
	op := &hostctl.Op{Run: suiteRun, Step: step}
	op.Started = func(task string) error {
		if task == "" {
			s.Errorf("%s: Started without a reference", step)
		}
		op.Task = task
		return nil
	}
	return op
}

// must ends the part on an error.
func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// vm is the VM as it is now.
func (s *suite) vm() hostctl.VM {
	s.Helper()
	return s.look(s.VM)
}

func (s *suite) look(q hostctl.Query) hostctl.VM {
	s.Helper()
	vm, err := s.Host.Compute.Find(s.Context(), q)
	s.must(err)
	return vm
}

// persist asks again as long as the host says that a retry may help.
func (s *suite) persist(f func() error) error {
	s.Helper()
	for try := 0; ; try++ {
		err := f()
		r, ok := errors.AsType[retrier](err)
		if err == nil || !ok || !r.Retryable() || try == 8 {
			return err
		}
		s.Logf("again: %v", err)
	}
}

// refused wants a final error.
func (s *suite) refused(what string, err error) {
	s.Helper()
	if err == nil {
		s.Errorf("%s: no error", what)
	} else if r, ok := errors.AsType[retrier](err); ok && r.Retryable() {
		s.Errorf("%s: %v: says that a retry may help", what, err)
	}
}

func (s *suite) notFound(what string, err error) {
	s.Helper()
	if !errors.Is(err, hostctl.ErrNotFound) {
		s.Errorf("%s: got %v, want ErrNotFound", what, err)
	}
}

func (s *suite) find() {
	vm := s.vm()
	if vm.Host != s.Host.Name || vm.ID == "" || vm.UUID == "" || vm.Name == "" || vm.Path == "" {
		s.Fatalf("ref %+v of path %q: something is missing", vm.Ref, vm.Path)
	}
	for _, q := range []hostctl.Query{{UUID: vm.UUID}, {ID: vm.ID}, {Path: vm.Path}, {Name: vm.Name}, {UUID: vm.UUID, ID: "no", Path: "[no] no/no.vmx", Name: "no"}} {
		if got := s.look(q); got.Ref != vm.Ref {
			s.Errorf("%+v: found %+v, want %+v", q, got.Ref, vm.Ref)
		}
	}
	for _, q := range []hostctl.Query{{UUID: "9e5bf5a4-6a60-4a3e-8a1e-3f9d7f8ac001"}, {ID: "vm-999999"}, {Path: "[nowhere] no/no.vmx"}, {Name: "no such VM"}} {
		_, err := s.Host.Compute.Find(s.Context(), q)
		s.notFound("find", err)
	}
	_, err := s.Host.Compute.Find(s.Context(), hostctl.Query{})
	s.refused("find of nothing", err)
	s.disks(vm)
	if s.Twin == (hostctl.Query{}) {
		s.Log("no two VMs answer to one name here")
		return
	}
	_, err = s.Host.Compute.Find(s.Context(), s.Twin)
	if twins, ok := errors.AsType[*hostctl.AmbiguousError](err); !ok || len(twins.Found) < 2 {
		s.Errorf("find %+v: got %v, want an AmbiguousError with two", s.Twin, err)
	}
}

// disks looks whether each disk is told from the others.
func (s *suite) disks(vm hostctl.VM) {
	if len(vm.Disks) < 2 || vm.Power != hostctl.Off || len(vm.Snapshots) > 0 || len(vm.Marks) > 0 {
		s.Fatalf("the kit's VM is not as Kit.VM wants it: %+v", vm)
	}
	keys, labels, files := map[int32]bool{}, map[string]bool{}, map[string]bool{}
	for _, d := range vm.Disks {
		keys[d.Key], labels[d.Label], files[d.File] = true, true, true
		if d.Size <= 0 || d.Label == "" || d.File == "" || d.Datastore == "" || d.Unfit != "" {
			s.Errorf("disk %+v: something is missing or wrong", d)
		}
	}
	if n := len(vm.Disks); len(keys) != n || len(labels) != n || len(files) != n {
		s.Errorf("%d disks have %d keys, %d labels, %d files", n, len(keys), len(labels), len(files))
	}
}

func (s *suite) power() {
	vm := s.vm()
	c := s.Host.Compute
	for i, want := range []hostctl.Power{hostctl.Off, hostctl.On, hostctl.On, hostctl.Off, hostctl.Off, hostctl.On} {
		op := s.op("power")
		if err := c.SetPower(s.Context(), op, vm.Ref, want, 0); err != nil {
			s.Fatalf("%d: make it %d: %v", i, want, err)
		}
		// What is there already needs no task.
		if changed := i == 1 || i == 3 || i == 5; changed != (op.Task != "") {
			s.Errorf("%d: make it %d: task %q", i, want, op.Task)
		}
		if got := s.vm().Power; got != want {
			s.Fatalf("%d: it is %d, want %d", i, got, want)
		}
	}
	// A guest that does not listen, or does not answer, is off after the grace.
	began := time.Now()
	s.must(c.SetPower(s.Context(), s.op("power-off"), vm.Ref, hostctl.Off, 2*time.Second))
	if got := s.vm().Power; got != hostctl.Off {
		s.Errorf("with grace: it is %d after %v", got, time.Since(began))
	}
	s.notFound("power of no VM", c.SetPower(s.Context(), s.op("power-off"), hostctl.Ref{ID: "vm-999999"}, hostctl.Off, 0))
	s.refused("suspend", c.SetPower(s.Context(), s.op("power-off"), vm.Ref, hostctl.Suspended, 0))
}

func (s *suite) mark() {
	vm := s.vm()
	for _, set := range []struct{ key, value string }{
		{hostctl.MarkRun, "r1@c"},
		{hostctl.MarkRun, "r1@c"},
		{hostctl.MarkRun, "r2@c"},
		{hostctl.MarkInconsistent, "r2"},
		{hostctl.MarkRun, ""},
		{hostctl.MarkRun, ""},
		{hostctl.MarkInconsistent, ""},
	} {
		s.must(s.Host.Compute.Mark(s.Context(), s.op("mark"), vm.Ref, set.key, set.value))
		got, there := s.vm().Marks[set.key]
		if got != set.value || there != (set.value != "") {
			s.Errorf("mark %s=%q: it is %q, there %v", set.key, set.value, got, there)
		}
	}
}

func (s *suite) protect() {
	vm := s.vm()
	st := s.Host.Storage
	first, err := st.Protect(s.Context(), s.op("one"), vm.Ref, "the first")
	s.must(err)
	if first.Name != hostctl.SnapshotName(s.op("one")) || first.ID == "" || first.Text != "the first" || len(first.Disks) != len(vm.Disks) {
		s.Errorf("snapshot %+v", first)
	}
	for i, d := range first.Disks {
		if was := vm.Disks[i]; d.Key != was.Key || d.Size != was.Size || d.UUID != was.UUID || d.File == "" || (d.File != was.File) != s.Copies {
			s.Errorf("disk %+v of the snapshot, want that of the VM before: %+v", d, was)
		}
	}
	again, err := st.Protect(s.Context(), s.op("one"), vm.Ref, "the first")
	s.must(err)
	second, err := st.Protect(s.Context(), s.op("two"), vm.Ref, "the second")
	s.must(err)
	now := s.vm()
	if again.ID != first.ID || len(now.Snapshots) != 2 || !s.Copies && (second.Parent != first.ID || now.Current != second.ID) {
		s.Fatalf("after two snapshots, one asked for twice: %+v, current %q", now.Snapshots, now.Current)
	}
	if now.Snapshots[0].ID != first.ID {
		s.Errorf("parents come first: got %+v", now.Snapshots)
	}
	for range 2 { // the second time there is none, which is no error
		s.must(st.Release(s.Context(), s.op("release"), vm.Ref, first.ID))
	}
	if now = s.vm(); len(now.Snapshots) != 1 || now.Snapshots[0].ID != second.ID || now.Snapshots[0].Parent != "" {
		s.Errorf("after the release of the first: %+v", now.Snapshots)
	}
	s.must(st.Release(s.Context(), s.op("release-2"), vm.Ref, second.ID))
	if now = s.vm(); len(now.Snapshots) != 0 || now.Current != "" {
		s.Errorf("after the release of both: %+v, current %q", now.Snapshots, now.Current)
	}
	s.notFound("restore to none", st.Restore(s.Context(), s.op("restore"), vm.Ref, second.ID))
	space, err := st.Space(s.Context(), vm.Ref)
	if err != nil || len(space) == 0 || space[0].Datastore != vm.Disks[0].Datastore || space[0].Size <= 0 || space[0].Free < 0 {
		s.Errorf("space %+v, %v", space, err)
	}
}

// interrupted is a controller that dies when the host has taken the action: with
// the reference stored, and without.
func (s *suite) interrupted() {
	died := errors.New("died")
	for _, stored := range []bool{true, false} {
		name := map[bool]string{true: "stored", false: "lost"}[stored]
		vm := s.vm()
		task := ""
		op := &hostctl.Op{Run: suiteRun, Step: "protect-" + name, Started: func(ref string) error { task = ref; return died }}
		if _, err := s.Host.Storage.Protect(s.Context(), op, vm.Ref, ""); !errors.Is(err, died) {
			s.Fatalf("%s: got %v, want the error of Started", name, err)
		}
		if task == "" {
			s.Fatalf("%s: nothing was stored before the wait", name)
		}
		again := s.op(op.Step)
		if stored {
			again.Task = task
		}
		shot, err := s.Host.Storage.Protect(s.Context(), again, vm.Ref, "")
		s.must(err)
		if now := s.vm(); len(now.Snapshots) != 1 || now.Snapshots[0].ID != shot.ID {
			s.Errorf("%s: there are %d snapshots", name, len(now.Snapshots))
		}
		s.must(s.Host.Storage.Release(s.Context(), s.op("release-"+name), vm.Ref, shot.ID))
	}
}

// lost loses the reply of each kind of change. What was done is found done.
func (s *suite) lost() {
	if s.Lose == nil {
		s.Skip("this host loses no replies")
	}
	vm := s.vm()
	shot := hostctl.Snapshot{}
	for _, change := range []struct {
		name string
		do   func(op *hostctl.Op) error
	}{
		{"power-on", func(op *hostctl.Op) error { return s.Host.Compute.SetPower(s.Context(), op, vm.Ref, hostctl.On, 0) }},
		{"power-off", func(op *hostctl.Op) error { return s.Host.Compute.SetPower(s.Context(), op, vm.Ref, hostctl.Off, 0) }},
		{"mark", func(op *hostctl.Op) error { return s.Host.Compute.Mark(s.Context(), op, vm.Ref, "run", "r") }},
		{"protect", func(op *hostctl.Op) (err error) {
			shot, err = s.Host.Storage.Protect(s.Context(), op, vm.Ref, "")
			return err
		}},
		{"restore", func(op *hostctl.Op) error { return s.Host.Storage.Restore(s.Context(), op, vm.Ref, shot.ID) }},
		{"release", func(op *hostctl.Op) error { return s.Host.Storage.Release(s.Context(), op, vm.Ref, shot.ID) }},
	} {
		s.Lose()
		if err := s.persist(func() error { return change.do(s.op(change.name)) }); err != nil {
			s.Fatalf("%s: %v", change.name, err)
		}
		if now := s.vm(); change.name == "protect" && len(now.Snapshots) != 1 {
			s.Errorf("%d snapshots of one step: %+v", len(now.Snapshots), now.Snapshots)
		}
	}
	if now := s.vm(); now.Power != hostctl.Off || len(now.Snapshots) != 0 {
		s.Errorf("in the end it is %d with %d snapshots", now.Power, len(now.Snapshots))
	}
}

// canceled wants an early end, and that with the context's own error.
func (s *suite) canceled() {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := s.Host.Compute.Find(ctx, s.VM); !errors.Is(err, context.Canceled) {
		s.Errorf("find: got %v, want the context's error", err)
	}
	var got error
	for _, err := range s.Host.Compute.Watch(ctx, []hostctl.Ref{s.vm().Ref}) {
		got = err
	}
	if !errors.Is(got, context.Canceled) {
		s.Errorf("watch: got %v, want the context's error", got)
	}
}

// events is Watch in another goroutine. Its channel is closed when Watch ends.
func (s *suite) events(ctx context.Context, vms ...hostctl.Ref) <-chan hostctl.Event {
	all := make(chan hostctl.Event, 64) // more than a part of the suite causes
	go func() {
		defer close(all)
		var seq iter.Seq2[hostctl.Event, error] = s.Host.Compute.Watch(ctx, vms)
		for e, err := range seq {
			if err == nil {
				all <- e
			} else if ctx.Err() == nil {
				s.Errorf("watch: %v", err)
			}
		}
	}()
	return all
}
