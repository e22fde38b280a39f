package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is a file system of its own, in which scripts of packages run.
type root string

func (r root) path(p string) string { return filepath.Join(string(r), p) }

func (r root) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path(path), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (r root) exists(path string) bool {
	_, err := os.Lstat(r.path(path))
	return err == nil
}

// systemctl writes down what it is asked for. Services run while /active is there,
// and each start is of the program that is there then.
const systemctl = `#!/bin/sh
echo "$*" >>/calls
case "$*" in
*is-active*) [ -e /active ] ;;
*MainPID*haulbackd*) echo 4711 ;; # it does not end: /proc/4711 stays
*MainPID*) echo 4712 ;;
esac
`

// newRoot makes a root with a shell, systemd's makers of users and directories, and
// a systemctl. It is the root of a running system for scripts: /run/systemd/system.
func newRoot(t *testing.T) root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: installing packages needs root")
	}
	r := root(t.TempDir())
	for _, dir := range []string{"etc", "dev", "tmp", "usr/bin", "usr/lib", "usr/lib64", "run/systemd/system", "var/lib/dpkg/info", "var/lib/rpm", "var/log"} {
		if err := os.MkdirAll(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/sbin": "bin"} {
		if err := os.Symlink(to, r.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	r.write(t, "var/lib/dpkg/status", "", 0o644)
	r.write(t, "dev/null", "", 0o666)
	r.write(t, "proc/4711/stat", "", 0o444)
	r.write(t, "usr/bin/systemctl", systemctl, 0o755)
	r.write(t, "bin/kill", "#!/bin/sh\n", 0o755) // ExecReload= of the units names it
	for _, tool := range []string{"sh", "systemd-sysusers", "systemd-tmpfiles"} {
		r.copyProgram(t, tool)
	}
	// What units order themselves by, for systemd-analyze.
	targets, err := filepath.Glob("/usr/lib/systemd/system/*.target")
	if err != nil || len(targets) == 0 {
		t.Skipf("NOT TESTED: installing packages needs systemd's units: %v", err)
	}
	for _, unit := range targets {
		r.write(t, unit, read(t, unit), 0o644)
	}
	return r
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// copyProgram copies a program of this machine and the libraries that it loads.
func (r root) copyProgram(t *testing.T, name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("NOT TESTED: installing packages needs %s: %v", name, err)
	}
	r.write(t, filepath.Join("usr/bin", name), read(t, path), 0o755)
	for _, m := range library.FindAllStringSubmatch(run(t, "ldd", path), -1) {
		if !r.exists(m[1]) {
			r.write(t, m[1], read(t, m[1]), 0o755)
		}
	}
}

// wantCalls is what systemctl has to have been asked for since the last time: the
// units anew, at least once and before one of them is restarted, and the rest.
func (r root) wantCalls(t *testing.T, what, want string) {
	t.Helper()
	all := strings.Split(strings.TrimSpace(read(t, r.path("calls"))), "\n")
	if err := os.Remove(r.path("calls")); err != nil {
		t.Fatal(err)
	}
	const reload = "daemon-reload"
	restart := slices.IndexFunc(all, func(s string) bool { return strings.HasPrefix(s, "try-restart") })
	if first := slices.Index(all, reload); first < 0 || restart >= 0 && first > restart {
		t.Errorf("%s: systemd does not read its units anew, or too late: %q", what, all)
	}
	got := strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == reload }), "; ")
	if got != want {
		t.Errorf("%s: systemctl was asked for\n%s\nwant\n%s", what, got, want)
	}
}

// worker is the other package, where it is installed.
func (r root) worker() []string {
	if r.exists("usr/bin/haulback-vddk") {
		return []string{"haulback-vddk"}
	}
	return nil
}

// asked is what a removal asks for before it stops all.
const asked = "show --property=MainPID --value haulbackd.service; show --property=MainPID --value haulback-controller.service; "

// manager is dpkg or rpm on a root.
type manager struct {
	name, kind string // of the files that it takes: a pattern for each package
	daemon     string
	worker     string
	aside      string // where the new version's configuration goes when the old was edited
	kept       string // where an edited one is after a removal
	install    func(t *testing.T, r root, files ...string) string
	erase      func(t *testing.T, r root) string // and keep what a user might want
	purge      func(t *testing.T, r root) string // nil: there is no more
	installed  string                            // what systemctl is asked for
	erased     string
	offline    string // the same where there is no systemd, from installation to removal
}

const (
	units   = "haulbackd.service haulback-controller.service"
	sockets = "haulbackd.socket haulbackd-tls.socket haulbackd-control.socket haulback-controller.socket"
)

// What systemctl is asked for by an upgrade, with and without a new configuration
// that the mover takes.
const (
	restarted = "--quiet is-active haulbackd.service; try-restart haulbackd.service; " + other
	refused   = "--quiet is-active haulbackd.service; " + other
	other     = "--quiet is-active haulback-controller.service; try-restart haulback-controller.service"
)

func dpkg(t *testing.T, r root, args ...string) string {
	t.Helper()
	// What the package depends on is this machine's, and not the root's.
	return run(t, "dpkg", append([]string{"--root=" + string(r), "--log=/dev/null", "--force-depends,bad-path,confdef,confold"}, args...)...)
}

func rpm(t *testing.T, r root, args ...string) string {
	t.Helper()
	return run(t, "rpm", append([]string{"--root", string(r), "--dbpath", "/var/lib/rpm", "--nodeps"}, args...)...)
}

var managers = []manager{
	{
		name: "dpkg", kind: ".deb", daemon: "haulback_*_amd64.deb", worker: "haulback-vddk_*_amd64.deb",
		aside: "/etc/haulback/haulbackd.toml.dpkg-dist", kept: "/etc/haulback/haulbackd.toml",
		install: func(t *testing.T, r root, files ...string) string {
			return dpkg(t, r, append([]string{"-i"}, files...)...)
		},
		erase:  func(t *testing.T, r root) string { return dpkg(t, r, "-r", "haulback", "haulback-vddk") },
		purge:  func(t *testing.T, r root) string { return dpkg(t, r, "-P", "haulback", "haulback-vddk") },
		erased: "list-units --state=active --plain --no-legend " + sockets + " " + units + "; " + asked + "stop " + sockets + " " + units,
	},
	{
		name: "rpm", kind: ".rpm", daemon: "haulback-[0-9]*.x86_64.rpm", worker: "haulback-vddk-*.x86_64.rpm",
		aside: "/etc/haulback/haulbackd.toml.rpmnew", kept: "/etc/haulback/haulbackd.toml.rpmsave",
		install: func(t *testing.T, r root, files ...string) string {
			return rpm(t, r, append([]string{"-U", "--oldpackage", "--replacepkgs"}, files...)...)
		},
		erase: func(t *testing.T, r root) string {
			return rpm(t, r, append([]string{"-e", "haulback"}, r.worker()...)...)
		},
		installed: "--no-reload preset " + units + " " + sockets + "; --quiet is-active haulbackd.service; --quiet is-active haulback-controller.service",
		erased:    asked + "--no-reload disable --now " + sockets + " " + units,
		offline:   "--no-reload preset " + units + " " + sockets + "\n--no-reload disable " + sockets + " " + units,
	},
}
