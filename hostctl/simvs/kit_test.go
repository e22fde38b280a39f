package simvs_test

import (
	"context"
	"crypto/x509"
	"net/url"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl/simvs"
)

func start(t *testing.T, cfg simvs.Config) *simvs.Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := simvs.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// login is a client of govmomi's that trusts the certificate and nothing else.
func login(t *testing.T, s *simvs.Server, user, password string) *govmomi.Client {
	t.Helper()
	c, err := dial(t.Context(), s, s.URL())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Login(t.Context(), url.UserPassword(user, password)); err != nil {
		t.Fatal(err)
	}
	return c
}

func dial(ctx context.Context, s *simvs.Server, address string) (*govmomi.Client, error) {
	u, err := soap.ParseURL(address)
	if err != nil {
		return nil, err
	}
	sc := soap.NewClient(u, false)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CAPEM())
	sc.DefaultTransport().TLSClientConfig.RootCAs = pool
	vc, err := vim25.NewClient(ctx, sc)
	if err != nil {
		return nil, err
	}
	return &govmomi.Client{Client: vc, SessionManager: session.NewManager(vc)}, nil
}

func admin(t *testing.T, s *simvs.Server) *govmomi.Client {
	t.Helper()
	return login(t, s, s.User(), s.Password())
}

// rig is a server with one VM of one disk that runs.
type rig struct {
	*simvs.Server
	t     *testing.T
	c     *govmomi.Client
	vm    *object.VirtualMachine
	guest *simvs.Guest
}

func newRig(t *testing.T, v *simvs.VM, cfg simvs.Config) *rig {
	t.Helper()
	s := start(t, cfg)
	if v == nil {
		v = &simvs.VM{Name: "web", Disks: []simvs.Disk{{Size: 8 << 20}}, On: true}
	}
	ref, err := s.AddVM(v)
	if err != nil {
		t.Fatal(err)
	}
	c := admin(t, s)
	g, err := s.Guest(ref)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{s, t, c, object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: ref}), g}
}

func (r *rig) wait(task *object.Task, err error) *types.TaskInfo {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := task.WaitForResult(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

func (r *rig) fails(task *object.Task, err error) error {
	r.t.Helper()
	if err == nil {
		err = task.Wait(r.t.Context())
	}
	if err == nil {
		r.t.Fatal("nothing failed")
	}
	return err
}

func (r *rig) props() mo.VirtualMachine {
	r.t.Helper()
	var vm mo.VirtualMachine
	if err := r.vm.Properties(r.t.Context(), r.vm.Reference(), nil, &vm); err != nil {
		r.t.Fatal(err)
	}
	return vm
}

func (r *rig) track(yes bool) {
	r.t.Helper()
	r.wait(r.vm.Reconfigure(r.t.Context(), types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &yes}))
}

// snapshot makes one and returns its reference.
func (r *rig) snapshot(name string) types.ManagedObjectReference {
	r.t.Helper()
	return r.wait(r.vm.CreateSnapshot(r.t.Context(), name, "", false, false)).Result.(types.ManagedObjectReference)
}

func (r *rig) remove(ref types.ManagedObjectReference) {
	r.t.Helper()
	r.wait(r.vm.RemoveSnapshot(r.t.Context(), ref.Value, false, types.NewBool(true)))
}

func (r *rig) write(disk int, text string, off int64) {
	r.t.Helper()
	if _, err := r.guest.WriteAt(disk, []byte(text), off); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(disk int, n int, off int64) string {
	r.t.Helper()
	p := make([]byte, n)
	if _, err := r.guest.ReadAt(disk, p, off); err != nil {
		r.t.Fatal(err)
	}
	return string(p)
}

func (r *rig) files(snapshot string) []simvs.File {
	r.t.Helper()
	f, err := r.Files(r.vm.Reference().Value, snapshot)
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}
