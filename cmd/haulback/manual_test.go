package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

const sighup = syscall.SIGHUP

// TestManual renders the pages of both programs; groff has nothing to warn of,
// and two builds are equal.
func TestManual(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		for _, program := range []string{"haulback", "haulbackd"} {
			if r := programs.StartEnv(t, []string{"SOURCE_DATE_EPOCH=1700000000"}, program, "man", "--dir", dir).Wait(); r.Code != 0 {
				t.Fatalf("%s: %s", program, r.Stderr)
			}
		}
	}
	pages, err := filepath.Glob(dirs[0] + "/*.1")
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		a, err := os.ReadFile(page)
		check(t, err)
		b, err := os.ReadFile(filepath.Join(dirs[1], filepath.Base(page)))
		if check(t, err); string(a) != string(b) {
			t.Errorf("%s: two builds differ", filepath.Base(page))
		}
		cmd := exec.CommandContext(t.Context(), "groff", "-man", "-ww", "-Tascii", "-P-cbou", page)
		var warned strings.Builder
		cmd.Stderr = &warned
		text, err := cmd.Output()
		if err != nil || warned.Len() > 0 || !strings.Contains(string(text), "SYNOPSIS") {
			t.Errorf("%s: %v: %s", filepath.Base(page), err, warned.String())
		}
	}
	if text, err := os.ReadFile(dirs[0] + "/haulback-copy.1"); err != nil || !strings.Contains(string(text), "Nov 2023") {
		t.Errorf("the date of SOURCE_DATE_EPOCH is not in the page: %v", err)
	}
	if r := programs.Run(t, "haulback", "man", "--dir", "/none"); r.Code != 10 {
		t.Errorf("no directory: exit code %d: %s", r.Code, r.Stderr)
	}
}

// TestCompletion: every shell gets a script that its own parser takes, and what
// it asks for is answered.
func TestCompletion(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	other := cmdtest.NewSite(t, &programs, "other")
	s.OK("peer", "add", other.ID, "--name", "brigid")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := filepath.Join(t.TempDir(), "script")
		write(t, script, s.OK("completion", shell).Out)
		if path, err := exec.LookPath(shell); err == nil {
			if out, err := exec.CommandContext(t.Context(), path, "-n", script).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v: %s", shell, err, out)
			}
		}
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{""}, []string{"copy", "diff", "extents", "estimate", "selfcheck", "config", "capabilities", "verify"}},
		{[]string{"ex"}, []string{"extents"}},
		{[]string{"copy", "--tr"}, []string{"--transport"}},
		{[]string{"copy", "--transport", ""}, []string{"quic", "tls"}},
		{[]string{"verify", "--transport", "t"}, []string{"tls"}},
		{[]string{"copy", "--verify", ""}, []string{"pass", "full"}},
		{[]string{"extents", "--cbt", "b"}, []string{"bitmap:"}},
		{[]string{"config", ""}, []string{"check", "show"}},
		{[]string{"peer", "remove", ""}, []string{"brigid"}},
	} {
		r := s.OK(append([]string{"__complete"}, c.args...)...)
		var got []string
		for line := range strings.Lines(r.Out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			got = append(got, word)
		}
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("%q: no %q in %q", c.args, w, got)
			}
		}
		if slices.Contains(got, "man") {
			t.Error("man is for those who build packages")
		}
	}
}

// TestCapabilities: what is said to be there is.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	text := s.OK("capabilities").Out
	for _, name := range features {
		if !strings.Contains(text, name+" YES\n") && !strings.Contains(text, name+" NO\n") {
			t.Errorf("no line for %s in\n%s", name, text)
		}
	}
	c := lastLine(t, s.OK("support", "--json").Out, "summary")
	if len(c["features"].(map[string]any)) != len(features) {
		t.Errorf("features %v", c["features"])
	}
	for _, scheme := range c["schemes"].([]any) {
		if r := s.Run("probe", scheme.(string)+"://"); strings.Contains(r.Stderr, "unknown scheme") {
			t.Errorf("scheme %v: %s", scheme, r.Stderr)
		}
	}
}
