package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// entry is a line of a golden file: mode, owner, c for a configuration that is kept
// when it was edited, path. Manual pages come and go with commands, and are one line.
func entry(mode, owner, flags, path string) (string, bool) {
	if strings.HasPrefix(mode, "d") && !strings.Contains(path, "haulback") {
		return "", false // everybody's
	}
	if strings.HasPrefix(path, "/usr/share/man/man1/haulback") {
		path = "/usr/share/man/man1/*"
	}
	return strings.Join([]string{mode, owner, flags, path}, " ") + "\n", true
}

func listDeb(t *testing.T, deb string) (list []string) {
	t.Helper()
	kept := ""
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "-I", deb, "conffiles").Output(); err == nil {
		kept = string(out)
	}
	for line := range strings.Lines(run(t, "dpkg-deb", "-c", deb)) {
		f := strings.Fields(line)
		path, flags := strings.TrimSuffix(f[5][1:], "/"), "-"
		if strings.Contains("\n"+kept, "\n"+path+"\n") {
			flags = "c"
		}
		if e, ok := entry(f[0], f[1], flags, path); ok {
			list = append(list, e)
		}
	}
	return list
}

func listRPM(t *testing.T, rpm string) (list []string) {
	t.Helper()
	for line := range strings.Lines(run(t, "rpm", "-qp", "--qf", `[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} -%{FILEFLAGS:fflags} %{FILENAMES}\n]`, rpm)) {
		f := strings.Fields(line)
		flags := f[2]
		switch flags {
		case "-cn":
			flags = "c"
		case "-d", "-l": // documentation, a licence
			flags = "-"
		}
		if e, ok := entry(f[0], f[1], flags, f[3]); ok {
			list = append(list, e)
		}
	}
	return list
}

// TestContents holds path, mode and owner of what is installed against golden files.
func TestContents(t *testing.T) {
	t.Parallel()
	p := need(t)
	for _, c := range []struct {
		golden, pattern string
		list            func(*testing.T, string) []string
	}{
		{"haulback.deb.txt", "haulback_*_amd64.deb", listDeb},
		{"haulback.deb.txt", "haulback_*_arm64.deb", listDeb},
		{"haulback-vddk.deb.txt", "haulback-vddk_*_amd64.deb", listDeb},
		{"haulback.rpm.txt", "haulback-[0-9]*.x86_64.rpm", listRPM},
		{"haulback.rpm.txt", "haulback-[0-9]*.aarch64.rpm", listRPM},
		{"haulback-vddk.rpm.txt", "haulback-vddk-*.x86_64.rpm", listRPM},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			needTool(t, strings.TrimSuffix(filepath.Ext(c.pattern), "."))
			list := c.list(t, file(t, p.next, c.pattern))
			slices.SortFunc(list, func(a, b string) int { return strings.Compare(strings.Fields(a)[3], strings.Fields(b)[3]) })
			got, golden := strings.Join(slices.Compact(list), ""), filepath.Join("testdata", c.golden)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := read(t, golden); got != want {
				t.Errorf("%s is not what is in the package; go test -update writes it anew\ngot:\n%s", golden, got)
			}
		})
	}
}

// needTool skips where the tool of a kind of package is missing.
func needTool(t *testing.T, kind string) {
	t.Helper()
	tool := map[string]string{".deb": "dpkg", ".rpm": "rpm"}[kind]
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("NOT TESTED: the packages for %s: it is not here; deploy/ci/prepare.sh installs it", tool)
	}
}

// TestLintian: Debian's own check finds no error. The big programs are taken out first,
// and manual pages left out (they are tested where they are made): it reads every string
// and renders every page, for half a minute, and has nothing to say of them.
func TestLintian(t *testing.T) {
	t.Parallel()
	p := need(t)
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("NOT TESTED: what lintian says of the packages; deploy/ci/prepare.sh installs it")
	}
	deb := filepath.Join(t.TempDir(), "haulback.deb")
	run(t, "bash", "-euc", `
dpkg-deb -R "$1" "$2.d"
rm "$2.d/usr/bin/haulback" "$2.d/usr/bin/haulbackd"
sed -i /usr.bin/d "$2.d/DEBIAN/md5sums"
dpkg-deb --root-owner-group -b "$2.d" "$2"
lintian -X documentation/manual --fail-on error "$2" "$3"`, "bash", file(t, p.one, "haulback_*.deb"), deb, file(t, p.one, "haulback-vddk_*.deb"))
}
