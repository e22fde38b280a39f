package failbacks

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// cluster is a Mover whose own exports are datastores and a volume cluster.
func cluster(t *testing.T) (*Mover, *osdtest.Server, string) {
	t.Helper()
	s, err := osdtest.New(osdtest.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(t.TempDir(), "ds")
	if err := os.MkdirAll(filepath.Join(store, "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	key, err := wire.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	journals, err := mover.DirState(filepath.Join(t.TempDir(), "journals"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := mover.NewEngine(mover.Config{Memory: 128 << 20}, journals)
	if err != nil {
		t.Fatal(err)
	}
	registered.Use([]osd.Config{{Name: "px", Endpoint: s.Endpoint(), Auth: osd.AuthNone, Files: true, Devices: []string{s.Image("*")}}})
	t.Cleanup(func() {
		registered.Use(nil)
		if err := errors.Join(engine.Close(), journals.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	hosts := map[string]Host{
		"vc": {Name: "vc", Mover: Self, Export: "ds"}, "k8s": {Name: "k8s", Mover: Self, Export: "px", OpenStorage: "px"},
		"mixed": {Name: "mixed", Mover: Self, Export: "ds", OpenStorage: "px"}, "none": {Name: "none", Mover: Self, Export: "none", OpenStorage: "px"},
	}
	exports := []config.Export{
		{Name: "ds", Role: mover.RoleHost, Host: &hostdisk.Table{Datastores: map[string]string{"ds": store}}},
		{Name: "px", Role: mover.RoleHost, Host: &hostdisk.Table{OpenStorage: "px"}},
	}
	return &Mover{
		Engine: engine, Reach: &reach{key: key}, Key: key, Hosts: func() map[string]Host { return hosts }, Exports: func() []config.Export { return exports },
		Retry: -1, Log: slog.New(slog.DiscardHandler), Here: registered.Here,
	}, s, store
}

func place(host, file string, size int64) failback.Place {
	return failback.Place{VM: hostctl.Ref{Host: host, ID: "web", Name: "web"}, Disk: hostctl.Disk{Label: "scsi0:0", File: file, Size: size}}
}

// TestVolumeIsCompared: a hint counts for nothing where the target is a volume: what
// somebody else has written to it between two passes is found and put right.
func TestVolumeIsCompared(t *testing.T) {
	m, s, store := cluster(t)
	const size = 4 << 20
	source := bytes.Repeat([]byte("replica!"), size/8)
	vmdk := filepath.Join(store, "web", "web.vmdk")
	d, err := vddk.Open(t.Context(), "vmdk://"+vmdk, vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: size})
	if err == nil {
		_, err = d.WriteAt(source, 0)
	}
	if err == nil {
		err = d.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.AddVolume("vol", size, nil)
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	mv := &failback.Move{Run: newRun(), Pass: 1, Fence: 1, VM: "web", Source: place("vc", "[ds] web/web.vmdk", size), Target: place("k8s", "osd:"+id, size), Event: func(text string) { events = append(events, text) }}
	if out, err := m.Move(t.Context(), mv); err != nil || !out.Verified {
		t.Fatalf("%+v, %v", out, err)
	}
	f, err := os.OpenFile(s.Image(id), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("a stranger's"), size/2)
	}
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	mv.Pass, mv.Hint = 2, &cbt.Hint{Provider: "vsphere", Since: "52 de/2", Size: size, Granularity: 64 << 10, Trust: cbt.Exact}
	out, err := m.Move(t.Context(), mv)
	if err != nil || !out.Verified || out.ActualTracking != "full" || out.Counters.Skipped != 0 || !strings.Contains(strings.Join(events, "\n"), "hint is not used") {
		t.Errorf("%+v, %v, %q", out, err, events)
	}
	if got, err := os.ReadFile(s.Image(id)); err != nil || !bytes.Equal(got, source) {
		t.Errorf("the volume is not the source: %v", err)
	}
	if !m.Mine(id) || m.Mine("other") {
		t.Errorf("Mine: %v, of another %v", m.Mine(id), m.Mine("other"))
	}
	if l, err := m.Compare(t.Context(), mv); err != nil || !l.Equal {
		t.Errorf("Compare: %+v, %v", l, err)
	}
	frozen := *mv
	frozen.Target = place("k8s", "osd:"+id+"@snap", size)
	if _, err := m.Move(t.Context(), &frozen); err == nil {
		t.Error("a snapshot was a target")
	}
	if _, err := m.place(&failback.Place{VM: hostctl.Ref{Host: "vc", ID: "web"}, Disk: hostctl.Disk{File: "osd:" + id}}); err == nil || !strings.Contains(err.Error(), "openstorage = ") {
		t.Errorf("a volume of a vSphere host: %v", err)
	}
}

func TestCheckOfACluster(t *testing.T) {
	m, s, _ := cluster(t)
	id, err := s.AddVolume("vol", 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	there, gone := place("k8s", "osd:"+id, 1<<20), place("k8s", "osd:gone", 1<<20)
	if list := m.Check(t.Context(), "k8s", there); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	if n := s.Calls("Attach"); n != 0 {
		t.Errorf("a check attaches: %d", n)
	}
	for name, want := range map[string]string{"mixed": "one is a volume cluster", "none": `has no export "none"`} {
		if list := m.Check(t.Context(), name); len(list) != 1 || !strings.Contains(list[0].Text, want) {
			t.Errorf("%s: %+v", name, list)
		}
	}
	if list := m.Check(t.Context(), "k8s", there, gone); len(list) != 1 || !strings.Contains(list[0].Text, "gone") || !strings.Contains(list[0].Remedy, "openstorage") {
		t.Errorf("a volume that is gone: %+v", list)
	}
	m.Here = func(context.Context, string) error { return errors.New("of another node") }
	if list := m.Check(t.Context(), "k8s", there); len(list) != 1 || !strings.Contains(list[0].Text, "another node") || !strings.Contains(list[0].Remedy, "node") {
		t.Errorf("of another node: %+v", list)
	}
}

// TestMine: a volume is a pass's while it lasts, however many there are, and for 15
// seconds after the last.
func TestMine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v volumes
		one, two := v.hold("a"), v.hold("a")
		v.hold("")()
		one()
		time.Sleep(time.Minute)
		if !v.mine("a") || v.mine("") || v.mine("b") {
			t.Error("one pass of two has ended")
		}
		two()
		time.Sleep(mineFor - time.Nanosecond)
		if !v.mine("a") {
			t.Error("it ended just now")
		}
		time.Sleep(time.Nanosecond)
		if v.mine("a") || len(v.uses) != 0 {
			t.Error("it ended long ago")
		}
	})
}
