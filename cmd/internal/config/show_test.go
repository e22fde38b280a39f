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
	places, err := strict.Decode("f", []byte(text), &before)
	if err != nil {
		t.Fatal(err)
	}
	for _, effective := range []bool{false, true} {
		w := &walker{places: places, effective: effective}
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
	for value, want := range map[string]string{
		"127.0.0.1:1":  "",
		"/srv/a.img":   "",
		"/srv/token=1": "",
		"vddk://vc/vm-1?disk=%5Bds%5D+a&password-file=/p": "",
		"https://h/@a:b":                  "",
		"nbd://u:hunter2@h/x":             "nbd://u:xxxxx@h/x",
		"https://h:443/a?b=c@d":           "",
		"nbd://u:hun/t?r2@h/x?a=b":        "nbd://u:xxxxx@h/x?a=b",
		"nbd://u:hun%ter2@h:2@h/x":        "nbd://u:xxxxx@h/x",
		"x://h/y?password=hunter2&a=b":    "x://h/y?password=(redacted)&a=b",
		"x://h/y?a=b&api%5ftoken=hunter2": "x://h/y?a=b&api%5ftoken=(redacted)",
		"--password=hunter2":              "--password=(redacted)",
		"AWS_SECRET=hunter2":              "AWS_SECRET=(redacted)",
		"--token-file=/run/token":         "",
		"DIGEST=abc":                      "",
	} {
		if got, redacted := redact(value); redacted != (want != "") || redacted && got != want || !redacted && got != value {
			t.Errorf("%s: got %v, %v", value, got, redacted)
		}
	}
}

// TestEffective: the defaults of tables that may be there several times are shown
// as well, where they hold.
func TestEffective(t *testing.T) {
	file, _ := write(t, "state_dir = \"STATE\"\n"+strings.Replace(profileText, "[[openstorage]]\n", "[[openstorage]]\ntimeout = \"20m\"\n", 1)+
		controllerLine+"name = \"c\"\nvms = 4\ndisks = 8\n"+hostText+hookText+"command = [\"/bin/true\"]\n[[group]]\nname = \"g\"\nmembers = [{vm = \"a\"}]\n"+
		"[[export]]\nname = \"k8s\"\nrole = \"host\"\nopenstorage = \"px\"\n[[host]]\nname = \"k8s\"\nkind = \"openstorage\"\nopenstorage = \"px\"\n"+nobodyText)
	list, err := Settings(file, true)
	must(t, err)
	has := map[string]any{}
	for _, s := range list {
		if s.Origin == "default" {
			has[s.Path] = s.Value
		}
	}
	for path, want := range map[string]any{
		"hook[0].on_error": "halt", "hook[0].timeout": "1m", "openstorage[0].restore": "mover", "host[0].mover": Self, "group[0].members[0].priority": "normal",
		"openstorage[0].long_timeout": nil, "export[0].ticket": nil, "host[1].workload[0].timeout": nil, // other ones hold here
	} {
		if has[path] != want {
			t.Errorf("%s: %v is shown, want %v", path, has[path], want)
		}
	}
	shown(t, file)
}
