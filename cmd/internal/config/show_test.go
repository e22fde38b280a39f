package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/haulback/haulback/cmd/internal/strict"
)

// TestNested: tables in tables come out as TOML that means the same.
func TestNested(t *testing.T) {
	type leaf struct {
		Name  string   `toml:"name"`
		Token string   `toml:"token"`
		List  []string `toml:"list"`
	}
	type branch struct {
		Size  int    `toml:"size"`
		Leaf  *leaf  `toml:"leaf"`
		Leafs []leaf `toml:"leafs"`
	}
	type tree struct {
		Branches []branch `toml:"branches"`
		Branch   branch   `toml:"branch"`
		Key      string   `toml:"key"`
	}
	text := "key = \"k\"\n[branch]\nsize = 1\n[branch.leaf]\nname = \"a\"\n[[branch.leafs]]\nname = \"b\"\nlist = [\"x\", \"y\"]\n" +
		"[[branches]]\nsize = 2\n[[branches]]\nsize = 3\n"
	var before, after tree
	if err := toml.Unmarshal([]byte(text), &before); err != nil {
		t.Fatal(err)
	}
	for _, effective := range []bool{false, true} {
		w := &walker{path: "f", places: strict.Index([]byte(text)), effective: effective}
		w.table("", "", reflect.ValueOf(before))
		shown, err := Text(w.list)
		if err != nil {
			t.Fatal(err)
		}
		after = tree{}
		if err := toml.Unmarshal([]byte(shown), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("effective %v: %v\n%s", effective, err, shown)
		}
		if strings.Contains(shown, "token is not set") && !effective {
			t.Errorf("what is not set is shown:\n%s", shown)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct {
		key      string
		value    any
		want     any
		redacted bool
	}{
		{"listen", "127.0.0.1:1", "127.0.0.1:1", false},
		{"password", "hunter2", hidden, true},
		{"api_token", "x", hidden, true},
		{"password", "", "", false},
		{"password_file", "/etc/x", "/etc/x", false},
		{"key_file", "/etc/k", "/etc/k", false},
		{"workers", 3, 3, false},
		{"uri", "/srv/a.img", "/srv/a.img", false},
		{"uri", "vddk://vc/vm-1?disk=%5Bds%5D+a&password-file=/p", "vddk://vc/vm-1?disk=%5Bds%5D+a&password-file=/p", false},
		{"uri", "nbd://u:secret@h/x", "nbd://u:redacted@h/x", true},
		{"uri", "x://h/y?password=hunter2&a=b", "x://h/y?a=b&password=redacted", true},
	} {
		if got, redacted := redact(c.key, c.value); got != c.want || redacted != c.redacted {
			t.Errorf("%s = %v: got %v, %v", c.key, c.value, got, redacted)
		}
	}
}
