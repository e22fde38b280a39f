package selfcheck

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// told runs f with a configuration and returns what it tells, a line each.
func told(cfg *config.Config, f func(c *checks)) string {
	var b strings.Builder
	c := &checks{cfg: cfg, tell: func(r Result) {
		fmt.Fprintf(&b, "%s %s: %s | %s\n", r.Level, r.Name, r.Text, r.Remedy)
	}}
	f(c)
	return b.String()
}

// TestSystem: what is wrong with a machine is said with the command that mends it.
func TestSystem(t *testing.T) {
	good := wire.BufferHint{Want: 8 << 20, Recv: 8 << 20, Send: 8 << 20}
	small := wire.BufferHint{Want: 8 << 20, Recv: 208 << 10, Send: 208 << 10}
	cfg := &config.Config{GRO: true}
	for _, c := range []struct {
		name string
		do   func(c *checks)
		want []string
	}{
		{"buffers", func(c *checks) { c.buffers(good) }, []string{"ok socket buffers: 8.0 MiB to receive"}},
		{"small buffers", func(c *checks) { c.buffers(small) }, []string{"warn socket buffers: UDP gets 208.0 KiB to receive", "net.core.rmem_max = 16777216", "sysctl --system"}},
		{"merged", func(c *checks) { c.merging("on") }, []string{"ok kernel: Linux "}},
		{"not merged", func(c *checks) { c.merging("kernel 4.18 is older than 5.0") }, []string{"warn kernel: UDP packets are not merged", "kernel 4.18", "Linux 5.0"}},
		{"no BBR, near", func(c *checks) { c.paths(false, "") }, []string{"ok tcp: ", "no peer is far away"}},
		{"no BBR, far", func(c *checks) { c.far = 50 * time.Millisecond; c.paths(false, "") }, []string{"warn tcp: ", "takes 50ms", "modprobe tcp_bbr"}},
		{"small buffers, far", func(c *checks) { c.far = wire.LongPath; c.paths(true, "tcp_wmem allows 4") }, []string{"warn tcp: tcp_wmem allows 4", "net.ipv4.tcp_wmem = 4096"}},
		{"all there, far", func(c *checks) { c.far = time.Second; c.paths(true, "") }, []string{"ok tcp: "}},
		{"clock", func(c *checks) { c.kept(true) }, []string{"ok clock: "}},
		{"clock not kept", func(c *checks) { c.kept(false) }, []string{"warn clock: ", "1m0s apart", "timedatectl set-ntp true"}},
		{"memory", func(c *checks) { c.buffered(0, 2<<30) }, []string{"ok memory: buffers take at most 1.0 GiB of 2.0 GiB"}},
		{"little memory", func(c *checks) { c.buffered(0, 2<<30-1) }, []string{"warn memory: ", `memory = "`}},
		{"much wanted", func(c *checks) { c.buffered(3<<30, 4<<30) }, []string{"warn memory: ", `memory = "1024MiB"`}},
		{"room", func(c *checks) { c.room(&room{path: "/d", need: 5, free: 5}) }, []string{"ok space of /d: "}},
		{"no room", func(c *checks) { c.room(&room{path: "/d", need: 2 << 30, free: 1 << 30}) }, []string{"warn space of /d: 1.0 GiB free", "2.0 GiB more", "df -h /d"}},
	} {
		got := told(cfg, c.do)
		for _, want := range c.want {
			if !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
				t.Errorf("%s: %swant one line with %q", c.name, got, want)
			}
		}
	}
}

