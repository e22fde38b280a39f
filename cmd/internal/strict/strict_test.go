package strict

import (
	"maps"
	"testing"
)

// TestIndex: the same tables have the same names, however they are written.
func TestIndex(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Places
	}{
		{"keys and tables", "a = 1\n[t]\nb = 2\nc.d = 3\n", Places{"a": 1, "t": 2, "t.b": 3, "t.c.d": 4}},
		{"arrays of tables", "[[t]]\na = 1\n[[t]]\na = 2\n", Places{"t[0]": 1, "t[0].a": 2, "t[1]": 3, "t[1].a": 4}},
		{
			"in braces", "[[g]]\nm = [\n {vm = \"a\"},\n {vm = \"b\",  n = 1},\n]\no = {p = 1}\n",
			Places{"g[0]": 1, "g[0].m": 2, "g[0].m[0]": 2, "g[0].m[0].vm": 3, "g[0].m[1]": 2, "g[0].m[1].vm": 4, "g[0].m[1].n": 4, "g[0].o": 6, "g[0].o.p": 6},
		},
		{
			"as tables of tables", "[[g]]\n[[g.m]]\nvm = 1\n[[g.m]]\nvm = 2\n[[g]]\n[[g.m]]\nvm = 3\n[g.o]\np = 4\n",
			Places{
				"g[0]": 1, "g[0].m[0]": 2, "g[0].m[0].vm": 3, "g[0].m[1]": 4, "g[0].m[1].vm": 5, "g[1]": 6, "g[1].m[0]": 7, "g[1].m[0].vm": 8,
				"g[1].o": 9, "g[1].o.p": 10,
			},
		},
		{"tables beneath a table", "[t]\n[[t.a]]\nb = 1\n[[t.a]]\nb = 2\n", Places{"t": 1, "t.a[0]": 2, "t.a[0].b": 3, "t.a[1]": 4, "t.a[1].b": 5}},
	} {
		if got := Index([]byte(c.text)); !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
