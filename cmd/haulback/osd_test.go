package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// cluster is a server of volumes, on images, and the profile that leads to it.
func cluster(t *testing.T) (s *osdtest.Server, profile string) {
	t.Helper()
	s, err := osdtest.New(osdtest.Config{Dir: t.TempDir(), Auth: true})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s, fmt.Sprintf("[[openstorage]]\nname = \"px\"\nendpoint = %q\ntoken_file = %q\nfiles = true\ndevices = [%q]\n", s.Endpoint(), s.TokenFile(), s.Image("*"))
}

// filled adds a volume with the bytes of a file.
func filled(t *testing.T, s *osdtest.Server, name, path string) string {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	st, err := f.Stat()
	check(t, err)
	id, err := s.AddVolume(name, st.Size(), f)
	check(t, err)
	return id
}

// TestVolumes: volumes are disks like others to every command.
func TestVolumes(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	server, profile := cluster(t)
	config := filepath.Join(s.Dir, "profiles.toml")
	write(t, config, profile)
	a, b := s.Disk("a", 4*mib, 1), s.Disk("b", 4*mib, 2)
	id := filled(t, server, "vol", b)
	run := func(args ...string) cmdtest.Result {
		t.Helper()
		return s.Run(append(args, "--config", config)...)
	}
	ok := func(args ...string) cmdtest.Result {
		t.Helper()
		r := run(args...)
		if r.Code != 0 {
			t.Fatalf("%q: exit code %d\n%s%s", args, r.Code, r.Out, r.Stderr)
		}
		return r
	}

	if r := ok("probe", "osd://px/vol"); !strings.Contains(r.Out, "osd:nfs/"+id) || !strings.Contains(r.Out, "4.0 MiB") || server.Calls("Attach")+server.Calls("Clone") != 0 {
		t.Errorf("probe, %d attachments:\n%s", server.Calls("Attach"), r.Out)
	}
	ok("copy", a, "osd://px/vol")
	cmdtest.MustEqual(t, a, server.Image(id))
	if r := ok("probe", "osd://px/"+id); !strings.Contains(r.Out, "Verified") {
		t.Errorf("the journal does not know the volume:\n%s", r.Out)
	}
	ok("copy", "osd://px/vol", b)
	cmdtest.MustEqual(t, a, b)
	ok("verify", a, "osd://px/vol")
	if r := ok("estimate", "osd://px/vol"); r.Out == "" {
		t.Error("no estimate")
	}
	if r := ok("extents", "osd://px/vol", "--json"); !strings.Contains(r.Out, `"complete":true`) {
		t.Errorf("extents:\n%s", r.Out)
	}
	for _, v := range server.Volumes() {
		if v.Attached {
			t.Errorf("left attached: %+v", v)
		}
	}

	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{10, "there are: px", []string{"probe", "osd://py/vol"}},
		{10, "PROFILE/VOLUME", []string{"probe", "osd://px"}},
		{10, "same disk", []string{"copy", "osd://px/vol", "osd://px/vol"}},
		{10, "not found", []string{"copy", a, "osd://px/vol?snapshot=x"}},
		{10, "not", []string{"probe", "osd://px/none"}},
		{10, "--create", []string{"copy", a, "osd://px/none", "--create"}},
	} {
		if r := run(c.args...); r.Code != c.code || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", c.args, r.Code, c.code, c.want, r.Stderr)
		}
	}
	if r := s.Run("probe", "osd://px/vol", "--config", config+"x"); r.Code != 10 {
		t.Errorf("no configuration: exit code %d: %s", r.Code, r.Stderr)
	}
	server.Down()
	if r := run("probe", "osd://px/vol"); r.Code != 13 {
		t.Errorf("no server: exit code %d: %s", r.Code, r.Stderr)
	}
	check(t, server.Up())
	_, err := server.AttachOutside(id, "node-9")
	check(t, err)
	if r := run("copy", a, "osd://px/vol"); r.Code != 11 || !strings.Contains(r.Stderr, "node-9") {
		t.Errorf("attached elsewhere: exit code %d: %s", r.Code, r.Stderr)
	}
	token, err := os.ReadFile(server.TokenFile())
	check(t, err)
	write(t, server.TokenFile(), server.Token("haulback", "system.user", -time.Hour))
	if r := run("probe", "osd://px/vol"); r.Code != 12 || strings.Contains(r.Stderr, string(token)) {
		t.Errorf("a token that is over: exit code %d: %s", r.Code, r.Stderr)
	}
	for _, r := range []cmdtest.Result{ok("config", "show", config), run("selfcheck")} {
		if strings.Contains(r.Out+r.Stderr, strings.TrimSpace(string(token))) {
			t.Errorf("the token is shown:\n%s", r.Out)
		}
	}
}

