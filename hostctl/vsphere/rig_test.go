package vsphere

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// rig is govmomi's simulator on TLS, with a proxy in front that loses replies:
// its fault rules act instead of a call and cannot do that (measured, v0.55.1).
type rig struct {
	t      *testing.T
	model  *simulator.Model
	server *simulator.Server
	front  *httptest.Server
	cfg    Config

	mu    sync.Mutex
	lose  bool           // the reply of the next change
	down  bool           // nothing is answered
	calls map[string]int // by method
}

const password = "correct horse\nbattery"

func newRig(t *testing.T, m *simulator.Model) *rig {
	t.Helper()
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Remove)
	m.Service.Listen = &url.URL{User: url.UserPassword("mover@vsphere.local", password)}
	m.Service.TLS = new(tls.Config)
	r := &rig{t: t, model: m, calls: map[string]int{}}
	r.server = m.Service.NewServer()
	t.Cleanup(r.server.Close)
	r.front = httptest.NewTLSServer(r.proxy())
	t.Cleanup(r.front.Close)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.cfg = Config{
		Name: "home", URL: r.front.URL, User: "mover@vsphere.local", PasswordFile: file,
		Thumbprint: soap.ThumbprintSHA256(r.front.Certificate()),
	}
	return r
}

// proxy passes calls on.
func (r *rig) proxy() http.Handler {
	p := &httputil.ReverseProxy{
		Rewrite: func(q *httputil.ProxyRequest) {
			q.SetURL(&url.URL{Scheme: "https", Host: r.server.URL.Host})
		},
		Transport: &http.Transport{TLSClientConfig: r.behind()},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		q.Body = io.NopCloser(strings.NewReader(string(body)))
		if r.isDown(method(string(body))) {
			panic(http.ErrAbortHandler)
		}
		if !r.loses(method(string(body))) {
			p.ServeHTTP(w, q)
			return
		}
		p.ServeHTTP(httptest.NewRecorder(), q) // executed, and nobody hears of it
		panic(http.ErrAbortHandler)
	})
}

// behind trusts the certificate of the simulator.
func (r *rig) behind() *tls.Config {
	cfg := Config{Name: "simulator", Thumbprint: soap.ThumbprintSHA256(r.server.Certificate())}
	t, err := cfg.tlsConfig("")
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

// method is the name of the call in a SOAP body.
func method(body string) string {
	_, rest, _ := strings.Cut(body, "Body>")
	rest = strings.TrimLeft(rest, "<")
	end := strings.IndexAny(rest, " >/")
	if end < 0 {
		return ""
	}
	return rest[:end]
}

// changes reports whether a call changes a VM.
func changes(m string) bool {
	return strings.HasSuffix(m, "_Task") || m == "UnregisterVM" || m == "DisableMethods"
}

func (r *rig) loses(m string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[m]++
	if !r.lose || !changes(m) {
		return false
	}
	r.lose = false
	return true
}

func (r *rig) isDown(string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

// setDown cuts all connections, or lets them come again.
func (r *rig) setDown(down bool) {
	r.mu.Lock()
	r.down = down
	r.mu.Unlock()
	if down {
		r.front.CloseClientConnections()
	}
}

func (r *rig) called(m string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[m]
}

// loseNext loses the reply of the next change.
func (r *rig) loseNext() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose = true
}

// open is a client with short pauses.
func (r *rig) open() *Client {
	r.t.Helper()
	c, err := Open(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	c.wait = waits{poll: time.Millisecond, least: time.Millisecond, most: 20 * time.Millisecond}
	r.t.Cleanup(func() { _ = c.Close(r.t.Context()) })
	return c
}

// edit changes the simulator's own VM, as nobody else can.
func (r *rig) edit(ref hostctl.Ref, f func(vm *simulator.VirtualMachine)) {
	r.t.Helper()
	ctx := r.model.Service.Context
	vm := ctx.Map.Get(vmRef(ref.ID)).(*simulator.VirtualMachine)
	ctx.WithLock(vm, func() { f(vm) })
}

// vpx and esx are the smallest models.
func vpx() *simulator.Model {
	m := simulator.VPX()
	m.Host, m.Cluster, m.ClusterHost, m.Machine = 1, 0, 0, 3
	return m
}

func esx() *simulator.Model {
	m := simulator.ESX()
	m.Machine = 3
	return m
}

// prepare turns the first VM of a model into one as hosttest.Kit wants it: off,
// with two disks, alone of its UUID.
func (r *rig) prepare(c *Client) hostctl.VM {
	r.t.Helper()
	var first string
	for _, ref := range r.machines() {
		if first == "" || ref < first {
			first = ref
		}
	}
	vm, err := c.Find(r.t.Context(), hostctl.Query{ID: first})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.SetPower(r.t.Context(), &hostctl.Op{}, vm.Ref, hostctl.Off, 0); err != nil {
		r.t.Fatal(err)
	}
	r.addDisk(c, vm)
	if vm, err = c.Find(r.t.Context(), hostctl.Query{ID: first}); err != nil {
		r.t.Fatal(err)
	}
	return vm
}

func (r *rig) machines() (ids []string) {
	for _, o := range r.model.Service.Context.Map.All("VirtualMachine") {
		ids = append(ids, o.Reference().Value)
	}
	return ids
}

// addDisk gives a VM a second disk.
func (r *rig) addDisk(c *Client, vm hostctl.VM) {
	r.t.Helper()
	unit, thin := int32(7), true
	_, o, err := c.resolve(r.t.Context(), vm.Ref)
	if err != nil {
		r.t.Fatal(err)
	}
	var controller int32
	for _, d := range o.Config.Hardware.Device {
		if d, ok := d.(*types.VirtualDisk); ok {
			controller = d.ControllerKey
		}
	}
	spec := types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate,
		Device: &types.VirtualDisk{CapacityInKB: 64 << 10, CapacityInBytes: 64 << 20, VirtualDevice: types.VirtualDevice{
			Key: -1, ControllerKey: controller, UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[" + datastoreOf(vm.Path) + "]"},
				DiskMode:                     "persistent", ThinProvisioned: &thin,
			},
		}},
	}}}
	a := c.reconfigure(vm, "add a disk", spec, func(vm hostctl.VM) bool { return len(vm.Disks) == 2 })
	if err := c.act(r.t.Context(), &hostctl.Op{}, a); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) kit() *hosttest.Kit {
	c := r.open()
	vm := r.prepare(c)
	k := &hosttest.Kit{Host: c.Host(), VM: hostctl.Query{Path: vm.Path}, Lose: r.loseNext, Shallow: true}
	for _, id := range r.machines() {
		if id != vm.ID {
			k.Twin.Name = "twin"
			r.edit(hostctl.Ref{ID: id}, func(vm *simulator.VirtualMachine) { vm.Name = "twin" })
		}
	}
	if len(vm.NICs) > 0 && vm.NICs[0].Network != "VM Network" {
		k.Network = "VM Network"
	}
	return k
}

func TestHost(t *testing.T) {
	if testing.Short() {
		t.Skip("TestSimvsHost is the same with more")
	}
	for name, model := range map[string]func() *simulator.Model{"vcenter": vpx, "esxi": esx} {
		t.Run(name, func(t *testing.T) {
			hosttest.TestHost(t, func(t *testing.T) *hosttest.Kit { return newRig(t, model()).kit() })
		})
	}
}
