package home

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/hostctl/failback"
)

// check runs a selfcheck of the controller with another configuration, and answers
// its rows about hosts and movers.
func (r *rig) check(t *testing.T, change func(string) string) (code int, rows string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "haulbackd.toml")
	text, err := os.ReadFile(filepath.Join(r.home.Dir, "haulbackd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	res := r.home.Run("selfcheck", "--config", file)
	for line := range strings.Lines(res.Out) {
		if regexp.MustCompile(`host |mover of `).MatchString(line) || strings.HasPrefix(line, "  ") {
			rows += line
		}
	}
	return res.Code, rows
}

// TestSelfcheckOfController: what is in order, and what is not and how to mend it.
func TestSelfcheckOfController(t *testing.T) {
	t.Parallel()
	slow(t)
	r := newRig(t, options{})
	r.dr.vs.AddUser("poor@vsphere.local", r.dr.vs.Password(), "System.View", "System.Read", "VirtualMachine.Interact.PowerOff")
	thumb := r.dr.vs.Thumbprint256()
	wrong := strings.Repeat("AB:", 31) + "AB"
	for _, c := range []struct {
		name   string
		change func(string) string
		code   int
		want   []string
	}{
		{"in order", func(s string) string { return s }, 0, []string{"host home", "host dr", "VMware vCenter", "mover of home", "mover of dr", "dr reaches its disks by export \"dr\""}},
		{"another certificate", func(s string) string { return strings.Replace(s, thumb, wrong, 1) }, 1, []string{"host dr", "thumbprint = \"" + thumb + "\"", "console"}},
		{"no thumbprint", func(s string) string { return strings.Replace(s, "thumbprint = \""+thumb+"\"\n", "", 1) }, 1, []string{"host dr", "thumbprint = \"" + thumb + "\""}},
		{"wrong password", func(s string) string {
			return strings.Replace(s, filepath.Join(r.dr.Dir, "dr.password"), filepath.Join(r.home.Dir, "home.password"), 1) // they are random
		}, 1, []string{"host dr", "the login of administrator@vsphere.local is refused", "password_file"}},
		{"poor login", func(s string) string {
			i := strings.LastIndex(s, "administrator@vsphere.local")
			return s[:i] + "poor@vsphere.local" + s[i+len("administrator@vsphere.local"):]
		}, 1, []string{"host dr", "poor@vsphere.local lacks VirtualMachine.State.CreateSnapshot"}},
		{"no such export", func(s string) string {
			return strings.Replace(s, "mover = \"dr\"\n", "mover = \"dr\"\nexport = \"other\"\n", 1)
		}, 1, []string{"mover of dr", "other", "role = \"host\""}},
		{"nobody there", func(s string) string { return strings.Replace(s, r.dr.vs.URL(), "https://127.0.0.1:1", 1) }, 1, []string{"host dr", "refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, rows := r.check(t, c.change)
			if (code == 0) != (c.code == 0) {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(rows, w) {
					t.Errorf("%q is not in\n%s", w, rows)
				}
			}
			if strings.Contains(rows, r.dr.vs.Password()) || strings.Contains(rows, r.home.vs.Password()) {
				t.Error("a password is shown")
			}
		})
	}
}

// TestControllerStarts: with a host that does not answer, but not with a store
// that is damaged.
func TestControllerStarts(t *testing.T) {
	t.Parallel()
	slow(t)
	r := newRig(t, options{})
	p := r.vm(t, "web", mib)
	r.home.daemon.Signal(syscall.SIGTERM)
	if res := r.home.daemon.Wait(); res.Code != 0 {
		t.Errorf("SIGTERM: exit code %d\n%s", res.Code, res.Stderr)
	}
	r.dr.vs.Down()
	r.home.start(t, anyPort)
	cmdtest.Await(t, "the log to tell of the host", func() bool { return strings.Contains(r.home.daemon.Stderr(), "host does not answer") })
	if known := r.pairOf(t, "web"); known.State != failback.Failover {
		t.Errorf("%+v", known)
	}
	res := r.home.Run("failback", "plan", "web")
	if res.Code == 0 || !strings.Contains(res.Out+res.Stderr, "host dr") {
		t.Errorf("a plan without the host: exit code %d\n%s%s", res.Code, res.Out, res.Stderr)
	}
	up(t, r.dr.vs)
	r.home.OK("failback", "plan", p.name)
	r.home.kill()
	file := filepath.Join(r.home.State, "failback.db")
	if err := os.WriteFile(file, []byte("not a store"), 0o600); err != nil {
		t.Fatal(err)
	}
	res = programs.Run(t, "haulbackd", "run", "--config", filepath.Join(r.home.Dir, "haulbackd.toml"))
	for _, w := range []string{"the failback store " + file, "left as it is", "restore it from a backup", "look at each VM"} {
		if res.Code == 0 || !strings.Contains(res.Stderr, w) {
			t.Errorf("exit code %d, and %q is not in\n%s", res.Code, w, res.Stderr)
		}
	}
}

// TestHooksAndRecord: a failback by the command line, with the site's programs
// around its steps; a reload changes them; its record is signed.
func TestHooksAndRecord(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	script := func(word string) string {
		return `["/bin/sh", "-c", "echo ` + word + ` $HAULBACK_WHEN$HAULBACK_ACTION $HAULBACK_STEP $HAULBACK_VM >>` + out + `"]`
	}
	r := newRig(t, options{tables: "[replication]\nhold = " + script("rep") + "\nrelease = " + script("rep") + "\n[[hook]]\nname = \"dns\"\nsteps = [4, \"power-on\"]\nwhen = \"after\"\ncommand = " + script("dns") +
		"\n[[hook]]\nname = \"stop\"\nsteps = [\"final-pass\"]\nwhen = \"before\"\ncommand = [\"/bin/sh\", \"-c\", \"echo no way; exit 1\"]\n"})
	p := r.vm(t, "web", mib)
	res := r.home.Run("--json", "failback", "start", "web", "--yes", "--switch", "now", "--grace", "0", "--power-on", "--id", "first")
	if res.Code != 3 || !strings.Contains(res.Out+res.Stderr, "no way") {
		t.Fatalf("a hook that fails: exit code %d, want 3\n%s%s", res.Code, res.Out, res.Stderr)
	}
	s := r.status(t.Context(), "first")
	if s == nil || s.Halted == nil || s.Halted.Reason != failback.ReasonHook || s.Halted.Number != 6 {
		t.Fatalf("%+v", s)
	}
	metrics := func() string {
		return cmdtest.Scrape(t, filepath.Join(r.home.State, "control.sock"), "http://haulback/metrics")
	}
	told := func(when string, want ...string) {
		t.Helper()
		now := metrics()
		for _, line := range want {
			if !strings.Contains(now, "\n"+line) {
				t.Errorf("metrics %s have no %q:\n%s", when, line, ours(now))
			}
		}
	}
	told("of a halted failback", "haulback_failback_halted{reason=\""+failback.ReasonHook+"\",step=\"final-pass\",vm=\"web\"} 1\n", "haulback_vms{state=\"failover\"} 1\n",
		"haulback_vsphere_calls_total{class=\"ok\",host=\"home\",method=\"Login\"} ", "haulback_vsphere_calls_total{class=\"ok\",host=\"dr\",method=\"PowerOffVM_Task\"} 1\n")
	file := filepath.Join(r.home.Dir, "haulbackd.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "exit 1", "exit 0", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.home.daemon.Signal(syscall.SIGHUP)
	cmdtest.Await(t, "the reload", func() bool { return strings.Contains(r.home.daemon.Stderr(), "configuration reloaded") })
	if log := r.home.daemon.Stderr(); strings.Contains(log, "needs a restart") {
		t.Error("a change of hooks is said to need a restart")
	}
	r.home.OK("failback", "continue", "web")
	same(t, "the VM at home and its replica", p.home(t), p.away(t))
	r.home.OK("failback", "commit", "web", "--yes")
	told("after a failback", "haulback_vms{state=\"ready\"} 1\n", "haulback_failbacks{activity=\"switching\"} 0\n", "haulback_store_up{store=\"failbacks\"} 1\n")
	if now := metrics(); strings.Contains(now, "\nhaulback_failback_halted{") {
		t.Errorf("a failback that is over is halted:\n%s", ours(now))
	}
	want := "dns after power-off-replica web\nrep hold web\ndns after power-on web\nrep release web\n"
	if b, err := os.ReadFile(out); err != nil || strings.ReplaceAll(string(b), "  ", " ") != want {
		t.Errorf("called %q, %v, want %q", b, err, want)
	}
	verify := r.home.OK("--json", "record", "verify", filepath.Join(r.home.State, "records", "first.json"))
	var last map[string]any
	for line := range strings.Lines(verify.Out) {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatal(err)
		}
	}
	if len(last) == 0 {
		t.Errorf("record verify: %s", verify.Out)
	}
}

// ours are the lines of a scrape that are not Go's or the process's.
func ours(scrape string) string {
	var b strings.Builder
	for line := range strings.Lines(scrape) {
		if strings.HasPrefix(line, "haulback_") {
			b.WriteString(line)
		}
	}
	return b.String()
}
