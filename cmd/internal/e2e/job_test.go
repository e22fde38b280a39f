package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// jobSite is a site with a daemon that runs jobs.
type jobSite struct {
	*cmdtest.Site
	d      *cmdtest.Daemon
	tables []string
}

func newJobSite(t *testing.T, name string, tables ...string) *jobSite {
	t.Helper()
	return &jobSite{Site: cmdtest.NewSite(t, &programs, name)}
}

func (s *jobSite) up(tables ...string) *jobSite {
	s.tables = tables
	s.d = s.Daemon(tables...)
	return s
}

// crash is kill -9, and a start without another word.
func (s *jobSite) crash(t *testing.T) {
	t.Helper()
	if err := s.d.Cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.d.Wait()
	s.d = s.DaemonAt(s.d.Listen, s.tables...)
}

// get is the job as "job get --json" has it.
func (s *jobSite) get(t *testing.T, id string) line {
	t.Helper()
	return last(t, s.OK("--json", "job", "get", id).Out, "job")
}

func (s *jobSite) disk(t *testing.T, id string, i int) line {
	t.Helper()
	return line(s.get(t, id)["disks"].([]any)[i].(map[string]any))
}

// await polls until the job is in the phase; one that fails first ends the test.
func (s *jobSite) await(t *testing.T, id, phase string) line {
	t.Helper()
	var j line
	cmdtest.Await(t, "job "+id+" to be "+phase, func() bool {
		j = s.get(t, id)
		if p := j.text("phase"); p != phase && (p == "Failed" || p == "Completed" || p == "Canceled") {
			t.Fatalf("job %s is %s, want %s: %v", id, p, phase, j)
		}
		return j.text("phase") == phase
	})
	return j
}

