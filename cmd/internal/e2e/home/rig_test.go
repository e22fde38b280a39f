package home

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/control/client"
	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/simvs"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

var programs cmdtest.Programs

// lanes is how many tests run at a time. Most of the time each waits for a host.
const lanes = "6"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", lanes); err != nil { // the command line may say otherwise
		panic(err)
	}
	flag.Parse()
	os.Exit(cmdtest.Main(m, &programs))
}

// site is one of the two: a vSphere, or several, and a daemon beside them.
type site struct {
	*cmdtest.Site
	vs     *simvs.Server            // the one called as the site is
	more   map[string]*simvs.Server // the others
	shelf  *shelf                   // or nil
	config string                   // all but the address
	env    []string                 // of the daemon
	daemon *cmdtest.Process
	listen string
}

// rig is a home, whose daemon is the controller, and a site for disasters.
type rig struct {
	t        *testing.T
	home, dr *site
	api      controlv1.FailbacksClient
	next     atomic.Uint64 // seeds
}

// slow skips a test in a run with the race detector, where it takes minutes; it
// runs without it.
func slow(t *testing.T) {
	t.Helper()
	if race {
		t.Skip("with the race detector a few failbacks are enough; this one runs without it")
	}
}

// options are what a rig has besides.
type options struct {
	more   []string // vSpheres of the site for disasters
	tables string   // of the controller's configuration
	room   int64    // bytes of the datastore at home; 0: enough
	// shelves are the workloads of OpenStorage clusters, by site; nil: there are none.
	shelves map[string][]load
}

// newRig starts both.
func newRig(t *testing.T, o options) *rig {
	t.Helper()
	r := &rig{t: t, home: newSite(t, "home", o.room), dr: newSite(t, "dr", 0, o.more...)}
	if o.shelves != nil {
		r.home.shelf = newShelf(t, "shelf-home", false, r.home.vs, o.shelves["home"])
		r.dr.shelf = newShelf(t, "shelf-dr", true, r.dr.vs, o.shelves["dr"])
	}
	r.home.Pair(r.dr.Site)
	r.dr.config = r.dr.exports("peers = [\"home\"]\ncontrollers = [\"home\"]\n")
	r.dr.start(t, anyPort)
	r.home.OK("peer", "remove", "dr")
	r.home.OK("peer", "add", r.dr.ID, "--name", "dr", "--address", r.dr.listen)
	r.home.config = "[controller]\nname = \"home\"\nvms = 8\n" + o.tables + r.home.exports("") + r.home.hosts(t, "self") + r.dr.hosts(t, "dr")
	if r.dr.shelf != nil { // the controller makes and removes the snapshots there
		r.home.config += r.dr.shelf.profile()
	}
	r.home.start(t, anyPort)
	r.api = controlv1.NewFailbacksClient(client.Socket(filepath.Join(r.home.State, "control.sock")))
	return r
}

func newSite(t *testing.T, name string, room int64, more ...string) *site {
	t.Helper()
	s := &site{Site: cmdtest.NewSite(t, &programs, name), more: map[string]*simvs.Server{}}
	s.vs = s.vsphere(t, name, room)
	for _, m := range more {
		s.more[m] = s.vsphere(t, m, 0)
	}
	return s
}

func (s *site) vsphere(t *testing.T, name string, room int64) *simvs.Server {
	t.Helper()
	vs, err := simvs.New(simvs.Config{
		Dir: filepath.Join(s.Dir, "datastores"), Datastores: []simvs.Datastore{{Name: "ds-" + name, Capacity: room}},
		Password: crand.Text() + `/+ "&%<` + crand.Text(), // which XML, JSON and URIs write in other ways
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vs.Close(); err != nil {
			t.Log(err)
		}
	})
	return vs
}

