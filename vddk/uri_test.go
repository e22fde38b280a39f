package vddk

import (
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	for _, c := range []struct {
		in   string
		want URI
	}{
		{"/a/b.img", URI{"", "/a/b.img"}},
		{"b.img", URI{"", "b.img"}},
		{"./a:b", URI{"", "./a:b"}},
		{"/a?b#c%20", URI{"", "/a?b#c%20"}},
		{"file:///a/b", URI{"file", "/a/b"}},
		{"FILE:///a/b", URI{"file", "/a/b"}},
		{"file:/a/b", URI{"file", "/a/b"}},
		{"file:///a%20b%23%3F", URI{"file", "/a b#?"}},
		{"block:///dev/vg0/a", URI{"block", "/dev/vg0/a"}},
	} {
		got, err := ParseURI(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseURI(%q): got %+v, %v, want %+v", c.in, got, err, c.want)
			continue
		}
		if again, err := ParseURI(got.String()); err != nil || again != got {
			t.Errorf("ParseURI(%q) of %q: got %+v, %v", got.String(), c.in, again, err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "not a path or URI",
		"a\x00b":               "not a path or URI",
		"nbd://host/x":         `"nbd" is not in this version`,
		"vmdk:///a.vmdk":       "not in this version; supported:",
		"vddk://vc/vm":         "file:///path",
		"nbd:host:10809":       "not in this version",
		"s3://bucket/x":        `unknown scheme "s3"; supported: a plain path, file:///path, block:///path (nbd, vmdk, vddk: not in this version)`,
		"file:///a?cache=none": `unknown parameter "cache=none"`,
		"block:///dev/sda?":    "unknown parameter",
		"file:///a#b":          "fragment",
		"file:///a#":           "fragment",
		"file://host/a":        `host "host"`,
		"file://user@/a":       "host",
		"file:a":               "must be absolute",
		"file://":              "must be absolute",
		"file:///a%00b":        "zero byte",
		"file:///a%zz":         "invalid URL escape",
		"block://sda":          "host",
	} {
		_, err := ParseURI(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseURI(%q): got %v, want an error with %q", in, err, want)
		}
	}
}
