package osdtest

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
)

// rig is a volume of ones whose snapshot has twos.
type rig struct {
	*client
	s            *Server
	id, snapshot string
	ones, twos   []byte
}

func quirky(t *testing.T, change func(*Quirks)) *rig {
	t.Helper()
	s, c := start(t, Config{})
	r := &rig{client: c, s: s, ones: pattern(mib, 1), twos: pattern(mib, 2)}
	var err error
	r.id, err = s.AddVolume("data", mib, bytes.NewReader(r.twos))
	ok(t, err)
	r.snapshot = must(t)(c.snapshot(r.id, "s", nil))
	write(t, s.Image(r.id), 0, r.ones)
	if change != nil {
		s.Set(change)
	}
	return r
}

func TestRestoreQuirks(t *testing.T) {
	half := func(r *rig) []byte { return slices.Concat(r.twos[:mib/2], r.ones[mib/2:]) }
	ones, twos := func(r *rig) []byte { return r.ones }, func(r *rig) []byte { return r.twos }
	for _, tt := range []struct {
		name   string
		change func(*Quirks)
		code   codes.Code
		text   string // of the refusal
		polls  int    // that say RESTORE
		during string // Volume.error then
		fault  string // Volume.error in the end
		want   func(*rig) []byte
	}{
		{name: "none", change: func(*Quirks) {}, want: twos},
		{name: "NoRestore", change: func(q *Quirks) { q.NoRestore = true }, code: codes.Internal, text: "no such file or directory", want: ones},
		{name: "Unimplemented", change: func(q *Quirks) { q.Unimplemented = true }, code: codes.Unimplemented, want: ones},
		{name: "AsyncRestore", change: func(q *Quirks) { q.AsyncRestore = 2 }, polls: 2, want: twos},
		{name: "RestoreText", change: func(q *Quirks) { q.AsyncRestore, q.RestoreText = 1, "resource temporarily unavailable" }, polls: 1, during: "resource temporarily unavailable", want: twos},
		{name: "RestoreFault", change: func(q *Quirks) { q.AsyncRestore, q.RestoreFault = 1, "replica lost" }, polls: 1, fault: "replica lost", want: ones},
		{name: "WrongRestore", change: func(q *Quirks) { q.WrongRestore = true }, want: ones},
		{name: "HalfRestore", change: func(q *Quirks) { q.HalfRestore = true }, want: half},
		{name: "half, then a fault", change: func(q *Quirks) { q.HalfRestore, q.RestoreFault = true, "replica lost" }, fault: "replica lost", want: half},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := quirky(t, tt.change)
			wants(t, r.restore(r.id, r.snapshot), tt.code, tt.text)
			if tt.polls > 0 {
				holds(t, r.s.Image(r.id), r.ones)
				_, err := r.plug(r.id)
				wants(t, err, codes.Internal, "busy")
				wants(t, r.remove(r.id), codes.Internal, "busy")
				wants(t, r.restore(r.id, r.snapshot), codes.Internal, "busy")
				_, err = r.client.snapshot(r.id, "t", nil)
				wants(t, err, codes.Internal, "busy")
			}
			for range tt.polls {
				if v := r.inspect(r.id); v.GetState() != api.VolumeState_VOLUME_STATE_RESTORE || v.GetError() != tt.during {
					t.Errorf("while it restores: %v, %q", v.GetState(), v.GetError())
				}
			}
			if v := r.inspect(r.id); v.GetState() != api.VolumeState_VOLUME_STATE_AVAILABLE || v.GetError() != tt.fault {
				t.Errorf("in the end: %v, %q", v.GetState(), v.GetError())
			}
			holds(t, r.s.Image(r.id), tt.want(r))
		})
	}
	t.Run("AnyRestore", func(t *testing.T) {
		r := quirky(t, nil)
		other := must(t)(r.create("other", mib, nil))
		wants(t, r.restore(r.id, other), codes.InvalidArgument, "no snapshot of volume")
		wants(t, r.restore(r.id, "none"), codes.NotFound, "none")
		r.s.Set(func(q *Quirks) { q.AnyRestore = true })
		ok(t, r.restore(r.id, other))
		holds(t, r.s.Image(r.id), make([]byte, mib))
	})
}

