package osdtest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
)

// TestLife is a volume from Create to Delete, with a snapshot, a clone and a restore.
func TestLife(t *testing.T) {
	for name, loop := range map[string]bool{"files": false, "loop devices": true} {
		t.Run(name, func(t *testing.T) { testLife(t, loop) })
	}
}

func testLife(t *testing.T, loop bool) {
	s, c := start(t, Config{Loop: loop})
	id := must(t)(c.create("data", 4*mib, map[string]string{"a": "1"}))
	v := c.inspect(id)
	if v.GetSpec().GetSize() != 4*mib || v.GetLocator().GetName() != "data" || v.GetLocator().GetVolumeLabels()["a"] != "1" ||
		v.GetState() != api.VolumeState_VOLUME_STATE_AVAILABLE || v.GetStatus() != api.VolumeStatus_VOLUME_STATUS_UP {
		t.Errorf("a new volume: %v", v)
	}
	path := must(t)(c.plug(id))
	if again := must(t)(c.plug(id)); again != path {
		t.Errorf("attached twice: %s and %s", path, again)
	}
	v = c.inspect(id)
	if v.GetState() != api.VolumeState_VOLUME_STATE_ATTACHED || v.GetDevicePath() != path || v.GetAttachedOn() != "node-1" {
		t.Errorf("attached: %v", v)
	}
	one, two := pattern(4*mib, 1), pattern(4*mib, 2)
	write(t, path, 0, one)
	holds(t, s.Image(id), one)
	snapshot := must(t)(c.snapshot(id, "before", map[string]string{"role": "protect"}))
	write(t, path, 0, two)
	wants(t, c.remove(id), codes.Internal, "still attached and cannot be deleted")
	wants(t, c.restore(id, snapshot), codes.Internal, "still attached")
	ok(t, c.unplug(id))
	ok(t, c.unplug(id))
	if v := c.inspect(id); v.GetState() != api.VolumeState_VOLUME_STATE_AVAILABLE || v.GetDevicePath() != "" || v.GetAttachedOn() != "" {
		t.Errorf("detached: %v", v)
	}
	clone := must(t)(c.clone("copy", snapshot))
	holds(t, must(t)(c.plug(clone)), one)
	holds(t, s.Image(id), two)
	ok(t, c.restore(id, snapshot))
	holds(t, s.Image(id), one)
	holds(t, must(t)(c.plug(id)), one)
	if v := c.inspect(snapshot); !v.GetReadonly() || v.GetSource().GetParent() != id {
		t.Errorf("a snapshot: %v", v)
	}
	if v := c.inspect(clone); v.GetReadonly() || v.GetSource().GetParent() != snapshot {
		t.Errorf("a clone: %v", v)
	}
	for _, one := range []string{id, clone} {
		ok(t, c.unplug(one))
	}
	for _, one := range []string{clone, snapshot, id, id} {
		ok(t, c.remove(one))
	}
	if left := s.Volumes(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestRestart has the volumes again, detached, also when one was not closed.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s, c := start(t, Config{Dir: dir})
	if _, err := New(Config{Dir: dir}); err == nil {
		t.Error("two servers on one directory")
	}
	id, err := s.AddVolume("data", mib, bytes.NewReader(pattern(mib, 3)))
	ok(t, err)
	must(t)(c.snapshot(id, "s", map[string]string{"a": "1"}))
	must(t)(c.plug(id))
	before := s.Volumes()
	ok(t, s.Close())
	ok(t, s.Close())
	s, _ = start(t, Config{Dir: dir})
	after := s.Volumes()
	if len(after) != 2 || slices.ContainsFunc(after, func(v Info) bool { return v.Attached }) {
		t.Fatalf("after a restart: %v", after)
	}
	for i := range before {
		if b, a := before[i], after[i]; a.ID != b.ID || a.Snapshot != b.Snapshot || a.Parent != b.Parent || !a.Created.Equal(b.Created) {
			t.Errorf("was %v, is %v", b, a)
		}
	}
	holds(t, s.Image(id), pattern(mib, 3))
}

// TestNames is what Create and Clone make of a name that is taken.
func TestNames(t *testing.T) {
	s, c := start(t, Config{})
	id := must(t)(c.create("data", mib, map[string]string{"a": "1"}))
	if again := must(t)(c.create("data", mib, map[string]string{"a": "2"})); again != id || c.inspect(id).GetLocator().GetVolumeLabels()["a"] != "1" {
		t.Errorf("another volume, or other labels: %s", again)
	}
	snapshot := must(t)(c.snapshot(id, "s", nil))
	clone := must(t)(c.clone("copy", id))
	if again := must(t)(c.clone("copy", "data")); again != clone {
		t.Errorf("another clone: %s", again)
	}
	shared := &api.SdkVolumeCreateRequest{Name: "data", Spec: &api.VolumeSpec{Size: mib, Shared: true}}
	for name, tt := range map[string]struct {
		do   func() (string, error)
		code codes.Code
		text string
	}{
		"size":          {func() (string, error) { return c.create("data", 2*mib, nil) }, codes.AlreadyExists, "size of 1048576 which differs"},
		"shared":        {func() (string, error) { _, err := c.volume.Create(c.ctx, shared); return "", err }, codes.AlreadyExists, "shared=false"},
		"parent":        {func() (string, error) { return c.clone("copy", snapshot) }, codes.AlreadyExists, "conflicting parent"},
		"no name":       {func() (string, error) { return c.create("", mib, nil) }, codes.InvalidArgument, "unique name"},
		"a space":       {func() (string, error) { return c.create("a b", mib, nil) }, codes.Internal, "space characters"},
		"zero bytes":    {func() (string, error) { return c.create("zero", 0, nil) }, codes.Internal, "size of zero"},
		"no parent":     {func() (string, error) { return c.clone("c", "") }, codes.InvalidArgument, "parent"},
		"other parent":  {func() (string, error) { return c.clone("c", "none") }, codes.NotFound, "none not found"},
		"snapshot name": {func() (string, error) { return c.snapshot(id, "", nil) }, codes.InvalidArgument, "name"},
		"snapshot of":   {func() (string, error) { return c.snapshot("none", "n", nil) }, codes.NotFound, "none not found"},
		"attach":        {func() (string, error) { return c.plug("none") }, codes.NotFound, "none not found"},
	} {
		got, err := tt.do()
		if got != "" {
			t.Errorf("%s: %s", name, got)
		}
		wants(t, err, tt.code, tt.text)
	}
	for name, want := range map[string]int{"data": 1, "copy": 1, "": 3, "none": 0} {
		req := &api.SdkVolumeInspectWithFiltersRequest{Name: name}
		if r, err := c.volume.InspectWithFilters(c.ctx, req); err != nil || len(r.GetVolumes()) != want {
			t.Errorf("%q: %v, %v", name, r.GetVolumes(), err)
		}
	}
	labelled := &api.SdkVolumeEnumerateWithFiltersRequest{Labels: map[string]string{"a": "1"}}
	if r, err := c.volume.EnumerateWithFilters(c.ctx, labelled); err != nil || len(r.GetVolumeIds()) != 1 || r.GetVolumeIds()[0] != id {
		t.Errorf("by label: %v, %v", r, err)
	}
	if v := c.inspect("data"); v.GetId() != id {
		t.Errorf("by name: %v", v)
	}
	// a name that two have is none
	_, err := s.AddVolume("data", mib, nil)
	ok(t, err)
	_, err = c.volume.Inspect(c.ctx, &api.SdkVolumeInspectRequest{VolumeId: "data"})
	wants(t, err, codes.NotFound, "data not found")
	for _, size := range []int64{0, -512, 100} {
		if _, err := s.AddVolume("odd", size, nil); err == nil {
			t.Errorf("a volume of %d bytes", size)
		}
	}
	if _, err := s.AddVolume("long", 512, bytes.NewReader(make([]byte, 513))); err == nil || len(s.Volumes()) != 4 {
		t.Errorf("more content than volume: %v, %d volumes", err, len(s.Volumes()))
	}
}
