package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// session is haulback at a terminal of its own.
type session struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	before unix.Termios // modes of the terminal when haulback started

	mu   sync.Mutex
	text strings.Builder
	read chan struct{}
}

// atTerminal starts haulback at a new pseudo terminal of 80 by 24.
func atTerminal(t *testing.T, args ...string) *session {
	t.Helper()
	return atTerminalOf(t, nil, args...)
}

// atTerminalOf is atTerminal with more environment, TERM for example.
func atTerminalOf(t *testing.T, env []string, args ...string) *session {
	t.Helper()
	return programAt(t, env, programs.Path(t, "haulback"), args...)
}

// programAt starts any program at a terminal, a shell for example.
func programAt(t *testing.T, env []string, path string, args ...string) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	s := &session{t: t, master: master, read: make(chan struct{})}
	s.size(80, 24)
	s.cmd = exec.CommandContext(t.Context(), path, args...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.Env = append([]string{"HOME=" + t.TempDir(), "GORACE=atexit_sleep_ms=10"}, env...)
	s.before = s.modes()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	check(t, s.cmd.Start())
	slave.Close() // the program has it
	go func() {
		defer close(s.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // EIO, when the last one has closed it
				return
			}
		}
	}()
	t.Cleanup(func() { master.Close(); <-s.read })
	return s
}

// size makes the terminal another size, as a window does.
func (s *session) size(width, height uint16) {
	check(s.t, unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}))
}

// modes are those of the terminal now.
func (s *session) modes() unix.Termios {
	m, err := unix.IoctlGetTermios(int(s.master.Fd()), unix.TCGETS)
	check(s.t, err)
	return *m
}

func (s *session) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *session) await(what string) {
	s.t.Helper()
	cmdtest.Await(s.t, what, func() bool { return strings.Contains(s.shown(), what) })
}

func (s *session) types(text string) {
	s.t.Helper()
	_, err := s.master.WriteString(text)
	check(s.t, err)
}

// end is the exit code.
func (s *session) end() int {
	s.t.Helper()
	err := s.cmd.Wait()
	<-s.read
	if i := strings.Index(s.shown(), "WARNING: DATA RACE"); i >= 0 {
		s.t.Error(s.shown()[i:])
	}
	if s.cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

// TestFailbackConfirm: at a terminal the name has to be typed, and nothing is
// done before.
func TestFailbackConfirm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, typed string
		code        int
		done        bool
		want        string
	}{
		{"the name", "web\n", 0, true, "watch web looks on"},
		{"the name at the second try", "wbe\nweb\n", 0, true, "That is not its name."},
		{"yes is no name", "yes\ny\n\n", 10, false, "the name was not typed; nothing was done"},
		{"end of input", "\x04", 10, false, "nothing was typed and nothing was done"},
		{"Ctrl-C", "\x03", 130, false, "nothing was done"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := atTerminal(t, "failback", "--socket", f.socket, "start", "web", "--detach")
			s.await("Type web to go on")
			if said := f.said(); len(said) != 1 || said[0] != "plan web" {
				t.Errorf("asked of the daemon before the name was typed: %q", said)
			}
			if !strings.Contains(s.shown(), "OVERWRITE") {
				t.Errorf("the plan was not shown:\n%s", s.shown())
			}
			s.types(c.typed)
			if code := s.end(); code != c.code || !strings.Contains(s.shown(), c.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, c.code, c.want, s.shown())
			}
			if began := len(f.begun()) > 0; began != c.done {
				t.Errorf("begun: %v", began)
			}
		})
	}
}

// TestFailbackDecide: commit and undo ask too, and say what is lost.
func TestFailbackDecide(t *testing.T) {
	t.Parallel()
	for verb, lost := range map[string]string{"commit": "cannot be undone any more", "undo": "is LOST"} {
		f := newFake(t)
		f.set("web-1", func(s *failback.Status) { s.Activity, s.State = failback.Deciding, failback.Failback })
		s := atTerminal(t, "failback", "--socket", f.socket, verb, "web-1", "--detach")
		s.await("Type web to go on")
		if !strings.Contains(s.shown(), lost) {
			t.Errorf("%s does not say %q:\n%s", verb, lost, s.shown())
		}
		// What is typed is about what was shown: it has changed meanwhile.
		f.set("web-1", func(s *failback.Status) { s.Activity = failback.Undoing })
		s.types("web\n")
		if code := s.end(); code != 11 || !strings.Contains(s.shown(), "has changed while you typed") {
			t.Errorf("%s: exit code %d:\n%s", verb, code, s.shown())
		}
	}
}

// TestFailbackScreen: bars on a terminal, which is drawn over when it becomes
// narrower, and a last screen that stays.
func TestFailbackScreen(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	pass := func(done int64) func(*failback.Status) {
		return func(s *failback.Status) {
			s.Disks = []failback.Disk{{Label: "scsi0:0", Replica: hostctl.Disk{Size: 1 << 30}, Passes: []failback.Pass{{
				Number: 1, Used: "full", Began: time.Now(), Rate: 100 << 20, Left: time.Minute, Counters: job.Counters{Total: 1 << 30, Verified: done},
			}}}}
		}
	}
	f.set("web-1", pass(1<<28))
	s := atTerminal(t, "failback", "--socket", f.socket, "watch", "web")
	s.await("[#####---------------]  25.0%  100.0 MiB/s  ETA 1m00s")
	s.size(50, 24)
	f.set("web-1", pass(1<<29))
	s.await("50.0%")
	narrow := s.shown()[strings.LastIndex(s.shown(), "\x1b[J"):]
	for line := range strings.Lines(narrow) {
		if text := strings.TrimSpace(strings.ReplaceAll(line, "\x1b[J", "")); len(text) > 50 {
			t.Errorf("%d columns on a terminal of 50: %q", len(text), text)
		}
	}
	s.size(80, 24)
	f.set("web-1", func(s *failback.Status) { s.Activity, s.State = failback.Deciding, failback.Failback })
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	last := s.shown()[strings.LastIndex(s.shown(), "\x1b[J"):]
	if !strings.Contains(last, "waits for your word: commit or undo") || !strings.Contains(last, "haulback failback undo web") || strings.Contains(last, "Ctrl-C") {
		t.Errorf("the last screen is %q", last)
	}
}