func TestMakeQuirks(t *testing.T) {
	t.Run("EmptyIDs", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.EmptyIDs = true })
		for _, do := range []func() (string, error){
			func() (string, error) { return r.create("n", mib, nil) },
			func() (string, error) { return r.clone("n", r.id) },
			func() (string, error) { return r.client.snapshot(r.id, "n", nil) },
		} {
			if id, err := do(); id != "" || err != nil {
				t.Errorf("%q, %v", id, err)
			}
		}
		if n := len(r.s.Volumes()); n != 2 {
			t.Errorf("%d volumes", n)
		}
	})
	t.Run("snapshots are not idempotent", func(t *testing.T) {
		r := quirky(t, nil)
		if again := must(t)(r.client.snapshot(r.id, "s", nil)); again == r.snapshot || len(r.snapshots(r.id, nil)) != 2 {
			t.Errorf("one snapshot of two: %s", again)
		}
	})
	t.Run("CopyLabels, MoreLabels", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.CopyLabels, q.MoreLabels = true, map[string]string{"server": ""} })
		parent := must(t)(r.create("p", mib, map[string]string{"a": "1", "b": "1"}))
		snapshot := must(t)(r.client.snapshot(parent, "ps", map[string]string{"b": "2"}))
		clone := must(t)(r.clone("pc", parent))
		for id, b := range map[string]string{parent: "1", snapshot: "2", clone: "1"} {
			l := r.inspect(id).GetLocator().GetVolumeLabels()
			if _, server := l["server"]; l["a"] != "1" || l["b"] != b || !server || len(l) != 3 {
				t.Errorf("labels %v, want b=%s", l, b)
			}
		}
		if got := r.snapshots(parent, map[string]string{"a": "1"}); len(got) != 2 {
			t.Errorf("children with the label: %v; a clone is one, too", got)
		}
	})
	t.Run("AttachedSnapshots", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.AttachedSnapshots = true })
		_, err := r.client.snapshot(r.id, "n", nil)
		wants(t, err, codes.Internal, "must be attached")
		must(t)(r.plug(r.id))
		must(t)(r.client.snapshot(r.id, "n", nil))
	})
	t.Run("CoarseTime", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.CoarseTime = true })
		if at := r.inspect(must(t)(r.create("n", mib, nil))).GetCtime(); at.GetNanos() != 0 {
			t.Errorf("made at %v", at)
		}
		if at := r.inspect(r.id).GetCtime(); at.GetNanos() == 0 {
			t.Errorf("made at %v", at)
		}
	})
	t.Run("HangCreate", func(t *testing.T) {
		r := quirky(t, nil)
		must(t)(r.plug(r.id))
		if id := must(t)(r.create("data", mib, nil)); id != r.id {
			t.Errorf("another volume: %s", id)
		}
		r.s.Set(func(q *Quirks) { q.HangCreate = true })
		wants(t, r.late(func(c *client) error { _, err := c.create("data", mib, nil); return err }), codes.DeadlineExceeded, "")
		done := make(chan error, 1)
		go func() { _, err := r.create("data", mib, nil); done <- err }()
		ok(t, r.s.DetachOutside(r.id))
		ok(t, <-done)
	})
}

func TestAttachQuirks(t *testing.T) {
	t.Run("EmptyPath", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.EmptyPath = true })
		if path, err := r.plug(r.id); path != "" || err != nil {
			t.Errorf("%q, %v", path, err)
		}
		if v := r.inspect(r.id); v.GetState() != api.VolumeState_VOLUME_STATE_ATTACHED {
			t.Errorf("state %v", v.GetState())
		}
		ok(t, r.unplug(r.id))
	})
	t.Run("Path", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.Path = "/dev/fake/1" })
		if path, err := r.plug(r.id); path != "/dev/fake/1" || err != nil || r.inspect(r.id).GetDevicePath() != path {
			t.Errorf("%q, %v", path, err)
		}
		ok(t, r.unplug(r.id))
	})
	t.Run("WrongSize", func(t *testing.T) {
		for _, extra := range []int64{512, -512} {
			r := quirky(t, func(q *Quirks) { q.WrongSize = extra })
			path := must(t)(r.plug(r.id))
			if st, err := os.Stat(path); err != nil || st.Size() != mib+extra {
				t.Errorf("%v, %v", st.Size(), err)
			}
			write(t, path, 0, r.twos[:512])
			ok(t, r.unplug(r.id))
			holds(t, r.s.Image(r.id), r.ones)
			if _, err := os.Stat(path); err == nil {
				t.Error("the copy stays")
			}
		}
	})
	t.Run("ReusePaths", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.ReusePaths = true })
		other := must(t)(r.create("other", mib, nil))
		first := must(t)(r.plug(r.id))
		holds(t, first, r.ones)
		ok(t, r.unplug(r.id))
		if again := must(t)(r.plug(other)); again != first {
			t.Errorf("attached at %s, then at %s", first, again)
		}
		holds(t, first, make([]byte, mib))
		if second := must(t)(r.plug(r.id)); second == first {
			t.Errorf("two volumes at %s", first)
		}
	})
}