// seen waits until the first disk of a job is where the test wants it. It asks without
// a program, which may take longer to start than the job has left.
func (s *jobSite) seen(t *testing.T, id string, ok func(*controlv1.Counters) bool) {
	t.Helper()
	jobs := controlv1.NewJobsClient(s.client())
	cmdtest.Await(t, "job "+id+" to move", func() bool {
		res, err := jobs.Get(t.Context(), &controlv1.GetRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		if res.Job.Phase == controlv1.Phase_PHASE_FAILED {
			t.Fatalf("job %s failed: %v", id, res.Job)
		}
		return ok(res.Job.Disks[0].GetOutcome().GetCounters())
	})
}

// moved waits until n bytes of the first disk are settled.
func (s *jobSite) moved(t *testing.T, id string, n int64) {
	t.Helper()
	s.seen(t, id, func(c *controlv1.Counters) bool { return c.GetVerifiedBytes() >= n })
}

// hold limits a job so that it does not end before it is let go by "job limits".
func (s *jobSite) hold(t *testing.T, id string) {
	t.Helper()
	_, err := controlv1.NewJobsClient(s.client()).SetLimits(t.Context(), &controlv1.SetLimitsRequest{Id: id, Limits: &controlv1.Limits{WireBytes: 256 << 10}})
	if err != nil {
		t.Fatal(err)
	}
}

// TestJobs: handed in by curl and by the command line, pushed, pulled, and
// ordered from one daemon to another. cmp is the judge.
func TestJobs(t *testing.T) {
	t.Parallel()
	desk, home, dr := newJobSite(t, "desk"), newJobSite(t, "home"), newJobSite(t, "dr")
	desk.Pair(home.Site, dr.Site)
	home.Pair(dr.Site)
	a, b, c := desk.Disk("a", 5*mib+4096, 1), home.Disk("b", 6*mib, 2), dr.Disk("c", 7*mib, 3)
	home.up(cmdtest.Export("in", "file://"+b, "target", desk.Site), cmdtest.Export("out", "file://"+b, "source", desk.Site))
	dr.up(cmdtest.Export("in", "file://"+c, "target", home.Site))
	desk.up(cmdtest.Export("own", "file://"+a, "source"))

	spec := fmt.Sprintf(`{"id":"push","spec":{"mode":"MODE_COPY","disks":[{"name":"vda","source":"export:own","target":%q}]}}`, home.d.URI("in"))
	out, err := exec.CommandContext(t.Context(), "curl", "--fail-with-body", "-sS", "--unix-socket", desk.State+"/control.sock",
		"-H", "Content-Type: application/json", "-d", spec, "http://haulback/haulback.v1.Jobs/Submit").CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	r := desk.OK("job", "watch", "push")
	if !strings.Contains(r.Out, "Verified: ") || !strings.Contains(r.Out, "1.0 MiB longer") && !strings.Contains(r.Out, "longer than the source") {
		t.Errorf("watch says:\n%s%s", r.Out, r.Stderr)
	}
	sameBytes(t, a, b)

	back := filepath.Join(desk.Dir, "back")
	desk.OK("job", "submit", "--id", "pull", home.d.URI("out"), back, "--create", "--wait", "--transport", "tls")
	cmdtest.MustEqual(t, b, back)
	if d := desk.disk(t, "pull", 0); !d["is_verified"].(bool) || d.text("state") != "Verified" {
		t.Errorf("pull: %v", d)
	}

	r = desk.OK("job", "submit", "--id", "order", home.d.URI("out"), dr.d.URI("in"), "--wait", "--verify", "full")
	sameBytes(t, b, c)
	if r := desk.Run("job", "submit", "--mode", "verify", back, a, "--wait"); r.Code != 4 {
		t.Errorf("a verify of two disks that differ: exit code %d: %s", r.Code, r.Stderr)
	}
	desk.OK("job", "submit", "--mode", "verify", home.d.URI("out"), back, "--wait")
}

// sameBytes compares as cmp does, up to the end of a.
func sameBytes(t *testing.T, a, b string) {
	t.Helper()
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err1 != nil || err2 != nil || len(y) < len(x) || !bytes.Equal(x, y[:len(x)]) {
		t.Fatalf("cmp %s %s: they differ (%v, %v)", a, b, err1, err2)
	}
}

// TestJobKilled: the daemon is killed in the middle of a job, by kill -9 and by
// SIGTERM. It goes on without being asked, in the same run, and whoever watches
// sees it through.
func TestJobKilled(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"killed", "drained"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			const size = 160 * mib
			desk, home := newJobSite(t, "desk"), newJobSite(t, "home")
			desk.Pair(home.Site)
			a, b := desk.Disk("a", size, 1), home.Disk("b", size, 0)
			home.up(cmdtest.Export("b", "file://"+b, "target", desk.Site))
			desk.up()
			desk.OK("job", "submit", "--id", "j", a, home.d.URI("b"), "--rate", "8MiB")
			watch := desk.Start("--json", "job", "watch", "j")
			desk.moved(t, "j", 100*mib)
			desk.hold(t, "j")
			before := desk.disk(t, "j", 0)
			if how == "killed" {
				desk.crash(t)
			} else {
				desk.d.Signal(syscall.SIGTERM)
				if r := desk.d.Wait(); r.Code != 0 {
					t.Errorf("a drained daemon: exit code %d", r.Code)
				}
				desk.d = desk.DaemonAt(desk.d.Listen)
			}
			desk.OK("job", "limits", "j")
			r := watch.Wait()
			if r.Code != 0 {
				t.Fatalf("watch: exit code %d\n%s%s", r.Code, r.Out, r.Stderr)
			}
			cmdtest.MustEqual(t, a, b)
			after := desk.disk(t, "j", 0)
			sum := last(t, r.Out, "summary")
			if after.text("run") != before.text("run") || after.bytes("starts") != 2 || sum.text("state") != "Verified" || sum.text("run") != before.text("run") {
				t.Errorf("before %v\nafter %v\nsummary %v", before, after, sum)
			}
			t.Logf("%s at %d MiB: %d MiB were there, %d MiB sent by the second start", how, before.bytes("verified")>>20, after.bytes("had")>>20, after.bytes("sent")>>20)
			if most := size - before.bytes("verified") + 96*mib; after.bytes("sent") > most {
				t.Errorf("the second start sent %d bytes, at most %d may be", after.bytes("sent"), most)
			}
		})
	}
}

