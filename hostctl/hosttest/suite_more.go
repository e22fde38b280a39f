package hosttest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
)

// await takes events until one is as wanted.
func (s *suite) await(all <-chan hostctl.Event, what string, want func(hostctl.Event) bool) {
	s.Helper()
	for late := time.After(time.Minute); ; {
		select {
		case e, ok := <-all:
			if !ok {
				s.Fatalf("watch has ended before: %s", what)
			}
			if want(e) {
				return
			}
		case <-late:
			s.Fatalf("watch says nothing in a minute: %s", what)
		}
	}
}

func (s *suite) watch() {
	vm := s.vm()
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	all := s.events(ctx, vm.Ref)
	s.await(all, "how it is", func(e hostctl.Event) bool { return e.VM.UUID == vm.UUID && e.Power == hostctl.Off && !e.Gone })
	s.must(s.Host.Compute.SetPower(s.Context(), s.op("on"), vm.Ref, hostctl.On, 0))
	s.await(all, "on", func(e hostctl.Event) bool { return e.Power == hostctl.On })
	s.must(s.Host.Compute.SetPower(s.Context(), s.op("off"), vm.Ref, hostctl.Off, 0))
	s.await(all, "off", func(e hostctl.Event) bool { return e.Power == hostctl.Off })
	if s.Host.Registry != nil {
		s.must(s.Host.Registry.Unregister(s.Context(), s.op("unregister"), vm.Ref))
		s.await(all, "gone", func(e hostctl.Event) bool { return e.Gone })
	}
	cancel()
	for range all {
	}
	// A VM that is not there is gone from the first.
	ctx, cancel = context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	none := s.events(ctx, hostctl.Ref{ID: "vm-999999", UUID: "9e5bf5a4-6a60-4a3e-8a1e-3f9d7f8ac001"})
	s.await(none, "gone from the first", func(e hostctl.Event) bool { return e.Gone })
	// So does one who asks only for the first event.
	for range s.Host.Compute.Watch(ctx, []hostctl.Ref{{ID: "vm-999999"}}) {
		break
	}
}

// pattern is what the suite writes.
func (s *suite) write(vm hostctl.VM, disk int, off int64, b byte) {
	s.Helper()
	s.Bytes.WriteDisk(s.T, vm, vm.Disks[disk], off, bytes.Repeat([]byte{b}, 4096))
}

func (s *suite) wantBytes(what string, vm hostctl.VM, disk int, off int64, b byte) {
	s.Helper()
	got := make([]byte, 4096)
	s.Bytes.ReadDisk(s.T, vm, vm.Disks[disk], off, got)
	if !bytes.Equal(got, bytes.Repeat([]byte{b}, 4096)) {
		s.Errorf("%s: disk %s at %d begins with %d, want 4096 times %d", what, vm.Disks[disk].Label, off, got[0], b)
	}
}

// restore is the promise that undo stands on: to the byte, all disks together.
func (s *suite) restore() {
	if s.Bytes == nil {
		s.Skip("this host keeps no disk contents")
	}
	vm := s.vm()
	st := s.Host.Storage
	for i := range vm.Disks {
		s.write(vm, i, 1<<20, 1)
	}
	shot, err := st.Protect(s.Context(), s.op("protect"), vm.Ref, "")
	s.must(err)
	for round := range 2 { // the leaf stands on the snapshot before and after
		now := s.vm()
		for i := range now.Disks {
			s.write(now, i, 1<<20, byte(2+round))
			s.write(now, i, 3<<20, byte(2+round))
		}
		op := s.op("restore")
		op.Step += map[int]string{0: "-a", 1: "-b"}[round]
		s.must(st.Restore(s.Context(), op, vm.Ref, shot.ID))
		now = s.vm()
		for i := range now.Disks {
			s.wantBytes("restored", now, i, 1<<20, 1)
			s.wantBytes("restored", now, i, 3<<20, 0)
		}
		if now.Power != hostctl.Off || len(now.Snapshots) != 1 {
			s.Fatalf("after the restore: power %d, snapshots %+v", now.Power, now.Snapshots)
		}
	}
	now := s.vm()
	s.write(now, 0, 2<<20, 9)
	s.must(s.Host.Compute.SetPower(s.Context(), s.op("on"), vm.Ref, hostctl.On, 0))
	s.refused("restore of a VM that runs", st.Restore(s.Context(), s.op("restore-on"), vm.Ref, shot.ID))
	s.must(s.Host.Compute.SetPower(s.Context(), s.op("off"), vm.Ref, hostctl.Off, 0))
	s.must(st.Release(s.Context(), s.op("release"), vm.Ref, shot.ID))
	now = s.vm()
	s.wantBytes("released", now, 0, 1<<20, 1)
	s.wantBytes("released", now, 0, 2<<20, 9)
}

