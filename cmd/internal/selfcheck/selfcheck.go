package selfcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/osdisk"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
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
	defer c.end()
	if c.site != nil {
		c.user(os.Geteuid())
		c.writers()
		c.state()
		c.key()
	}
	c.clock()
	c.sockets()
	c.files()
	c.memory()
	running := c.control(ctx)
	c.openstorage(ctx)
	c.exports(ctx)
	c.rooms()
	c.peersAnswer(ctx)
	c.tcp()
	c.hosts(ctx)
	if !running {
		c.ports(ctx)
	}
	return failed
}

type checks struct {
	tell  func(Result)
	cfg   *config.Config // nil: there is none, or it is wrong
	site  *site.Site
	peers site.Peers
	far   time.Duration // the longest round trip to a peer
	// probe asks the daemon about a disk of its own: it may open what this user may
	// not, and the reverse. Nil: none answers.
	probe func(ctx context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error)
	// volumes are those of the configuration's profiles. Not what is registered for
	// osd://, which sweeps.
	volumes *osdisk.Disks
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
	c.volumes = osdisk.New(cfg.OpenStorage, config.Ledger(cfg.Site), slog.New(slog.DiscardHandler))
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
		c.not(Fail, "state", "namei -l "+dir+" shows which directory is closed; run it as the user of the daemon", "%v", err)
		return
	case !info.IsDir():
		c.not(Fail, "state", "move it away, or name another with --state-dir", "%s is no directory", dir)
		return
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		c.not(Fail, "state", "ls -ld "+dir+" shows whose it is; run it as that user, or chown it", "%s cannot be written by this user", dir)
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
	case st.Files > 0 && st.Ffree == 0:
		c.not(Fail, "space", "df -i "+dir+"; remove files there", "no file can be made at %s: its file system is out of inodes", dir)
	case free < need:
		c.not(Fail, "space", "df -h "+dir+"; free some there, or move state_dir", "%s free at %s, journals of %d disks need %s", size.Text(free), dir, targets, size.Text(need))
	case free < max(lowSpace, 2*need):
		c.not(Warn, "space", "df -h "+dir+"; free some there", "%s free at %s", size.Text(free), dir)
	default:
		c.ok("space", "%s free at %s", size.Text(free), dir)
	}
}

func (c *checks) key() {
	path := c.site.KeyFile()
	if r := (Result{Name: "key"}); c.lacks(&r, path) {
		c.tell(r)
		return
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !site.IsCredential(path) {
		c.not(Warn, "key", "haulback peer id makes it", "%s is not there; this site has no identity yet", path)
		return
	}
	if err := c.site.CheckKey(); err != nil {
		remedy := "chmod 600 " + path + "; think about who may have read it"
		if site.IsCredential(path) {
			remedy = "" // the error has it
		}
		c.tell(Result{Name: "key", Level: Fail, Text: err.Error(), Remedy: remedy, Usage: true})
		return
	}
	c.ok("key", "%s is for this user only", path)
}
