package packages

import (
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// packages are those of a tree and of the next version of it.
type packages struct {
	once        sync.Once
	dir         string
	one, again  string // of the same tree, built in two directories; amd64 alone
	next        string // of the next commit
	skip, fault string
}

var built packages

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "packages")
	if err != nil {
		panic(err)
	}
	built.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// need builds what the tests look at, when the first asks.
func need(t *testing.T) *packages {
	t.Helper()
	if race {
		t.Skip("the packages are built and tried without the race detector")
	}
	built.once.Do(built.build)
	if built.skip != "" {
		t.Skip(built.skip)
	}
	if built.fault != "" {
		t.Fatal(built.fault)
	}
	return &built
}

func (p *packages) build() {
	for _, tool := range []string{"git", "gcc", "objdump", "tar", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			p.skip = "NOT TESTED: the packages need " + tool + "; deploy/ci/prepare.sh installs it"
			return
		}
	}
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		p.skip = "NOT TESTED: the packages are of a commit, and this is no checkout"
		return
	}
	p.one, p.again, p.next = filepath.Join(p.dir, "one"), filepath.Join(p.dir, "again"), filepath.Join(p.dir, "next")
	first, second := filepath.Join(p.dir, "tree"), filepath.Join(p.dir, "a longer name of", "the tree")
	errs := make([]error, 2)
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = buildTree(strings.TrimSpace(string(root)), first, p.one) })
	wg.Go(func() {
		// Modes of files must not come from who checks out, nor flags from his settings.
		if errs[1] = buildTree(strings.TrimSpace(string(root)), second, p.again, "umask 077",
			`{ cat "$(go env GOENV)" 2>/dev/null || :; echo GOFLAGS=-gcflags=-N; } >"$3.env"; export GOENV="$3.env"`); errs[1] == nil {
			errs[1] = buildNext(second, p.next)
		}
	})
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			p.fault = err.Error()
		}
	}
}

// buildTree builds the packages of what is in the working tree, committed or not, in
// a clone: Go records no commit in a linked worktree, and this one stays as it is.
func buildTree(root, dir, out string, before ...string) error {
	script := strings.Join(append(before, `
git clone -q --shared --no-checkout "$1" "$2"
git -C "$1" ls-files -coz --exclude-standard | tar -C "$1" -c --null -T - --ignore-failed-read 2>/dev/null | tar -C "$2" -xm
cd "$2"
git reset -q
deploy/packages/build.sh "$3" amd64`), "\n")
	return bash(script, root, dir, out)
}

// buildNext commits to dir, a day later, another configuration and what else is new.
func buildNext(dir, out string) error {
	return bash(`
cd "$1"
echo "# The next version has this line." >>deploy/packages/haulbackd.toml
export GIT_COMMITTER_DATE="$(($(git log -1 --format=%ct) + 86400)) +0000"
git add -A
git -c user.name=test -c user.email=test@example.org commit -qm next
deploy/packages/build.sh "$2" amd64 arm64`, dir, out)
}

func bash(script string, args ...string) error {
	out, err := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// file is the one file of dir that fits the pattern.
func file(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %q, %v; want one", pattern, dir, found, err)
	}
	return found[0]
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// run is a program that has to work.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestReproducible: nothing of the directory, the time or the user is in a package.
func TestReproducible(t *testing.T) {
	t.Parallel()
	p := need(t)
	a, b := read(t, filepath.Join(p.one, "SHA256SUMS")), read(t, filepath.Join(p.again, "SHA256SUMS"))
	if a != b || strings.Count(a, "\n") != 7 {
		t.Errorf("two builds of one tree differ, or are not 4 packages and 3 lists of parts:\n%s\n%s", a, b)
	}
	for _, dir := range []string{p.one, p.next} {
		out := run(t, "bash", "-c", `cd "$1" && sha256sum -c --strict SHA256SUMS`, "bash", dir)
		if files, _ := filepath.Glob(dir + "/*.*"); strings.Count(out, ": OK\n") != len(files) {
			t.Errorf("%d files, and checked are\n%s", len(files), out)
		}
	}
}

// TestArchitecture: the programs of a package are for the machine that it says.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	p := need(t)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		deb := file(t, p.next, "haulback_*_"+arch+".deb")
		if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", deb, "Architecture")); got != arch {
			t.Errorf("%s is for %s", filepath.Base(deb), got)
		}
		program, err := exec.CommandContext(t.Context(), "bash", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -xO ./usr/bin/haulbackd`, "bash", deb).Output()
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if libs, _ := f.ImportedLibraries(); f.Machine != machine || len(libs) > 0 || f.Section(".symtab") != nil {
			t.Errorf("%s: machine %v, libraries %q, want %v, static and stripped", arch, f.Machine, libs, machine)
		}
	}
}
