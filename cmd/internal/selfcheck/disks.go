package selfcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/worker"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// opens is how many disks are opened at the same time: one of a VM is a worker and
// a login of its host.
const opens = 16

// exports opens every disk for reading.
func (c *checks) exports(ctx context.Context) {
	if c.cfg == nil {
		return
	}
	results := make([]Result, len(c.cfg.Exports))
	libraries := map[string]bool{}
	var group errgroup.Group
	group.SetLimit(opens)
	for i, e := range c.cfg.Exports {
		if e.Host != nil && e.Host.VDDK != "" {
			libraries[vddk.LibDir(e.Host.VDDK)] = true
		} else if u, err := vddk.ParseURI(e.URI); err == nil && u.Scheme == "vddk" {
			libraries[vddk.LibDir(e.URI)] = true
		}
		group.Go(func() error {
			results[i] = c.asked(ctx, &e, c.disk(ctx, e))
			return nil
		})
	}
	for _, dir := range slices.Sorted(maps.Keys(libraries)) {
		c.library(ctx, dir)
	}
	_ = group.Wait() // none returns one
	for _, r := range results {
		c.tell(r)
	}
}

// library has VMware's library loaded as a copy would, in a process of its own.
func (c *checks) library(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	text, err := worker.Library(ctx, dir)
	if err != nil {
		c.not(Fail, "vddk "+dir, "haulback-vddk beside haulbackd or in PATH, and the VDDK unpacked: tar -xzf VMware-vix-disklib-*.x86_64.tar.gz && mv vmware-vix-disklib-distrib "+dir, "%v", err)
		return
	}
	if own := build.Current().Version; !strings.HasPrefix(text, "haulback-vddk "+own+",") {
		c.not(Warn, "vddk "+dir, "install haulback and haulback-vddk of one version", "%s: this program is %s, and the worker fits just its own version", text, own)
		return
	}
	c.ok("vddk "+dir, "%s", text)
}

func (c *checks) disk(ctx context.Context, e config.Export) Result {
	ctx, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	r := Result{Name: "export " + e.Name, Level: OK}
	if e.Host != nil {
		return host(r, e.Host)
	}
	open, volume := vddk.Open, strings.HasPrefix(e.URI, osd.Scheme+":")
	if volume {
		if v, err := osd.ParseURI(e.URI); err == nil && c.lacks(&r, c.token(v.Profile)) {
			return r
		}
		open = c.volumes.Open
	}
	d, err := open(ctx, e.URI, vddk.Options{Track: e.Track})
	switch {
	case errors.Is(err, unix.EBUSY):
		r.Level, r.Text, r.Remedy = Warn, err.Error(), "nothing, if a copy to it runs"
		return r
	case err != nil:
		r.Level, r.Text, r.Remedy = Fail, err.Error(), remedyOf(e.URI, err)
		return r
	}
	defer d.Close() // only read
	info := d.Describe()
	r.Text = fmt.Sprintf("%s, %s (%d bytes)", info.Kind, size.Text(info.Size), info.Size)
	u, err := vddk.ParseURI(e.URI)
	if err == nil && e.Role == mover.RoleTarget && u.Local() && unix.Access(u.Path, unix.W_OK) != nil {
		r.Level, r.Text, r.Remedy = Fail, u.Path+": a target, and this user cannot write to it", allow(u.Path)
	}
	if volume { // a read would attach it
		return r
	}
	if _, err := d.ReadAt(make([]byte, min(4096, info.Size)), 0); r.Level == OK && err != nil {
		r.Level, r.Text, r.Remedy = Fail, err.Error(), "check the device first"
	}
	if r.Level == OK && info.Warning != "" {
		r.Level, r.Text = Warn, r.Text+": "+info.Warning
	}
	return r
}

