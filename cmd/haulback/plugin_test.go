package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// plugin is the plugin that docs/integration.md prints.
type plugin struct {
	t    *testing.T
	file string
	env  []string
	site *cmdtest.Site
	dir  string
}

func newPlugin(t *testing.T) *plugin {
	t.Helper()
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skipf("SKIPPED: the plugin of docs/integration.md needs python3: %v", err)
	}
	_, text, ok := strings.Cut(readAll(t, "../../docs/integration.md"), "<!-- plugin begin -->\n```python\n")
	text, _, end := strings.Cut(text, "```\n<!-- plugin end -->")
	if !ok || !end {
		t.Fatal("docs/integration.md has no plugin between its markers")
	}
	p := &plugin{t: t, site: cmdtest.NewSite(t, &programs, "desk")}
	p.dir = p.site.Dir
	p.file = filepath.Join(p.dir, "plugin.py")
	if err := os.WriteFile(p.file, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	p.env = []string{
		"HAULBACK=" + filepath.Join(programs.Dir(t), "haulback") + " --state-dir " + p.site.State, "CATALOG=" + p.dir,
		"HOME=" + p.dir, "PATH=/usr/bin:/bin", "GORACE=atexit_sleep_ms=10",
	}
	return p
}

// run runs a verb of the plugin with files as its standard input and output.
func (p *plugin) run(in, out, cbt string, args ...string) cmdtest.Result {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "/usr/bin/python3", append([]string{p.file}, args...)...)
	cmd.Env = append(p.env, "CBT="+cbt)
	var said strings.Builder
	cmd.Stderr = &said
	if in != "" {
		cmd.Stdin = open(p.t, in, os.O_RDONLY)
	}
	if out != "" {
		cmd.Stdout = open(p.t, out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return cmdtest.Result{Code: cmd.ProcessState.ExitCode(), Stderr: said.String()}
}

// TestIntegrationPlugin runs the text of docs/integration.md against a disk that
// QEMU tracks: full, two days of changes, and back. Bytes are judged by cmp.
func TestIntegrationPlugin(t *testing.T) {
	t.Parallel()
	nbdtest.Need(t, "qemu-nbd")
	p := newPlugin(t)
	image, at := p.dir+"/vm1.qcow2", func(name string) string { return filepath.Join(p.dir, name) }
	guest := func(day string, writes ...string) { // a day's work, and what the disk holds in the evening
		args := []string{"-f", "qcow2"}
		for _, w := range writes {
			args = append(args, "-c", w)
		}
		if out := nbdtest.Run(t, "qemu-io", append(args, image)...); strings.Contains(out, "failed") {
			t.Fatal(out)
		}
		nbdtest.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, at(day+".raw"))
	}
	track := func(bitmap string) { nbdtest.Run(t, "qemu-img", "bitmap", "--add", "-g", "65536", image, bitmap) }
	backup := func(bitmap, level, stream string, code int, words ...string) {
		t.Helper()
		args := []string{"-r", "-t", "-f", "qcow2", image}
		if level == "changed" && bitmap != "lost" {
			args = append([]string{"-B", bitmap}, args...)
		}
		s := nbdtest.Unix(t, "qemu-nbd", args...)
		defer s.Kill()
		want(t, "selfcheck", p.run("", "", "", "selfcheck", "vm1", s.URI), 0, "OK nbd", "67108864 bytes")
		want(t, "estimate", p.run("", "", "bitmap:"+bitmap, "estimate", "vm1", s.URI, level), 0, "OK ", "to store at most")
		want(t, "backup "+level, p.run("", at(stream), "bitmap:"+bitmap, "backup", "vm1", s.URI, level), code, words...)
	}
	restored := func(stream, day string) {
		t.Helper()
		want(t, "verify", p.run(at(stream), "", "", "verify", "vm1"), 0, "OK whole")
		want(t, "restore", p.run(at(stream), "", "", "restore", "vm1", at("home.img")), 0, "OK Verified")
		cmpFiles(t, at(day+".raw"), at("home.img"), 0)
	}

	nbdtest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
	guest("day0", "write -P 1 0 9M", "write -P 2 40M 3M", "write -P 3 67108352 512")
	track("b0")
	backup("b0", "changed", "full.hb", 0, "MESSAGE there is no base yet", "changed was asked for, full was made")
	guest("day1", "write -P 9 1M 100k", "write -z 41M 1M", "discard 5M 64k")
	track("b1")
	backup("b0", "changed", "inc1.hb", 0, "changed was asked for, changed was made")
	guest("day2", "write -P 7 60M 200k", "write -P 8 0 512")
	backup("b1", "changed", "inc2.hb", 0, "changed was asked for, changed was made")
	if sum := jsonLine(t, readAll(t, at("vm1.json")), "summary"); sum["carried"].(float64) > 16*mib || sum["kind"] != "changed" {
		t.Errorf("a changed stream of a disk of 64 MiB carries %v bytes", sum["carried"])
	}

	want(t, "changes first", p.run(at("inc1.hb"), "", "", "restore", "vm1", at("home.img")), 10, "ERROR failed (10)", "full stream first")
	restored("full.hb", "day0")
	want(t, "a day left out", p.run(at("inc2.hb"), "", "", "restore", "vm1", at("home.img")), 14, "ERROR failed (14)")
	cmpFiles(t, at("day0.raw"), at("home.img"), 0)
	restored("inc1.hb", "day1")
	restored("inc2.hb", "day2")

	if err := os.Truncate(at("inc2.hb"), 1000); err != nil {
		t.Fatal(err)
	}
	want(t, "verify", p.run(at("inc2.hb"), "", "", "verify", "vm1"), 4, "ERROR failed (4)")
	before := readAll(t, at("vm1.json"))
	backup("lost", "changed", "again.hb", 0, "changed was asked for, full was made (no hint")
	want(t, "no disk", p.run("", at("none.hb"), "", "backup", "vm1", "nbd+unix:///?socket="+at("none"), "full"), 13, "RETRY cannot be reached (13)")
	if after := readAll(t, at("vm1.json")); after == before || strings.Contains(after, "none") {
		t.Errorf("the catalog has\n%s", after)
	}
}
