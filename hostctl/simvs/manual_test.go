package simvs_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/haulback/haulback/hostctl/simvs"
)

// TestSwitchesAreInTheManual: a switch that nobody can find is none.
func TestSwitchesAreInTheManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	kind := reflect.TypeFor[simvs.Switches]()
	for i := range kind.NumField() {
		name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/simulator.md has no %s", name)
		}
	}
}
