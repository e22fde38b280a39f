package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestInstall takes both packages through what happens to them on a machine.
func TestInstall(t *testing.T) {
	t.Parallel()
	p := need(t)
	for _, m := range managers {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			needTool(t, m.kind)
			r := newRoot(t)
			old := []string{file(t, p.one, m.daemon), file(t, p.one, m.worker)}
			m.install(t, r, old...)
			r.wantCalls(t, "installation", m.installed)
			wantInstalled(t, r, p.one)
			drive(t, r)
			life(t, &m, r, p, old)
		})
	}
}

// wantInstalled checks what an installation has made, and that nothing is enabled.
func wantInstalled(t *testing.T, r root, dir string) {
	t.Helper()
	users := read(t, r.path("etc/passwd"))
	for _, user := range []string{"haulback", "haulback-controller"} {
		if !strings.Contains(users, user+":") {
			t.Errorf("no user %s:\n%s", user, users)
		}
	}
	if r.exists("etc/systemd") || r.exists("var/lib/haulback") {
		t.Error("something was enabled or started")
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--root=" + string(r), "--man=no"}, strings.Fields(units+" "+sockets)...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_COLOR=0")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for _, program := range []string{"haulback", "haulbackd"} {
		parts := run(t, r.path("usr/bin/"+program), "version", "--sbom")
		if shipped := file(t, dir, program+"_*_amd64.cdx.json"); parts != read(t, shipped) || parts != read(t, r.path("usr/share/doc/haulback/"+program+".cdx.json")) {
			t.Errorf("%s is not built of what %s says", program, shipped)
		}
	}
	if v := version(t, r); !strings.Contains(file(t, dir, "haulback_*_amd64.deb"), "haulback_"+v+"-1_") {
		t.Errorf("the program of %s is %s", dir, v)
	}
	run(t, r.path("usr/bin/haulback-vddk"), "--version")
}

func version(t *testing.T, r root) string {
	t.Helper()
	m := regexp.MustCompile(`"version":"([^"]+)","revision":"[0-9a-f]{40}"`).FindStringSubmatch(run(t, r.path("usr/bin/haulback"), "version", "--json"))
	if m == nil {
		t.Fatal("haulback version tells no version and revision")
	}
	return m[1]
}

// begun is a line of a configuration that is to be taken into use, and placed one
// that is for the machine's own state.
var (
	begun  = regexp.MustCompile(`(?m)^#([^ #])`)
	placed = regexp.MustCompile(`(?m)^state_dir = .*`)
)

