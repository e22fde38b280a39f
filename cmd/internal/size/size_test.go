package size

import "testing"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64 // -1: refused
	}{
		{"64MiB", 64 << 20},
		{"1 GiB", 1 << 30},
		{"0B", 0},
		{"7B", 7},
		{"512KiB", 512 << 10},
		{"2TiB", 2 << 40},
		{"8388607TiB", 8388607 << 40},
		{"", -1},
		{"64", -1},
		{"MiB", -1},
		{"64MB", -1},
		{"64M", -1},
		{"-1MiB", -1},
		{"+1MiB", -1},
		{"1.5GiB", -1},
		{"64mib", -1},
		{"8388608TiB", -1},
		{"99999999999999999999B", -1},
		{"1  MiB", -1},
		{" 1MiB", -1},
		{"1MiB ", -1},
		{"0x10B", -1},
	} {
		got, err := Parse(c.in)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("Parse(%q) = %d, %v, want %d", c.in, got, err, c.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536 << 20, "1.5 GiB"}, {3 << 40, "3.0 TiB"}} {
		if got := Text(c.n); got != c.want {
			t.Errorf("Text(%d) = %q, want %q", c.n, got, c.want)
		}
	}
}
