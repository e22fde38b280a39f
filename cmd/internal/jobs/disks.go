package jobs

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// Disks says which disks jobs may name, and what the names of exports mean.
// The zero value allows everything and knows no exports.
type Disks struct {
	Exports []config.Export
	Allow   []string // patterns, see config.Jobs; nil allows everything
}

// exportPrefix names an export of this daemon itself.
const exportPrefix = "export:"

// named is a disk of a job as a transfer is told.
type named struct {
	uri   string
	track string // what its export has configured, or empty
	local bool   // an export of this daemon
}

// refuse is a failure with a text.
func refuse(reason string, retry job.RetryClass, exit exitcode.Code, format string, args ...any) *job.Failure {
	return &job.Failure{Reason: reason, Text: report.OneLine(fmt.Sprintf(format, args...)), Retry: retry, Exit: int(exit)}
}

// invalid refuses a spec: the same request fails again.
func invalid(format string, args ...any) *job.Failure {
	return refuse(job.ReasonInvalid, job.RetryNever, exitcode.Usage, format, args...)
}

// resolve finds what text means and whether jobs may open it.
func (d *Disks) resolve(text string, role mover.Role) (named, error) {
	n := named{uri: text}
	if name, ok := strings.CutPrefix(text, exportPrefix); ok {
		e, err := d.export(name, role)
		if err != nil {
			return n, err
		}
		n = named{uri: e.URI, track: e.Track, local: true}
	}
	e, err := transfer.ParseEndpoint(n.uri)
	if err != nil {
		return n, invalid("%v", err)
	}
	if !e.Remote() && e.Disk.Local() && !filepath.IsAbs(e.Disk.Path) {
		return n, invalid("%q: not an absolute path; a daemon has no current directory to start from", text)
	}
	if n.local { // the configuration has allowed it
		return n, d.permit(text, "")
	}
	if !e.Remote() && e.Disk.Local() {
		return n, d.permit(text, real(e.Disk.Path))
	}
	return n, d.permit(text, "")
}

// export is the export of that name, if it may be used so. A job does not
// overwrite what the configuration calls a source; role 0 is for comparing.
func (d *Disks) export(name string, role mover.Role) (*config.Export, error) {
	for i := range d.Exports {
		e := &d.Exports[i]
		switch {
		case e.Role == mover.RoleHost && (e.Name == name || strings.HasPrefix(name, e.Name+"/")):
			return nil, refuse(job.ReasonAuth, job.RetryAfterReconcile, exitcode.Auth,
				"export %q has the disks of a host's VMs: only failbacks may name them", e.Name)
		case e.Name != name:
		case role != 0 && e.Role != role:
			return nil, refuse(job.ReasonEndpoint, job.RetryAfterReconcile, exitcode.Usage,
				"export %q is a %v in the configuration of this daemon, and the job wants a %v", name, e.Role, role)
		default:
			return e, nil
		}
	}
	return nil, refuse(job.ReasonEndpoint, job.RetryAfterReconcile, exitcode.Usage,
		"export %q is not in the configuration of this daemon; see: haulbackd config check", name)
}

// Resolve is the URI that text means, if a caller may look at the disk.
func (d *Disks) Resolve(text string) (string, error) {
	n, err := d.resolve(text, 0)
	return n.uri, err
}

// Track is the change tracking that base means for a disk, and false when base
// is no change tracking: then it is a disk.
func (d *Disks) Track(base, disk string) (track string, ok bool, err error) {
	n, err := d.resolve(disk, 0)
	if err != nil {
		return "", false, err
	}
	t := transfer.Spec{Tracking: base}
	if base == site.TrackExport && !n.local {
		return "", true, invalid("base %q: %s is no export of this daemon", base, disk)
	}
	if base != site.TrackExport && site.CheckTrack(base) != nil {
		return "", false, nil
	}
	err = d.tracking(&t, &n)
	return t.Tracking, true, err
}

// Check says what is wrong with the spec of a job that shows without a look at
// any disk. The error is a *job.Failure.
func (d *Disks) Check(s *job.Spec) error {
	for i := range s.Disks {
		if _, err := d.spec(s, s.Disks[i], wire.RunID{}); err != nil {
			return err
		}
	}
	if s.Mode == job.Verify {
		return nil
	}
	return d.distinct(s)
}

// spec is what a transfer is told about one disk of a job.
func (d *Disks) spec(s *job.Spec, disk job.Disk, run wire.RunID) (transfer.Spec, error) {
	t := transfer.Spec{
		Mode: wire.ModeCopy, Run: run, Full: s.Full, Tracking: disk.Tracking, Strict: disk.Strict, Sample: disk.Sample,
		Create: disk.Create, Transport: s.Transport, Retry: s.Retry, GoOn: "resume the job",
	}
	if t.Sample == defaultSample {
		t.Sample = 0 // what the job engine fills in is not asked for
	}
	source, target := mover.RoleSource, mover.RoleTarget
	if s.Mode == job.Verify {
		t.Mode, source, target = wire.ModeVerify, 0, 0
	}
	if t.Transport == "" {
		t.Transport = site.Auto
	}
	switch {
	case t.Retry == 0:
		t.Retry = defaultRetry
	case t.Retry < 0:
		t.Retry = 0
	}
	src, err := d.resolve(disk.Source, source)
	if err != nil {
		return t, err
	}
	dst, err := d.resolve(disk.Target, target)
	if err != nil {
		return t, err
	}
	t.Source, t.Target = src.uri, dst.uri
	if err := d.tracking(&t, &src); err != nil {
		return t, err
	}
	if err := transfer.Check(t); err != nil {
		return t, invalid("%v", err)
	}
	return t, nil
}

// tracking finds what "export" means for an export of this daemon, and whether
// the file that another one was cloned from may be looked at.
func (d *Disks) tracking(t *transfer.Spec, src *named) error {
	if path, ok := strings.CutPrefix(t.Tracking, "fiemap:"); ok {
		return d.permit(t.Tracking, real(path))
	}
	if t.Tracking != site.TrackExport || !src.local {
		return nil
	}
	if src.track == "" {
		return refuse(job.ReasonCBT, job.RetryAfterReconcile, exitcode.Tracking,
			"the export of the source has no cbt in the configuration of this daemon; leave tracking out, or write it there")
	}
	t.Tracking = src.track
	return nil
}
