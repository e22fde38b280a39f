package strict

import (
	"maps"
	"strings"
	"testing"
)

// TestIndex: the same tables have the same names, however they are written.
func TestIndex(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       map[string]int
	}{
		{"keys and tables", "a = 1\n[t]\nb = 2\nc.d = 3\n", map[string]int{"a": 1, "t": 2, "t.b": 3, "t.c.d": 4}},
		{"arrays of tables", "[[t]]\na = 1\n[[t]]\na = 2\n", map[string]int{"t[0]": 1, "t[0].a": 2, "t[1]": 3, "t[1].a": 4}},
		{
			"in braces", "[[g]]\nm = [\n {vm = \"a\"},\n {vm = \"b\",  n = 1},\n]\no = {p = 1}\n",
			map[string]int{"g[0]": 1, "g[0].m": 2, "g[0].m[0]": 2, "g[0].m[0].vm": 3, "g[0].m[1]": 2, "g[0].m[1].vm": 4, "g[0].m[1].n": 4, "g[0].o": 6, "g[0].o.p": 6},
		},
		{
			"as tables of tables", "[[g]]\n[[g.m]]\nvm = 1\n[[g.m]]\nvm = 2\n[[g]]\n[[g.m]]\nvm = 3\n[g.o]\np = 4\n",
			map[string]int{
				"g[0]": 1, "g[0].m[0]": 2, "g[0].m[0].vm": 3, "g[0].m[1]": 4, "g[0].m[1].vm": 5, "g[1]": 6, "g[1].m[0]": 7, "g[1].m[0].vm": 8,
				"g[1].o": 9, "g[1].o.p": 10,
			},
		},
		{"tables beneath a table", "[t]\n[[t.a]]\nb = 1\n[[t.a]]\nb = 2\n", map[string]int{"t": 1, "t.a[0]": 2, "t.a[0].b": 3, "t.a[1]": 4, "t.a[1].b": 5}},
	} {
		got := map[string]int{}
		for key, at := range index("f", []byte(c.text)) {
			got[key] = at.Line
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

type leaf struct {
	Name  string            `toml:"name"`
	Size  int               `toml:"size"`
	On    *bool             `toml:"on"`
	Names []string          `toml:"names"`
	Any   []any             `toml:"any"`
	Map   map[string]string `toml:"map"`
	Token string            `toml:"token_file"`
}

type tree struct {
	Leaf   leaf   `toml:"leaf"`
	Leaves []leaf `toml:"leaves"`
	Maybe  *leaf  `toml:"maybe"`
}

// TestDecode: every mistake of a file is told, with its line, its key and what
// belongs there, and no secret is repeated.
func TestDecode(t *testing.T) {
	good := "maybe = {size = 1}\n[leaf]\nname = \"a\"\non = false\nnames = [\"a\"]\nany = [\"a\", 1]\nmap = {\"a b\" = \"c\"}\n[[leaves]]\n"
	var v tree
	if _, err := Decode("f", []byte(good), &v); err != nil || v.Leaf.On == nil || v.Maybe.Size != 1 || len(v.Leaves) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := Decode("f", []byte("\xef\xbb\xbf"+good), new(tree)); err != nil {
		t.Errorf("with a byte order mark: %v", err)
	}
	for text, want := range map[string]string{
		"[leaf]\nnmae = 1\n":                           "f:2:1: unknown key leaf.nmae; did you mean name?\n2| nmae = 1\n | ~~~~",
		"[leaf]\n\tNAME = \"a\"\n":                     "f:2:2: unknown key leaf.NAME; did you mean name?\n2| \tNAME = \"a\"\n | \t~~~~",
		"colour = 1\n":                                 "f:1:1: unknown key colour; the file has leaf, leaves, maybe\n",
		"[leaf]\nwatt.x = 1\n":                         "unknown key leaf.watt; [leaf] has any, map, name, names, on, size, token_file\n",
		"[[leafs]]\n[[leafs]]\n":                       "f:1:3: unknown key leafs; did you mean leaf?\n1| [[leafs]]\n |   ~~~~~",
		"[[leaves.map]]\na = 1\n":                      "f:1:3: leaves: a table; write tables, each [[leaves]]\n1| [[leaves.map]]\n |   ~~~~~~~~~~",
		"\n[x.y]\n[x.z]\n":                             "f:2:2: unknown key x; the file has leaf",
		"[leaves]\nname = \"a\"\n":                     "f:1:2: leaves: a table; write tables, each [[leaves]]\n",
		"[[leaf]]\nname = \"a\"\n":                     "f:1:3: leaf: a list; write a table, [leaf]\n",
		"leaves = [1]\n":                               "f:1:1: leaves: entry 1 is a whole number; write tables, each [[leaves]]\n",
		"leaf.size = \"1\"\n":                          "f:1:1: leaf.size: a text; write a whole number, without quotes\n1| leaf.size = \"1\"\n | ~~~~~~~~~\n",
		"leaf.size = 1.0\n":                            "leaf.size: a number with a point; write",
		"leaf.on = \"yes\"\n":                          "leaf.on: a text; write true or false, without quotes\n",
		"leaf.names = \"a\"\n":                         "leaf.names: a text; write a list of texts, as in [\"text\"]\n",
		"leaf.names = [\"a\", 1]\n":                    "leaf.names: entry 2 is a whole number; write a list of texts",
		"leaf.map = {a = 1}\n":                         "leaf.map.a: a whole number; write a text, in quotes\n",
		"leaf.name = 2026-01-01\n":                     "leaf.name: a date or time; write a text",
		"maybe = {sise = 1}\n":                         "f:1:10: unknown key maybe.sise; did you mean size?\n1| maybe = {sise = 1}\n |          ~~~~",
		"leaf.name = \"a\nb = 1\n":                     "f:1:15: not TOML: basic strings cannot have new lines\n1| leaf.name = \"a\n |               ~",
		"leaf.token = \"hunter2\"\n":                   "unknown key leaf.token; nothing secret stands in a configuration: put it into a file that only the daemon may read, and write token_file = \"/PATH\"\n1| leaf.token = (redacted)\n | ~~~~~~~~~~",
		"leaf.tokenfile = 'hunter2'\n":                 "did you mean token_file?\n1| leaf.tokenfile = (redacted)\n",
		"leaf.password = 'hunter2'\n":                  "write token_file",
		"db_secret = 'hunter2'\n":                      "unknown key db_secret; nothing secret stands in a configuration: files and credentials have it",
		"leaf.password = hunter2\n":                    "1| leaf.password = (redacted)\n",
		"leaf.password = \"\"\"\nhunter2\\q\n\"\"\"\n": "f:2:8: not TOML: invalid escape",
		"leaf.nam = [\"--token\", \"hunter2\"]\n":      "1| leaf.nam = [\"--token\", (redacted)\n",
		"leaf.nam = 'x://u:\"/? hunter2@h'\n":          "1| leaf.nam = 'x://u:(redacted)@h'\n",
	} {
		_, err := Decode("f", []byte(text), new(tree))
		if err == nil || !strings.Contains(err.Error()+"\n", want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q:\n%v\nwant\n%s", text, err, want)
		}
	}
	_, err := Decode("f", []byte("[leaf]\nsize = \"x\"\na = 1\n[maybe]\nb = 1\n"), new(tree))
	if list := Mistakes(err); len(list) != 3 || list[0].Line != 2 || list[2].Key != "maybe.b" {
		t.Errorf("%d mistakes, want 3: %v", len(list), err)
	}
}
