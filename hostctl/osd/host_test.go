package osd

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// rack is a server with workloads whose volumes are attached while they run.
type rack struct {
	t      *testing.T
	srv    *osdtest.Server
	client *Client
	host   *Host
	ids    map[string]string // of volumes, by name

	mu  sync.Mutex
	on  map[string]bool
	err error // of the next State
}

// rackPower is the power of one workload of a rack.
type rackPower struct {
	r       *rack
	name    string
	volumes []string
	slow    bool // to let its volumes go
}

func (p *rackPower) State(context.Context) (hostctl.Power, error) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if err := p.r.err; err != nil {
		p.r.err = nil
		return hostctl.PowerUnknown, err
	}
	if p.r.on[p.name] {
		return hostctl.On, nil
	}
	return hostctl.Off, nil
}

func (p *rackPower) Set(_ context.Context, _ *hostctl.Op, want hostctl.Power, _ time.Duration) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.r.on[p.name] = want == hostctl.On
	for _, v := range p.volumes {
		switch {
		case want == hostctl.On:
			if _, err := p.r.srv.AttachOutside(p.r.ids[v], ""); err != nil {
				return err
			}
		case p.slow:
			time.AfterFunc(20*time.Millisecond, func() { _ = p.r.srv.DetachOutside(p.r.ids[v]) }) // a server that is closed has none
		default:
			if err := p.r.srv.DetachOutside(p.r.ids[v]); err != nil {
				return err
			}
		}
	}
	return nil
}