func TestAttachedQuirks(t *testing.T) {
	t.Run("Elsewhere", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.Elsewhere = "node-2" })
		_, err := r.plug(r.id)
		wants(t, err, codes.AlreadyExists, "attached on another node")
		if v := r.inspect(r.id); v.GetAttachedOn() != "node-2" {
			t.Errorf("attached on %q", v.GetAttachedOn())
		}
		wants(t, r.unplug(r.id), codes.Internal, "another node")
		r.s.Set(func(q *Quirks) { q.Elsewhere = "" })
		ok(t, r.s.DetachOutside(r.id))
		must(t)(r.plug(r.id))
	})
	t.Run("Secure", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.Secure = true })
		path := must(t)(r.plug(r.id))
		if v := r.inspect(r.id); v.GetSecureDevicePath() != path || v.GetDevicePath() == path || v.GetDevicePath() == "" {
			t.Errorf("paths %q and %q", v.GetDevicePath(), v.GetSecureDevicePath())
		}
	})
	t.Run("NoAttachedOn", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.NoAttachedOn = true })
		must(t)(r.plug(r.id))
		if v := r.inspect(r.id); v.GetAttachedOn() != "" || v.GetState() != api.VolumeState_VOLUME_STATE_ATTACHED {
			t.Errorf("attached on %q, %v", v.GetAttachedOn(), v.GetState())
		}
	})
	t.Run("DeleteAttached", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.DeleteAttached = true })
		must(t)(r.plug(r.id))
		ok(t, r.remove(r.id))
	})
	t.Run("DetachUnknownOK", func(t *testing.T) {
		r := quirky(t, nil)
		wants(t, r.unplug("none"), codes.Internal, "Cannot locate volume")
		r.s.Set(func(q *Quirks) { q.DetachUnknownOK = true })
		ok(t, r.unplug("none"))
	})
	t.Run("WritableSnapshots", func(t *testing.T) {
		r := quirky(t, func(q *Quirks) { q.WritableSnapshots = true })
		if r.inspect(r.snapshot).GetReadonly() {
			t.Error("it is read-only")
		}
		write(t, must(t)(r.plug(r.snapshot)), 0, r.ones)
		holds(t, r.s.Image(r.snapshot), r.ones)
	})
}

