package home

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
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

func TestMain(m *testing.M) { os.Exit(cmdtest.Main(m, &programs)) }

// site is one of the two: a vSphere, and a daemon beside it.
type site struct {
	*cmdtest.Site
	vs     *simvs.Server
	config string // all but the address
	daemon *cmdtest.Process
	listen string
	peer   *site
}

// rig is a home, whose daemon is the controller, and a site for disasters.
type rig struct {
	t        *testing.T
	home, dr *site
	api      controlv1.FailbacksClient
	next     atomic.Uint64 // seeds
}

// newRig starts both. The tables are added to the controller's configuration.
func newRig(t *testing.T, tables ...string) *rig {
	t.Helper()
	r := &rig{t: t, home: newSite(t, "home"), dr: newSite(t, "dr")}
	r.home.peer, r.dr.peer = r.dr, r.home
	r.home.Pair(r.dr.Site)
	r.dr.config = r.dr.export("home")
	r.dr.start(t, anyPort)
	r.home.OK("peer", "remove", "dr")
	r.home.OK("peer", "add", r.dr.ID, "--name", "dr", "--address", r.dr.listen)
	r.home.config = "[controller]\nname = \"home\"\n" + r.home.export("dr") + r.home.host(t, "self") + r.dr.host(t, "dr") + strings.Join(tables, "")
	r.home.start(t, anyPort)
	r.api = controlv1.NewFailbacksClient(client.Socket(filepath.Join(r.home.State, "control.sock")))
	return r
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	s := &site{Site: cmdtest.NewSite(t, &programs, name)}
	var err error
	if s.vs, err = simvs.New(simvs.Config{Dir: filepath.Join(s.Dir, "datastores"), Datastores: []simvs.Datastore{{Name: "ds-" + name}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.vs.Close(); err != nil {
			t.Log(err)
		}
	})
	return s
}

// export is the table that lets the other site reach the disks of this one.
func (s *site) export(peer string) string {
	ds := "ds-" + s.Name
	return fmt.Sprintf("[[export]]\nname = %q\nrole = \"host\"\ndatastores = { %q = %q }\npeers = [%q]\ncontrollers = [\"home\"]\n", s.Name, ds, s.vs.Datastores()[ds], peer)
}

// host is the table of the site's vSphere in the controller's configuration.
func (s *site) host(t *testing.T, mover string) string {
	t.Helper()
	password := filepath.Join(s.Dir, "password")
	if err := os.WriteFile(password, []byte(s.vs.Password()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[[host]]\nname = %q\nurl = %q\nuser = %q\npassword_file = %q\nthumbprint = %q\nmover = %q\n",
		s.Name, s.vs.URL(), s.vs.User(), password, s.vs.Thumbprint256(), mover)
}

const anyPort = "127.0.0.1:0"

var readyLine = regexp.MustCompile(`"msg":"haulbackd ready".*"listen":"([^"]+)"`)

// start runs the daemon until the test ends; at an address that was in use
// before, it tries again while somebody else has the port.
func (s *site) start(t *testing.T, listen string) {
	t.Helper()
	file := filepath.Join(s.Dir, "haulbackd.toml")
	text := fmt.Sprintf("listen = %q\nstate_dir = %q\n", listen, s.State) + s.config
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := s.daemon == nil
	for s.listen = ""; s.listen == ""; {
		s.daemon = programs.Start(t, "haulbackd", "run", "--config", file)
		over := false
		cmdtest.Await(t, "the daemon of "+s.Name, func() bool {
			if m := readyLine.FindStringSubmatch(s.daemon.Stderr()); m != nil {
				s.listen = m[1]
			}
			over = strings.Contains(s.daemon.Stderr(), "haulbackd: ")
			return s.listen != "" || over
		})
		if s.listen == "" {
			if r := s.daemon.Wait(); !strings.Contains(r.Stderr, "in use") {
				t.Fatalf("the daemon of %s: exit code %d\n%s", s.Name, r.Code, r.Stderr)
			}
		}
	}
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
	disks   int
	replica *simvs.Guest
}

// vm makes an original, which is off, and its running replica, whose disks began
// alike and were written on both sides since.
func (r *rig) vm(t *testing.T, name string, sizes ...int) *pair {
	t.Helper()
	seed := r.next.Add(100)
	p := &pair{r: r, name: name, disks: len(sizes)}
	home, dr := &simvs.VM{Name: name}, &simvs.VM{Name: name + "_replica", On: true}
	for i, size := range sizes {
		base := content(seed+uint64(i), size)
		home.Disks = append(home.Disks, simvs.Disk{Image: image(t, written(base, seed+uint64(i)+50, size/16))})
		dr.Disks = append(dr.Disks, simvs.Disk{Image: image(t, written(base, seed+uint64(i)+70, size/16))})
	}
	original, replica := p.add(t, r.home, home), p.add(t, r.dr, dr)
	var err error
	if p.replica, err = r.dr.vs.Guest(replica); err != nil {
		t.Fatal(err)
	}
	_, err = r.api.PutPair(t.Context(), &controlv1.PutPairRequest{Pair: failbackpb.FromPair(&failback.Pair{
		Name: name, Original: hostctl.Ref{Host: "home", ID: original, Name: name}, Replica: hostctl.Ref{Host: "dr", ID: replica, Name: name + "_replica"},
	})})
	must(t, err)
	_, err = r.api.Failover(t.Context(), &controlv1.FailoverRequest{Name: name})
	must(t, err)
	return p
}

func (p *pair) add(t *testing.T, s *site, vm *simvs.VM) string {
	t.Helper()
	ref, err := s.vs.AddVM(vm)
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
	rand.NewChaCha8(key).Read(b)
	return b
}

// written is b with n bytes changed, in blocks of 4 KiB.
func written(b []byte, seed uint64, n int) []byte {
	b = bytes.Clone(b)
	random := rand.New(rand.NewPCG(seed, 1))
	for ; n > 0; n -= 4096 {
		at := random.IntN(len(b)/4096) * 4096
		copy(b[at:], content(random.Uint64(), 4096))
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
const patience = 2 * time.Minute

// await waits until a failback is where the test wants it. One that halts, or ends
// otherwise, fails the test, unless it is wanted.
func (r *rig) await(t *testing.T, id, what string, ok func(*failback.Status) bool) (s *failback.Status) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
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