// TestJobSteered: pause, resume and cancel at moments that a seed draws.
func TestJobSteered(t *testing.T) {
	t.Parallel()
	s := newJobSite(t, "desk").up()
	const size = 24 * mib
	a := s.Disk("a", size, 1)
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 6 {
		id, target := fmt.Sprintf("j%d", i), s.Disk(fmt.Sprintf("t%d", i), size, 0)
		// --rate would not hold a copy within one machine, and what is verified
		// shows only with a checkpoint. At this rate the job has 24 s more than it
		// needs; it is let go when it has been steered.
		s.OK("job", "submit", "--id", id, a, target, "--read-rate", "1MiB")
		n := rng.Int64N(2 * mib)
		s.seen(t, id, func(c *controlv1.Counters) bool { return c.GetScannedBytes() >= n })
		if i%2 == 0 {
			s.OK("job", "pause", id)
			s.await(t, id, "Paused")
			s.OK("probe", target) // its journal and the disk are free
			if r := s.Run("verify", target, target+"x"); r.Code == 11 {
				t.Errorf("the disk of a paused job is held: %s", r.Stderr)
			}
			s.OK("job", "limits", id)
			s.OK("job", "resume", id)
			s.OK("job", "watch", id)
			cmdtest.MustEqual(t, a, target)
			continue
		}
		s.OK("job", "cancel", id)
		if r := s.Run("job", "watch", id); r.Code == 0 { // it was faster
			cmdtest.MustEqual(t, a, target)
		} else if r.Code != 130 {
			t.Errorf("watch of a canceled job: exit code %d: %s", r.Code, r.Stderr)
		}
		if r := s.Run("job", "resume", id); r.Code != 11 {
			t.Errorf("resume of a canceled job: exit code %d: %s", r.Code, r.Stderr)
		}
		s.OK("job", "submit", "--id", id+"b", a, target, "--wait")
		cmdtest.MustEqual(t, a, target)
		s.OK("job", "remove", id)
		if r := s.Run("job", "get", id); r.Code != 10 {
			t.Errorf("a job that was removed: exit code %d: %s", r.Code, r.Stderr)
		}
	}
}

// TestJobRefused: what is wrong is said at once, by the exit codes of the table.
func TestJobRefused(t *testing.T) {
	t.Parallel()
	s := newJobSite(t, "desk")
	a, b := s.Disk("a", mib, 1), s.Disk("b", mib, 2)
	if err := os.Symlink(a, s.Dir+"/link"); err != nil {
		t.Fatal(err)
	}
	s.up("[jobs]\nallow = [\"" + s.Dir + "/*\"]\n")
	s.OK("job", "submit", "--id", "j", a, b, "--wait")
	if out := s.OK("job", "submit", "--id", "j", a, b).Out; !strings.Contains(out, "existed j") {
		t.Errorf("the same job again: %s", out)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"another job", []string{"submit", "--id", "j", a, b, "--verify", "full"}, 10, "digest"},
		{"bad ID", []string{"submit", "--id", "a b", a, b}, 10, "a b"},
		{"no such job", []string{"get", "nope"}, 10, "nope"},
		{"ended", []string{"pause", "j"}, 11, "Completed"},
		{"same disk", []string{"submit", a, a}, 10, "disks[0].target too"},
		{"same disk by a link", []string{"submit", a, s.Dir + "/link"}, 10, "same disk"},
		{"scheme", []string{"submit", a, "s3://x/y"}, 10, "s3"},
		{"not allowed", []string{"submit", a, "/etc/hostname"}, 12, "allow"},
		{"not allowed by a link", []string{"submit", a, s.Dir + "/../../../../../../etc/hostname"}, 12, "allow"},
		{"no export", []string{"submit", "export:none", b}, 10, "none"},
		{"no target", []string{"submit", a, s.Dir + "/none", "--wait"}, 10, "--create"},
		{"too small", []string{"submit", s.Disk("large", 2*mib, 3), b, "--wait"}, 10, "at least as large"},
		{"no spec", []string{"submit", "--spec", s.Dir + "/none"}, 10, "--spec"},
		{"no socket", []string{"list", "--socket", s.Dir + "/none.sock"}, 13, "none.sock"},
		{"certificates", []string{"list", "--control", "https://127.0.0.1:1"}, 10, "--cert"},
		{"URL", []string{"list", "--control", "http://127.0.0.1:1"}, 10, "https://"},
	} {
		r := s.Run(append([]string{"job"}, c.args...)...)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", c.name, r.Code, c.code, c.want, r.Stderr)
		}
	}
}

