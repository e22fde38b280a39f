package home

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
	"github.com/haulback/haulback/hostctl/simvs"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// load is a workload on a shelf: each of its volumes is a disk.
type load struct {
	name  string
	on    bool
	disks [][]byte
	// compute is what powers it: "exec" (also when empty), "none", or "vm": a VM of
	// the vSphere of the site, called as the workload with "-vm".
	compute string
}

// shelf is the OpenStorage cluster of a site, of one node, with what runs on it.
type shelf struct {
	t    *testing.T
	name string // of the host, the profile and the export
	srv  *osdtest.Server
	dir  string
	ids  map[string][]string // of volumes, by workload
	by   map[string]string   // what powers it
	vs   *simvs.Server
	mu   sync.Mutex
	on   map[string][]string // devices of those that run
}

// loops skips a test where there are no loop devices, and says why.
func loops(t *testing.T) {
	t.Helper()
	if err := osdtest.HasLoop(); err != nil {
		t.Skipf("volumes are not tested: %v", err)
	}
}

// newShelf is a cluster: by TCP with TLS, or by a unix socket; both with tokens.
func newShelf(t *testing.T, name string, tls bool, vs *simvs.Server, loads []load) *shelf {
	t.Helper()
	s := &shelf{t: t, name: name, dir: t.TempDir(), vs: vs, ids: map[string][]string{}, by: map[string]string{}, on: map[string][]string{}}
	cfg := osdtest.Config{Dir: t.TempDir(), Loop: true, Auth: true, TLS: tls}
	if tls {
		cfg.Listen = anyPort
	}
	var err error
	if s.srv, err = osdtest.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.srv.Close(); err != nil {
			t.Error(err)
		}
	})
	script := "#!/bin/sh\n# power FILE on|off|status\nif [ \"$2\" = status ]; then exec cat \"$1\"; fi\necho \"$2\" >\"$1.new\" && mv \"$1.new\" \"$1\"\n"
	if err := os.WriteFile(s.path("power"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, l := range loads {
		s.add(l)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.run(stop) })
	t.Cleanup(func() { close(stop); wg.Wait() })
	return s
}

func (s *shelf) path(name string) string { return filepath.Join(s.dir, name) }

// add makes the volumes of a workload.
func (s *shelf) add(l load) {
	s.t.Helper()
	for i, b := range l.disks {
		id, err := s.srv.AddVolume(fmt.Sprintf("%s-%d", l.name, i), int64(len(b)), strings.NewReader(string(b)))
		if err != nil {
			s.t.Fatal(err)
		}
		s.ids[l.name] = append(s.ids[l.name], id)
	}
	if s.by[l.name] = l.compute; l.compute == "vm" {
		add(s.t, s.vs, &simvs.VM{Name: l.name + "-vm", On: l.on, Disks: []simvs.Disk{{Size: mib}}})
	} else {
		s.power(l.name, map[bool]string{true: "on", false: "off"}[l.on])
	}
	s.follow(l.name)
}

// power switches a workload as somebody outside would.
func (s *shelf) power(name, to string) {
	s.t.Helper()
	if out, err := exec.Command(s.path("power"), s.path(name), to).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
}

// run attaches and detaches volumes as an orchestrator does, a moment late.
func (s *shelf) run(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond): // how often it looks
		}
		for name := range s.ids {
			s.follow(name)
		}
	}
}

// runs is whether a workload does.
func (s *shelf) runs(name string) bool {
	if s.by[name] == "vm" {
		g, err := s.vs.Guest(name + "-vm")
		return err == nil && g.Flush(0) == nil
	}
	word, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Error(err)
	}
	return strings.TrimSpace(string(word)) == "on"
}