// up starts a vSphere that was down, as soon as nobody else has its port.
func up(t *testing.T, vs *simvs.Server) {
	t.Helper()
	cmdtest.Await(t, "a vSphere to be back", func() bool {
		err := vs.Up()
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// each calls f with every vSphere of the site and its name.
func (s *site) each(f func(name string, vs *simvs.Server)) {
	f(s.Name, s.vs)
	for name, vs := range s.more {
		f(name, vs)
	}
}

// exports are the tables that let failbacks reach the disks of this site: those
// of this daemon, and who may besides.
func (s *site) exports(who string) (text string) {
	s.each(func(name string, vs *simvs.Server) {
		ds := "ds-" + name
		text += fmt.Sprintf("[[export]]\nname = %q\nrole = \"host\"\ndatastores = { %q = %q }\n%s", name, ds, vs.Datastores()[ds], who)
	})
	if s.shelf != nil {
		text += s.shelf.profile() + s.shelf.export(who)
	}
	return text
}

// hosts are the tables of the site's vSpheres in the controller's configuration.
func (s *site) hosts(t *testing.T, mover string) (text string) {
	t.Helper()
	s.each(func(name string, vs *simvs.Server) {
		password := filepath.Join(s.Dir, name+".password")
		if err := os.WriteFile(password, []byte(vs.Password()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("[[host]]\nname = %q\nurl = %q\nuser = %q\npassword_file = %q\nthumbprint = %q\nmover = %q\n",
			name, vs.URL(), vs.User(), password, vs.Thumbprint256(), mover)
	})
	if s.shelf != nil {
		text += s.shelf.host(mover)
	}
	return text
}

const anyPort = "127.0.0.1:0"

var readyLine = regexp.MustCompile(`"msg":"haulbackd ready".*"listen":"([^"]+)"`)

// start runs the daemon until the test ends; at an address that was in use
// before, it tries again while somebody else has the port.
func (s *site) start(t *testing.T, listen string) {
	t.Helper()
	if listen == anyPort { // of its own address: the port is free until it is back
		listen = s.AnyPort
	}
	file := filepath.Join(s.Dir, "haulbackd.toml")
	text := fmt.Sprintf("listen = %q\nstate_dir = %q\n", listen, s.State) + s.config
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := s.daemon == nil
	begin := func() { s.daemon = programs.StartEnv(t, s.env, "haulbackd", "run", "--config", file) }
	begin()
	s.listen = ""
	cmdtest.Await(t, "the daemon of "+s.Name, func() bool {
		if m := readyLine.FindStringSubmatch(s.daemon.Stderr()); m != nil {
			s.listen = m[1]
		} else if s.daemon.Refused() {
			if r := s.daemon.Wait(); !strings.Contains(r.Stderr, "in use") {
				t.Fatalf("the daemon of %s: exit code %d\n%s", s.Name, r.Code, r.Stderr)
			}
			begin()
		}
		return s.listen != ""
	})
	if first {
		t.Cleanup(func() { s.kill(); s.show(t) })
	}
}

// kill is kill -9.
func (s *site) kill() {
	if s.daemon.Cmd.ProcessState == nil {
		_ = s.daemon.Cmd.Process.Kill() // it may have ended by itself
		s.daemon.Wait()
	}
}

// stop ends the daemon as an operator does.
func (s *site) stop(t *testing.T) {
	t.Helper()
	s.daemon.Signal(syscall.SIGTERM)
	if r := s.daemon.Wait(); r.Code != 0 {
		t.Errorf("the daemon of %s: exit code %d\n%s", s.Name, r.Code, r.Stderr)
	}
}

func (s *site) show(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.Logf("log of %s:\n%s", s.Name, s.daemon.Stderr())
	}
}

// pair is a VM of which haulback knows a replica, in state Failover.
type pair struct {
	r       *rig
	name    string
	dr      *simvs.Server // has the replica
	replica *simvs.Guest
	before  [][]byte // of the original
	base    [][]byte // what both began with
}

func (p *pair) replicaName() string { return p.name + "_replica" }

// vm makes an original, which is off, and its running replica, whose disks began
// alike and were written on both sides since.
func (r *rig) vm(t *testing.T, name string, sizes ...int) *pair {
	t.Helper()
	return r.vmAt(t, "dr", name, sizes...)
}

// vmAt is vm with the replica on a vSphere of the site for disasters.
func (r *rig) vmAt(t *testing.T, host, name string, sizes ...int) *pair {
	t.Helper()
	seed := r.next.Add(100)
	p := &pair{r: r, name: name, dr: r.dr.vs}
	if host != "dr" {
		p.dr = r.dr.more[host]
	}
	home, dr := &simvs.VM{Name: name}, &simvs.VM{Name: p.replicaName(), On: true}
	for i, size := range sizes {
		base := content(seed+uint64(i), size)
		p.base = append(p.base, base)
		p.before = append(p.before, written(base, seed+uint64(i)+50, size/16))
		home.Disks = append(home.Disks, simvs.Disk{Image: image(t, p.before[i])})
		dr.Disks = append(dr.Disks, simvs.Disk{Image: image(t, written(base, seed+uint64(i)+70, size/16))})
	}
	original, replica := add(t, r.home.vs, home), add(t, p.dr, dr)
	var err error
	if p.replica, err = p.dr.Guest(replica); err != nil {
		t.Fatal(err)
	}
	_, err = r.api.PutPair(t.Context(), &controlv1.PutPairRequest{Pair: failbackpb.FromPair(&failback.Pair{
		Name: name, Original: hostctl.Ref{Host: "home", ID: original, Name: name}, Replica: hostctl.Ref{Host: host, ID: replica, Name: p.replicaName()},
	})})
	must(t, err)
	_, err = r.api.Failover(t.Context(), &controlv1.FailoverRequest{Name: name})
	must(t, err)
	return p
}

func add(t *testing.T, vs *simvs.Server, vm *simvs.VM) string {
	t.Helper()
	ref, err := vs.AddVM(vm)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// must fails the test at an error of the API, with its reason.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(jobpb.Refusal(err))
	}
}

func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// written is b with n bytes changed, in grains of 64 KiB.
func written(b []byte, seed uint64, n int) []byte {
	const grain = 64 << 10
	b = bytes.Clone(b)
	random := rand.New(rand.NewPCG(seed, 1))
	for ; n > 0; n -= grain {
		at := random.IntN(len(b)/grain) * grain
		copy(b[at:], content(random.Uint64(), grain))
	}
	return b
}

func image(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// flat is what a VM has on its disks now.
func flat(t *testing.T, vs *simvs.Server, vm string) (disks [][]byte) {
	t.Helper()
	files, err := vs.Files(vm, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f.Flat)
		if err != nil {
			t.Fatal(err)
		}
		disks = append(disks, b)
	}
	return disks
}

// same compares disks byte by byte, as cmp does.
func same(t *testing.T, what string, a, b [][]byte) {
	t.Helper()
	if len(a) != len(b) || len(a) == 0 {
		t.Fatalf("%s: %d disks and %d", what, len(a), len(b))
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			n := 0
			for n < min(len(a[i]), len(b[i])) && a[i][n] == b[i][n] {
				n++
			}
			t.Errorf("%s: disk %d differs at %d (%d and %d bytes)", what, i, n, len(a[i]), len(b[i]))
		}
	}
}

// begin starts a failback of the VM. Its ID is that of the test's choice.
func (p *pair) begin(t *testing.T, s failback.Spec) string {
	t.Helper()
	s.VM = p.name
	if s.Destination == "" {
		s.Destination = failback.Original
	}
	id := p.name + "-" + hex.EncodeToString([]byte{byte(p.r.next.Add(1))})
	_, err := p.r.api.Start(t.Context(), &controlv1.StartRequest{Id: id, Spec: failbackpb.FromSpec(&s)})
	must(t, err)
	return id
}

// status is where a failback stands; nil while the daemon does not answer.
func (r *rig) status(ctx context.Context, id string) *failback.Status {
	res, err := r.api.Get(ctx, &controlv1.GetFailbackRequest{Id: id})
	if err != nil {
		return nil
	}
	s, err := failbackpb.ToStatus(res.Failback)
	if err != nil {
		return nil
	}
	return s
}

// patience is far more than any failback here takes on a machine that is busy.
const patience = 5 * time.Minute

// await waits until a failback is where the test wants it. One that halts, or ends
// otherwise, fails the test, unless it is wanted.
func (r *rig) await(t *testing.T, id, what string, ok func(*failback.Status) bool) (s *failback.Status) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		last := r.status(t.Context(), id)
		if last != nil {
			s = last
		}
		switch {
		case s != nil && ok(s):
			return s
		case s != nil && s.Halted != nil:
			t.Fatalf("%s: waiting for %s: halted: %+v", id, what, *s.Halted)
		case s != nil && s.Activity.Ended():
			t.Fatalf("%s: waiting for %s: it is %s", id, what, s.Activity)
		case time.Now().After(end):
			t.Fatalf("%s: waited in vain for %s: %s", id, what, outline(s))
		}
	}
}

