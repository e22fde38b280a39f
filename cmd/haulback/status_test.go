package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// TestStatusPlain: without a terminal each thing is a line, once, and the exit
// code is 0 whatever stands there.
func TestStatusPlain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	if r := programs.Run(t, "haulback", "status", "--socket", f.socket); r.Code != 0 || !strings.HasPrefix(r.Out, "daemon "+f.socket+": ready, v9") || strings.Count(r.Out, "\n") != 1 {
		t.Errorf("an empty daemon: exit code %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	f.set("web-1", func(s *failback.Status) {
		s.Halted = &failback.Halt{Step: "final-pass", Number: 6, Reason: "STORAGE", Text: "\x1b[2Jno space", Remedy: "free some", At: time.Now()}
	})
	f.set("old", func(s *failback.Status) {
		s.Activity, s.Ended = failback.Committed, time.Now().Add(-48*time.Hour)
	})
	r := programs.Run(t, "haulback", "status", "--socket", f.socket)
	for _, want := range []string{"failback web HALTED: web STANDS STILL at step 6", "remedy web: free some.", "type web: haulback failback continue web"} {
		if !strings.Contains(r.Out, "\n"+want) {
			t.Errorf("no line begins with %q:\n%s", want, r.Out)
		}
	}
	if r.Code != 0 || strings.ContainsAny(r.Out, "\x1b\r") || strings.Contains(r.Out, "old") {
		t.Errorf("exit code %d: %q", r.Code, r.Out)
	}
	for _, args := range [][]string{{"status"}, {"status", "--plain"}, {"--json", "status"}} {
		r := programs.Run(t, "haulback", append(args, "--socket", f.socket+"x")...)
		if r.Code != 13 || !strings.Contains(r.Stderr, f.socket+"x") || !strings.Contains(r.Stderr, "start haulbackd") {
			t.Errorf("%q without a daemon: exit code %d: %s", args, r.Code, r.Stderr)
		}
	}
}

// restored fails when the terminal is not as haulback found it.
func (s *session) restored() {
	s.t.Helper()
	if now := s.modes(); now != s.before {
		s.t.Errorf("the terminal's modes are %+v and were %+v", now, s.before)
	}
	text := s.shown()
	for on, off := range map[string]string{"\x1b[?1049h": "\x1b[?1049l", "\x1b[?25l": "\x1b[?25h", "\x1b[?2004h": "\x1b[?2004l"} {
		if i, k := strings.LastIndex(text, on), strings.LastIndex(text, off); i < 0 || k < i {
			s.t.Errorf("%q is at %d and %q at %d of %q", on, i, off, k, text)
		}
	}
}

var fullTerm = []string{"TERM=xterm-256color", "LANG=C.UTF-8"}

// draws waits for a text on a screen of which only what changes is drawn: it has
// the screen drawn anew until it is there.
func (s *session) draws(what string) {
	s.t.Helper()
	from := len(s.shown())
	width, next := uint16(100), time.Time{}
	cmdtest.Await(s.t, what, func() bool {
		if time.Now().After(next) {
			width, next = 201-width, time.Now().Add(300*time.Millisecond)
			s.size(width, 24)
		}
		return strings.Contains(s.shown()[from:], what)
	})
}

// TestStatusEnds: in whatever way the view ends, the terminal is as before and
// the daemon was asked nothing.
func TestStatusEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*session)
		code int
	}{
		{"q", func(s *session) { s.types("q") }, 0},
		{"Ctrl-C", func(s *session) { s.types("\x03") }, 0},
		{"SIGTERM", func(s *session) { check(s.t, s.cmd.Process.Signal(syscall.SIGTERM)) }, 130},
		{"SIGHUP", func(s *session) { check(s.t, s.cmd.Process.Signal(syscall.SIGHUP)) }, 130},
		{"asked", func(s *session) { s.types("c"); s.draws("Type web"); s.types("web\x03") }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.set("web-1", func(s *failback.Status) { s.Activity, s.State = failback.Deciding, failback.Failback })
			s := atTerminalOf(t, fullTerm, "status", "--socket", f.socket)
			s.draws("commit or undo")
			if s.modes().Lflag&unix.ICANON != 0 {
				t.Error("the terminal is not raw")
			}
			c.end(s)
			if code := s.end(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if s.restored(); len(f.said()) > 0 {
				t.Errorf("asked of the daemon: %q", f.said())
			}
		})
	}
}

