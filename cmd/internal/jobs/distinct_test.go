package jobs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/osdisk"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

// register makes osd:// a scheme of this process; nothing is opened.
var register = sync.OnceFunc(func() { vddk.Register(osd.Scheme, new(osdisk.Disks).Driver()) })

// TestDistinct: a job does not overwrite one disk twice, nor what it reads, by
// whatever names.
func TestDistinct(t *testing.T) {
	register()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("a"), nil, 0o600), os.WriteFile(at("b"), nil, 0o600), os.WriteFile(at("t"), nil, 0o600),
		os.Symlink("t", at("link")), os.Link(at("t"), at("hard")), os.Symlink("new", at("later")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &Disks{Exports: []config.Export{{Name: "t", URI: "file://" + at("t"), Role: mover.RoleTarget}, {Name: "v", URI: "osd://px/v", Role: mover.RoleTarget}}}
	for name, c := range map[string]struct {
		mode         job.Mode
		first, other string // targets
		ok           bool
	}{
		"two files":      {job.Copy, at("t"), at("u"), true},
		"a link":         {job.Copy, at("t"), at("link"), false},
		"a hard link":    {job.Copy, at("t"), "file://" + at("hard"), false},
		"an export":      {job.Copy, "export:t", at("link"), false},
		"not there yet":  {job.Copy, at("new"), at("later"), false},
		"what it reads":  {job.Copy, at("t"), dir + "/../" + filepath.Base(dir) + "/a", false},
		"two volumes":    {job.Copy, "osd://px/v", "osd://px/w", true},
		"a volume":       {job.Copy, "osd://px/v", "export:v", false},
		"only comparing": {job.Verify, at("t"), at("link"), true},
	} {
		file := c.mode == job.Copy && !strings.HasPrefix(c.first, "osd:")
		s := job.Spec{Mode: c.mode, Transport: "quic", Disks: []job.Disk{
			{Name: "x", Source: at("a"), Target: c.first, Tracking: "full", Create: file},
			{Name: "y", Source: at("b"), Target: c.other, Tracking: "full", Create: file},
		}}
		err := d.Check(&s)
		f, _ := errors.AsType[*job.Failure](err)
		if (err == nil) != c.ok || !c.ok && (f == nil || f.Reason != job.ReasonInvalid || !strings.Contains(f.Text, "by another name")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