// TestOtherUser: what root may read says nothing of what the daemon may.
func TestOtherUser(t *testing.T) {
	s, err := site.At(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	mine := func(c *checks) { c.site = s; c.user(os.Geteuid()) }
	if got := told(nil, mine); got != "" {
		t.Errorf("the owner is told %s", got)
	}
	other := func(c *checks) { c.site = s; c.user(os.Geteuid() + 1) }
	if got := told(&config.Config{File: "/etc/x.toml"}, other); !strings.HasPrefix(got, "warn user: ") || !strings.Contains(got, "-- haulback selfcheck --config /etc/x.toml") {
		t.Errorf("another user is told %q", got)
	}
}

// TestAsked: what counts is whether the daemon can open a disk, not this user.
func TestAsked(t *testing.T) {
	own := map[Level]Result{OK: {Name: "export x", Level: OK, Text: "mine"}, Fail: {Name: "export x", Level: Fail, Text: "no"}}
	refused := func(reason string) error {
		return jobpb.FromError(&job.Failure{Reason: reason, Retry: job.RetryNever, Text: "operation not permitted"})
	}
	for _, c := range []struct {
		own    Level
		answer error
		level  Level
		want   string
	}{
		{OK, nil, OK, "mine"},
		{Fail, nil, OK, "device, 1.0 MiB (1048576 bytes), as the daemon opens it; this user cannot"},
		{OK, refused(job.ReasonEndpoint), Fail, "this user can open it, the daemon cannot: operation not permitted"},
		{Fail, refused(job.ReasonEndpoint), Fail, "no"},
		{OK, refused(job.ReasonInvalid), Warn, "mine; the daemon does not know it"},
		{OK, refused(job.ReasonAuth), OK, "mine"},
		{Fail, refused(job.ReasonAuth), Fail, "no"},
	} {
		asked := ""
		k := &checks{probe: func(_ context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error) {
			asked = req.Uri
			return &controlv1.ProbeResponse{Kind: "device", SizeBytes: 1 << 20}, c.answer
		}}
		got := k.asked(t.Context(), &config.Export{Name: "x"}, own[c.own])
		if got.Level != c.level || !strings.Contains(got.Text, c.want) || got.Level != OK && got.Text != "no" && got.Remedy == "" || asked != "export:x" {
			t.Errorf("this user: %s, the daemon: %v: %+v (asked %q), want %s with %q", c.own, c.answer, got, asked, c.level, c.want)
		}
	}
	if got := new(checks).asked(t.Context(), &config.Export{Name: "x"}, own[Fail]); got.Level != Fail {
		t.Errorf("no daemon: %+v", got)
	}
}

// TestCredentials: what only the daemon's unit has is no failure of who asks beside
// it, and no key is advised in the place of a credential.
func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	dir := filepath.Join(t.TempDir(), "haulback-controller")
	text := fmt.Sprintf("state_dir = %q\nkey_file = \"k\"\n[[openstorage]]\nname = \"px\"\nendpoint = \"127.0.0.1:1\"\ntoken_file = \"px\"\n", dir) +
		"[[export]]\nname = \"v\"\nuri = \"osd://px/v\"\nrole = \"source\"\n[controller]\n[[host]]\nname = \"home\"\nurl = \"https://127.0.0.1:1\"\nuser = \"u\"\npassword_file = \"vcenter\"\n" +
		"[[host]]\nname = \"k8s\"\nkind = \"openstorage\"\nopenstorage = \"px\"\n[[host.workload]]\nname = \"w\"\nvolumes = [\"v\"]\ncompute = \"none\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lacking := map[string]bool{}
	look := func() {
		t.Helper()
		for _, r := range Run(t.Context(), Options{File: file}, func(r Result) {
			lacking[r.Name] = r.Level == Warn && strings.Contains(r.Remedy, "env CREDENTIALS_DIRECTORY=/run/credentials/haulback-controller.service haulback selfcheck --config "+file)
		}) {
			t.Errorf("%s fails: %s", r.Name, r.Text)
		}
	}
	t.Setenv(site.CredentialsEnv, "")
	look()
	for _, name := range []string{"key", "openstorage px", "export v", "host home", "host k8s"} {
		if !lacking[name] {
			t.Errorf("%s is not said to want a credential", name)
		}
	}
	loaded := t.TempDir() // of a unit that has loaded one of three
	t.Setenv(site.CredentialsEnv, loaded)
	if err := os.WriteFile(filepath.Join(loaded, "px"), []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	failed := Run(t.Context(), Options{File: file}, func(Result) {})
	if len(failed) == 0 || failed[0].Name != "key" || !strings.Contains(failed[0].Text, "/etc/credstore/k") {
		t.Errorf("no credential for the key: %v", failed)
	}
}

// TestRooms: files in one file system share its space, and what they have of it
// already is not asked for again.
func TestRooms(t *testing.T) {
	dir := t.TempDir()
	cfg := &config.Config{}
	add := func(name string, size int64, role mover.Role) {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		cfg.Exports = append(cfg.Exports, config.Export{Name: name, URI: "file://" + path, Role: role})
	}
	add("a", 1<<20, mover.RoleTarget)
	add("b", 3<<20, mover.RoleTarget)
	add("source", 1<<43, mover.RoleSource)
	cfg.Exports = append(cfg.Exports, config.Export{Name: "gone", URI: "file://" + dir + "/gone", Role: mover.RoleTarget})
	if got := told(cfg, (*checks).rooms); !strings.Contains(got, "may take 4.0 MiB more") || strings.Count(got, "\n") != 1 {
		t.Errorf("two targets of 4 MiB: %s", got)
	}
	add("c", 1<<43, mover.RoleTarget)
	if got := told(cfg, (*checks).rooms); !strings.HasPrefix(got, "warn space of ") || !strings.Contains(got, "8.0 TiB more") {
		t.Errorf("a target that its file system cannot hold: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Exports = cfg.Exports[:2]
	if got := told(cfg, (*checks).rooms); !strings.Contains(got, "may take 3.0 MiB more") {
		t.Errorf("one of two targets is written: %s", got)
	}
}

// TestPorts: a port that somebody has is told, and who shows by which command.
func TestPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ports := func(c *checks) { c.ports(t.Context()) }
	cfg := &config.Config{Listen: l.Addr().String(), QUIC: true, TLS: true}
	if got := told(cfg, ports); !strings.Contains(got, "ok listen: udp "+cfg.Listen+" is free") || !strings.Contains(got, "warn listen: tcp "+cfg.Listen+" is taken | ss -ltnp") {
		t.Errorf("the TCP port is taken: %s", got)
	}
	cfg.Listen, cfg.QUIC = "192.0.2.1:7420", false
	if got := told(cfg, ports); !strings.HasPrefix(got, "fail listen: ") || !strings.Contains(got, "ip -brief address") || strings.Contains(got, "udp") {
		t.Errorf("an address of another machine: %s", got)
	}
}

// TestLibrary: what is advised makes the folder that is looked in, and a worker of
// another version is told.
func TestLibrary(t *testing.T) {
	look := func(c *checks) { c.library(t.Context(), "/opt/vddk") }
	t.Setenv("PATH", "")
	if got := told(nil, look); !strings.HasPrefix(got, "fail vddk /opt/vddk: ") || !strings.Contains(got, "&& mv vmware-vix-disklib-distrib /opt/vddk") {
		t.Errorf("no worker: %s", got)
	}
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	for version, want := range map[string]string{build.Current().Version: "ok vddk /opt/vddk: haulback-vddk ", "0.1": "warn vddk /opt/vddk: haulback-vddk 0.1, VDDK 8: this program is "} {
		script := "#!/bin/sh\necho haulback-vddk " + version + "\necho VDDK 8\n"
		if err := os.WriteFile(filepath.Join(bin, "haulback-vddk"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := told(nil, look); !strings.HasPrefix(got, want) {
			t.Errorf("a worker of version %s: %s", version, got)
		}
	}
}

// TestRemedies: a disk that cannot be opened comes with what shows or mends it.
func TestRemedies(t *testing.T) {
	missing := fmt.Errorf("open: %w", os.ErrNotExist)
	for _, c := range []struct {
		uri  string
		err  error
		want string
	}{
		{"file:///srv/images/a.img", missing, "ls -l /srv/images"},
		{"file:///srv/images/a.img", fmt.Errorf("open: %w", os.ErrPermission), "setfacl -m u:"},
		{"nbd://127.0.0.1/x", missing, "docs/disks.md"},
		{"file:///srv/images/a.img", os.ErrInvalid, "docs/disks.md"},
	} {
		if got := remedyOf(c.uri, c.err); !strings.Contains(got, c.want) {
			t.Errorf("%s: %v: %q, want %q in it", c.uri, c.err, got, c.want)
		}
	}
}
