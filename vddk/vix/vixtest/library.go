package vixtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Library is one for one test.
type Library struct {
	Dir string // LIBDIR, with lib64 in it
	t   testing.TB
}

// Thumbprint is what Kit.Library makes the library expect.
const Thumbprint = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33"

func (l *Library) path(elem ...string) string {
	return filepath.Join(append([]string{l.Dir}, elem...)...)
}

func (l *Library) mkdir(name string) {
	if err := os.Mkdir(l.path(name), 0o755); err != nil {
		l.t.Fatal(err)
	}
}

// replace writes a file in one step: the library may read it at any time.
func (l *Library) replace(name, text string) {
	l.t.Helper()
	temp := l.path("test", name+".new")
	if err := errors.Join(os.WriteFile(temp, []byte(text), 0o600), os.Rename(temp, l.path("test", name))); err != nil {
		l.t.Fatal(err)
	}
}

// Set adds lines key=value to the settings, which InitEx reads. Of two lines
// with one key the newer counts. See fault.c for the keys.
func (l *Library) Set(lines string) {
	l.t.Helper()
	old, _ := os.ReadFile(l.path("test", "settings")) // none yet
	l.replace("settings", strings.TrimSpace(lines)+"\n"+string(old))
}

// Disk makes file the disk name: "[ds] vm/vm.vmdk".
func (l *Library) Disk(name, file string) {
	l.t.Helper()
	old, _ := os.ReadFile(l.path("test", "disks")) // none yet
	l.replace("disks", string(old)+name+"="+file+"\n")
}

// Fault makes lines the fault script, at once. Without lines nothing fails.
func (l *Library) Fault(lines ...string) {
	l.t.Helper()
	l.replace("faults", strings.Join(lines, "\n")+"\n")
}

// Record starts a new log of calls.
func (l *Library) Record() {
	l.t.Helper()
	if err := os.WriteFile(l.path("test", "calls"), nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// Call is one line of the log of calls.
type Call struct{ PID, Thread, Function, Args string }

// Calls is the log since Record.
func (l *Library) Calls() (calls []Call) {
	l.t.Helper()
	text, err := os.ReadFile(l.path("test", "calls"))
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := append(strings.SplitN(strings.TrimSpace(line), " ", 4), "", "", "", "")
		calls = append(calls, Call{f[0], f[1], f[2], f[3]})
	}
	return calls
}

// Disabled is who has disabled the relocation of which VM: lines "moref=VM NAME".
func (l *Library) Disabled() []string {
	l.t.Helper()
	text, err := os.ReadFile(l.path("test", "disabledMethod"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}
