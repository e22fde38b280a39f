package failbacks

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/cmd/internal/osdisk"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

var programs cmdtest.Programs

// registered is the driver of osd:// in this process; tests give it profiles.
var registered *osdisk.Disks

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	ledger, err := os.MkdirTemp("", "haulback")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(ledger)
	registered = osdisk.New(nil, ledger, slog.New(slog.DiscardHandler))
	vddk.Register(osd.Scheme, registered.Driver())
	return cmdtest.Main(m, &programs)
}

// world is two sites with a host and a daemon each, and the controller in this
// process, which reaches a third host itself.
type world struct {
	t *testing.T
	*Mover
	dr, home *cmdtest.Daemon
	stranger *cmdtest.Site
	stores   map[string]string // datastore directory by host
	epoch    uint64
	size     int64 // of disks that are made
}

// small is the size of a VM's disk where it does not matter.
const small = 16 << 20

// reach is that of the controller.
type reach struct {
	key   *wire.Key
	peers site.Peers
}

func (r *reach) Self() (wire.ID, error)     { return r.key.ID(), nil }
func (r *reach) Peers() (site.Peers, error) { return r.peers, nil }
func (r *reach) Dial(ctx context.Context, transport, address string, id wire.ID) (wire.Link, error) {
	return site.Dial(ctx, transport, address, r.key, id)
}

// hostExport is the export of a site's host.
func hostExport(store string) string {
	return fmt.Sprintf("[[export]]\nname = \"host\"\nrole = \"host\"\ndatastores = { ds = %q }\npeers = [\"dr\", \"home\"]\ncontrollers = [\"ctl\"]\n", store)
}

func newWorld(t *testing.T, transport string) *world {
	t.Helper()
	w := &world{t: t, stores: map[string]string{}, epoch: 100, size: small}
	ctl, dr, home := cmdtest.NewSite(t, &programs, "ctl"), cmdtest.NewSite(t, &programs, "dr"), cmdtest.NewSite(t, &programs, "home")
	w.stranger = cmdtest.NewSite(t, &programs, "stranger")
	for _, s := range []*cmdtest.Site{dr, home} {
		s.Pair(ctl)
		s.Pair(w.stranger)
	}
	dr.Pair(home)
	for name, s := range map[string]*cmdtest.Site{"here": ctl, "dr": dr, "home": home} {
		w.stores[name] = filepath.Join(s.Dir, "ds")
		if err := os.MkdirAll(filepath.Join(w.stores[name], "web"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.dr, w.home = dr.Daemon(hostExport(w.stores["dr"])), home.Daemon(hostExport(w.stores["home"]))
	w.Mover = w.mover(ctl, transport, w.stores["here"])
	return w
}

// mover is the Mover of a controller that runs as s.
func (w *world) mover(s *cmdtest.Site, transport, store string) *Mover {
	w.t.Helper()
	own, err := site.At(s.State, "")
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := own.Key()
	if err != nil {
		w.t.Fatal(err)
	}
	r := &reach{key: key}
	for _, d := range []*cmdtest.Daemon{w.dr, w.home} {
		id, err := wire.ParseID(d.Site.ID)
		if err == nil {
			r.peers, err = r.peers.Add(site.Peer{Name: d.Site.Name, ID: id, Address: d.Listen})
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	journals, err := own.Journals()
	if err != nil {
		w.t.Fatal(err)
	}
	engine, err := mover.NewEngine(mover.Config{Memory: 256 << 20}, journals)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { engine.Close(); journals.Close() })
	hosts := map[string]Host{
		"here": {Name: "here", Mover: Self, Export: "own"}, "dr": {Name: "dr", Mover: "dr", Export: "host"}, "home": {Name: "home", Mover: "home", Export: "host"},
		"lost": {Name: "lost", Mover: "nobody", Export: "host"}, "none": {Name: "none", Mover: "dr", Export: "nothing"}, "gone": {Name: "gone", Mover: Self, Export: "gone"},
	}
	exports := []config.Export{
		{Name: "own", Role: mover.RoleHost, Host: &hostdisk.Table{Datastores: map[string]string{"ds": store}}},
		{Name: "gone", Role: mover.RoleHost, Host: &hostdisk.Table{Datastores: map[string]string{"ds": store + "/gone"}}},
	}
	return &Mover{
		Engine: engine, Reach: r, Key: key, Hosts: func() map[string]Host { return hosts }, Exports: func() []config.Export { return exports },
		Transport: transport, Retry: -1, Log: slog.New(slog.DiscardHandler),
	}
}

// disk makes a VMDK of a host, as a link of a chain of full ones, with content;
// nil leaves it all hole.
func (w *world) disk(host, name string, content []byte) failback.Place {
	w.t.Helper()
	path := filepath.Join(w.stores[host], "web", name)
	d, err := vddk.Open(w.t.Context(), "vmdk://"+path, vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: w.size})
	if err != nil {
		w.t.Fatal(err)
	}
	if content != nil {
		_, err = d.WriteAt(content, 0)
	}
	if cerr := d.Close(); err != nil || cerr != nil {
		w.t.Fatal(err, cerr)
	}
	return failback.Place{VM: hostctl.Ref{Host: host, ID: "vm-1", Name: "web"}, Disk: hostctl.Disk{Label: "scsi0:0", File: "[ds] web/" + name, Size: w.size}}
}

// frozen is p as a disk of a snapshot.
func snapshot(p failback.Place) failback.Place {
	p.Snapshot = "snapshot-7"
	return p
}

// flat is the file with the bytes of p.
func (w *world) flat(p failback.Place) string {
	name := p.Disk.File[len("[ds] "):]
	return filepath.Join(w.stores[p.VM.Host], name[:len(name)-len(".vmdk")]+"-flat.vmdk")
}

// cmp judges: the program, not this code.
func (w *world) cmp(a, b failback.Place) bool {
	w.t.Helper()
	return exec.Command("cmp", "-s", w.flat(a), w.flat(b)).Run() == nil
}

// content is a disk of a guest: half of it is hole.
func (w *world) content(seed uint64) []byte {
	b := make([]byte, w.size)
	rng := rand.NewChaCha8([32]byte{byte(seed), 9})
	for off := 0; off < len(b); off += 8 << 20 {
		rng.Read(b[off : off+4<<20])
	}
	return b
}

// guest writes to a disk as a guest does, and says where.
func guest(b []byte, seed uint64) (changed cbt.Map) {
	rng := rand.New(rand.NewPCG(seed, seed))
	for range 20 {
		off := rng.Int64N(int64(len(b)) - 64<<10)
		n := 512 + rng.Int64N(32<<10)
		for i := off; i < off+n; i++ {
			b[i] = byte(rng.Uint32())
		}
		changed.Add(cbt.Extent{Off: off, Len: n})
	}
	return changed
}

func (w *world) changes(m cbt.Map, since string) *cbt.Hint {
	h := &cbt.Hint{Provider: "vsphere", Since: since, Size: w.size, Granularity: 64 << 10, Trust: cbt.Exact}
	for e := range m.All() {
		h.Areas = append(h.Areas, e)
	}
	return h
}

// move is a pass as the engine asks for it.
func (w *world) move(run string, pass uint32, from, to failback.Place, h *cbt.Hint) *failback.Move {
	return &failback.Move{
		Run: run, Pass: pass, Fence: w.epoch, VM: "web", Source: from, Target: to, Hint: h,
		Event: func(text string) { _, _ = fmt.Fprintln(io.Discard, text) },
	}
}

func newRun() string { return uuid.New().String() }
