package failback_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/haulback/haulback/hostctl/failback"
)

// rows are those of the acceptance list: destinations and state, the nine steps,
// the variant for a new VM, the ends.
func rows() (list []int) {
	for _, r := range [][2]int{{1, 5}, {10, 19}, {20, 23}, {30, 33}} {
		for n := r[0]; n <= r[1]; n++ {
			list = append(list, n)
		}
	}
	return list
}

var rowName = regexp.MustCompile(`^TestFB(\d\d)(?:To(\d\d))?[A-Z]`)

// TestEachRowHasATest finds the number of each row of the acceptance list in the
// name of a test of this package, and no number that is none.
func TestEachRowHasATest(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[int]string{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			m := rowName.FindStringSubmatch(fn.Name.Name)
			if m == nil {
				continue
			}
			first, _ := strconv.Atoi(m[1])
			last, _ := strconv.Atoi(m[2])
			for n := first; n <= max(first, last); n++ {
				tests[n] = fn.Name.Name
			}
		}
	}
	for _, n := range rows() {
		if tests[n] == "" {
			t.Errorf("FB-%02d has no test: none is called TestFB%02d...", n, n)
		}
	}
	for n, name := range tests {
		if !slices.Contains(rows(), n) {
			t.Errorf("%s: there is no FB-%02d", name, n)
		}
	}
}

// TestStepsAreInTheGuide: hooks are configured by the names of steps, so the
// operator's guide has each of them.
func TestStepsAreInTheGuide(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "failback.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range failback.StepNames() {
		if !strings.Contains(string(guide), "`"+name+"`") && !strings.Contains(string(guide), "`"+name+"-1`") {
			t.Errorf("docs/failback.md does not have step %s", name)
		}
	}
}