func (s *shelf) follow(name string) {
	on := s.runs(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if on == (s.on[name] != nil) {
		return
	}
	var devices []string
	for _, id := range s.ids[name] {
		if !on {
			if err := s.srv.DetachOutside(id); err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
			continue
		}
		dev, err := s.srv.AttachOutside(id, "")
		if err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		devices = append(devices, dev)
	}
	s.on[name] = devices
}

// write writes to a disk of a workload that runs, as its guest does. One that was
// just switched on gets its volumes a moment late.
func (s *shelf) write(t *testing.T, name string, disk int, off int64, b []byte) {
	t.Helper()
	cmdtest.Await(t, "the volumes of "+name, func() bool {
		runs := s.runs(name)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.on[name] == nil {
			if !runs {
				t.Fatalf("write to %s: it is off", name)
			}
			return false
		}
		f, err := os.OpenFile(s.on[name][disk], os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(b, off)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	})
}

// disks are the bytes of a workload's volumes.
func (s *shelf) disks(name string) (list [][]byte) {
	s.t.Helper()
	for _, id := range s.ids[name] {
		b, err := os.ReadFile(s.srv.Image(id))
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

// profile is the table of the cluster in a configuration.
func (s *shelf) profile() string {
	text := fmt.Sprintf("[[openstorage]]\nname = %q\nendpoint = %q\ntoken_file = %q\n", s.name, s.srv.Endpoint(), s.srv.TokenFile())
	if ca := s.srv.CAFile(); ca != "" {
		text += fmt.Sprintf("ca_file = %q\n", ca)
	}
	return text
}

func (s *shelf) export(who string) string {
	return fmt.Sprintf("[[export]]\nname = %q\nrole = \"host\"\nopenstorage = %q\n%s", s.name, s.name, who)
}

// host is the table of the cluster's workloads in the controller's configuration.
func (s *shelf) host(mover string) string {
	text := fmt.Sprintf("[[host]]\nname = %q\nkind = \"openstorage\"\nopenstorage = %q\nmover = %q\n", s.name, s.name, mover)
	for name, ids := range s.ids {
		var volumes, labels []string
		for i := range ids {
			volumes = append(volumes, fmt.Sprintf("\"%s-%d\"", name, i))
			labels = append(labels, fmt.Sprintf("\"scsi0:%d\"", i))
		}
		text += fmt.Sprintf("[[host.workload]]\nname = %q\nvolumes = [%s]\nlabels = [%s]\n", name, strings.Join(volumes, ", "), strings.Join(labels, ", "))
		switch s.by[name] {
		case "none":
			text += "compute = \"none\"\n"
			continue
		case "vm":
			text += fmt.Sprintf("compute = %q\nvm = %q\n", strings.TrimPrefix(s.name, "shelf-"), name+"-vm")
			continue
		}
		text += "compute = \"exec\"\n"
		for key, verb := range map[string]string{"power_on": "on", "power_off": "off", "status": "status"} {
			text += fmt.Sprintf("%s = [%q, %q, %q]\n", key, s.path("power"), s.path(name), verb)
		}
	}
	return text
}

// clean fails the test for what is left on the cluster but live volumes and, of
// each workload of kept, one protective snapshot of every volume.
func (s *shelf) clean(kept ...string) {
	s.t.Helper()
	want := map[string]int{}
	for _, name := range kept {
		for _, id := range s.ids[name] {
			want[id] = 1
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.srv.Volumes() {
		switch {
		case v.Parent == "" && strings.HasPrefix(v.Name, "haulback-"):
			s.t.Errorf("%s: marker %s %v is left", s.name, v.Name, v.Labels)
		case v.Parent != "" && v.Labels["haulback.role"] == "protect" && strings.HasPrefix(v.Labels["haulback.step"], "protect-replica"):
			want[v.Parent]--
		case v.Parent != "":
			s.t.Errorf("%s: %s of %s %v is left", s.name, v.Name, v.Parent, v.Labels)
		}
		if v.Attached && s.on[strings.TrimRight(strings.TrimRight(v.Name, "0123456789"), "-")] == nil {
			s.t.Errorf("%s: %s is attached at %s", s.name, v.Name, v.Device)
		}
	}
	for id, n := range want {
		if n != 0 {
			s.t.Errorf("%s: volume %s has %d protective snapshots, want 1", s.name, id, 1-n)
		}
	}
}

// side is where one of a pair is: a workload of a shelf, or a VM of a vSphere.
type side struct {
	host  string
	name  string
	disks func() [][]byte
}

func (s *shelf) side(name string) side {
	return side{s.name, name, func() [][]byte { return s.disks(name) }}
}

// pairUp makes haulback know of a VM in state Failover.
func (r *rig) pairUp(t *testing.T, name string, original, replica side) *pair {
	t.Helper()
	_, err := r.api.PutPair(t.Context(), &controlv1.PutPairRequest{Pair: failbackpb.FromPair(&failback.Pair{
		Name: name, Original: hostctl.Ref{Host: original.host, Name: original.name}, Replica: hostctl.Ref{Host: replica.host, Name: replica.name},
	})})
	must(t, err)
	_, err = r.api.Failover(t.Context(), &controlv1.FailoverRequest{Name: name})
	must(t, err)
	return &pair{r: r, name: name}
}

// goOn continues a failback that is halted.
func (r *rig) goOn(t *testing.T, id string) {
	t.Helper()
	_, err := r.api.Continue(t.Context(), &controlv1.ContinueRequest{Id: id})
	must(t, err)
}
