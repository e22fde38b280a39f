package site

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwner: nobody makes files in a state directory that another user has to
// read, and whoever acts as the user of a service means the service's.
func TestOwner(t *testing.T) {
	me := os.Geteuid()
	s, err := At(filepath.Join(t.TempDir(), "state"), "")
	if err == nil {
		err = s.Make()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := owned(s.dir, uint32(me), me); err != nil {
		t.Errorf("the owner is refused: %v", err)
	}
	if err := owned(s.dir, nobody, me); (err == nil) != contained() {
		t.Errorf("a directory of nobody, contained %v: %v", contained(), err)
	}
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Make(), s.CheckDir()} {
		if err == nil || !strings.Contains(err.Error(), "chmod 700 "+s.dir) {
			t.Errorf("a directory that everybody may write: %v", err)
		}
	}
	if err := os.Chmod(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err = owned(s.dir, uint32(me)+4321, me)
	if err == nil || !strings.Contains(err.Error(), "runuser -u ") || !strings.Contains(err.Error(), s.dir) || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("another user: %v", err)
	}
	if me == 0 {
		if err := os.Chown(s.dir, 4321, 4321); err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func() error{
			"a key":    func() error { _, err := s.Key(); return err },
			"a peer":   func() error { return s.AddPeer(Peer{Name: "x"}) },
			"journals": func() error { _, err := s.Journals(); return err },
			"a record": func() error { _, err := s.Audit(); return err },
		} {
			if err := do(); err == nil || !strings.Contains(err.Error(), "belongs to user 4321") {
				t.Errorf("root makes %s in the directory of another: %v", what, err)
			}
		}
		if left, _ := os.ReadDir(s.dir); len(left) > 0 {
			t.Errorf("root has left %v there", left)
		}
	}
	t.Setenv("XDG_STATE_HOME", "")
	for home, want := range map[string]string{
		"/var/lib/haulback": "/var/lib/haulback", "/var/lib/haulback/": "/var/lib/haulback", "/var/lib/haulback-controller": "/var/lib/haulback-controller",
		"/home/joe": "/home/joe/.local/state/haulback", "/var/lib/jenkins": "/var/lib/jenkins/.local/state/haulback",
	} {
		if got := ownDir(home); got != want {
			t.Errorf("the state directory of %s is %s, want %s", home, got, want)
		}
	}
}
