package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestPeersFileFails puts everything but a list of peers in the place of
// peers.toml of a running daemon: nobody is let in by it, and everybody is again
// when the list is back.
func TestPeersFileFails(t *testing.T) {
	t.Parallel()
	p := newPair(t, mib)
	path := filepath.Join(p.home.State, "peers.toml")
	list, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	probes := func(want int) func() bool {
		return func() bool { return p.desk.Run("probe", p.daemon.URI("target")).Code == want }
	}
	write := func(text string) func() error {
		return func() error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	for _, c := range []struct {
		name string
		put  func() error
	}{
		{"nothing", func() error { return nil }},
		{"empty", write("")},
		{"cut", write(string(list[:len(list)-20]))},
		{"not TOML", write("\x00\xff")},
		{"a directory", func() error { return os.Mkdir(path, 0o700) }},
		{"a pipe", func() error { return unix.Mkfifo(path, 0o600) }},
		{"a link to nothing", func() error { return os.Symlink("nowhere", path) }},
		{"endless", func() error { return os.Symlink("/dev/zero", path) }},
		{"huge", func() error {
			if err := write(string(list))(); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		}},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := c.put(); err != nil {
			t.Fatal(c.name, err)
		}
		cmdtest.Await(t, c.name+": desk to be shut out", probes(12))
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := write(string(list))(); err != nil {
			t.Fatal(err)
		}
		cmdtest.Await(t, c.name+": desk to be let in", probes(0))
	}
	// Of a failure that goes without a change of the file, too.
	pid := p.daemon.Cmd.Process.Pid
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: 1 << 10}, &old); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	cmdtest.Await(t, "the daemon to fail", func() bool { return strings.Contains(p.daemon.Stderr(), "too many open files") })
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(old.Cur, 1<<10), Max: 1 << 10}, nil); err != nil {
		t.Fatal(err)
	}
	cmdtest.Await(t, "desk to be let in when there are descriptors again", probes(0))
	if n := strings.Count(p.daemon.Stderr(), "the paired peers cannot be read"); n > 20 {
		t.Errorf("%d lines of log", n)
	}
}

// TestRemovedWhileTheSiteIsLocked removes a peer with an editor while another
// process holds the lock of the site, and an invitation is over.
func TestRemovedWhileTheSiteIsLocked(t *testing.T) {
	t.Parallel()
	p := newPair(t, mib)
	p.home.OK("peer", "invite", "--name", "late", "--ttl", "1s")
	lock, err := os.OpenFile(filepath.Join(p.home.State, "lock"), os.O_RDWR, 0)
	if err == nil {
		defer lock.Close()
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // it is over, and has been looked at
	path := filepath.Join(p.home.State, "peers.toml")
	list, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.ReplaceAll(string(list), p.desk.ID, p.home.ID)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmdtest.Await(t, "desk to be shut out", func() bool { return p.desk.Run("probe", p.daemon.URI("target")).Code == 12 })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	cmdtest.Await(t, "the invitation to be deleted", func() bool {
		_, err := os.Stat(filepath.Join(p.home.State, "invitations.json"))
		return os.IsNotExist(err)
	})
}

// TestRefusedProbeIsRecorded: to ask which exports there are begins with probes.
func TestRefusedProbeIsRecorded(t *testing.T) {
	t.Parallel()
	p := newPair(t, mib)
	third := cmdtest.NewSite(t, &programs, "third")
	third.Pair(p.home)
	for _, export := range []string{"target", "guessed"} {
		cmdtest.Await(t, "third to be told no", func() bool {
			r := third.Run("probe", p.daemon.URI(export))
			return r.Code == 12 && strings.Contains(r.Stderr, "no export")
		})
	}
	p.desk.OK("probe", p.daemon.URI("target"))
	record := audited(t, p.home)
	has(t, record, "session.refused target refused", "session.refused guessed refused")
	if strings.Contains(record, "session.begin") {
		t.Errorf("a probe that may is no session:\n%s", record)
	}
}
