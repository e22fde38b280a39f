package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// progress runs haulback with the write end of a pipe as descriptor 3 and gives
// what came out of it.
func progress(t *testing.T, s *cmdtest.Site, args ...string) (code int, said []string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), programs.Path(t, "haulback"), append([]string{"--state-dir", s.State}, args...)...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), "HAULBACK_PROGRESS_FPS=60")
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_ = cmd.Wait() // the code says it
	return cmd.ProcessState.ExitCode(), strings.Fields(<-text)
}

// TestProgressFD: the numbers grow, and 100/100 is said of what is proved, and
// of nothing else.
func TestProgressFD(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", 24*mib, 1), s.Disk("b", 24*mib, 2)
	for _, c := range []struct {
		code int
		args []string
	}{
		{4, []string{"verify", a, b}},
		{0, []string{"copy", a, b}},
		{0, []string{"verify", a, b, "--json"}},
		{0, []string{"copy", a, s.Disk("c", 24*mib, 3), "--verify", "full"}},
	} {
		code, said := progress(t, s, append(c.args, "--progress-fd", "3")...)
		var numbers []int
		for _, line := range said {
			var n int
			if _, err := fmt.Sscanf(line, "%d/100", &n); err != nil || line != fmt.Sprintf("%d/100", n) {
				t.Fatalf("%q: line %q", c.args, line)
			}
			numbers = append(numbers, n)
		}
		if code != c.code || len(numbers) == 0 || numbers[0] != 0 || !slices.IsSorted(numbers) || len(slices.Compact(slices.Clone(numbers))) != len(numbers) {
			t.Errorf("%q: exit code %d, want %d: %v", c.args, code, c.code, numbers)
		}
		if last := numbers[len(numbers)-1]; (last == 100) != (code == 0) {
			t.Errorf("%q: exit code %d, and the last number is %d", c.args, code, last)
		}
	}
}

// TestProgressFDNobodyReads: a reader that is gone, or never reads, stops no copy.
func TestProgressFDNobodyReads(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", 4*mib, 1)
	for name, gone := range map[string]bool{"gone": true, "never reads": false} {
		b := s.Disk("b", 4*mib, 2)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if gone {
			r.Close()
		} else { // full from the start
			for full := false; !full; {
				full = fill(t, w)
			}
		}
		cmd := exec.CommandContext(t.Context(), programs.Path(t, "haulback"), "--state-dir", s.State, "copy", a, b, "--progress-fd", "3")
		cmd.ExtraFiles = []*os.File{w}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		cmdtest.MustEqual(t, a, b)
		r.Close()
		w.Close()
	}
}

// TestProgressFDWrong: what is no open descriptor of the caller's is refused
// before anything happens, whatever this process has opened under that number.
func TestProgressFDWrong(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", mib, 1), s.Disk("b", mib, 2)
	for fd := -1; fd < 20; fd++ {
		if r := s.Run("copy", a, b, "--progress-fd", fmt.Sprint(fd)); r.Code != 10 || !strings.Contains(r.Stderr, "--progress-fd") {
			t.Errorf("%d: exit code %d: %s", fd, r.Code, r.Stderr)
		}
	}
	for _, text := range []string{"x", "3x", "99999999999999999999"} {
		if r := s.Run("verify", a, b, "--progress-fd", text); r.Code != 10 {
			t.Errorf("%q: exit code %d: %s", text, r.Code, r.Stderr)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", programs.Path(t, "haulback")+" --state-dir "+s.State+" copy "+a+" "+b+" --progress-fd 3 3</dev/null")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 10 || !strings.Contains(string(out), "for reading only") {
		t.Errorf("a descriptor that is only read: exit code %d: %s", cmd.ProcessState.ExitCode(), out)
	}
}

// fill writes to a pipe until it is full.
func fill(t *testing.T, w *os.File) (full bool) {
	t.Helper()
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Write(func(fd uintptr) bool {
		if err := unix.SetNonblock(int(fd), true); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := unix.Write(int(fd), make([]byte, 4096)); err != nil {
				full = err == unix.EAGAIN
				return true
			}
		}
	})
	if err := errors.Join(err, raw.Control(func(fd uintptr) { _ = unix.SetNonblock(int(fd), false) })); err != nil {
		t.Fatal(err)
	}
	return full
}