func (s *suite) register() {
	reg := s.Host.Registry
	if reg == nil {
		s.Skip("this host has no registry")
	}
	vm := s.vm()
	s.must(s.Host.Compute.SetPower(s.Context(), s.op("on"), vm.Ref, hostctl.On, 0))
	s.refused("unregister of a VM that runs", reg.Unregister(s.Context(), s.op("unregister"), vm.Ref))
	s.must(s.Host.Compute.SetPower(s.Context(), s.op("off"), vm.Ref, hostctl.Off, 0))
	for range 2 {
		s.must(reg.Unregister(s.Context(), s.op("unregister"), vm.Ref))
	}
	_, err := s.Host.Compute.Find(s.Context(), hostctl.Query{Path: vm.Path})
	s.notFound("find what is unregistered", err)
	var refs []hostctl.Ref
	for range 2 {
		ref, err := reg.Register(s.Context(), s.op("register"), vm.Path, s.Place)
		s.must(err)
		refs = append(refs, ref)
	}
	if refs[0] != refs[1] || refs[0].ID == "" {
		s.Errorf("registered twice: %+v", refs)
	}
	// The old ID may name nothing, or anything. The UUID tells.
	if now, err := s.Host.Compute.Find(s.Context(), hostctl.Query{ID: refs[0].ID}); err != nil || now.Path != vm.Path {
		s.Errorf("found %+v, %v", now.Ref, err)
	}
	_, err = reg.Register(s.Context(), s.op("register-none"), "["+vm.Disks[0].Datastore+"] no/no.vmx", s.Place)
	s.refused("register what is not there", err)
}

func (s *suite) create() {
	reg := s.Host.Registry
	if reg == nil {
		s.Skip("this host has no registry")
	}
	vm := s.vm()
	want := hostctl.NewVM{Name: "made", Like: vm, Place: s.Place, Networks: map[string]string{}, Registered: true}
	for _, d := range vm.Disks {
		want.Disks = append(want.Disks, hostctl.NewDisk{Like: d, Size: d.Size, Thin: d.Thin})
	}
	if s.Network != "" && len(vm.NICs) > 0 {
		want.Networks[vm.NICs[0].Network] = s.Network
	}
	made, err := reg.Create(s.Context(), s.op("create"), want)
	s.must(err)
	again, err := reg.Create(s.Context(), s.op("create"), want)
	s.must(err)
	if made.Path == "" || again.Ref != made.Ref || made.Marks[hostctl.MarkMade] != suiteRun || len(made.Disks) != len(want.Disks) {
		s.Fatalf("made %+v, again %+v, marks %v, %d disks", made.Ref, again.Ref, made.Marks, len(made.Disks))
	}
	for i, d := range made.Disks {
		if d.Size != want.Disks[i].Size || d.Label != want.Disks[i].Like.Label {
			s.Errorf("disk %d is %s of %d bytes, want %s of %d", i, d.Label, d.Size, want.Disks[i].Like.Label, want.Disks[i].Size)
		}
	}
	if s.Network != "" && len(made.NICs) > 0 && (made.NICs[0].Network != s.Network || made.NICs[0].Connected) {
		s.Errorf("NIC %+v, want it on %s and not connected", made.NICs[0], s.Network)
	}
	other := s.op("destroy")
	other.Run = "11111111-5d0e-4c7f-9a52-6f2f3f6c1d77"
	s.refused("destroy by another run", reg.Destroy(s.Context(), other, made.Path))
	s.refused("destroy of a VM that nobody made", reg.Destroy(s.Context(), s.op("destroy"), vm.Path))
	for range 2 {
		s.must(reg.Destroy(s.Context(), s.op("destroy"), made.Path))
	}
	_, err = s.Host.Compute.Find(s.Context(), hostctl.Query{Path: made.Path})
	s.notFound("find what is destroyed", err)
	s.vm()
	s.badVMs(want)
	if s.Shallow {
		s.Log("this host forgets the mark of a VM that is not registered")
		return
	}
	s.unregistered(want)
}