// TestStatusKeys: a key that was confirmed is one call, about the revision that
// was shown; a caller who may only look is told so.
func TestStatusKeys(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set("web-1", func(s *failback.Status) { s.Activity, s.State = failback.Deciding, failback.Failback })
	f.offer(func() { f.denied = "viewer may only look" })
	s := atTerminalOf(t, fullTerm, "status", "--socket", f.socket)
	s.draws("commit or undo")
	s.types("u")
	s.draws("is LOST")
	s.types("web\r\r")
	s.draws("undo of web: NOT done: viewer may only look")
	f.offer(func() { f.denied = "" })
	s.types("\r") // back from the details, which the second Enter has opened
	s.types("c")
	s.draws("cannot be undone any more")
	s.types("web\r")
	s.draws("commit of web: web is")
	s.draws("home for good")
	s.types("q")
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.restored()
	f.offer(func() {
		if strings.Join(f.asked, ",") != "undo,commit" || f.expected == 0 {
			t.Errorf("asked %q at revision %d", f.asked, f.expected)
		}
	})
}

// TestStatusJob: of a job, whose verbs have no revision, is looked first whether
// it is what was shown.
func TestStatusJob(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	j := job.Job{ID: "nightly", Owner: "uid 0", Phase: job.InProgress, Created: time.Now(), Started: time.Now(), Spec: job.Spec{Mode: job.Copy, Disks: []job.Disk{{Name: "d", Source: "a", Target: "b"}}}, Disks: []job.DiskStatus{{Name: "d", Run: uuid.NewString(), Phase: job.InProgress, Starts: 1}}}
	f.offer(func() { f.jobs = append(f.jobs, jobpb.FromJob(&j)) })
	s := atTerminalOf(t, fullTerm, "status", "--socket", f.socket)
	s.draws("nightly")
	s.types("p")
	s.draws("Pause job nightly?")
	f.offer(func() {
		other := j
		other.Phase = job.Canceling
		f.jobs = []*controlv1.Job{jobpb.FromJob(&other)}
	})
	s.types("yes\r")
	s.draws("NOT done: it has changed meanwhile")
	f.offer(func() { f.jobs = []*controlv1.Job{jobpb.FromJob(&j)} })
	s.types("p")
	s.draws("Pause job nightly?")
	s.types("yes\r")
	s.draws("pause of nightly: Job nightly")
	s.types("q")
	if code := s.end(); code != 0 || strings.Join(f.said(), ",") != "pause nightly" {
		t.Errorf("exit code %d, asked %q", code, f.said())
	}
}

// TestStatusSuspended: Ctrl-Z gives the terminal to the shell, and fg the view.
func TestStatusSuspended(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := programAt(t, fullTerm, "/bin/sh", "-mc", programs.Path(t, "haulback")+" status --socket "+f.socket+"; echo put away; read x; fg >/dev/null; echo code $?")
	s.draws("No job and no failback")
	s.types("\x1a")
	s.await("put away")
	s.restored()
	s.types("\r")
	cmdtest.Await(t, "the view to be back", func() bool { return strings.Count(s.shown(), "\x1b[?1049h") == 2 })
	s.draws("No job and no failback")
	s.types("q")
	s.await("code 0")
	s.end()
	s.restored()
}

