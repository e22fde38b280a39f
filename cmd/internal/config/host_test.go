package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

func TestHostExport(t *testing.T) {
	home, dr := newID(t), newID(t)
	peers := fmt.Sprintf("state_dir = \"STATE\"\n[[peer]]\nname = \"home\"\nid = %q\n[[peer]]\nname = \"dr\"\nid = %q\n", home, dr)
	export := peers + "[[export]]\nname = \"x\"\nrole = \"host\"\n"
	file, _ := write(t, export+"datastores = { ds1 = \"/\", \"ds 2\" = \"/nowhere\" }\npeers = [\"dr\"]\ncontrollers = [\"home\"]\n")
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	e := cfg.Exports[0]
	if e.Role != mover.RoleHost || !e.Tickets || len(e.Peers) != 2 || len(e.Operators) != 1 || len(e.Controllers) != 1 || e.Host.Datastores["ds1"] != "/" {
		t.Errorf("%+v", e)
	}
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], "/nowhere is not there yet") {
		t.Errorf("warnings %q", cfg.Warnings)
	}
	// A peer that is removed loses what it had.
	again, err := cfg.Repeer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := wire.ParseID(home); !again.Exports[0].Tickets || again.Exports[0].Controllers[0] != id {
		t.Errorf("%+v", again.Exports[0])
	}
	list, err := Settings(file, false)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Text(list)
	if err != nil {
		t.Fatal(err)
	}
	file2, _ := write(t, text)
	if back, err := Load(file2); err != nil || back.Exports[0].Host.Datastores["ds 2"] != "/nowhere" {
		t.Errorf("shown as\n%s\n%v", text, err)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":            {"controllers = [\"home\"]\n", "datastores = {"},
		"both":               {"datastores = { a = \"/a\" }\nvddk = \"vddk://h\"\ncontrollers = [\"home\"]\n", "not both"},
		"uri":                {"uri = \"/a\"\ndatastores = { a = \"/a\" }\ncontrollers = [\"home\"]\n", "uri names one disk"},
		"relative":           {"datastores = { a = \"a\" }\ncontrollers = [\"home\"]\n", "absolute"},
		"name":               {"datastores = { \"a/b\" = \"/a\" }\ncontrollers = [\"home\"]\n", "slashes"},
		"peers, controllers": {"datastores = { a = \"/a\" }\npeers = [\"dr\"]\n", "whose tickets count"},
		"operators":          {"datastores = { a = \"/a\" }\noperators = [\"dr\"]\ncontrollers = [\"home\"]\n", "leave operators out"},
		"tracking":           {"datastores = { a = \"/a\" }\ncbt = \"bitmap:b\"\ncontrollers = [\"home\"]\n", "cbt"},
		"a password":         {"vddk = \"vddk://u:p@h?thumbprint=00\"\ncontrollers = [\"home\"]\n", "password-file="},
	} {
		file, _ := write(t, export+tt.text)
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"datastores = { a = \"/a\" }\n", "vddk = \"vddk://h\"\n"} {
		file, _ := write(t, peers+"[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\n"+text)
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), `role "host"`) && !strings.Contains(err.Error(), `role \"host\"`) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if file, _ := write(t, export+"datastores = { a = \"/\" }\n"); true {
		if cfg, err := Load(file); err != nil || len(cfg.Warnings) != 0 {
			t.Errorf("of this daemon's own failbacks: %v", err)
		}
	}
}