// unregistered makes a VM that nobody can start before it is registered.
func (s *suite) unregistered(want hostctl.NewVM) {
	reg := s.Host.Registry
	want.Name, want.Registered = "hidden", false
	var made hostctl.VM
	for range 2 {
		vm, err := reg.Create(s.Context(), s.op("create-hidden"), want)
		s.must(err)
		if vm.Path == "" || made.Path != "" && vm.Path != made.Path || len(vm.Disks) != len(want.Disks) {
			s.Fatalf("made %+v at %q with %d disks", vm.Ref, vm.Path, len(vm.Disks))
		}
		made = vm
		_, err = s.Host.Compute.Find(s.Context(), hostctl.Query{Path: vm.Path})
		s.notFound("find what is not registered", err)
	}
	other := s.op("destroy")
	other.Run = "11111111-5d0e-4c7f-9a52-6f2f3f6c1d77"
	s.refused("destroy by another run, unregistered", reg.Destroy(s.Context(), other, made.Path))
	ref, err := reg.Register(s.Context(), s.op("register-hidden"), made.Path, s.Place)
	s.must(err)
	if now := s.look(hostctl.Query{ID: ref.ID}); len(now.Disks) != len(want.Disks) || now.Marks[hostctl.MarkMade] != suiteRun {
		s.Errorf("registered with %d disks and the marks %v", len(now.Disks), now.Marks)
	}
	s.must(reg.Unregister(s.Context(), s.op("unregister-hidden"), ref))
	for range 2 {
		s.must(reg.Destroy(s.Context(), s.op("destroy-hidden"), made.Path))
	}
}

func (s *suite) badVMs(good hostctl.NewVM) {
	for _, bad := range []struct {
		name   string
		change func(*hostctl.NewVM)
	}{
		{"no name", func(n *hostctl.NewVM) { n.Name = "" }},
		{"no disks", func(n *hostctl.NewVM) { n.Disks = nil }},
		{"an empty disk", func(n *hostctl.NewVM) { n.Disks = []hostctl.NewDisk{{Like: n.Like.Disks[0]}} }},
		{"no such datastore", func(n *hostctl.NewVM) { n.Place.Datastore = "nowhere" }},
	} {
		n := good
		bad.change(&n)
		op := s.op("create-bad")
		_, err := s.Host.Registry.Create(s.Context(), op, n)
		s.refused("create: "+bad.name, err)
		if op.Task != "" {
			s.Errorf("create: %s: a task was started", bad.name)
		}
	}
}

func (s *suite) rebind() {
	vm := s.vm()
	switch {
	case s.Host.Registry == nil:
		s.Skip("this host has no registry")
	case s.Network == "" || len(vm.NICs) == 0:
		s.Skip("this host has no second network")
	}
	old := vm.NICs[0].Network
	for range 2 {
		s.must(s.Host.Registry.Rebind(s.Context(), s.op("rebind"), vm.Ref, map[string]string{old: s.Network}))
	}
	if now := s.vm(); now.NICs[0].Network != s.Network || now.NICs[0].MAC != vm.NICs[0].MAC || len(now.NICs) != len(vm.NICs) {
		s.Errorf("NICs %+v, were %+v", now.NICs, vm.NICs)
	}
	s.refused("rebind to nowhere", s.Host.Registry.Rebind(s.Context(), s.op("rebind-no"), vm.Ref, map[string]string{s.Network: "nowhere"}))
	s.must(s.Host.Registry.Rebind(s.Context(), s.op("rebind-back"), vm.Ref, map[string]string{s.Network: old}))
	if now := s.vm(); now.NICs[0].Network != old {
		s.Errorf("back: NICs %+v", now.NICs)
	}
}

func (s *suite) guard() {
	if s.Host.Guard == nil {
		s.Skip("this host has no guard")
	}
	vm := s.vm()
	for range 2 {
		s.must(s.Host.Guard.Hold(s.Context(), s.op("guard"), vm.Ref))
	}
	for range 2 {
		s.must(s.Host.Guard.Free(s.Context(), &hostctl.Op{Run: suiteRun, Step: "unguard"}, vm.Ref))
	}
	if now := s.vm(); len(now.Disabled) != len(vm.Disabled) || len(now.Marks) != 0 {
		s.Errorf("after the end of the guard: disabled %v, marks %v", now.Disabled, now.Marks)
	}
}

func (s *suite) check() {
	if s.Host.Checker == nil {
		s.Skip("this host has no checker")
	}
	vm := s.vm()
	needs := []hostctl.Need{
		hostctl.NeedPower, hostctl.NeedSnapshot, hostctl.NeedMark, hostctl.NeedRead, hostctl.NeedWrite, hostctl.NeedCreate, hostctl.NeedGuard, hostctl.NeedTrack,
	}
	for _, ref := range []hostctl.Ref{vm.Ref, {}} {
		if got, err := s.Host.Checker.Check(s.Context(), ref, needs); err != nil || len(got) != 0 {
			s.Errorf("check of %+v: %+v, %v; want nothing", ref, got, err)
		}
	}
	_, err := s.Host.Checker.Check(s.Context(), hostctl.Ref{ID: "vm-999999"}, needs)
	s.notFound("check of no VM", err)
	if s.Poor == nil {
		s.Log("no login that lacks something here")
		return
	}
	got, err := s.Poor.Checker.Check(s.Context(), vm.Ref, needs)
	s.must(err)
	if !slices.ContainsFunc(got, func(p hostctl.Problem) bool {
		return strings.Contains(p.Text, s.Lacks) && p.Reason != "" && p.Remedy != ""
	}) {
		s.Errorf("check: got %+v, want one that names %s", got, s.Lacks)
	}
}

