package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestDumpClosed: who forgot to give a dump its standard output is told, and not
// that his disk is safe. /dev/null itself is a place.
func TestDumpClosed(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", mib, 1)
	out, err := exec.Command("sh", "-c", `exec "$0" --state-dir "$1" dump "$2" >&-`, programs.Path(t, "haulback"), s.State, a).CombinedOutput()
	if code := exitOf(err); code != 10 || !strings.Contains(string(out), "standard output is closed") {
		t.Errorf("closed: exit code %d: %s", code, out)
	}
	want(t, "/dev/null", s.StartIO(nil, open(t, os.DevNull, os.O_WRONLY), "dump", a).Wait(), 0, "WARNING", "nobody keeps the stream")
}

// TestDumpWritten: a stream of a disk that somebody writes to is no state of it,
// and its operator is told.
func TestDumpWritten(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", 20*mib, 1)
	then := time.Now().Add(-time.Hour) // whatever the clock of files is good for
	if err := os.Chtimes(a, then, then); err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{"nobody", "somebody"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := s.StartIO(nil, w, "dump", a)
		_ = w.Close()
		if _, err := io.CopyN(io.Discard, r, 1); err != nil {
			t.Fatal(err)
		}
		if by == "somebody" { // the pipe is full, so the dump is not done
			if _, err := open(t, a, os.O_RDWR).WriteAt([]byte("written"), 5); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		got := p.Wait()
		if want(t, by, got, 0, "Dumped"); strings.Contains(got.Stderr, "WARNING") != (by == "somebody") {
			t.Errorf("%s wrote: %s", by, got.Stderr)
		}
	}
}

// TestReaderGone: who reads the lines of a copy may go; the copy does not.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", 4*mib, 1), s.Disk("b", 4*mib, 2)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := s.StartIO(nil, w, "copy", a, b, "--json", "--rate", "4MiB")
	_ = w.Close()
	if _, err := io.CopyN(io.Discard, r, 1); err != nil {
		t.Fatal(err)
	}
	_ = r.Close() // the summary at least has no reader
	want(t, "copy", p.Wait(), 0)
	cmdtest.MustEqual(t, a, b)
}

func exitOf(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}