func outline(s *failback.Status) string {
	if s == nil {
		return "nobody answers"
	}
	steps := ""
	for _, x := range s.Steps {
		steps += fmt.Sprintf("\n  %d %s %s (%d) %s", x.Number, x.Name, x.State, x.Attempt, x.Text)
	}
	return fmt.Sprintf("%s, %s, waits for %q, next %q%s", s.State, s.Activity, s.Wait, s.Next, steps)
}

// brought is state Failback, with nothing under way.
func brought(s *failback.Status) bool {
	return s.Activity == failback.Deciding && s.State == failback.Failback
}

func standing(s *failback.Status) bool { return s.Activity == failback.Standing }

func is(a failback.Activity) func(*failback.Status) bool {
	return func(s *failback.Status) bool { return s.Activity == a }
}

func now() failback.Switch { return failback.Switch{When: failback.WhenNow} }

func byHand() failback.Switch { return failback.Switch{When: failback.WhenManual} }

// switchNow ends ReadyToSwitch.
func (r *rig) switchNow(t *testing.T, id string) {
	t.Helper()
	_, err := r.api.Switch(t.Context(), &controlv1.SwitchRequest{Id: id, Switch: failbackpb.FromSwitch(now())})
	must(t, err)
}

func (r *rig) commit(t *testing.T, id string) *failback.Status {
	t.Helper()
	_, err := r.api.Commit(t.Context(), &controlv1.CommitRequest{Id: id})
	must(t, err)
	return r.await(t, id, "the commit", is(failback.Committed))
}

