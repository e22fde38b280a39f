package selfcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/worker"
	"github.com/haulback/haulback/wire"
)

// Run makes all checks and tells each as it is done; those of disks and peers
// run side by side and are told in order. It returns what failed.
func Run(ctx context.Context, o Options, tell func(Result)) (failed []Result) {
	c := &checks{tell: func(r Result) {
		if r.Level == Fail {
			failed = append(failed, r)
		}
		tell(r)
	}}
	c.configuration(o)
	if c.site != nil {
		c.state()
		c.key()
	}
	c.buffers()
	c.files()
	c.exports(ctx)
	c.peersAnswer(ctx)
	c.hosts(ctx)
	c.control(ctx)
	return failed
}

type checks struct {
	tell  func(Result)
	cfg   *config.Config // nil: there is none, or it is wrong
	site  *site.Site
	peers site.Peers
}

func (c *checks) ok(name, format string, args ...any) {
	c.tell(Result{Name: name, Level: OK, Text: fmt.Sprintf(format, args...)})
}

func (c *checks) not(level Level, name, remedy, format string, args ...any) {
	c.tell(Result{Name: name, Level: level, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// configuration finds the site, of the file or without one.
func (c *checks) configuration(o Options) {
	if o.File == "" {
		var err error
		if c.site, err = site.At(o.StateDir, ""); err == nil {
			c.peers, err = c.site.Peers()
		}
		c.ok("config", "none; the command line needs none")
		c.pairs(err)
		return
	}
	cfg, err := config.Load(o.File)
	if err != nil {
		c.tell(Result{Name: "config", Level: Fail, Text: err.Error(), Remedy: "haulback config check " + o.File, Usage: true})
		return
	}
	c.cfg, c.site, c.peers = cfg, cfg.Site, cfg.Peers
	for _, w := range cfg.Warnings {
		c.not(Warn, "config", "", "%s", w)
	}
	c.ok("config", "%s", cfg.Summary())
	c.pairs(nil)
}

func (c *checks) pairs(err error) {
	switch {
	case err != nil:
		c.tell(Result{Name: "peers", Level: Fail, Text: err.Error(), Remedy: "correct the file, or pair again: haulback peer add", Usage: true})
	case len(c.peers) == 0:
		c.not(Warn, "peers", "haulback peer add ID --name NAME --address HOST:PORT", "nobody is paired with this site")
	default:
		c.ok("peers", "%d paired", len(c.peers))
	}
}

// lowSpace is when a file system is close to where journals cannot grow.
const (
	journalSpace = 4 << 20
	lowSpace     = 64 << 20
)

// state looks at the directory without making it.
func (c *checks) state() {
	dir := c.site.Dir()
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		c.not(Warn, "state", "nothing; or name another with --state-dir", "%s is not there; it is made at the first use", dir)
		return
	}
	switch {
	case err != nil:
		c.not(Fail, "state", "make it readable for this user", "%v", err)
		return
	case !info.IsDir():
		c.not(Fail, "state", "move it away, or name another with --state-dir", "%s is no directory", dir)
		return
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		c.not(Fail, "state", "run as the user of the daemon, or make it writable", "%s cannot be written by this user", dir)
	case info.Mode().Perm()&0o022 != 0:
		c.not(Fail, "state", "chmod 700 "+dir, "%s may be written by other users (mode %04o): they could exchange the key", dir, info.Mode().Perm())
	case info.Mode().Perm()&0o055 != 0:
		c.not(Warn, "state", "chmod 700 "+dir, "%s may be read by other users (mode %04o)", dir, info.Mode().Perm())
	default:
		c.ok("state", "%s is private and writable", dir)
	}
	c.space(dir)
}

func (c *checks) space(dir string) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		c.not(Fail, "space", "", "%s: %v", dir, err)
		return
	}
	targets := int64(1)
	if c.cfg != nil {
		for _, e := range c.cfg.Exports {
			if e.Role == mover.RoleTarget {
				targets++
			}
		}
	}
	free, need := int64(st.Bavail)*st.Bsize, targets*journalSpace
	switch {
	case free < need:
		c.not(Fail, "space", "free some there, or move the state directory", "%s free at %s, journals of %d disks need %s", size.Text(free), dir, targets, size.Text(need))
	case free < max(lowSpace, 2*need):
		c.not(Warn, "space", "free some there", "%s free at %s", size.Text(free), dir)
	default:
		c.ok("space", "%s free at %s", size.Text(free), dir)
	}
}

