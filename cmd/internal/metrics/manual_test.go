package metrics

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const manualFile = "../../../docs/operation.md"

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// row is a line of the manual's table.
func row(f Family) string {
	cell := func(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
	labels := ""
	for i, l := range f.Labels {
		if i > 0 {
			labels += ", "
		}
		labels += "`" + l + "`"
	}
	return "| `" + f.Name + "` | " + f.Kind + " | " + labels + " | " + cell(f.Help) + " |"
}

// TestManual: the table of the manual is the registry's.
func TestManual(t *testing.T) {
	var want, got []string
	for _, f := range Families {
		want = append(want, row(f))
	}
	for line := range strings.Lines(string(read(t, manualFile))) {
		if strings.HasPrefix(line, "| `haulback_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table in docs/operation.md is not that of the registry; it has to be:\n%s", strings.Join(want, "\n"))
	}
}
