package vsphere

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/simvs"
)

// site is a simulated vSphere with true bytes and a client of it.
type site struct {
	*simvs.Server
	t  *testing.T
	c  *Client
	vm hostctl.VM // "web": off, two disks
}

func newSite(t *testing.T, kind string) *site {
	t.Helper()
	s, err := simvs.New(simvs.Config{Dir: t.TempDir(), Kind: kind, Networks: []string{"DR Network"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.AddVM(&simvs.VM{Name: "web", Disks: []simvs.Disk{{Size: 16 << 20}, {Size: 8 << 20}}}); err != nil {
		t.Fatal(err)
	}
	at := &site{Server: s, t: t}
	at.c = at.open(s.User(), s.Password())
	if at.vm, err = at.c.Find(t.Context(), hostctl.Query{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	return at
}

// open is a client with a login.
func (s *site) open(user, password string) *Client {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		s.t.Fatal(err)
	}
	c, err := Open(s.t.Context(), Config{
		Name: "home", URL: strings.TrimSuffix(s.URL(), "/sdk"), User: user, PasswordFile: file, Thumbprint: s.Thumbprint256(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	c.wait = waits{poll: time.Millisecond, least: time.Millisecond, most: 20 * time.Millisecond}
	s.t.Cleanup(func() { _ = c.Close(s.t.Context()) })
	return c
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// look is the VM as it is now.
func (s *site) look() hostctl.VM {
	s.t.Helper()
	vm, err := s.c.Find(s.t.Context(), hostctl.Query{UUID: s.vm.UUID})
	s.must(err)
	return vm
}

func (s *site) op(step string) *hostctl.Op {
	op := &hostctl.Op{Run: "0f8a1b9c-5d0e-4c7f-9a52-6f2f3f6c1d77", Step: step}
	op.Started = func(task string) error { op.Task = task; return nil }
	return op
}

func (s *site) protect(step string) hostctl.Snapshot {
	s.t.Helper()
	shot, err := s.c.Protect(s.t.Context(), s.op(step), s.vm.Ref, "")
	s.must(err)
	return shot
}

// flat is the file of a disk's bytes.
func (s *site) flat(d hostctl.Disk) string {
	var p object.DatastorePath
	p.FromString(d.File)
	return filepath.Join(s.Datastores()[p.Datastore], strings.TrimSuffix(p.Path, ".vmdk")+"-flat.vmdk")
}

// ReadDisk implements hosttest.Bytes.
func (s *site) ReadDisk(t *testing.T, _ hostctl.VM, d hostctl.Disk, off int64, p []byte) {
	t.Helper()
	f, err := os.Open(s.flat(d))
	s.must(err)
	defer f.Close()
	_, err = f.ReadAt(p, off)
	s.must(err)
}

// WriteDisk implements hosttest.Bytes.
func (s *site) WriteDisk(t *testing.T, _ hostctl.VM, d hostctl.Disk, off int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(s.flat(d), os.O_WRONLY, 0)
	s.must(err)
	defer f.Close()
	_, err = f.WriteAt(p, off)
	s.must(err)
}

// loseNext loses the first reply of each kind of change.
func (s *site) loseNext() {
	for _, m := range []string{
		"PowerOnVM_Task", "PowerOffVM_Task", "ReconfigVM_Task", "CreateSnapshot_Task", "RevertToSnapshot_Task", "RemoveSnapshot_Task",
		"CreateVM_Task", "RegisterVM_Task", "Destroy_Task", "UnregisterVM",
	} {
		s.DropReply(m, 1)
	}
}

func (s *site) kit() *hosttest.Kit {
	_, err := s.AddVM(&simvs.VM{Name: "twin", Disks: []simvs.Disk{{Size: 1 << 20}}})
	s.must(err)
	s.AddUser("poor@vsphere.local", "poor", "System.View", "System.Read", "VirtualMachine.Interact.PowerOn")
	return &hosttest.Kit{
		Host: s.c.Host(), VM: hostctl.Query{Path: s.vm.Path}, Lose: s.loseNext, Bytes: s, Network: "DR Network",
		Poor: s.open("poor@vsphere.local", "poor").Host(), Lacks: "VirtualMachine.State.CreateSnapshot",
	}
}

func TestSimvsHost(t *testing.T) {
	kinds := []string{simvs.VCenter, simvs.ESXi}
	if testing.Short() {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			hosttest.TestHost(t, func(t *testing.T) *hosttest.Kit { return newSite(t, kind).kit() })
		})
	}
}
