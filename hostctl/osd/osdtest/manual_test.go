package osdtest

import (
	"os"
	"strings"
	"testing"
)

// TestManual wants each misbehaviour in the manual.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../../docs/simulator.md")
	ok(t, err)
	for _, name := range QuirkNames() {
		if !strings.Contains(string(text), "`"+name) {
			t.Errorf("docs/simulator.md has no %s", name)
		}
	}
}