// TestJobPartly: of three disks one has bad sectors and one is not there. The
// job is Failed, says which, and what is done is done. It is never Completed.
func TestJobPartly(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	s := newJobSite(t, "desk").up()
	a, b, bad := s.Disk("a", 3*mib, 1), s.Disk("b", 3*mib, 2), s.Disk("bad", 3*mib, 3)
	sick := nbdtest.Unix(t, "nbdkit", "-f", "-r", "eval", "get_size=echo 3145728",
		"pread=if [ $4 -lt 1114112 ] && [ $(($4 + $3)) -gt 1048576 ]; then echo EIO >&2; exit 1; fi; "+
			"dd if="+s.Disk("c", 3*mib, 4)+" bs=64K skip=$4 count=$3 iflag=skip_bytes,count_bytes 2>/dev/null")
	spec := fmt.Sprintf(`{"mode":"MODE_COPY","disks":[{"name":"good","source":%q,"target":%q},{"name":"sick","source":%q,"target":%q},{"name":"gone","source":%q,"target":%q}]}`,
		a, b, sick.URI, bad, s.Dir+"/none", s.Dir+"/none2")
	file := filepath.Join(s.Dir, "spec.json")
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.Run("job", "submit", "--id", "j", "--spec", file, "--wait")
	j := s.get(t, "j")
	if r.Code == 0 || j.text("phase") != "Failed" || !strings.Contains(r.Stderr, "sick: ") || !strings.Contains(r.Stderr, "gone: ") {
		t.Errorf("exit code %d, %v\n%s", r.Code, j, r.Stderr)
	}
	cmdtest.MustEqual(t, a, b)
	for i, want := range []struct {
		phase, reason string
		verified      bool
	}{{"Completed", "", true}, {"Failed", "STORAGE", false}, {"Failed", "ENDPOINT_INVALID", false}} {
		d := s.disk(t, "j", i)
		f, _ := d["failure"].(map[string]any)
		if d.text("phase") != want.phase || line(f).text("reason") != want.reason || d["is_verified"] != want.verified {
			t.Errorf("disk %d: %v, want %+v", i, d, want)
		}
	}
}

// TestJobShares: the limit of a job is one for all of its disks. Time has only a
// lower bound here: a slow machine keeps it as well.
func TestJobShares(t *testing.T) {
	t.Parallel()
	s := newJobSite(t, "desk").up()
	a, b := s.Disk("a", 8*mib, 1), s.Disk("b", 8*mib, 2)
	spec := fmt.Sprintf(`{"mode":"MODE_COPY","limits":{"readBytes":"4194304"},"disks":[{"source":%q,"target":%q},{"source":%q,"target":%q}]}`,
		a, s.Disk("c", 8*mib, 0), b, s.Disk("d", 8*mib, 0))
	file := filepath.Join(s.Dir, "spec.json")
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	s.OK("job", "submit", "--id", "j", "--spec", file, "--wait")
	j := s.get(t, "j")
	began, err1 := time.Parse(time.RFC3339Nano, j.text("started"))
	ended, err2 := time.Parse(time.RFC3339Nano, j.text("ended"))
	if took := ended.Sub(began); err1 != nil || err2 != nil || took < 3*time.Second {
		t.Errorf("16 MiB read at 4 MiB per second in %v (%v, %v)", took, err1, err2)
	}
}

