package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/haulback/haulback/"

// arrows says which of our folders each may import, besides itself
// (DESIGN.md section 2). A folder that is not here may not exist.
var arrows = map[string][]string{
	"cbt":     {},
	"wire":    {"cbt"},
	"vddk":    {"cbt"},
	"mover":   {"cbt", "wire"},
	"hostctl": {"cbt"},
	"bench":   {"cbt", "wire", "mover"},
	"cmd":     {"cbt", "wire", "vddk", "mover", "hostctl", "bench"}, // bench: haulbench alone, see below
}

// foreign says which modules of others the pure folders may link.
var foreign = map[string][]string{
	"cbt":  {"github.com/zeebo/blake3", "golang.org/x/sys/cpu"},
	"wire": {"github.com/zeebo/blake3", "github.com/quic-go/quic-go", "github.com/pierrec/lz4/v4", "golang.org/x/sys", "golang.org/x/net/ipv4"},
	"vddk": {"golang.org/x/sys"},
}

type goPackage struct {
	ImportPath    string
	Imports, Deps []string
}

func list(t *testing.T) (packages []goPackage) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func folder(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, module)
	name, _, _ := strings.Cut(rest, "/")
	return name, ok
}

// isKit tells test kits: mover/movertest, cmd/internal/cmdtest.
func isKit(path string) bool {
	return strings.HasSuffix(path, "test") && strings.HasPrefix(path, module)
}

func TestImportArrows(t *testing.T) {
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list knows %d packages only: nothing is checked", len(packages))
	}
	for _, p := range packages {
		from, _ := folder(p.ImportPath)
		may, known := arrows[from]
		if !known {
			t.Errorf("%s: no folder %q in DESIGN.md section 2", p.ImportPath, from)
		}
		for _, i := range p.Imports {
			to, ours := folder(i)
			switch {
			case ours && to != from && !slices.Contains(may, to):
				t.Errorf("%s imports %s: %s may import %q only", p.ImportPath, i, from, may)
			case isKit(i) && !isKit(p.ImportPath) && (p.ImportPath != module+"cmd/haulback-sim" || i != module+"hostctl/osd/osdtest"):
				t.Errorf("%s imports the test kit %s outside of a test", p.ImportPath, i)
			case !ours && !may3rd(from, p.ImportPath, i):
				t.Errorf("%s imports %s: %s may link %q only", p.ImportPath, i, from, foreign[from])
			}
		}
		if slices.Contains(p.Imports, module+"vddk/vix") && p.ImportPath != module+"cmd/haulback-vddk" {
			t.Errorf("%s imports vddk/vix, which needs cgo: haulback-vddk alone may", p.ImportPath)
		}
		if from != "bench" && p.ImportPath != module+"cmd/haulbench" && slices.ContainsFunc(p.Imports, func(i string) bool { to, _ := folder(i); return to == "bench" }) {
			t.Errorf("%s imports a benchmark: haulbench alone may", p.ImportPath)
		}
		if p.ImportPath != module+"cmd/haulback-sim" && p.ImportPath != module+"hostctl/simvs" {
			for _, d := range []string{module + "hostctl/simvs", "github.com/vmware/govmomi/simulator"} {
				if slices.Contains(p.Deps, d) {
					t.Errorf("%s links %s: haulback-sim alone may, a daemon never", p.ImportPath, d)
				}
			}
		}
		if slices.Contains(p.Deps, "github.com/quic-go/quic-go/http3") {
			t.Errorf("%s links HTTP/3 (DESIGN.md section 4)", p.ImportPath)
		}
	}
}

// may3rd checks packages of others: the standard library has no dot in the
// first element. The generated control API has its own needs.
func may3rd(from, pkg, imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	list, limited := foreign[from]
	if !limited || !strings.Contains(first, ".") || strings.HasPrefix(pkg, module+"wire/control/") {
		return true
	}
	return slices.ContainsFunc(list, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") })
}
