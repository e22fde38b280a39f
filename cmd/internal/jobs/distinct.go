package jobs

import (
	"fmt"
	"os"

	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/osd"
)

// place is where a job names a disk of this machine.
type place struct {
	field, text, path string
	info              os.FileInfo // nil: not there yet
}

// distinct refuses a job that overwrites one disk of this machine twice, or what
// it reads, by two names: a link, an export. Locks keep the two apart only while
// both are open; one after the other, the second undoes what the first has proved.
func (d *Disks) distinct(s *job.Spec) error {
	var sources, targets []place
	for i, disk := range s.Disks {
		for _, end := range []struct {
			list *[]place
			name string
			text string
		}{{&sources, "source", disk.Source}, {&targets, "target", disk.Target}} {
			path := d.file(end.text)
			if path == "" {
				continue
			}
			p := place{field: fmt.Sprintf("disks[%d].%s", i, end.name), text: end.text, path: path}
			if info, err := os.Stat(path); err == nil {
				p.info = info
			}
			*end.list = append(*end.list, p)
		}
	}
	for i, t := range targets {
		for _, other := range append(targets[:i:i], sources...) {
			if t.path == other.path || t.info != nil && other.info != nil && os.SameFile(t.info, other.info) {
				return invalid("%s: %q is %s (%q) too, by another name", t.field, t.text, other.field, other.text)
			}
		}
	}
	return nil
}

// file is the path without links of a disk of this machine, the URI of a volume, or
// empty.
func (d *Disks) file(text string) string {
	n, err := d.resolve(text, 0)
	if err != nil {
		return ""
	}
	e, err := transfer.ParseEndpoint(n.uri)
	switch {
	case err != nil || e.Remote():
		return ""
	case e.Disk.Scheme == osd.Scheme:
		return e.Disk.Text
	case !e.Disk.Local():
		return ""
	}
	return real(e.Disk.Path)
}
