package osd

import (
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	long := strings.Repeat("v", maxName)
	for in, want := range map[string]URI{
		"osd://px/pvc-1":                      {Profile: "px", Volume: "pvc-1"},
		"osd://p.x_1-2/7":                     {Profile: "p.x_1-2", Volume: "7"},
		"osd://px/pvc-1?snapshot=9":           {Profile: "px", Volume: "pvc-1", Snapshot: "9"},
		"osd://px/" + long:                    {Profile: "px", Volume: long},
		"osd://" + long[:maxProfile] + "/v":   {Profile: long[:maxProfile], Volume: "v"},
		"osd://px/...":                        {Profile: "px", Volume: "..."},
		"osd://PX/Vol":                        {Profile: "PX", Volume: "Vol"},
		"osd://px/v?snapshot=" + long:         {Profile: "px", Volume: "v", Snapshot: long},
		"":                                    {},
		"osd":                                 {},
		"osd:px/v":                            {},
		"OSD://px/v":                          {},
		"file://px/v":                         {},
		"osd://":                              {},
		"osd:///v":                            {},
		"osd://px":                            {},
		"osd://px/":                           {},
		"osd://px//v":                         {},
		"osd://px/v/":                         {},
		"osd://px/v/w":                        {},
		"osd://px/..":                         {},
		"osd://px/.":                          {},
		"osd://../v":                          {},
		"osd://user@px/v":                     {},
		"osd://user:pass@px/v":                {},
		"osd://px:9100/v":                     {},
		"osd://px/v#part":                     {},
		"osd://px/v?":                         {},
		"osd://px/v?snapshot":                 {},
		"osd://px/v?snapshot=":                {},
		"osd://px/v?snapshot=..":              {},
		"osd://px/v?snapshot=1&snapshot=2":    {},
		"osd://px/v?snapshot=1#part":          {},
		"osd://px/v?Snapshot=1":               {},
		"osd://px/v?write=1":                  {},
		"osd://px/v?write=1&snapshot=1":       {},
		"osd://px/v%20w":                      {},
		"osd://px/v w":                        {},
		" osd://px/v":                         {},
		"osd://px/v\n":                        {},
		"osd://px/vö":                         {},
		"osd://px/v\x00":                      {},
		"osd://px/" + long + "v":              {},
		"osd://" + long[:maxProfile+1] + "/v": {},
	} {
		got, err := ParseURI(in)
		if got != want || (err == nil) != (want != URI{}) {
			t.Errorf("ParseURI(%q) = %+v, %v; want %+v", in, got, err, want)
		}
		if err == nil && got.String() != in {
			t.Errorf("ParseURI(%q).String() = %q", in, got)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("ParseURI(%q): %q", in, err)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{"osd://px/v", "osd://px/v?snapshot=1", "osd://px/../v", "osd://u@px/v?x=1#y", "osd://px/v?snapshot=1&x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			if u != (URI{}) {
				t.Errorf("%q: %+v with an error", s, u)
			}
			return
		}
		if u.String() != s {
			t.Errorf("%q comes back as %q", s, u)
		}
		for _, name := range []string{u.Profile, u.Volume, u.Snapshot} {
			if strings.ContainsAny(name, "/?#%@: ") || name == ".." {
				t.Errorf("%q has %q", s, name)
			}
		}
	})
}
