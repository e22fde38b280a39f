package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const unitDir = "../../deploy/systemd"

// installUnits puts the units into a directory, with a stub where they name the
// daemon, and with the drop-ins of examples.
func installUnits(t *testing.T, dropins map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	stub := filepath.Join(dir, "haulbackd")
	write(t, stub, "#!/bin/sh\n", 0o700)
	units, err := filepath.Glob(unitDir + "/haulback*.*")
	if err != nil || len(units) < 6 {
		t.Fatalf("units: %q, %v", units, err)
	}
	for _, u := range units {
		write(t, filepath.Join(dir, filepath.Base(u)), strings.ReplaceAll(read(t, u), "/usr/bin/haulbackd", stub), 0o600)
	}
	for name, unit := range dropins {
		d := filepath.Join(dir, unit+".d")
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(d, name), read(t, filepath.Join(unitDir, "examples", name)), 0o600)
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// TestMistakeIsFinal: a mistake in the configuration ends in one start that failed,
// not in a unit that systemd has given up on; and a reload with one fails where it is
// asked for. systemd takes RestartPreventExitStatus= of the main process alone.
func TestMistakeIsFinal(t *testing.T) {
	for _, name := range []string{"haulbackd", "haulback-controller"} {
		text := read(t, filepath.Join(unitDir, name+".service"))
		check := "/usr/bin/haulbackd config check --config "
		for _, want := range []string{"\nExecStartPre=-" + check, "\nRestartPreventExitStatus=10\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no line %q", name, want)
			}
		}
		if first, second := strings.Index(text, "\nExecReload="+check), strings.Index(text, "\nExecReload=/bin/kill -HUP"); first < 0 || second < first {
			t.Errorf("%s is told to reload before its configuration is checked", name)
		}
	}
}

// analyze runs systemd-analyze, without the units' own directory searched for
// manual pages.
func analyze(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_COLOR=0", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=")
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// TestUnits: systemd knows every line, and says nothing; with each example too.
// It ends with 0 for a key that it does not know, so what it says counts.
func TestUnits(t *testing.T) {
	t.Parallel()
	needSystemd(t)
	for name, dropins := range map[string]map[string]string{
		"plain":       nil,
		"openstorage": {"openstorage.conf": "haulbackd.service"},
		"vddk":        {"vddk.conf": "haulbackd.service"},
		"devices":     {"devices.conf": "haulbackd.service"},
		"mover":       {"openstorage.conf": "haulbackd.service", "vddk.conf": "haulbackd.service", "credentials.conf": "haulbackd.service"},
		"controller":  {"credentials.conf": "haulback-controller.service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := installUnits(t, dropins)
			units, _ := filepath.Glob(dir + "/*.service")
			sockets, _ := filepath.Glob(dir + "/*.socket")
			if out, err := analyze(t, append([]string{"verify", "--man=no"}, append(units, sockets...)...)...); err != nil || out != "" {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			for _, u := range units { // 16: an exposure of 1.6
				if out, err := analyze(t, "security", "--offline=true", "--threshold=16", "--no-pager", u); err != nil {
					t.Errorf("systemd-analyze security %s: %v\n%s", filepath.Base(u), err, out)
				}
			}
		})
	}
}

// TestUnitGates: the gates are shut for what they are there for.
func TestUnitGates(t *testing.T) {
	t.Parallel()
	needSystemd(t)
	dir := installUnits(t, nil)
	unit := filepath.Join(dir, "haulbackd.service")
	text := read(t, unit)
	write(t, unit, strings.Replace(text, "ProtectHome=", "ProtectHomme=", 1), 0o600)
	if out, _ := analyze(t, "verify", "--man=no", unit); !strings.Contains(out, "ProtectHomme") {
		t.Errorf("a key that is misspelt goes through: %s", out)
	}
	write(t, unit, strings.Replace(text, "CapabilityBoundingSet=\n", "", 1), 0o600)
	if out, err := analyze(t, "security", "--offline=true", "--threshold=16", "--no-pager", unit); err == nil {
		t.Errorf("a unit with all capabilities goes through:\n%s", out)
	}
}

func needSystemd(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("units are not checked: systemd-analyze is missing; deploy/ci/prepare.sh installs it")
	}
}

// TestUnitsFitDaemon: what the socket units hand over is what the daemon takes,
// where its defaults are.
func TestUnitsFitDaemon(t *testing.T) {
	t.Parallel()
	name, listen := regexp.MustCompile(`(?m)^FileDescriptorName=(.*)$`), regexp.MustCompile(`(?m)^Listen(\w+)=(.*)$`)
	for unit, want := range map[string]string{
		"haulbackd.socket":           "quic Datagram 0.0.0.0:7420",
		"haulbackd-tls.socket":       "tls Stream 0.0.0.0:7420",
		"haulbackd-control.socket":   "control Stream /run/haulback/control.sock",
		"haulback-controller.socket": "control Stream /run/haulback-controller/control.sock",
	} {
		text := read(t, filepath.Join(unitDir, unit))
		n, l := name.FindStringSubmatch(text), listen.FindStringSubmatch(text)
		if n == nil || l == nil || n[1]+" "+l[1]+" "+l[2] != want {
			t.Errorf("%s: %q %q, want %s", unit, n, l, want)
		}
		if !strings.Contains(text, "\nFreeBind=yes\n") && strings.Contains(want, ":7420") {
			t.Errorf("%s: an address that the network brings later is a failure for good", unit)
		}
	}
}

// TestSystemFiles: users, directories and kernel settings are made in an empty
// root, as a package does it.
func TestSystemFiles(t *testing.T) {
	t.Parallel()
	needSystemd(t)
	if os.Getuid() != 0 {
		t.Skip("users and directories are not made: needs root")
	}
	root := t.TempDir()
	for _, dir := range []string{"etc", "run", "var/lib", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"sysusers", "tmpfiles"} {
		from := filepath.Join(unitDir, kind+".d", "haulback.conf")
		write(t, filepath.Join(root, "usr/lib", kind+".d", "haulback.conf"), read(t, from), 0o644)
		args := []string{"--root=" + root}
		if kind == "tmpfiles" {
			args = append(args, "--create", "haulback.conf")
		}
		if out, err := exec.Command("systemd-"+kind, args...).CombinedOutput(); err != nil || strings.Contains(string(out), "ignoring") {
			t.Fatalf("systemd-%s: %v\n%s", kind, err, out)
		}
	}
	users := read(t, filepath.Join(root, "etc/passwd"))
	for _, u := range []string{"haulback:", "haulback-controller:"} {
		if !strings.Contains("\n"+users, "\n"+u) {
			t.Errorf("no user %s in\n%s", u, users)
		}
	}
	for _, dir := range []string{"run/haulback", "run/haulback-controller"} {
		if st, err := os.Stat(filepath.Join(root, dir)); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
	sysctl := read(t, filepath.Join(unitDir, "sysctl.d/30-haulback.conf"))
	for line := range strings.Lines(sysctl) {
		if key, _, ok := strings.Cut(line, " = "); ok {
			if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err != nil {
				t.Error(err)
			}
		}
	}
}
