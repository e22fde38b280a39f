package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestExitCodes drives the program into every exit code that it has, and holds
// the table of the manual against what was met.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	stranger := cmdtest.NewSite(t, &programs, "stranger")
	desk.Pair(home)
	stranger.OK("peer", "add", home.ID, "--name", "home")
	a, b, same := desk.Disk("a", 24*mib, 1), desk.Disk("b", 24*mib, 2), desk.Disk("same", 24*mib, 1)
	d := home.Daemon(cmdtest.Export("q", home.Disk("q", 24*mib, 4), "target", desk))
	garbage := filepath.Join(desk.Dir, "garbage.toml")
	write(t, garbage, "a\x1b[2J\x00\xff = 1\n")
	met := map[int]bool{}
	expect := func(name string, code int, r cmdtest.Result) {
		t.Helper()
		met[r.Code] = true
		if r.Code != code || code != 0 && !strings.Contains(r.Stderr, "haulback: ") {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, r.Code, code, r.Out, r.Stderr)
		}
	}
	expect("equal", 0, desk.Run("verify", a, same))
	expect("different", 4, desk.Run("verify", a, b))
	expect("different", 4, desk.Run("diff", a, b))
	expect("no such file", 10, desk.Run("probe", a+"x"))
	expect("no such flag", 10, desk.Run("diff", a, b, "--nonsense"))
	expect("mistake in a configuration", 10, desk.Run("config", "check", garbage))
	if r := desk.Run("config", "check", garbage); strings.ContainsAny(r.Stderr, "\x1b\x00") || !utf8.ValidString(r.Stderr) {
		t.Errorf("a file speaks to the terminal: %q", r.Stderr)
	}
	expect("no clone", 14, desk.Run("copy", a, b, "--cbt", "fiemap:"+same, "--strict"))
	expect("no clone", 14, desk.Run("extents", a, "--cbt", "fiemap:"+same))
	expect("not paired", 12, stranger.Run("probe", d.URI("q")))
	expect("nobody there", 13, desk.Run("probe", "haulback://127.0.0.1:1/q?peer=home"))
	expect("a list that cannot be written", 1, fullDisk(t, desk, "extents", a))

	slow := desk.Start("copy", a, d.URI("q"), "--rate", "1MiB", "--json", "--retry", "0s", "--transport", "tls")
	awaitWritten(t, slow)
	expect("held by a run", 11, desk.Run("copy", b, d.URI("q"), "--retry", "0s"))
	d.Signal(os.Kill)
	r := slow.Wait()
	if met[r.Code] = true; r.Code != 3 || !strings.Contains(r.Stderr, "--run ") {
		t.Errorf("cut: exit code %d, want 3\n%s", r.Code, r.Stderr)
	}
	d.Wait()

	home.DaemonAt(d.Listen, cmdtest.Export("q", filepath.Join(home.Dir, "q"), "target", desk))
	stopped := desk.Start("copy", b, d.URI("q"), "--rate", "1MiB", "--json")
	awaitWritten(t, stopped)
	stopped.Signal(os.Interrupt)
	if r := stopped.Wait(); r.Code != 130 {
		t.Errorf("stopped: exit code %d, want 130\n%s", r.Code, r.Stderr)
	} else {
		met[r.Code] = true
	}

	text, err := os.ReadFile("../../docs/operation.md")
	check(t, err)
	_, table, _ := strings.Cut(string(text), "## Exit codes")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(table, -1)
	var listed []int
	for _, row := range rows {
		n, err := strconv.Atoi(row[1])
		check(t, err)
		listed = append(listed, n)
		if !met[n] && n != 5 { // 5: a host refused; nothing here talks to one
			t.Errorf("exit code %d of the manual was not met", n)
		}
	}
	for n := range met {
		if !slices.Contains(listed, n) {
			t.Errorf("exit code %d is not in docs/operation.md", n)
		}
	}
}
