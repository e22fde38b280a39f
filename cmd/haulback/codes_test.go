package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
	"github.com/haulback/haulback/vddk/vix/vixtest"
)

// TestCodesNBD is what a script sees of NBD servers, real ones.
func TestCodesNBD(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", mib, 1)
	certs, others := authority(t), authority(t)
	if err := os.Remove(others + "/client-cert.pem"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(others + "/client-key.pem"); err != nil {
		t.Fatal(err)
	}
	plain := nbdtest.Unix(t, "qemu-nbd", "-t", "-x", "vda", "-f", "raw", a)
	_, socket, _ := strings.Cut(plain.URI, "socket=")
	v := serveNBD(
		t, s, s.Disk("b", mib, 1), "--listen", "127.0.0.1:0", "--tls-cert", certs+"/server-cert.pem", "--tls-key", certs+"/server-key.pem", "--tls-ca", certs+"/ca-cert.pem")
	stranger := t.TempDir() // knows the server, and has no certificate
	ca, err := os.ReadFile(certs + "/ca-cert.pem")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stranger+"/ca-cert.pem", ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		code int
		args []string
	}{
		{"no server on the socket", 13, []string{"probe", "nbd+unix:///vda?socket=" + s.Dir + "/none"}},
		{"no server on the port", 13, []string{"probe", "nbd://127.0.0.1:1/vda"}},
		{"no such export", 10, []string{"probe", "nbd+unix:///vdb?socket=" + socket}},
		{"no TLS there", 10, []string{"probe", "nbds+unix:///vda?tls-hostname=localhost&socket=" + socket}},
		{"TLS wanted", 10, []string{"probe", strings.Replace(v.uri, "nbds:", "nbd:", 1)}},
		{"unknown authority", 12, []string{"probe", v.uri + "?tls-certificates=" + others}},
		{"wrong name", 12, []string{"probe", v.uri + "?tls-hostname=other.example&tls-certificates=" + certs}},
		{"certificate wanted", 12, []string{"probe", v.uri + "?tls-certificates=" + stranger}},
		{"all is well", 0, []string{"probe", v.uri + "?tls-certificates=" + certs}},
		{"a clone as change tracking", 10, []string{"copy", "nbd+unix:///vda?socket=" + socket, s.Disk("c", mib, 1), "--cbt", "fiemap:/x"}},
		{"a bitmap of a file", 10, []string{"copy", a, s.Disk("d", mib, 1), "--cbt", "bitmap:x"}},
	} {
		r := s.Run(c.args...)
		if tracked := c.args[0] == "copy"; r.Code != c.code || tracked && !strings.Contains(r.Stderr, "no such change tracking") {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, r.Code, c.code, r.Stderr)
		}
	}
}

// TestCodesVDDK is what a script sees of a VM's disk.
func TestCodesVDDK(t *testing.T) {
	kit := &vixtest.Kit{}
	t.Cleanup(kit.Remove)
	worker := kit.Worker(t, false)
	without := filepath.Join(t.TempDir(), "haulback-vddk")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", without, "github.com/haulback/haulback/cmd/haulback-vddk")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		name            string
		code            int
		settings, fault string
		worker          string
		mode            os.FileMode
		libDir          string
	}{
		{name: "all is well"},
		{name: "password", code: 12, settings: "password=other"},
		{name: "thumbprint", code: 12, settings: "thumbprint=other"},
		{name: "no such disk", code: 10, fault: "Open 1 4"},
		{name: "in use", code: 11, fault: "Open 1 5"},
		{name: "network", code: 13, fault: "ConnectEx 1 18000"},
		{name: "partial chain", code: 1, fault: "Open 1 16003"},
		{name: "wrong chain", code: 1, fault: "Open 1 16008"},
		{name: "no library", code: 10, libDir: "/none"},
		{name: "no worker", code: 10, worker: "/none"},
		{name: "worker without cgo", code: 10, worker: filepath.Dir(without)},
		{name: "password for all to see", code: 10, mode: 0o644},
	} {
		t.Run(c.name, func(t *testing.T) {
			lib := kit.Library(t, 80)
			s := cmdtest.NewSite(t, &programs, "desk")
			lib.Disk("[ds] vm/vm.vmdk", s.Disk("a", mib, 1))
			lib.Set(c.settings)
			if c.fault != "" {
				lib.Fault(c.fault)
			}
			password := s.Dir + "/password"
			if err := os.WriteFile(password, []byte("secret-of-the-test"), 0o600|c.mode); err != nil {
				t.Fatal(err)
			}
			if c.libDir == "" {
				c.libDir = lib.Dir
			}
			s.OK("version") // builds the programs, while go is in PATH
			dir := filepath.Dir(worker)
			if c.worker != "" {
				dir = c.worker
			}
			t.Setenv("PATH", dir)
			r := s.Run("probe", "vddk://vc.example/vm-42?disk=[ds] vm/vm.vmdk&user=root&password-file="+password+
				"&thumbprint="+vixtest.Thumbprint+"&libdir="+c.libDir+"&state="+t.TempDir())
			if r.Code != c.code {
				t.Errorf("exit code %d, want %d: %s", r.Code, c.code, r.Stderr)
			}
		})
	}
}

// TestMessagesWithoutPackages: what the operator reads names no package of ours.
func TestMessagesWithoutPackages(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", mib, 1)
	readOnly := nbdtest.Unix(t, "nbdkit", "-f", "-r", "memory", "1M")
	for _, args := range [][]string{{"probe", s.Dir}, {"probe", "vmdk://" + a}, {"nbd", "serve", "--writable", readOnly.URI}} {
		r := s.Run(args...)
		if r.Code != 10 || strings.Contains(strings.TrimPrefix(r.Stderr, "haulback: open nbd: "), "nbd: ") || strings.Contains(r.Stderr, "vddk: ") {
			t.Errorf("%q: exit code %d: %s", args, r.Code, r.Stderr)
		}
	}
}

// TestCopyCreatesRaw: the name of a new file does not make it a VMDK.
func TestCopyCreatesRaw(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a := s.Disk("a", mib, 1)
	for name, want := range map[string]string{"x.vmdk": "vmdk://" + s.Dir + "/x.vmdk", "x.QCOW2": "qemu-nbd", "x.img": ""} {
		target := filepath.Join(s.Dir, name)
		r := s.OK("copy", a, target, "--create")
		cmdtest.MustEqual(t, a, target)
		if warned := strings.Contains(r.Out+r.Stderr, "a raw file is made"); warned != (want != "") || !strings.Contains(r.Out+r.Stderr, want) {
			t.Errorf("%s: want a warning with %q: %s", name, want, r.Stderr)
		}
	}
}
