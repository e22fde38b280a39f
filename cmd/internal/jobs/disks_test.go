package jobs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// TestAllow: which names jobs may use under which patterns. What a pattern
// allows must not be a way to what it does not.
func TestAllow(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for _, d := range []string{in, out} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.WriteFile(out+"/secret", nil, 0o600), os.Symlink(out, in+"/link"), os.Symlink(out+"/secret", in+"/file"), os.Symlink(out+"/made", in+"/dangling"), os.Symlink("loop", in+"/loop")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	thumb := strings.Repeat("AB", 20)
	vm := "vm-1?disk=[ds] a/a.vmdk&user=u&thumbprint=" + thumb
	exports := []config.Export{{Name: "vm", URI: "file://" + out + "/secret", Role: mover.RoleSource}}
	for _, c := range []struct {
		allow []string
		name  string
		want  string // reason, or empty
	}{
		{nil, out + "/secret", ""},
		{nil, "nbd://host/x", ""},
		{nil, "export:vm", ""},
		{[]string{}, out + "/secret", job.ReasonAuth},
		{[]string{}, "export:vm", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/a", ""},
		{[]string{in + "/*"}, "file://" + in + "/a/b", ""},
		{[]string{in + "/*"}, "block://" + in + "/a", ""},
		{[]string{in + "/*"}, "vmdk://" + in + "/a.vmdk", ""},
		{[]string{in + "/*"}, out + "/secret", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/../out/secret", job.ReasonAuth},
		{[]string{in + "/*"}, "file://" + in + "/%2e%2e/out/secret", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/link/secret", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/link/new", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/file", job.ReasonAuth},
		{[]string{in + "/*"}, in + "x", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/link/../new", job.ReasonAuth}, // beside out, not in in
		{[]string{in + "/*"}, in + "/dangling", job.ReasonAuth},
		{[]string{in + "/*"}, in + "/loop", ""}, // and cannot be opened
		{[]string{"vddk://vc/*"}, "vddk://vc/" + vm + "&password-file=" + out + "/secret", job.ReasonAuth},
		{[]string{"vddk://vc/*", in + "/*"}, "vddk://vc/" + vm + "&password-file=" + in + "/link/secret", job.ReasonAuth},
		{[]string{"vddk://vc/*", in + "/*"}, "vddk://vc/" + vm + "&password-file=" + in + "/p&libdir=" + out, job.ReasonAuth},
		{[]string{"vddk://vc/*", in + "/*"}, "vddk://vc/" + vm + "&password-file=" + in + "/p&libdir=%2Ftmp", job.ReasonAuth},
		{[]string{"vddk://vc/*", in + "/*"}, "vddk://vc/" + vm + "&password-file=" + in + "/p", ""},
		{[]string{"vddk://vc/*&password-file=" + in + "/p"}, "vddk://vc/" + vm + "&password-file=" + in + "/p", ""},
		{[]string{"vddk://vc/*&password-file=" + in + "/p"}, "vddk://vc/" + vm + "&state=/tmp&password-file=" + in + "/p", job.ReasonAuth},
		{[]string{"vddk://vc/*password-file=" + in + "/p*"}, "vddk://vc/vm-1?disk=[x] password-file=" + in + "/p.vmdk&user=u&thumbprint=" + thumb + "&password-file=" + out + "/secret", job.ReasonAuth},
		{[]string{"nbd+unix:///*?socket=" + in + "/*"}, "nbd+unix:///x?socket=" + in + "/s", ""},
		{[]string{"nbd+unix:///*?socket=" + in + "/*"}, "nbd+unix:///x?socket=" + in + "/../out/s", job.ReasonAuth},
		{[]string{"nbd+unix:///*?socket=" + in + "/*"}, "nbd+unix:///x?socket=" + in + "/link/s", job.ReasonAuth},
		{[]string{"nbd+unix:*"}, "nbd+unix:///x?socket=" + out + "/s", job.ReasonAuth},
		{[]string{"nbds://host/*"}, "nbds://host/x?tls-certificates=" + out, job.ReasonAuth},
		{[]string{"nbds://host/*"}, "nbds://host/x?tls-hostname=h", ""},
		{[]string{in + "/*"}, "nbd://host/" + in + "/a", job.ReasonAuth},
		{[]string{in + "/*"}, "export:vm", job.ReasonAuth},
		{[]string{"export:*"}, "export:vm", ""},
		{[]string{"export:*"}, out + "/secret", job.ReasonAuth},
		{[]string{"export:v"}, "export:vm", job.ReasonAuth},
		{[]string{"*"}, out + "/secret", job.ReasonAuth}, // of names that are no paths
		{[]string{"*", "/*"}, out + "/secret", ""},
		{[]string{"haulback://home:7420/*"}, "haulback://home:7420/vm", ""},
		{[]string{"haulback://home:7420/*"}, "haulback://home:742/vm", job.ReasonAuth},
		{[]string{"nbd://h.st/*"}, "nbd://host/x", job.ReasonAuth},
		{nil, "in/a", job.ReasonInvalid},
		{nil, "s3://x/y", job.ReasonInvalid},
		{nil, "", job.ReasonInvalid},
		{nil, "export:nope", job.ReasonEndpoint},
	} {
		d := &Disks{Exports: exports, Allow: c.allow}
		_, err := d.resolve(c.name, 0)
		got := ""
		if f, ok := errors.AsType[*job.Failure](err); ok {
			got = f.Reason
		} else if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("allow %q, disk %q: got %q, want %q (%v)", c.allow, c.name, got, c.want, err)
		}
	}
}

// TestSpec: what a transfer is told about a disk of a job.
func TestSpec(t *testing.T) {
	d := &Disks{Exports: []config.Export{
		{Name: "src", URI: "file:///src", Role: mover.RoleSource, Track: "fiemap:/old"},
		{Name: "plain", URI: "file:///plain", Role: mover.RoleSource},
		{Name: "dst", URI: "file:///dst", Role: mover.RoleTarget},
		{Name: "host", Role: mover.RoleHost, Host: &hostdisk.Table{Datastores: map[string]string{"ds": "/"}}},
	}}
	for _, c := range []struct {
		name  string
		mode  job.Mode
		disk  job.Disk
		want  string // source, target, tracking
		fails string // reason
	}{
		{name: "exports", mode: job.Copy, disk: job.Disk{Source: "export:src", Target: "export:dst"}, want: "file:///src file:///dst "},
		{name: "tracking of an export", mode: job.Copy, disk: job.Disk{Source: "export:src", Target: "export:dst", Tracking: "export"}, want: "file:///src file:///dst fiemap:/old"},
		{name: "no tracking of an export", mode: job.Copy, disk: job.Disk{Source: "export:plain", Target: "export:dst", Tracking: "export"}, fails: job.ReasonCBT},
		{name: "source as target", mode: job.Copy, disk: job.Disk{Source: "/a", Target: "export:src"}, fails: job.ReasonEndpoint},
		{name: "target as source", mode: job.Copy, disk: job.Disk{Source: "export:dst", Target: "/a"}, fails: job.ReasonEndpoint},
		{name: "either compared", mode: job.Verify, disk: job.Disk{Source: "export:dst", Target: "export:src"}, want: "file:///dst file:///src "},
		{name: "an export is its disk", mode: job.Copy, disk: job.Disk{Source: "file:///dst", Target: "export:dst"}, fails: job.ReasonInvalid},
		{name: "one daemon", mode: job.Copy, disk: job.Disk{Source: "haulback://h:1/a", Target: "haulback://h:1/b"}, want: "haulback://h:1/a haulback://h:1/b "},
		{name: "a host", mode: job.Copy, disk: job.Disk{Source: "export:host", Target: "/a"}, fails: job.ReasonAuth},
		{name: "a disk of a host", mode: job.Verify, disk: job.Disk{Source: "export:host/vm-1/--/[ds] a/a.vmdk", Target: "/a"}, fails: job.ReasonAuth},
		{name: "a disk of a host elsewhere", mode: job.Verify, disk: job.Disk{Source: "haulback://h:1/host/vm-1/--/[ds]%20a/a.vmdk", Target: "/a"}, fails: job.ReasonInvalid},
		{name: "tracking of a verify", mode: job.Verify, disk: job.Disk{Source: "/a", Target: "/b", Tracking: "bitmap:x"}, fails: job.ReasonInvalid},
		{name: "tracking", mode: job.Copy, disk: job.Disk{Source: "/a", Target: "/b", Tracking: "magic"}, fails: job.ReasonInvalid},
		{name: "strict about nothing", mode: job.Copy, disk: job.Disk{Source: "/a", Target: "/b", Strict: true}, fails: job.ReasonInvalid},
	} {
		spec := &job.Spec{Mode: c.mode, Disks: []job.Disk{c.disk}}
		s, err := d.spec(spec, c.disk, wire.RunID{1})
		if f, ok := errors.AsType[*job.Failure](err); c.fails != "" {
			if !ok || f.Reason != c.fails {
				t.Errorf("%s: %v, want %s", c.name, err, c.fails)
			}
			continue
		}
		if got := s.Source + " " + s.Target + " " + s.Tracking; err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
		if s.Transport != "auto" || s.Retry != defaultRetry {
			t.Errorf("%s: transport %q, retry %v: want the defaults", c.name, s.Transport, s.Retry)
		}
	}
}