func newRack(t *testing.T, restore string) *rack {
	t.Helper()
	srv, err := osdtest.New(osdtest.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	r := &rack{t: t, srv: srv, ids: map[string]string{}, on: map[string]bool{}}
	var list []Workload
	for _, w := range []string{"web", "other"} {
		work := Workload{Name: w}
		p := &rackPower{r: r, name: w, slow: w == "web"}
		for _, v := range []string{w + "-root", w + "-data"} {
			id, err := srv.AddVolume(v, 8<<20, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.ids[v] = id
			work.Volumes = append(work.Volumes, WorkloadVolume{Volume: v})
			p.volumes = append(p.volumes, v)
		}
		work.Power = p
		list = append(list, work)
	}
	if r.client, err = Open(Config{Name: "rack", Endpoint: srv.Endpoint(), Auth: AuthNone, Restore: restore}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.client.Close() })
	r.client.wait = waits{tries: 3, least: time.Millisecond, most: 5 * time.Millisecond, poll: time.Millisecond}
	r.host = NewHost(HostConfig{Name: "rack", Client: r.client, Workloads: list})
	r.host.times = hostTimes{poll: 5 * time.Millisecond, detach: 10 * time.Second, power: 10 * time.Second}
	return r
}

// ReadDisk implements hosttest.Bytes.
func (r *rack) ReadDisk(t *testing.T, _ hostctl.VM, d hostctl.Disk, off int64, p []byte) {
	t.Helper()
	f, err := os.Open(r.srv.Image(d.UUID))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// WriteDisk implements hosttest.Bytes.
func (r *rack) WriteDisk(t *testing.T, _ hostctl.VM, d hostctl.Disk, off int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(r.srv.Image(d.UUID), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// lose loses the first reply of each kind of change.
func (r *rack) lose() {
	r.srv.Set(func(q *osdtest.Quirks) {
		q.LoseReplies = map[string]int{"Create": 1, "SnapshotCreate": 1, "SnapshotRestore": 1, "Delete": 1}
	})
}

func TestHost(t *testing.T) {
	hosttest.TestHost(t, func(t *testing.T) *hosttest.Kit {
		r := newRack(t, RestoreServer)
		return &hosttest.Kit{Host: r.host.Host(), VM: hostctl.Query{Name: "web"}, Lose: r.lose, Bytes: r, Copies: true}
	})
}

func (r *rack) op(step string) *hostctl.Op {
	return &hostctl.Op{Run: "0f8a1b9c-5d0e-4c7f-9a52-6f2f3f6c1d77", Step: step, Started: func(string) error { return nil }}
}

func (r *rack) vm() hostctl.VM {
	r.t.Helper()
	vm, err := r.host.Find(r.t.Context(), hostctl.Query{Name: "web"})
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

func (r *rack) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestRestoreModes: what the server does not restore is for the mover, and what it
// may still restore is for nobody else.
func TestRestoreModes(t *testing.T) {
	for _, c := range []struct {
		name, mode string
		quirk      func(*osdtest.Quirks)
		mover      bool // a final error: the caller moves
		ok         bool
	}{
		{"by the mover", RestoreMover, func(*osdtest.Quirks) {}, true, false},
		{"by the server", RestoreServer, func(*osdtest.Quirks) {}, false, true},
		{"absent", RestoreServer, func(q *osdtest.Quirks) { q.NoRestore = true }, true, false},
		{"unimplemented", RestoreServer, func(q *osdtest.Quirks) { q.Unimplemented = true }, true, false},
		{"asynchronous", RestoreServer, func(q *osdtest.Quirks) { q.AsyncRestore = 3 }, false, true},
		{"asynchronous, and fails", RestoreServer, func(q *osdtest.Quirks) { q.AsyncRestore, q.RestoreFault = 2, "pool is down" }, true, false},
		{"silently wrong", RestoreServer, func(q *osdtest.Quirks) { q.WrongRestore = true }, false, true}, // the caller compares
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRack(t, c.mode)
			vm := r.vm()
			s, err := r.host.Protect(t.Context(), r.op("protect-target"), vm.Ref, "")
			r.must(err)
			r.srv.Set(c.quirk)
			err = r.host.Restore(t.Context(), r.op("restore"), vm.Ref, s.ID)
			if (err == nil) != c.ok || err != nil && final(err) != c.mover {
				t.Errorf("%v (final: %v)", err, final(err))
			}
			if busy := r.vm().Busy; busy != "" {
				t.Errorf("it answered while it is at %q", busy)
			}
		})
	}
}

// TestOff: off is when the volumes are detached, and nobody detaches them for the
// workload.
func TestOff(t *testing.T) {
	r := newRack(t, "")
	r.host.times.detach = 50 * time.Millisecond
	vm := r.vm()
	if _, err := r.srv.AttachOutside(r.ids["web-data"], "node-9"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"power off": r.host.SetPower(t.Context(), r.op("power-off-target"), vm.Ref, hostctl.Off, 0),
		"protect":   func() error { _, err := r.host.Protect(t.Context(), r.op("protect-target"), vm.Ref, ""); return err }(),
	} {
		if err == nil || !final(err) || !strings.Contains(err.Error(), "web-data is attached on node node-9") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.srv.Calls("Detach") != 0 || r.srv.Calls("SnapshotCreate") != 0 {
		t.Error("somebody else's attachment was touched")
	}
	// A pass of our own is no use by others.
	r.host.cfg.Mine = func(v string) bool { return v == r.ids["web-data"] }
	r.must(r.host.SetPower(t.Context(), r.op("power-off-target"), vm.Ref, hostctl.Off, 0))
}

// TestNoPower: a workload that nothing here can power is in use while a volume of
// it is attached, and somebody has to stop it by hand.
func TestNoPower(t *testing.T) {
	r := newRack(t, "")
	r.host.cfg.Workloads[0].Power = nil
	if p := r.vm().Power; p != hostctl.Off {
		t.Fatalf("it is %v", p)
	}
	_, err := r.srv.AttachOutside(r.ids["web-root"], "")
	r.must(err)
	vm := r.vm()
	if vm.Power != hostctl.On {
		t.Fatalf("attached, it is %v", vm.Power)
	}
	err = r.host.SetPower(t.Context(), r.op("off"), vm.Ref, hostctl.Off, 30*time.Millisecond)
	if err == nil || !final(err) || !strings.Contains(err.Error(), "stop it yourself") {
		t.Errorf("off: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = r.srv.DetachOutside(r.ids["web-root"]) })
	r.must(r.host.SetPower(t.Context(), r.op("off"), vm.Ref, hostctl.Off, time.Minute))
	if p := r.vm().Power; p != hostctl.Off {
		t.Errorf("detached, it is %v", p)
	}
	err = r.host.SetPower(t.Context(), r.op("on"), vm.Ref, hostctl.On, 0)
	if err == nil || !strings.Contains(err.Error(), "start it yourself") {
		t.Errorf("on: %v", err)
	}
}

// TestOthersAreLeftAlone: who has a reference to a workload asks of its volumes and
// of no others, which may be many, or away.
func TestOthersAreLeftAlone(t *testing.T) {
	r := newRack(t, "")
	other, err := r.host.Find(t.Context(), hostctl.Query{Name: "other"})
	r.must(err)
	r.vm() // the ids of both are known now
	before := r.srv.Calls("Inspect")
	_, err = r.host.of(t.Context(), other.Ref)
	r.must(err)
	if n := r.srv.Calls("Inspect") - before; n != len(other.Disks) {
		t.Errorf("%d Inspect for a workload of %d volumes", n, len(other.Disks))
	}
	renamed := other.Ref
	renamed.ID, renamed.Name = "web", "web"
	if f, err := r.host.of(t.Context(), renamed); err != nil || f.Name() != "other" {
		t.Errorf("its UUID leads to %+v, %v", f, err)
	}
}

// TestVMPower: a workload that is a VM of another host is powered there, and off
// when its volumes are detached as well.
func TestVMPower(t *testing.T) {
	r := newRack(t, "")
	vsphere := hosttest.NewFake("home", new(hosttest.Log))
	ref := vsphere.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-1"}, Power: hostctl.On}, make([]byte, 1<<20))
	r.host.cfg.Workloads[0].Power = VMPower{Compute: vsphere.Host().Compute, VM: hostctl.Query{Name: "web-1"}}
	is := func() hostctl.Power {
		vm, found := vsphere.VM(ref.UUID)
		if !found {
			t.Fatal("the VM is gone")
		}
		return vm.Power
	}
	_, err := r.srv.AttachOutside(r.ids["web-root"], "")
	r.must(err)
	vm := r.vm()
	if vm.Power != hostctl.On {
		t.Fatalf("its VM is on, and it is %v", vm.Power)
	}
	time.AfterFunc(30*time.Millisecond, func() { _ = r.srv.DetachOutside(r.ids["web-root"]) })
	r.must(r.host.SetPower(t.Context(), r.op("off"), vm.Ref, hostctl.Off, 0))
	if is() != hostctl.Off || r.vm().Power != hostctl.Off {
		t.Errorf("off: the VM is %v, the workload %v", is(), r.vm().Power)
	}
	if v, err := r.client.Inspect(t.Context(), r.ids["web-root"]); err != nil || v.Attached {
		t.Errorf("off before its volume was detached: %+v, %v", v, err)
	}
	r.must(r.host.SetPower(t.Context(), r.op("on"), vm.Ref, hostctl.On, 0))
	if is() != hostctl.On || r.vm().Power != hostctl.On {
		t.Errorf("on: the VM is %v, the workload %v", is(), r.vm().Power)
	}
	vsphere.Change(ref.UUID, func(vm *hostctl.VM) { vm.Name = "renamed" })
	if _, err := r.host.Find(t.Context(), hostctl.Query{Name: "web"}); err == nil || final(err) || !strings.Contains(err.Error(), "whether workload web runs") {
		t.Errorf("a VM that is not found is no state: %v", err)
	}
}

// TestMarkIsChanged: a workload whose mark is changed is marked all the time, also
// when the cluster makes no volume any more.
func TestMarkIsChanged(t *testing.T) {
	r := newRack(t, "")
	ref := r.vm().Ref
	mark := func(value string) error {
		return r.host.Mark(t.Context(), r.op("mark"), ref, hostctl.MarkInconsistent, value)
	}
	r.must(mark("run-1"))
	r.srv.Set(func(q *osdtest.Quirks) {
		q.Fail = map[string]osdtest.Failure{"Create": {Code: 8, Text: "no pool has room"}} // ResourceExhausted
	})
	if err := mark("run-2"); !errors.Is(err, hostctl.ErrNoSpace) {
		t.Errorf("without room: %v", err)
	}
	if is := r.vm().Marks[hostctl.MarkInconsistent]; is != "run-1" {
		t.Errorf("the mark is %q, want run-1", is)
	}
	r.srv.Set(func(q *osdtest.Quirks) { q.Fail = map[string]osdtest.Failure{"Delete": {Code: 9, Text: "not now"}} })
	if err := mark("run-2"); err == nil {
		t.Error("the old mark was not deleted, and nobody says so")
	}
	r.srv.Set(func(q *osdtest.Quirks) { q.Fail = nil })
	for range 2 {
		r.must(mark("run-2"))
	}
	if list, err := r.host.markers(t.Context(), ref.UUID, ""); err != nil || len(list) != 1 || list[0].Labels[labelValue] != "run-2" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestNoPowerAfterRestart: a controller that was restarted in a pass finds its target
// attached by the pass of before. Nobody has started it, and nobody is told so.
func TestNoPowerAfterRestart(t *testing.T) {
	r := newRack(t, "")
	r.host.cfg.Workloads[0].Power = nil
	ref := r.vm().Ref
	r.must(r.host.Mark(t.Context(), r.op("mark"), ref, hostctl.MarkInconsistent, "run-1"))
	_, err := r.srv.AttachOutside(r.ids["web-root"], "")
	r.must(err)
	if p := r.vm().Power; p != hostctl.On {
		t.Errorf("long after the start: %v", p)
	}
	r.host.times.restart = time.Minute
	if _, err := r.host.Find(t.Context(), hostctl.Query{Name: "web"}); err == nil || final(err) || !strings.Contains(err.Error(), "before this controller's start") {
		t.Errorf("after the start: %v", err)
	}
	r.must(r.srv.DetachOutside(r.ids["web-root"]))
	if p := r.vm().Power; p != hostctl.Off {
		t.Errorf("let go: %v", p)
	}
}

// TestTwins: what a try makes after its caller is gone stays apart from the
// snapshot that counts, and what is not on all volumes is none. All of it goes.
func TestTwins(t *testing.T) {
	r := newRack(t, "")
	vm := r.vm()
	op := r.op("protect-target")
	late(t, r, vm.Disks[0].UUID, labelsOf(op, "cutoff", vm.UUID, vm.Disks[0].UUID, ""))
	half := r.vm().Snapshots
	if len(half) != 1 || half[0].Name != hostctl.SnapshotName(op)+incomplete {
		t.Fatalf("half: %+v", half)
	}
	if err := r.host.Restore(t.Context(), r.op("restore"), vm.Ref, half[0].ID); err == nil || !final(err) {
		t.Errorf("restore of a half: %v", err)
	}
	s, err := r.host.Protect(t.Context(), op, vm.Ref, "")
	r.must(err)
	if now := r.vm().Snapshots; len(now) != 1 || now[0].ID != s.ID {
		t.Errorf("after the second try: %+v, want %+v alone", now, s)
	}
	for i := range vm.Disks { // of the first try, whole and late, and with twins
		for range 2 {
			late(t, r, vm.Disks[i].UUID, labelsOf(op, "cutoff", vm.UUID, vm.Disks[i].UUID, ""))
		}
	}
	now := r.vm().Snapshots
	i := slices.IndexFunc(now, func(x hostctl.Snapshot) bool { return x.ID == s.ID })
	if len(now) != 2 || i < 0 || !slices.Equal(now[i].Disks, s.Disks) {
		t.Errorf("with a late try: %+v, want %+v among them", now, s)
	}
	if again, err := r.host.Protect(t.Context(), op, vm.Ref, ""); err != nil || again.ID != now[0].ID {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	for _, s := range now {
		r.must(r.host.Release(t.Context(), r.op("release"), vm.Ref, s.ID))
	}
	if n := len(r.srv.Volumes()); n != 4 {
		t.Errorf("%d volumes are left, want the four live ones", n)
	}
}

// TestFull: a try that fails on the second volume leaves no more than the one before
// it did, however often it is made again.
func TestFull(t *testing.T) {
	r := newRack(t, "")
	vm := r.vm()
	for range 3 {
		r.srv.Set(func(q *osdtest.Quirks) {
			q.Fail = map[string]osdtest.Failure{"SnapshotCreate": {Code: uint32(codes.ResourceExhausted), Text: "the pool is full", After: 1}}
		})
		if _, err := r.host.Protect(t.Context(), r.op("protect-target"), vm.Ref, ""); !errors.Is(err, hostctl.ErrNoSpace) {
			t.Fatalf("got %v, want no space", err)
		}
		if n := len(r.srv.Volumes()); n != 5 {
			t.Errorf("%d volumes, want the four live ones and one snapshot", n)
		}
	}
	r.srv.Set(func(q *osdtest.Quirks) { q.Fail = nil })
	_, err := r.host.Protect(t.Context(), r.op("protect-target"), vm.Ref, "")
	r.must(err)
	if n := len(r.srv.Volumes()); n != 6 {
		t.Errorf("%d volumes, want the four live ones and two snapshots", n)
	}
}

// TestStillMade: a snapshot that the server shows before it has its bytes is none
// yet.
func TestStillMade(t *testing.T) {
	r := newRack(t, "")
	vm := r.vm()
	s, err := r.host.Protect(t.Context(), r.op("protect-target"), vm.Ref, "")
	r.must(err)
	_, part, _ := strings.Cut(s.Disks[1].File, "@")
	r.srv.Set(func(q *osdtest.Quirks) { q.Unfit = map[string]string{part: "pending"} })
	if now := r.vm().Snapshots; len(now) != 1 || now[0].Name == s.Name {
		t.Errorf("while it is made: %+v", now)
	}
}

// late is a snapshot that a call made which nobody waits for any more.
func late(t *testing.T, r *rack, volume string, labels map[string]string) {
	t.Helper()
	_, err := r.client.volumes.SnapshotCreate(t.Context(), &api.SdkVolumeSnapshotCreateRequest{VolumeId: volume, Name: "late", Labels: labels})
	r.must(err)
}

// TestForeign: what has not all of our labels is not ours, whatever it is called.
func TestForeign(t *testing.T) {
	r := newRack(t, "")
	vm := r.vm()
	op := r.op("protect-target")
	for _, drop := range []string{labelVM, labelJob, labelStep, labelDisk, labelTry} {
		l := labelsOf(op, "try", vm.UUID, vm.Disks[0].UUID, "")
		delete(l, drop)
		late(t, r, vm.Disks[0].UUID, l)
	}
	before := len(r.srv.Volumes())
	if now := r.vm(); len(now.Snapshots) != 0 {
		t.Errorf("taken for ours: %+v", now.Snapshots)
	}
	r.must(r.host.Release(t.Context(), op, vm.Ref, "snapshot-try"))
	r.must(r.host.Release(t.Context(), op, vm.Ref, "snapshot-"))
	if n := len(r.srv.Volumes()); n != before {
		t.Errorf("%d of %d volumes are left", n, before)
	}
	for _, v := range r.srv.Volumes() {
		if v.Parent == "" && len(v.Labels) > 0 {
			t.Errorf("live volume %s has labels %v", v.Name, v.Labels)
		}
	}
}

// TestPowerIsUnknown: a program that fails says nothing about the workload.
func TestPowerIsUnknown(t *testing.T) {
	r := newRack(t, "")
	r.err = errors.New("no answer")
	if _, err := r.host.Find(t.Context(), hostctl.Query{Name: "web"}); err == nil || final(err) {
		t.Errorf("got %v, want what a retry may cure", err)
	}
	r.vm()
}