func TestUpdateQuirks(t *testing.T) {
	r := quirky(t, nil)
	update := func(spec *api.VolumeSpecUpdate, labels map[string]string) error {
		_, err := r.volume.Update(r.ctx, &api.SdkVolumeUpdateRequest{VolumeId: r.id, Labels: labels, Spec: spec})
		return err
	}
	ok(t, update(nil, map[string]string{"a": "1", "b": "1"}))
	ok(t, update(nil, map[string]string{"a": ""}))
	if l := r.inspect(r.id).GetLocator().GetVolumeLabels(); len(l) != 1 || l["b"] != "1" {
		t.Errorf("labels %v", l)
	}
	wants(t, update(&api.VolumeSpecUpdate{}, nil), codes.Internal, notSupported)
	usage := func() (int64, error) {
		u, err := r.volume.CapacityUsage(r.ctx, &api.SdkVolumeCapacityUsageRequest{VolumeId: r.id})
		_, stats := r.volume.Stats(r.ctx, &api.SdkVolumeStatsRequest{VolumeId: r.id})
		if (err == nil) != (stats == nil) {
			t.Errorf("%v, %v", err, stats)
		}
		return u.GetCapacityUsageInfo().GetTotalBytes(), err
	}
	_, err := usage()
	wants(t, err, codes.Internal, notSupported)
	r.s.Set(func(q *Quirks) { q.NoUpdate, q.Capacity = true, true })
	wants(t, update(nil, map[string]string{"a": "1"}), codes.Internal, notSupported)
	if n, err := usage(); err != nil || n < mib {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestUnfit(t *testing.T) {
	for how, shows := range map[string]func(*api.Volume) bool{
		"down":     func(v *api.Volume) bool { return v.GetStatus() == api.VolumeStatus_VOLUME_STATUS_DOWN },
		"degraded": func(v *api.Volume) bool { return v.GetStatus() == api.VolumeStatus_VOLUME_STATUS_DEGRADED },
		"error": func(v *api.Volume) bool {
			return v.GetState() == api.VolumeState_VOLUME_STATE_ERROR && v.GetError() != ""
		},
		"trashcan":  func(v *api.Volume) bool { return v.GetInTrashcan() },
		"pending":   func(v *api.Volume) bool { return v.GetState() == api.VolumeState_VOLUME_STATE_PENDING },
		"deleted":   func(v *api.Volume) bool { return v.GetState() == api.VolumeState_VOLUME_STATE_DELETED },
		"detaching": func(v *api.Volume) bool { return v.GetState() == api.VolumeState_VOLUME_STATE_DETATCHING },
		"internal":  func(v *api.Volume) bool { return v.GetAttachedState() == api.AttachState_ATTACH_STATE_INTERNAL },
	} {
		r := quirky(t, nil)
		if shows(r.inspect(r.id)) {
			t.Errorf("%s without being asked for", how)
		}
		r.s.Set(func(q *Quirks) { q.Unfit = map[string]string{r.id: how} })
		if v := r.inspect(r.id); !shows(v) {
			t.Errorf("%s: %v", how, v)
		}
	}
}

func TestNode(t *testing.T) {
	s, c := start(t, Config{Hostname: "host", Node: "n1"})
	look := func() *api.StorageNode {
		r, err := c.node.InspectCurrent(c.ctx, &api.SdkNodeInspectCurrentRequest{})
		ok(t, err)
		return r.GetNode()
	}
	n := look()
	if n.GetId() != "n1" || n.GetHostname() != "host" || n.GetSchedulerNodeName() != "host" ||
		len(n.GetPools()) != 1 || n.GetPools()[0].GetTotalSize() <= n.GetPools()[0].GetUsed() {
		t.Errorf("node %v", n)
	}
	s.Set(func(q *Quirks) { q.PoolSize, q.PoolUsed = 100, 30 })
	if p := look().GetPools(); len(p) != 1 || p[0].GetTotalSize() != 100 || p[0].GetUsed() != 30 {
		t.Errorf("pools %v", p)
	}
	s.Set(func(q *Quirks) { q.PoolSize = -1 })
	if p := look().GetPools(); len(p) != 0 {
		t.Errorf("pools %v", p)
	}
	s.Set(func(q *Quirks) { q.ForeignNode = true })
	if a, b := look().GetId(), look().GetId(); a == b {
		t.Errorf("the same node twice: %s", a)
	}
	v, err := c.identity.Version(c.ctx, &api.SdkIdentityVersionRequest{})
	if err != nil || v.GetVersion().GetDriver() != "nfs" || v.GetSdkVersion().GetVersion() != "0.101.33" {
		t.Errorf("version %v, %v", v, err)
	}
	caps, err := c.identity.Capabilities(c.ctx, &api.SdkIdentityCapabilitiesRequest{})
	if err != nil || len(caps.GetCapabilities()) != 13 {
		t.Errorf("capabilities %v, %v", caps, err)
	}
	_, err = c.attach.Mount(c.ctx, &api.SdkVolumeMountRequest{})
	wants(t, err, codes.Unimplemented, "")
}

func TestParse(t *testing.T) {
	var q Quirks
	for _, text := range []string{
		"no-restore", "async-restore=3", "empty-ids=true", "wrong-size=-512", "path=/dev/fake/1",
		"internal.Attach=no luck", "fail.Clone=10:aborted", "lose-replies.SnapshotCreate=1", "slow.Detach=2s", "unfit.ID=down",
	} {
		if err := q.Parse(text); err != nil {
			t.Error(err)
		}
	}
	if !q.NoRestore || q.AsyncRestore != 3 || !q.EmptyIDs || q.WrongSize != -512 || q.Path != "/dev/fake/1" ||
		q.Internal["Attach"] != "no luck" || q.Fail["Clone"] != (Failure{Code: 10, Text: "aborted"}) ||
		q.LoseReplies["SnapshotCreate"] != 1 || q.Slow["Detach"] != 2*time.Second || q.Unfit["ID"] != "down" {
		t.Errorf("%+v", q)
	}
	for _, text := range []string{
		"", "norestore", "no-restore=perhaps", "async-restore", "async-restore.Attach=1", "slow=1s", "slow.Attach=1", "fail.Attach=x", "lose-replies.Attach=x",
	} {
		if err := q.Parse(text); err == nil || !strings.Contains(err.Error(), "misbehaviour") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if names := QuirkNames(); !slices.Contains(names, "detach-unknown-ok") || !slices.Contains(names, "lose-replies") {
		t.Errorf("names %v", names)
	}
}