// asked is r, what this user sees of a disk, corrected by what the daemon does: it
// has other groups than whoever asks, and systemd lets it use only some devices.
func (c *checks) asked(ctx context.Context, e *config.Export, r Result) Result {
	if c.probe == nil || e.Host != nil {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	p, err := c.probe(ctx, &controlv1.ProbeRequest{Uri: "export:" + e.Name})
	if err == nil {
		if r.Level == Fail && !r.Usage {
			r = Result{Name: r.Name, Level: OK, Text: fmt.Sprintf("%s, %s (%d bytes), as the daemon opens it; this user cannot", p.Kind, size.Text(p.SizeBytes), p.SizeBytes)}
		}
		return r
	}
	f := jobpb.Refusal(err)
	switch f.Reason {
	case job.ReasonEndpoint, job.ReasonUnavailable, job.ReasonStorage:
		if r.Level == OK {
			r.Level, r.Text = Fail, "this user can open it, the daemon cannot: "+f.Text
			r.Remedy = "systemctl show haulbackd -p User -p SupplementaryGroups -p DeviceAllow -p ReadWritePaths; what is missing goes into a drop-in: docs/operation.md, Devices"
		}
	case job.ReasonInvalid:
		if r.Level == OK {
			r.Level, r.Text, r.Remedy = Warn, r.Text+"; the daemon does not know it: "+f.Text, "systemctl reload haulbackd, if it is new"
		}
	} // any other refusal says nothing of the disk
	return r
}

// remedyOf is what mends a disk that cannot be opened.
func remedyOf(uri string, err error) string {
	u, perr := vddk.ParseURI(uri)
	switch {
	case perr != nil || !u.Local():
	case errors.Is(err, fs.ErrNotExist):
		return "lsblk -o NAME,SIZE,SERIAL,MOUNTPOINTS, or ls -l " + filepath.Dir(u.Path) + "; then correct uri"
	case errors.Is(err, fs.ErrPermission):
		return allow(u.Path)
	}
	return "see docs/disks.md, What its errors mean"
}

// allow is the command that lets this user use path. A device is given by its
// group, as udev makes it: a mode that was changed by hand is gone at the next boot.
func allow(path string) string {
	who := site.UserName(os.Geteuid())
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Mode&0o060 == 0o060 {
		if g, err := user.LookupGroupId(strconv.Itoa(int(st.Gid))); err == nil {
			return "runuser -u " + who + " -G " + g.Name + " -- haulback selfcheck looks as its unit does, which adds the group; for good: usermod -aG " + g.Name + " " + who
		}
	}
	return "setfacl -m u:" + who + ":rw " + path
}

// room is what file targets in one file system may still grow by.
type room struct {
	path string // of one of them
	need int64  // bytes
	free int64
}

// rooms tells where targets that are files may fill their file system: a copy
// writes what has no space yet.
func (c *checks) rooms() {
	if c.cfg == nil {
		return
	}
	list := map[uint64]*room{}
	for _, e := range c.cfg.Exports {
		u, err := vddk.ParseURI(e.URI)
		if err != nil || e.Role != mover.RoleTarget || !u.Local() {
			continue
		}
		var st unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(u.Path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || unix.Statfs(u.Path, &fs) != nil {
			continue // told already, or no file
		}
		r := list[st.Dev]
		if r == nil {
			r = &room{path: u.Path, free: int64(fs.Bavail) * fs.Bsize}
			list[st.Dev] = r
		}
		r.need += max(0, st.Size-st.Blocks*512)
	}
	for _, dev := range slices.Sorted(maps.Keys(list)) {
		c.room(list[dev])
	}
}

func (c *checks) room(r *room) {
	name := "space of " + r.path
	if r.need > r.free {
		c.not(Warn, name, "df -h "+r.path+"; free some there, or make the file system larger", "%s free, and the targets there may take %s more: a copy that fills it ends, and resumes when it is run again", size.Text(r.free), size.Text(r.need))
		return
	}
	c.ok(name, "%s free, targets there may take %s more", size.Text(r.free), size.Text(r.need))
}

// host looks at the directories of a host's datastores. Of a host that VMware's
// library reaches there is nothing to open before a disk is named.
func host(r Result, t *hostdisk.Table) Result {
	for _, name := range slices.Sorted(maps.Keys(t.Datastores)) {
		if _, err := os.ReadDir(t.Datastores[name]); err != nil {
			r.Level, r.Text, r.Remedy = Fail, fmt.Sprintf("datastore %s: %v", name, err), "mount it there, or write into [[export]] where it is"
			return r
		}
	}
	r.Text = fmt.Sprintf("%d datastores of a host", len(t.Datastores))
	switch {
	case t.VDDK != "":
		r.Text = "a host, by VMware's library"
	case t.OpenStorage != "":
		r.Text = fmt.Sprintf("a host, by OpenStorage profile %q", t.OpenStorage)
	}
	return r
}