// TestVolumesOfADaemon: exports and jobs have volumes, and a profile that comes with
// a reload is used.
func TestVolumesOfADaemon(t *testing.T) {
	t.Parallel()
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	server, profile := cluster(t)
	desk.Pair(home)
	a, zeros := desk.Disk("a", 3*mib, 1), home.Disk("zeros", 3*mib, 0)
	id, other := filled(t, server, "vol", zeros), filled(t, server, "other", zeros)
	d := home.Daemon(cmdtest.Export("plain", zeros, "source", desk))
	text, err := os.ReadFile(filepath.Join(home.Dir, "haulbackd.toml"))
	check(t, err)
	write(t, filepath.Join(home.Dir, "haulbackd.toml"), string(text)+profile+cmdtest.Export("vol", "osd://px/vol", "target", desk))
	d.Signal(sighup)
	cmdtest.Await(t, "the reload", func() bool { return strings.Contains(d.Stderr(), "configuration reloaded") })

	desk.OK("copy", a, d.URI("vol"))
	cmdtest.MustEqual(t, a, server.Image(id))
	if r := desk.OK("probe", d.URI("vol")); !strings.Contains(r.Out, "osd") || !strings.Contains(r.Out, "Verified") {
		t.Errorf("probe:\n%s", r.Out)
	}
	socket := home.State + "/control.sock"
	home.OK("job", "submit", "--id", "j", "osd://px/vol", "osd://px/other", "--wait", "--socket", socket)
	cmdtest.MustEqual(t, a, server.Image(other))
	if r := home.Run("job", "submit", "--id", "k", "osd://px/vol", "osd://px/vol", "--socket", socket); r.Code != 10 {
		t.Errorf("onto itself: exit code %d: %s", r.Code, r.Stderr)
	}
	for _, v := range server.Volumes() {
		if v.Attached || v.ID != id && v.ID != other {
			t.Errorf("left: %+v", v)
		}
	}
}

// TestSelfcheckOfVolumes: the endpoint, its node and all volumes are looked at, and
// nothing is attached or swept.
func TestSelfcheckOfVolumes(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	server, profile := cluster(t)
	filled(t, server, "vol", s.Disk("a", mib, 1))
	host := "[[export]]\nname = \"k8s\"\nrole = \"host\"\nopenstorage = \"px\"\n[controller]\n[[host]]\nname = \"k8s\"\nkind = \"openstorage\"\nopenstorage = \"px\"\n" +
		"[[host.workload]]\nname = \"shop\"\nvolumes = [\"vol\"%s]\ncompute = \"none\"\n"
	file := s.Configure(profile, cmdtest.Export("vol", "osd://px/vol", "source"), fmt.Sprintf(host, ""))
	r := s.Run("selfcheck", "--config", file)
	for _, w := range []string{
		"OK    openstorage px: nfs ", "node node-1", "OK    export vol: osd, 1.0 MiB", "OK    export k8s: a host, by OpenStorage profile \"px\"",
		"OK    host k8s: OpenStorage nfs ", "1 workloads", "OK    mover of k8s: self reaches its disks",
	} {
		if !strings.Contains(r.Out, w) {
			t.Errorf("%q is not in\n%s", w, r.Out)
		}
	}
	if n := server.Calls("Attach") + server.Calls("Clone"); r.Code != 0 || n != 0 {
		t.Errorf("exit code %d, %d attachments: %s", r.Code, n, r.Stderr)
	}
	if _, err := os.Stat(filepath.Join(s.State, "openstorage")); err == nil {
		t.Error("it has made a ledger")
	}
	file = s.Configure(strings.Replace(profile, "files", "node = \"node-7\"\nfiles", 1), cmdtest.Export("vol", "osd://px/vol", "source"), fmt.Sprintf(host, ", \"lost\""))
	r = s.Run("selfcheck", "--config", file)
	for _, w := range []string{"FAIL  openstorage px: ", "node-7", "FAIL  host k8s: workload shop: ", "lost", "FAIL  mover of k8s"} {
		if !strings.Contains(r.Out, w) {
			t.Errorf("%q is not in\n%s", w, r.Out)
		}
	}
	server.Down()
	if r := s.Run("selfcheck", "--config", file); r.Code == 0 || !strings.Contains(r.Out, "does it answer") {
		t.Errorf("no server: exit code %d\n%s", r.Code, r.Out)
	}
}