func (r *rig) undo(t *testing.T, id string) *failback.Status {
	t.Helper()
	_, err := r.api.Undo(t.Context(), &controlv1.UndoRequest{Id: id})
	must(t, err)
	return r.await(t, id, "the undo", is(failback.Undone))
}

// pairOf is what haulback knows of a VM.
func (r *rig) pairOf(t *testing.T, name string) failback.Pair {
	t.Helper()
	res, err := r.api.GetPair(t.Context(), &controlv1.GetPairRequest{Name: name})
	must(t, err)
	p, err := failbackpb.ToPair("pair", res.Pair)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// home are the disks of the VM at home, and away those of its replica.
func (p *pair) home(t *testing.T) [][]byte { t.Helper(); return flat(t, p.r.home.vs, p.name) }
func (p *pair) away(t *testing.T) [][]byte { t.Helper(); return flat(t, p.dr, p.replicaName()) }

// proved fails the test for each disk that is not verified.
func proved(t *testing.T, s *failback.Status) {
	t.Helper()
	for _, d := range s.Disks {
		if !d.Verified {
			t.Errorf("%s is not verified: %+v", d.Label, d)
		}
	}
}

// churn writes to the replica until it is off.
func (p *pair) churn(t *testing.T, disk int, seed uint64) (done chan int64) {
	t.Helper()
	done = make(chan int64, 1)
	go func() {
		n, err := p.replica.Churn(t.Context(), simvs.Churn{Disk: disk, Rate: 2 << 20, Seed: seed})
		if err != nil && !errors.Is(err, simvs.ErrOff) {
			t.Error(err)
		}
		done <- n
	}()
	return done
}
