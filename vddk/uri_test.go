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
		{"/a/b.img", URI{Scheme: "", Path: "/a/b.img"}},
		{"b.img", URI{Scheme: "", Path: "b.img"}},
		{"./a:b", URI{Scheme: "", Path: "./a:b"}},
		{"/a?b#c%20", URI{Scheme: "", Path: "/a?b#c%20"}},
		{"file:///a/b", URI{Scheme: "file", Path: "/a/b"}},
		{"FILE:///a/b", URI{Scheme: "file", Path: "/a/b"}},
		{"file:/a/b", URI{Scheme: "file", Path: "/a/b"}},
		{"file:///a%20b%23%3F", URI{Scheme: "file", Path: "/a b#?"}},
		{"block:///dev/vg0/a", URI{Scheme: "block", Path: "/dev/vg0/a"}},
		{"vmdk:///mnt/ds%201/vm/../vm.vmdk", URI{Scheme: "vmdk", Path: "/mnt/ds 1/vm.vmdk"}},
		{"vmdk:///a.vmdk?createType=vmfs", URI{Scheme: "vmdk", Path: "/a.vmdk", CreateType: "vmfs"}},
	} {
		got, err := ParseURI(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseURI(%q): got %+v, %v, want %+v", c.in, got, err, c.want)
			continue
		}
		if !got.Local() {
			t.Errorf("ParseURI(%q): a path on this machine is not local", c.in)
		}
		if again, err := ParseURI(got.String()); err != nil || again != got {
			t.Errorf("ParseURI(%q) of %q: got %+v, %v", got.String(), c.in, again, err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "not a path or URI",
		"a\x00b":                             "not a path or URI",
		"nbd://host/x?y=1":                   "y",
		"nbds+unix:///?socket=":              `"socket" is empty`,
		"vddk://vc/vm":                       "not a managed object reference",
		"nbd:host:10809":                     "needs //",
		"s3://bucket/x":                      `unknown scheme "s3"; supported: a plain path, file:///path, block:///path, vmdk:///path, nbd://`,
		"vmdk:///a.vmdk?createType=seSparse": "createType is monolithicFlat or vmfs",
		"vmdk:///a.vmdk?createType=vmfs&createType=vmfs": "createType is monolithicFlat or vmfs",
		"vmdk:///a.vmdk?%zz":                             "invalid URL escape",
		"vmdk://host/a.vmdk":                             `host "host"`,
		"vmdk:///a.vmdk?chain":                           `unknown parameter "chain"; vmdk takes createType`,
		"file:///a?cache=none":                           `unknown parameter "cache=none"`,
		"block:///dev/sda?":                              "unknown parameter",
		"file:///a#b":                                    "fragment",
		"file:///a#":                                     "fragment",
		"file://host/a":                                  `host "host"`,
		"file://user@/a":                                 "host",
		"file:a":                                         "must be absolute",
		"file://":                                        "must be absolute",
		"file:///a%00b":                                  "zero byte",
		"file:///a%zz":                                   "invalid URL escape",
		"block://sda":                                    "host",
	} {
		_, err := ParseURI(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseURI(%q): got %v, want an error with %q", in, err, want)
		}
	}
}

// TestParseURIShowsNoPassword: one that was put where none belongs is not shown
// to whoever reads the error. The URI stands in it once.
func TestParseURIShowsNoPassword(t *testing.T) {
	for in, want := range map[string]string{
		"nbd://user:secret@host/x":                  `disk "nbd://user:xxxxx@host/x": a password stands in it`,
		"vddk://root:se@cr/et@vc/vm-42?user=a@b.c":  `disk "vddk://root:xxxxx@b.c": a password stands in it`,
		"nbd://user:secret/secret?@h:1/x":           `disk "nbd://user:xxxxx@h:1/x": a password stands in it`, // a parser would name the port ":secret"
		"s3://user:secret@bucket/x?y=1":             `disk "s3://user:xxxxx@bucket/x?y=1": a password stands in it`,
		"nbd://host/x?password=secret":              `disk "nbd://host/x?password=xxxxx": unknown parameter "password"`,
		"file:///x?authtoken=secret":                `disk "file:///x?authtoken=xxxxx": unknown parameter "authtoken=xxxxx"`,
		"s3://b/x?y=1&api-key-file=/a&pwd=secret":   `disk "s3://b/x?y=1&api-key-file=/a&pwd=xxxxx": unknown scheme`,
		"nbd+unix:///a:b@c":                         `disk "nbd+unix:///a:b@c": needs the parameter socket=/PATH`,
		"nbd://user@host:1/x?tls-verify-peer=never": `disk "nbd://user@host:1/x?tls-verify-peer=never": `,
	} {
		_, err := ParseURI(in)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseURI(%q): got %v, want %s", in, err, want)
		}
	}
}

// FuzzParseURI: what is accepted is written back, and means the same again.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"/a b?c#d", "file:///a%20b%23%3F", "vmdk:///x.vmdk?createType=vmfs", "block:///dev/../dev/x", "nbd+unix:///e?socket=/s", "nbds://h:1/e", "vddk://h/vm-1", "./a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		if u.Local() == (u.Text != "") || u.Local() && u.Scheme != "" && u.Path[0] != '/' || strings.ContainsRune(u.Path, 0) {
			t.Fatalf("%q: %+v", s, u)
		}
		if again, err := ParseURI(u.String()); err != nil || again != u {
			t.Fatalf("%q: %+v is written %q and read %+v (%v)", s, u, u.String(), again, err)
		}
	})
}
