package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/wire"
)

// TestTickets reads the second lock of an export, and what is wrong with it.
func TestTickets(t *testing.T) {
	dr, next, boss := newID(t), newID(t), newID(t)
	head := fmt.Sprintf("state_dir = \"STATE\"\n[[peer]]\nname = \"dr\"\nid = %q\nnext_id = %q\n[[peer]]\nname = \"boss\"\nid = %q\n[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\npeers = [\"dr\"]\n", dr, next, boss)
	file, _ := write(t, head+"ticket = true\ncontrollers = [\"boss\"]\n")
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	e := cfg.Exports[0]
	if !e.Tickets || len(e.Controllers) != 1 || e.Controllers[0].String() != boss || len(e.Peers) != 2 || e.Peers[1].String() != next {
		t.Errorf("%+v", e)
	}
	for text, want := range map[string]string{
		"ticket = true\n":                                       "no controllers",
		"controllers = [\"boss\"]\n":                            "ticket = true",
		"ticket = true\ncontrollers = []\n":                     "no controllers",
		"ticket = \"yes\"\ncontrollers = [\"boss\"]\n":          "ticket",
		"[[peer]]\nname = \"y\"\nid = \"" + next + "\"\n":       "the same ID",
		"[[peer]]\nname = \"y\"\nid = \"x\"\nnext_id = \"x\"\n": "not a peer ID",
	} {
		file, _ := write(t, head+text)
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRepeer changes who is paired, and nothing else.
func TestRepeer(t *testing.T) {
	own := newID(t)
	file, _ := write(t, fmt.Sprintf("state_dir = \"STATE\"\n[[peer]]\nname = \"own\"\nid = %q\n[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\npeers = [\"dr\", \"own\"]\noperators = [\"dr\"]\n", own))
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Exports[0].Peers) != 1 {
		t.Fatalf("%+v", cfg.Exports[0])
	}
	id, err := wire.ParseID(newID(t))
	if err != nil {
		t.Fatal(err)
	}
	with, err := cfg.Repeer(site.Peers{{Name: "dr", ID: id}})
	if err != nil {
		t.Fatal(err)
	}
	e := with.Exports[0]
	if !slices.Contains(e.Peers, id) || len(e.Peers) != 2 || !slices.Equal(e.Operators, []wire.ID{id}) || len(with.Peers) != 2 || len(with.Warnings) != 0 {
		t.Errorf("%+v", e)
	}
	without, err := with.Repeer(nil)
	if err != nil || len(without.Exports[0].Peers) != 1 || len(without.Exports[0].Operators) != 0 || len(with.Exports[0].Peers) != 2 {
		t.Errorf("%+v, %v", without.Exports[0], err)
	}
	if _, err := cfg.Repeer(site.Peers{{Name: "own", ID: id}}); err == nil {
		t.Error("another key under a name of the file")
	}
}