func (s *suite) track() {
	if s.Host.Tracker == nil {
		s.Skip("this host tracks no changes")
	}
	vm := s.vm()
	tr, st := s.Host.Tracker, s.Host.Storage
	early, err := st.Protect(s.Context(), s.op("early"), vm.Ref, "")
	s.must(err)
	s.refused("tracking above a snapshot", tr.EnableTracking(s.Context(), s.op("enable-early"), vm.Ref))
	s.must(st.Release(s.Context(), s.op("release-early"), vm.Ref, early.ID))
	for range 2 {
		s.must(tr.EnableTracking(s.Context(), s.op("enable"), vm.Ref))
	}
	if !s.vm().Tracking {
		s.Fatal("tracking is off after it was enabled")
	}
	first, err := st.Protect(s.Context(), s.op("track-1"), vm.Ref, "")
	s.must(err)
	if first.Disks[0].ChangeID == "" {
		s.Skip("this host has no change IDs")
	}
	now := s.vm()
	if s.Bytes != nil {
		s.write(now, 0, 5<<20-2048, 7) // over the edge of a block
	}
	s.must(st.Release(s.Context(), s.op("release-1"), vm.Ref, first.ID))
	second, err := st.Protect(s.Context(), s.op("track-2"), vm.Ref, "")
	s.must(err)
	s.changed(vm, second, 0, first.Disks[0].ChangeID, s.Bytes != nil)
	s.changed(vm, second, 1, first.Disks[1].ChangeID, false)
	s.distrusted(vm, second, first)
	s.must(st.Release(s.Context(), s.op("release-2"), vm.Ref, second.ID))
	s.must(tr.ResetTracking(s.Context(), s.op("reset"), vm.Ref))
	if now = s.vm(); !now.Tracking || len(now.Snapshots) != 0 || len(now.Marks) != 0 {
		s.Fatalf("after the reset: tracking %v, snapshots %+v, marks %v", now.Tracking, now.Snapshots, now.Marks)
	}
	third, err := st.Protect(s.Context(), s.op("track-3"), vm.Ref, "")
	s.must(err)
	s.useless(vm, third, "reset since", second.Disks[0].ChangeID)
}

// changed asks and wants the write of track covered, or nothing.
func (s *suite) changed(vm hostctl.VM, shot hostctl.Snapshot, disk int, since string, written bool) {
	s.Helper()
	d := shot.Disks[disk]
	hint, err := s.Host.Tracker.Changed(s.Context(), vm.Ref, shot.ID, d, since)
	s.must(err)
	if hint.Trust == cbt.Distrusted || hint.Size != d.Size {
		s.Fatalf("hint %+v of disk %s", hint, d.Label)
	}
	m, _, err := hint.Changed(d.Size)
	s.must(err)
	want := cbt.Extent{Off: 5<<20 - 2048, Len: 4096}
	if written {
		if !m.Covers(want) {
			s.Errorf("disk %s: the areas %v miss what was written at %v", d.Label, hint.Areas, want)
		}
	} else if !m.Empty() && hint.Trust == cbt.Exact {
		s.Errorf("disk %s: areas %v, nothing was written", d.Label, hint.Areas)
	}
}

// distrusted asks since what is no point in time of the disk.
func (s *suite) distrusted(vm hostctl.VM, shot, first hostctl.Snapshot) {
	for what, since := range map[string]string{
		"no change ID": "", "all that is allocated": "*",
		"another count": "52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01/1", "nonsense": "x",
	} {
		s.useless(vm, shot, what, since)
	}
	_, err := s.Host.Tracker.Changed(s.Context(), vm.Ref, "snapshot-none", shot.Disks[0], first.Disks[0].ChangeID)
	s.notFound("changes at no snapshot", err)
}

// useless wants a hint that says why it is none, or an error.
func (s *suite) useless(vm hostctl.VM, shot hostctl.Snapshot, what, since string) {
	s.Helper()
	hint, err := s.Host.Tracker.Changed(s.Context(), vm.Ref, shot.ID, shot.Disks[0], since)
	if errors.Is(err, context.Canceled) || err == nil && (hint.Trust != cbt.Distrusted || hint.Remark == "") {
		s.Errorf("%s: hint %+v, %v; want one that is distrusted and says why", what, hint, err)
	}
}
