package job

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	many := func(n int) (disks []Disk) {
		for i := range n {
			disks = append(disks, Disk{Source: "/s", Target: fmt.Sprintf("/t%d", i)})
		}
		return disks
	}
	labels := map[string]string{}
	for i := range MaxLabels + 1 {
		labels[fmt.Sprint(i)] = ""
	}
	for _, c := range []struct {
		field  string // that the text begins with; empty: valid
		change func(*Spec)
	}{
		{"", func(*Spec) {}},
		{"", func(s *Spec) { s.Disks = many(MaxDisks) }},
		{"", func(s *Spec) { s.Retry, s.Transport, s.Mode = -5, "tls", Verify }},
		{"", func(s *Spec) { s.Disks[0].Tracking = "bitmap:b0" }},
		{"", func(s *Spec) { s.Limits.Windows = []Window{{From: 1320, To: 360}} }},
		{"mode", func(s *Spec) { s.Mode = "" }},
		{"mode", func(s *Spec) { s.Mode = "move" }},
		{"transport", func(s *Spec) { s.Transport = "ftp" }},
		{"priority", func(s *Spec) { s.Priority = 2 }},
		{"disks: there is none", func(s *Spec) { s.Disks = nil }},
		{"disks: 257", func(s *Spec) { s.Disks = many(MaxDisks + 1) }},
		{"disks[0].name", func(s *Spec) { s.Disks[0].Name = "a/b" }},
		{"disks[0].name", func(s *Spec) { s.Disks[0].Name = strings.Repeat("n", 65) }},
		{"disks[1].name", func(s *Spec) { s.Disks[0].Name = "disk1" }},
		{"disks[1].source", func(s *Spec) { s.Disks[1].Source = "" }},
		{"disks[0].target", func(s *Spec) { s.Disks[0].Target = "/a\nb" }},
		{"disks[0].target", func(s *Spec) { s.Disks[0].Target = strings.Repeat("t", 4097) }},
		{"disks[1].target", func(s *Spec) { s.Disks[1].Target = s.Disks[0].Target }},
		{"disks[1].target", func(s *Spec) { s.Disks[1].Target = "file:///dst//x/../a" }},
		{"disks[0].source", func(s *Spec) { s.Disks[0].Source = s.Disks[0].Target }},
		{"disks[1].source", func(s *Spec) { s.Disks[1].Source = s.Disks[0].Target }},
		{"disks[0].source", func(s *Spec) { s.Disks[0].Source = "vddk://root:hunter2@vc/vm" }},
		{"disks[0].sample", func(s *Spec) { s.Disks[0].Sample = -1 }},
		{"disks[0].tracking", func(s *Spec) { s.Disks[0].Tracking = "magic" }},
		{"disks[0].tracking", func(s *Spec) { s.Disks[0].Tracking = "bitmap:" }},
		{"limits.wire_bytes", func(s *Spec) { s.Limits.Wire = -1 }},
		{"limits.read_bytes", func(s *Spec) { s.Limits.Read = -1 }},
		{"limits.wire_bytes", func(s *Spec) { s.Limits.Wire = 64<<10 - 1 }},
		{"limits.latency", func(s *Spec) { s.Limits.Latency = 2 * time.Minute }},
		{"limits.latency", func(s *Spec) { s.Limits.Latency = -1 }},
		{"limits.windows: 33", func(s *Spec) { s.Limits.Windows = make([]Window, 33) }},
		{"limits.windows[0].from", func(s *Spec) { s.Limits.Windows = []Window{{From: 1441}} }},
		{"limits.windows[0].to", func(s *Spec) { s.Limits.Windows = []Window{{To: -1}} }},
		{"limits.windows[0].wire", func(s *Spec) { s.Limits.Windows = []Window{{Wire: -1}} }},
		{"limits.windows[0].read", func(s *Spec) { s.Limits.Windows = []Window{{Read: -1}} }},
		{"labels", func(s *Spec) { s.Labels = labels }},
		{"labels", func(s *Spec) { s.Labels = map[string]string{"": "x"} }},
		{`labels["k"]`, func(s *Spec) { s.Labels = map[string]string{"k": strings.Repeat("v", 257)} }},
	} {
		s := two()
		c.change(&s)
		err := Validate(s)
		if c.field == "" {
			if err != nil {
				t.Errorf("%+v: %v", s, err)
			}
			continue
		}
		if reason(t, err) != ReasonInvalid || !strings.HasPrefix(err.Error(), c.field) {
			t.Errorf("want a mistake of %s, got %v", c.field, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is shown: %v", err)
		}
	}
}