// TestStatusNotSuspended: where no shell could continue the view, the kernel does
// not stop it, and it comes back by itself.
func TestStatusNotSuspended(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := atTerminalOf(t, fullTerm, "status", "--socket", f.socket)
	s.draws("No job and no failback")
	for n, suspend := range []func(){func() { s.types("\x1a") }, func() { check(t, s.cmd.Process.Signal(syscall.SIGTSTP)) }} {
		suspend()
		cmdtest.Await(t, "the view to be back", func() bool { return strings.Count(s.shown(), "\x1b[?1049h") == n+2 })
		s.draws("No job and no failback")
	}
	s.types("q")
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.restored()
}

// TestStatusStuck: a terminal that takes nothing any more, as of a line that is dead,
// does not keep the view from its end.
func TestStatusStuck(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	for i := range 20 {
		id := fmt.Sprintf("web-%d", i)
		f.set(id, func(s *failback.Status) { s.Spec.VM, s.Activity, s.State = id, failback.Deciding, failback.Failback })
	}
	s := atTerminalOf(t, fullTerm, "status", "--socket", f.socket)
	s.draws("web-1")
	s.mu.Lock()                 // nobody reads what is drawn
	for i := range uint16(20) { // each a whole screen
		s.size(100+i, 40)
		time.Sleep(100 * time.Millisecond)
	}
	check(t, s.cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(cmdtest.Deadline):
		t.Error("it does not end")
		check(t, s.cmd.Process.Kill())
		<-ended
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if now := s.modes(); now != s.before {
		t.Errorf("the terminal's modes are %+v and were %+v", now, s.before)
	}
	s.mu.Unlock()
}

// TestStatusDumb: a terminal that cannot be drawn on has lines.
func TestStatusDumb(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	for _, c := range []struct {
		env  string
		args []string
	}{{"TERM=dumb", nil}, {"TERM=", nil}, {"TERM=xterm", []string{"--plain"}}} {
		s := atTerminalOf(t, []string{c.env}, append([]string{"status", "--socket", f.socket}, c.args...)...)
		if code := s.end(); code != 0 || strings.Contains(s.shown(), "\x1b") || !strings.Contains(s.shown(), "daemon "+f.socket) {
			t.Errorf("%s %q: exit code %d: %q", c.env, c.args, code, s.shown())
		}
	}
	s := atTerminalOf(t, []string{"TERM=xterm", "NO_COLOR=1", "LANG=C"}, "status", "--socket", f.socket)
	f.set("web-\u00e9", func(s *failback.Status) { s.Halted = &failback.Halt{Step: "x", Text: strings.Repeat("\u00e9", 100)} })
	s.draws("HALTED")
	s.types("q")
	s.end()
	if text := s.shown(); strings.Contains(text, "31m") || strings.Contains(text, "\u00e9") || strings.Contains(text, "…") {
		t.Errorf("colours, or what the locale does not have: %q", text)
	}
}

// TestStatusAway: a daemon that goes away is said to be lost, and is followed
// again when it is back, with what happened meanwhile.
func TestStatusAway(t *testing.T) {
	t.Parallel()
	home := cmdtest.NewSite(t, &programs, "home")
	d := home.Daemon()
	socket := home.State + "/control.sock"
	s := atTerminalOf(t, fullTerm, "status", "--socket", socket)
	s.draws("No job and no failback")
	home.OK("job", "submit", "--id", "one", "--create", "--wait", home.Disk("a", mib, 1), home.Dir+"/b")
	s.draws("1 of 1 disk Verified")
	d.Signal(os.Kill)
	d.Wait()
	s.draws("CONNECTION LOST at")
	home.Daemon()
	s.draws("ready, ")
	home.OK("job", "submit", "--id", "two", "--create", "--wait", home.Disk("c", mib, 2), home.Dir+"/d")
	s.draws("job two")
	s.draws("job one")
	s.types("q")
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.restored()
	v := newValidator(t)
	r := home.OK("--json", "status")
	if v.check(t, "status", r); strings.Count(r.Out, "\n") != 3 || !strings.HasPrefix(r.Out, `{"schema":1,"message_type":"daemon"`) {
		t.Errorf("as JSON: %s", r.Out)
	}
}
