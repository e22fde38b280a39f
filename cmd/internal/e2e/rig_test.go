package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// process is a running program. Whatever a test does, it does not outlive it.
type process struct {
	*cmdtest.Process
	result *cmdtest.Result // nil: not waited for yet
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{Process: programs.StartEnv(t, []string{"HAULBACK_PROGRESS_FPS=20"}, name, args...)}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() && name == "haulbackd" {
			t.Logf("log of the daemon:\n%s", withoutProbes(p.Stderr()))
		}
	})
	return p
}

// wait is how p ended; cmdtest.Deadline bounds it.
func (p *process) wait() cmdtest.Result {
	if p.result == nil {
		r := p.Wait()
		p.result = &r
	}
	return *p.result
}

// kill is kill -9.
func (p *process) kill() {
	if p.result == nil {
		_ = p.Cmd.Process.Kill() // it may have ended by itself
		p.wait()
	}
}

// line is one JSON line of either program.
type line map[string]any

func (l line) text(key string) string { s, _ := l[key].(string); return s }
func (l line) bytes(key string) int64 { n, _ := l[key].(float64); return int64(n) }

// lines parses what is complete of text.
func lines(t *testing.T, text string) (all []line) {
	t.Helper()
	for s := range strings.Lines(text) {
		var l line
		if !strings.HasSuffix(s, "\n") {
			break // a process that was killed, or writes just now
		}
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		all = append(all, l)
	}
	return all
}

// last is the last line of that type, or nil.
func last(t *testing.T, text, kind string) line {
	t.Helper()
	for {
		at := strings.LastIndex(text, `"message_type":"`+kind+`"`)
		if at < 0 {
			break
		}
		begin := strings.LastIndexByte(text[:at], '\n') + 1
		if end := strings.IndexByte(text[at:], '\n'); end >= 0 { // else it is being written
			return lines(t, text[begin:at+end+1])[0]
		}
		text = text[:begin]
	}
	return nil
}

// rig is a desk, where copies start, and a home, whose daemon has the targets.
type rig struct {
	desk, home *cmdtest.Site
	config     string // all but the address
}

// newRig pairs a desk with a home, whose daemon is configured by exports and
// other tables.
func newRig(t *testing.T, tables ...string) *rig {
	t.Helper()
	r := &rig{desk: cmdtest.NewSite(t, &programs, "desk"), home: cmdtest.NewSite(t, &programs, "home")}
	r.desk.Pair(r.home)
	r.config = strings.Join(tables, "")
	return r
}

// target is the table of an export that the desk may overwrite.
func target(name, path string) string {
	return "[[export]]\nname = \"" + name + "\"\nuri = \"" + path + "\"\nrole = \"target\"\npeers = [\"desk\"]\n"
}

// daemon is a running haulbackd.
type daemon struct {
	*process
	listen string
}

var readyLine = regexp.MustCompile(`"msg":"haulbackd ready".*"listen":"([^"]+)"`)

// anyPort is the site's own address, at which the kernel chooses the port.
const anyPort = ""

// daemon starts the daemon of home. At an address that was in use before it
// tries again when somebody else was given the port in the meantime.
func (r *rig) daemon(t *testing.T, listen string, tables ...string) *daemon {
	t.Helper()
	file := filepath.Join(t.TempDir(), "haulbackd.toml")
	if listen == anyPort {
		listen = r.home.AnyPort
	}
	text := "listen = \"" + listen + "\"\nstate_dir = \"" + r.home.State + "\"\n" + r.config + strings.Join(tables, "")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{process: start(t, "haulbackd", "run", "--config", file)}
	cmdtest.Await(t, "the daemon to be ready", func() bool {
		if m := readyLine.FindStringSubmatch(d.Stderr()); m != nil {
			d.listen = m[1]
		} else if d.Refused() {
			if r := d.wait(); !strings.Contains(r.Stderr, "in use") {
				t.Fatalf("daemon at %s: exit code %d\n%s", listen, r.Code, r.Stderr)
			}
			d.process = start(t, "haulbackd", "run", "--config", file)
		}
		return d.listen != ""
	})
	return d
}

// stop is SIGTERM, which has to work: all that is durable is said to be. A drain that
// takes too long has another exit code.
func (d *daemon) stop(t *testing.T) (log string) {
	t.Helper()
	d.Signal(syscall.SIGTERM)
	r := d.wait()
	if r.Code != 0 {
		t.Errorf("SIGTERM: exit code %d, want 0\n%s", r.Code, r.Stderr)
	}
	return r.Stderr
}

func (d *daemon) uri(export string) string {
	return "haulback://" + d.listen + "/" + export + "?peer=home"
}

// copy starts a copy from the desk.
func (r *rig) copy(t *testing.T, from, to string, args ...string) *process {
	t.Helper()
	return start(t, "haulback", append([]string{"--state-dir", r.desk.State, "--json", "copy", from, to}, args...)...)
}

// probe is what haulback says of a disk: of an export, asked from the desk, or
// of a disk here, with the journals of home: nil for a disk in use. A daemon that is
// too busy to shake hands is asked again.
func (r *rig) probe(t *testing.T, disk string) line {
	t.Helper()
	state := r.home.State
	if strings.HasPrefix(disk, "haulback:") {
		state = r.desk.State
	}
	var p cmdtest.Result
	cmdtest.Await(t, "an answer about "+disk, func() bool {
		p = start(t, "haulback", "--state-dir", state, "--json", "probe", disk).wait()
		return p.Code != 13
	})
	if p.Code == 11 || strings.Contains(p.Stderr, "locked") {
		return nil
	}
	all := lines(t, p.Out)
	if p.Code != 0 || len(all) != 1 {
		t.Fatalf("probe %s: exit code %d\n%s%s", disk, p.Code, p.Out, p.Stderr)
	}
	return all[0]
}

// probeFree is probe of a disk that its daemon is about to let go.
func (r *rig) probeFree(t *testing.T, disk string) (s line) {
	t.Helper()
	began := time.Now()
	cmdtest.Await(t, disk+" to be free", func() bool {
		s = r.probe(t, disk)
		return s != nil
	})
	if took := time.Since(began); took > 3*time.Second {
		t.Logf("the daemon kept %s for %v after the copy", disk, took.Round(time.Millisecond))
	}
	return s
}

// wantVerified checks everything that a copy that ended well has to say.
func wantVerified(t *testing.T, p *process) line {
	t.Helper()
	r := p.wait()
	sum := last(t, r.Out, "summary")
	if r.Code != 0 || sum.text("state") != "Verified" || sum["equal"] != true || sum.bytes("bad_grains") != 0 {
		t.Fatalf("exit code %d, summary %v; want 0 and Verified\n%s", r.Code, sum, r.Stderr)
	}
	return sum
}

// wantEnd checks the code of a copy that has to fail, and that its last words
// name what has to be named.
func wantEnd(t *testing.T, p *process, code int, words ...string) {
	t.Helper()
	r := p.wait()
	text := last(t, r.Stderr, "exit_error").text("text")
	if r.Code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.Code, code, r.Out, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("message lacks %q: %s", w, text)
		}
	}
	if strings.Contains(r.Out, `"state":"Verified"`) {
		t.Errorf("says Verified and fails:\n%s", r.Out)
	}
}

// withoutProbes takes out of a daemon's log what only tells of probes.
func withoutProbes(log string) string {
	var kept []string
	for s := range strings.Lines(log) {
		if !strings.Contains(s, `"run":"00000000`) {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, "")
}