// drive starts the installed daemons and copies a disk with the installed command.
func drive(t *testing.T, r root) {
	t.Helper()
	programs := cmdtest.Installed(r.path("usr/bin"))
	desk, dr, home := cmdtest.NewSite(t, programs, "desk"), cmdtest.NewSite(t, programs, "dr"), cmdtest.NewSite(t, programs, "home")
	desk.Pair(dr, home)
	dr.Pair(home)
	for _, name := range []string{"haulbackd.toml", "controller.toml"} {
		shipped := r.path("etc/haulback/" + name)
		all := filepath.Join(desk.Dir, name)
		text := "state_dir = \"" + desk.State + "\"\n" + begun.ReplaceAllString(placed.ReplaceAllString(read(t, shipped), ""), "$1")
		if err := os.WriteFile(all, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{shipped, all} {
			if c := programs.Run(t, "haulbackd", "config", "check", "--config", file); c.Code != 0 {
				t.Errorf("%s: exit code %d\n%s%s", file, c.Code, c.Out, c.Stderr)
			}
		}
	}
	a, b := dr.Disk("a", 3<<20, 1), home.Disk("b", 3<<20, 2)
	from, to := dr.Daemon(cmdtest.Export("src", a, "source", desk)), home.Daemon(cmdtest.Export("dst", b, "target", dr))
	desk.OK("copy", from.URI("src"), to.URI("dst"))
	cmdtest.MustEqual(t, a, b)
	for _, d := range []*cmdtest.Daemon{from, to} {
		d.Signal(syscall.SIGTERM)
		if end := d.Wait(); end.Code != 0 {
			t.Errorf("SIGTERM: exit code %d\n%s", end.Code, end.Stderr)
		}
	}
}

// life upgrades, downgrades, removes and purges, while both services run.
func life(t *testing.T, m *manager, r root, p *packages, old []string) {
	t.Helper()
	const config, journal = "/etc/haulback/haulbackd.toml", "/var/lib/haulback/journal/a"
	edited := read(t, r.path(config)) + "[limits]\nsessions = 7\n"
	r.write(t, config, edited, 0o644)
	r.write(t, journal, "durable", 0o600)
	r.write(t, "active", "", 0o600)
	first := version(t, r)
	next := []string{file(t, p.next, m.daemon), file(t, p.next, m.worker)}

	m.install(t, r, next...)
	r.wantCalls(t, "upgrade", restarted)
	if read(t, r.path(config)) != edited || !strings.Contains(read(t, r.path(m.aside)), "next version") {
		t.Errorf("upgrade: %s is not as it was edited, or %s not the new one", config, m.aside)
	}
	if version(t, r) == first {
		t.Error("upgrade: the program is the old one")
	}

	r.write(t, config, "nonsense = 1\n", 0o644)
	out := m.install(t, r, next[0])
	r.wantCalls(t, "a configuration that the new program does not take", refused)
	if !strings.Contains(out, "haulbackd.service IS NOT RESTARTED") || !strings.Contains(out, "nonsense") {
		t.Errorf("nobody says that the mover was not restarted, and why:\n%s", out)
	}
	r.write(t, config, edited, 0o644)

	m.install(t, r, old...)
	r.wantCalls(t, "downgrade", restarted)
	if version(t, r) != first || read(t, r.path(config)) != edited {
		t.Error("downgrade: not the old program, or the edited configuration is lost")
	}

	out = m.erase(t, r)
	r.wantCalls(t, "removal", m.erased)
	if !strings.Contains(out, "haulbackd.service DID NOT STOP: process 4711") || strings.Contains(out, "controller.service DID") {
		t.Errorf("removal: nobody says that the mover still runs, or that of another:\n%s", out)
	}
	if r.exists("usr/bin/haulbackd") || r.exists("usr/lib/systemd/system/haulbackd.service.d") || read(t, r.path(m.kept)) != edited {
		t.Errorf("removal: a program is left, or %s is lost", m.kept)
	}
	if m.purge != nil {
		out = m.purge(t, r)
		if r.exists(config) || r.exists("etc/haulback/controller.toml") {
			t.Error("purge: a configuration is left")
		}
		if strings.Contains(out, "/etc/haulback") {
			t.Errorf("purge: told is of a directory that is not there any more:\n%s", out)
		}
	}
	if read(t, r.path(journal)) != "durable" || !strings.Contains(out, "/var/lib/haulback") || !strings.Contains(out, "rm -r") {
		t.Errorf("at the end the state is gone, or nobody says where it is:\n%s", out)
	}
}

// TestInstallImage: an image is built without a running system and, by dpkg, with
// the scripts outside of it; nothing but files is made.
func TestInstallImage(t *testing.T) {
	t.Parallel()
	p := need(t)
	for _, m := range managers {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			needTool(t, m.kind)
			r := newRoot(t)
			if err := os.RemoveAll(r.path("run")); err != nil {
				t.Fatal(err)
			}
			install, erase := m.install, m.erase
			if m.name == "dpkg" { // which can run scripts outside of the root, and says which it is
				install = func(t *testing.T, r root, files ...string) string {
					return dpkg(t, r, "--force-script-chrootless", "-i", files[0])
				}
				erase = func(t *testing.T, r root) string { return dpkg(t, r, "--force-script-chrootless", "-P", "haulback") }
			}
			install(t, r, file(t, p.one, m.daemon))
			if users := read(t, r.path("etc/passwd")); !strings.Contains(users, "haulback-controller:") {
				t.Errorf("users:\n%s", users)
			}
			if m.name == "dpkg" != r.exists("run/haulback") { // systemd-tmpfiles wants /proc, which the root has not
				t.Error("/run/haulback")
			}
			erase(t, r)
			if r.exists("calls") && strings.Trim(read(t, r.path("calls")), "\n") != m.offline {
				t.Errorf("systemctl was asked for %q", read(t, r.path("calls")))
			}
			if r.exists("usr/bin/haulback") {
				t.Error("removed, and still there")
			}
		})
	}
}