// TestJobHeld: an export in use by a session and a job do not get one disk both,
// whoever comes first.
func TestJobHeld(t *testing.T) {
	t.Parallel()
	desk, home := newJobSite(t, "desk"), newJobSite(t, "home")
	desk.Pair(home.Site)
	a, b := desk.Disk("a", 32*mib, 1), home.Disk("b", 32*mib, 0)
	other := home.Disk("other", 32*mib, 2)
	home.up(cmdtest.Export("b", "file://"+b, "target", desk.Site))
	push := desk.Start("--json", "copy", a, home.d.URI("b"), "--rate", "256KiB") // two minutes: nobody waits for its end
	cmdtest.Await(t, "the copy to move", func() bool { return last(t, push.Stdout(), "status").bytes("sent") > 0 })
	for _, name := range []string{b, "export:b"} {
		if r := home.Run("job", "submit", other, name, "--wait"); r.Code != 11 {
			t.Errorf("a job to %s in use by a session: exit code %d: %s", name, r.Code, r.Stderr)
		}
	}
	push.Signal(syscall.SIGINT)
	push.Wait()
	home.OK("job", "submit", "--id", "j", other, "export:b", "--rate", "256KiB")
	home.moved(t, "j", 1)
	if r := desk.Run("copy", a, home.d.URI("b"), "--retry", "0s"); r.Code != 11 {
		t.Errorf("a session for the disk of a job: exit code %d: %s", r.Code, r.Stderr)
	}
	if r := home.Run("job", "limits", "j", "--window", "Mon 8-18 1MiB"); r.Code != 10 || !strings.Contains(r.Stderr, "--window") {
		t.Errorf("a window that is none: exit code %d: %s", r.Code, r.Stderr)
	}
	home.OK("job", "limits", "j", "--rate", "256KiB", "--window", "00:00-24:00 unlimited") // now, that is
	home.OK("job", "watch", "j")
	cmdtest.MustEqual(t, other, b)
}

// api calls the control API of s as curl would.
func (s *jobSite) api() func(method, body string) (map[string]any, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.State+"/control.sock")
	}}}
	return func(method, body string) (map[string]any, error) {
		r, err := client.Post("http://haulback/haulback.v1."+method, "application/json", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err == nil && r.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %s", method, r.Status, text)
		}
		out := map[string]any{}
		if err == nil {
			err = json.Unmarshal(text, &out)
		}
		return out, err
	}
}

// TestJobPeerRemoved: a job has no link any more to a peer that was removed.
func TestJobPeerRemoved(t *testing.T) {
	t.Parallel()
	desk, home := newJobSite(t, "desk"), newJobSite(t, "home")
	desk.Pair(home.Site)
	a, b := desk.Disk("a", 64*mib, 1), home.Disk("b", 64*mib, 0)
	home.up(cmdtest.Export("b", "file://"+b, "target", desk.Site))
	desk.up()
	desk.OK("job", "submit", "--id", "j", a, home.d.URI("b"), "--rate", "1MiB")
	desk.moved(t, "j", mib)
	desk.OK("peer", "remove", "home")
	desk.d.Signal(syscall.SIGHUP)
	j := desk.await(t, "j", "Failed")
	if f := line(j["failure"].(map[string]any)); f.text("reason") != "AUTH" && f.text("reason") != "INCOMPLETE" {
		t.Errorf("failure %v", f)
	}
}