func rich() Spec {
	return Spec{
		Mode: Copy, Full: true, Transport: "tls", Retry: time.Minute, Priority: High,
		Disks:  []Disk{{Name: "a", Source: "/s", Target: "/t", Tracking: "export", Strict: true, Sample: 9, Create: true}},
		Limits: Limits{Wire: 1, Read: 2, Latency: 3, Windows: []Window{{Days: [7]bool{1: true}, From: 4, To: 5, Wire: 6, Read: 7}}},
		Labels: map[string]string{"k": "v", "l": "w"},
	}
}

func TestDigestGolden(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]Spec{
		goldenPlain: two(),
		goldenRich:  rich(),
	} {
		if got := Digest(s).String(); got != want {
			t.Errorf("digest %s, want %s: jobs of older programs would meet their own specs as others", got, want)
		}
	}
}

// TestDigestDefaults: what is left out is equal to its default said aloud.
func TestDigestDefaults(t *testing.T) {
	t.Parallel()
	short, long := two(), two()
	long.Transport, long.Retry, long.Labels = "auto", 5*time.Minute, map[string]string{}
	for i := range long.Disks {
		d := &long.Disks[i]
		d.Name, d.Tracking, d.Sample = fmt.Sprintf("disk%d", i), "full", 256
	}
	long.Limits.Windows = []Window{}
	if Digest(short) != Digest(long) {
		t.Error("a spec with its defaults said aloud is another")
	}
	never, ever := two(), two()
	never.Retry, ever.Retry = -1, -time.Hour
	if Digest(never) != Digest(ever) {
		t.Error("two ways not to retry are two specs")
	}
	var again Spec
	text, err := json.Marshal(rich())
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	if err != nil || Digest(again) != Digest(rich()) {
		t.Errorf("the digest changes over JSON (%v)", err)
	}
}

// TestDigestSeesEveryField changes each field of each part by itself.
func TestDigestSeesEveryField(t *testing.T) {
	t.Parallel()
	seen := map[string]string{Digest(rich()).String(): "nothing changed"}
	each := func(name string, part func(*Spec) reflect.Value) {
		base := rich()
		for i := range part(&base).NumField() {
			s := rich()
			s.Labels = maps.Clone(s.Labels)
			v := part(&s)
			field := name + v.Type().Field(i).Name
			switch f := v.Field(i); f.Kind() {
			case reflect.String:
				f.SetString(f.String() + "x")
			case reflect.Bool:
				f.SetBool(!f.Bool())
			case reflect.Int, reflect.Int8, reflect.Int64:
				f.SetInt(f.Int() + 99)
			case reflect.Slice:
				f.Set(reflect.Append(f, f.Index(0)))
			case reflect.Map:
				f.SetMapIndex(reflect.ValueOf("new"), reflect.ValueOf(""))
			case reflect.Array:
				f.Index(0).SetBool(true)
			case reflect.Struct: // its fields are looked at by themselves
				continue
			default:
				t.Fatalf("%s has the kind %v: teach the test and the digest", field, f.Kind())
			}
			d := Digest(s).String()
			if other, twice := seen[d]; twice {
				t.Errorf("%s changed, and the digest is that of %s", field, other)
			}
			seen[d] = field
		}
	}
	each("", func(s *Spec) reflect.Value { return reflect.ValueOf(s).Elem() })
	each("disk ", func(s *Spec) reflect.Value { return reflect.ValueOf(&s.Disks[0]).Elem() })
	each("limits ", func(s *Spec) reflect.Value { return reflect.ValueOf(&s.Limits).Elem() })
	each("window ", func(s *Spec) reflect.Value { return reflect.ValueOf(&s.Limits.Windows[0]).Elem() })
	a, b := rich(), rich()
	a.Labels, b.Labels = map[string]string{"ab": "c"}, map[string]string{"a": "bc"}
	if Digest(a) == Digest(b) {
		t.Error("labels run into each other")
	}
}

// As b3sum --derive-key says of the same bytes, written by another program.
const (
	goldenPlain = "f42399ded0109c7fc18b0bf4ffeefe996c8074fa5097cf615ecbdbc4edbbd171"
	goldenRich  = "a125170a0aef34e14a3a42416265f8979c8d8a3a8dad3928ffab0d6e342ebcf5"
)