func (c *checks) key() {
	path := c.site.KeyFile()
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		c.not(Warn, "key", "haulback peer id makes it", "%s is not there; this site has no identity yet", path)
		return
	}
	if err := c.site.CheckKey(); err != nil {
		c.tell(Result{Name: "key", Level: Fail, Text: err.Error(), Remedy: "chmod 600 " + path + "; think about who may have read it", Usage: true})
		return
	}
	c.ok("key", "%s is for this user only", path)
}

func (c *checks) buffers() {
	pc, hint, err := wire.ListenPacket("127.0.0.1:0")
	if err != nil {
		c.not(Fail, "socket buffers", "", "%v", err)
		return
	}
	pc.Close()
	if text := hint.String(); text != "" {
		c.not(Warn, "socket buffers", "see docs/operation.md, Install", "%s", text)
		return
	}
	c.ok("socket buffers", "%s to receive, %s to send", size.Text(int64(hint.Recv)), size.Text(int64(hint.Send)))
}

// fewFiles is what 256 sessions may need: a socket, a disk and a journal each.
const fewFiles = 1024

func (c *checks) files() {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		c.not(Fail, "open files", "", "%v", err)
		return
	}
	if r.Max < fewFiles { // the runtime raises the soft limit to the hard one
		c.not(Warn, "open files", "ulimit -Hn 4096, or LimitNOFILE=4096 in the unit", "at most %d", r.Max)
		return
	}
	c.ok("open files", "at most %d", r.Max)
}

// exports opens every disk for reading, all at the same time.
func (c *checks) exports(ctx context.Context) {
	if c.cfg == nil {
		return
	}
	library := false
	results := make([]Result, len(c.cfg.Exports))
	var wg sync.WaitGroup
	for i, e := range c.cfg.Exports {
		if u, err := vddk.ParseURI(e.URI); err == nil && u.Scheme == "vddk" || e.Host != nil && e.Host.VDDK != "" {
			library = true
		}
		wg.Go(func() { results[i] = disk(ctx, e) })
	}
	if library {
		c.worker()
	}
	wg.Wait()
	for _, r := range results {
		c.tell(r)
	}
}

func (c *checks) worker() {
	path, err := worker.Find()
	if err != nil {
		c.not(Fail, "vddk worker", "install haulback-vddk beside haulbackd", "%v", err)
		return
	}
	c.ok("vddk worker", "%s", path)
}

func disk(ctx context.Context, e config.Export) Result {
	ctx, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	r := Result{Name: "export " + e.Name, Level: OK}
	if e.Host != nil {
		return host(r, e.Host)
	}
	d, err := vddk.Open(ctx, e.URI, vddk.Options{Track: e.Track})
	switch {
	case errors.Is(err, unix.EBUSY):
		r.Level, r.Text, r.Remedy = Warn, err.Error(), "nothing, if a copy to it runs"
		return r
	case err != nil:
		r.Level, r.Text, r.Remedy = Fail, err.Error(), "see docs/disks.md, What its errors mean"
		return r
	}
	defer d.Close() // only read
	info := d.Describe()
	r.Text = fmt.Sprintf("%s, %s (%d bytes)", info.Kind, size.Text(info.Size), info.Size)
	u, err := vddk.ParseURI(e.URI)
	if err == nil && e.Role == mover.RoleTarget && u.Local() && unix.Access(u.Path, unix.W_OK) != nil {
		r.Level, r.Text, r.Remedy = Fail, u.Path+": a target, and this user cannot write to it", "run as the user of the daemon, or change its owner or mode"
	}
	if _, err := d.ReadAt(make([]byte, min(4096, info.Size)), 0); r.Level == OK && err != nil {
		r.Level, r.Text, r.Remedy = Fail, err.Error(), "check the device first"
	}
	if r.Level == OK && info.Warning != "" {
		r.Level, r.Text = Warn, r.Text+": "+info.Warning
	}
	return r
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
	if t.VDDK != "" {
		r.Text = "a host, by VMware's library"
	}
	return r
}
