package osdisk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
)

const mib = 1 << 20

// rig is a server and the disks of one process.
type rig struct {
	*Disks
	server  *osdtest.Server
	profile osd.Config
	dir     string
}

func newRig(t testing.TB, loop bool) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := osdtest.New(osdtest.Config{Dir: dir, Loop: loop})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, s.Close()) })
	r := &rig{server: s, dir: t.TempDir(), profile: osd.Config{Name: "px", Endpoint: s.Endpoint(), Auth: osd.AuthNone, Files: !loop, Devices: []string{"/dev/loop*", s.Image("*")}}}
	r.Disks = r.process(t)
	return r
}

// process is the disks of one more process with the same ledger.
func (r *rig) process(t testing.TB) *Disks {
	d := New([]osd.Config{r.profile}, r.dir, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func (r *rig) volume(t testing.TB, name string, content []byte) string {
	t.Helper()
	id, err := r.server.AddVolume(name, int64(len(content)), bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (r *rig) snapshot(t testing.TB, volume, name string) osd.Volume {
	t.Helper()
	c, err := r.Client("px")
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Snapshot(t.Context(), volume, name, map[string]string{"haulback.test": name})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) open(t testing.TB, uri string, mode vddk.Mode) vddk.Disk {
	t.Helper()
	d, err := r.Open(t.Context(), uri, vddk.Options{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestContract is the contract of all disks, on images and on loop devices.
func TestContract(t *testing.T) {
	for name, loop := range map[string]bool{"files": false, "loop devices": true} {
		t.Run(name, func(t *testing.T) {
			if err := osdtest.HasLoop(); loop && err != nil {
				t.Skipf("NOT TESTED: no loop devices here: %v", err)
			}
			movertest.TestDisk(t, movertest.Driver{Granule: 4096, Make: func(t testing.TB, content []byte) movertest.Opener {
				r := newRig(t, loop)
				r.volume(t, "vol", content)
				return func(mode movertest.Mode) (mover.Disk, error) {
					opts := vddk.Options{}
					if mode == movertest.ReadWrite {
						opts.Mode = vddk.ReadWrite
					}
					return r.Open(context.WithoutCancel(t.Context()), "osd://px/vol", opts)
				}
			}})
		})
	}
}

// TestLazy: to look at a volume attaches and clones nothing; what was made for a
// read is taken back at the end.
func TestLazy(t *testing.T) {
	loop := osdtest.HasLoop() == nil
	r := newRig(t, loop)
	content := bytes.Repeat([]byte("before! "), mib/8)
	id := r.volume(t, "vol", content)
	snap := r.snapshot(t, id, "point")
	w := r.open(t, "osd://px/vol", vddk.ReadWrite)
	if _, err := w.WriteAt([]byte("after!"), 0); err != nil {
		t.Fatal(err)
	}
	check(t, w.Close())
	attached := r.server.Calls("Attach")

	if s := r.Stats(); s.Calls[hostctl.Call{To: "px", Method: "Attach", Class: "ok"}] != uint64(attached) || attached == 0 || s.Rows != 0 {
		t.Errorf("after %d attachments, all given back: %+v", attached, s)
	}
	live, frozen := r.open(t, "osd://px/"+id, vddk.ReadOnly), r.open(t, "osd://px/vol?snapshot="+snap.ID, vddk.ReadOnly)
	for _, d := range []vddk.Disk{live, frozen} {
		is := d.Describe()
		if is.Kind != "osd" || is.Size != mib || !is.ReadOnly || is.Identity != d.Identity() || !strings.Contains(is.Detail, "not attached") || d.Check() != nil {
			t.Errorf("%+v, %v", is, d.Check())
		}
	}
	if live.Identity() != w.Identity() || live.Identity() != "osd:nfs/"+id || frozen.Identity() != "osd:nfs/"+id+"@"+snap.ID {
		t.Errorf("identities %q, %q, %q", w.Identity(), live.Identity(), frozen.Identity())
	}
	if loop { // of a file it depends on the file system, and it is attached to know
		for _, d := range []vddk.Disk{live, frozen} {
			if how := d.Coldness(); how != "direct" {
				t.Errorf("before it is attached it is read %s", how)
			}
		}
	}
	if n := r.server.Calls("Clone"); n != 0 || r.server.Calls("Attach") != attached {
		t.Errorf("a look has made %d clones and %d attachments", n, r.server.Calls("Attach")-attached)
	}
	got := make([]byte, 8)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := frozen.ReadAt(make([]byte, 4096), 8192); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := frozen.ReadAt(got, 0); err != nil || string(got) != "before! " || r.server.Calls("Clone") != 1 {
		t.Errorf("the snapshot reads %q, %v, by %d clones", got, err, r.server.Calls("Clone"))
	}
	if _, err := live.ReadAt(got, 0); err != nil || !bytes.HasPrefix(got, []byte("after!")) {
		t.Errorf("the volume reads %q, %v", got, err)
	}
	if n, err := live.ReadAt(got, mib-4); n != 4 || err != io.EOF {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if d := live.Describe(); d.Transport == "" || d.Coldness == "" {
		t.Errorf("attached: %+v", d)
	}
	check(t, errors.Join(live.Close(), frozen.Close(), live.Close()))
	for _, v := range r.server.Volumes() {
		if v.Attached || v.ID != id && v.ID != snap.ID {
			t.Errorf("left: %+v", v)
		}
	}
	if _, err := live.ReadAt(got, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestRefused: what cannot be is refused by name, before anything is attached.
func TestRefused(t *testing.T) {
	r := newRig(t, false)
	id := r.volume(t, "vol", make([]byte, mib))
	snap := r.snapshot(t, id, "point")
	write := vddk.Options{Mode: vddk.ReadWrite}
	for _, c := range []struct {
		uri  string
		opts vddk.Options
		want string
	}{
		{"osd://py/vol", vddk.Options{}, `there are: px`},
		{"osd://px/none", vddk.Options{}, "not found"},
		{"osd://px/vol?snapshot=none", vddk.Options{}, "none"},
		{"osd://px/vol?snapshot=" + snap.ID, write, "never written"},
		{"osd://px/" + snap.ID, write, "snapshot"},
		{"osd://px/vol", vddk.Options{Track: "bitmap:b"}, "no changed blocks"},
		{"osd://px/vol", vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: mib}, "where it lives"},
	} {
		d, err := r.Open(t.Context(), c.uri, c.opts)
		if err == nil {
			d.Close()
		}
		if err == nil || d != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.uri) {
			t.Errorf("%s %+v: %v", c.uri, c.opts, err)
		}
	}
	ro := r.open(t, "osd://px/vol", vddk.ReadOnly)
	if _, err := ro.WriteAt([]byte{1}, 0); !errors.Is(err, vddk.ErrReadOnly) || !errors.Is(ro.Flush(), vddk.ErrReadOnly) {
		t.Errorf("a write to what is read: %v", err)
	}
	if n := r.server.Calls("Attach") + r.server.Calls("Clone"); n != 0 {
		t.Errorf("%d attachments and clones", n)
	}
}

// TestStolen: a volume that is attached elsewhere while it is written fails the
// writer at its end, whatever its device has said.
func TestStolen(t *testing.T) {
	r := newRig(t, false)
	id := r.volume(t, "vol", make([]byte, mib))
	d := r.open(t, "osd://px/vol", vddk.ReadWrite)
	if _, err := d.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	end := d.(mover.Ender)
	check(t, end.End())
	check(t, r.server.DetachOutside(id))
	if _, err := r.server.AttachOutside(id, "node-9"); err != nil {
		t.Fatal(err)
	}
	if err := end.End(); err == nil || !strings.Contains(err.Error(), "osd://px/vol") {
		t.Errorf("End: %v", err)
	}
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "osd://px/vol") {
		t.Errorf("Close: %v", err)
	}
	for _, v := range r.server.Volumes() {
		if v.ID == id && v.On != "node-9" {
			t.Errorf("it was taken from node-9: %+v", v)
		}
	}
}

// TestUse: a profile that changes is used from the next open on; one that is open
// goes on with its own.
func TestUse(t *testing.T) {
	r := newRig(t, false)
	r.volume(t, "vol", make([]byte, mib))
	open := r.open(t, "osd://px/vol", vddk.ReadOnly)
	r.Use(nil)
	if _, err := r.Open(t.Context(), "osd://px/vol", vddk.Options{}); err == nil || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("without a profile: %v", err)
	}
	if _, err := open.ReadAt(make([]byte, 512), 0); err != nil {
		t.Errorf("what was open: %v", err)
	}
	check(t, open.Close())
	other := r.profile
	other.Name = "py"
	r.Use([]osd.Config{other})
	d := r.open(t, "osd://py/vol", vddk.ReadOnly)
	r.Use([]osd.Config{other})
	r.mu.Lock()
	kept := len(r.clients) == 1 && len(r.retired) == 0
	r.mu.Unlock()
	if !kept {
		t.Error("a profile that has not changed lost its client")
	}
	check(t, d.Close())
}

// TestSweep: what a process has left that ended in the midst of it is taken away by
// the next one.
func TestSweep(t *testing.T) {
	r := newRig(t, false)
	id := r.volume(t, "vol", make([]byte, mib))
	snap := r.snapshot(t, id, "point")
	r.server.Set(func(q *osdtest.Quirks) { q.Internal = map[string]string{"Detach": "it has a bad day"} })
	d := r.open(t, "osd://px/vol?snapshot="+snap.ID, vddk.ReadOnly)
	if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	r.log = slog.New(slog.NewTextHandler(&text, nil))
	check(t, d.Close()) // what was read is right, whatever is left
	if !strings.Contains(text.String(), "left for the sweeper") {
		t.Errorf("nobody says that the clone is left:\n%s", text.String())
	}
	next := r.process(t)
	next.Sweep(t.Context(), slog.New(slog.DiscardHandler))
	if s := next.Stats(); s.Left != 1 || s.Rows != 1 {
		t.Errorf("a sweep that could not: %+v", s)
	}
	r.server.Set(func(q *osdtest.Quirks) { q.Internal = nil })
	text.Reset()
	next.Sweep(t.Context(), slog.New(slog.NewTextHandler(&text, nil)))
	if s := next.Stats(); s.Left != 0 || s.Rows != 0 {
		t.Errorf("a sweep that could: %+v", s)
	}
	if !strings.Contains(text.String(), "swept") {
		t.Errorf("log:\n%s", text.String())
	}
	for _, v := range r.server.Volumes() {
		if v.ID != id && v.ID != snap.ID {
			t.Errorf("left: %+v", v)
		}
	}
}
