package selfcheck

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/site"
)

// writers warns of files that somebody else may change and the daemon believes:
// its configuration, and the programs that it runs. Who may write them, or put
// another in their place, does what the daemon may do.
func (c *checks) writers() {
	if c.cfg == nil {
		return
	}
	mine := owners{0: true, uint32(os.Geteuid()): true}
	var st unix.Stat_t
	if unix.Stat(c.site.Dir(), &st) == nil {
		mine[st.Uid] = true
	}
	open := map[string]string{} // who may write, by path
	for _, path := range slices.Concat([]string{c.cfg.File, c.cfg.File + ".d"}, c.cfg.DropIns, programs(c.cfg)) {
		for range maxLinks {
			mine.chain(path, open)
			to, err := os.Readlink(path)
			if err != nil {
				break
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(path), to)
			}
			path = to
		}
		if real, err := filepath.EvalSymlinks(path); err == nil { // directories on the way may be links, too
			mine.chain(real, open)
		}
	}
	if dir := filepath.Dir(c.cfg.File); absent(c.cfg.File+".d") && everybodys(dir) {
		open[dir] = "everybody, who may make a directory of drop-ins there" // the sticky bit does not keep anybody from it
	}
	for _, path := range slices.Sorted(maps.Keys(open)) {
		c.not(Warn, "config", "ls -ld "+path+"; chmod go-w "+path+", or chown root "+path,
			"%s may be changed by %s: they could have the daemon run, read and write what they like", path, open[path])
	}
}

// maxLinks is how many links one after another are followed, as the kernel does.
const maxLinks = 40

func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func everybodys(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode&unix.S_IWOTH != 0
}

// programs are those of hooks, replication and workloads, with the files among their
// arguments: a shell's is the script.
func programs(cfg *config.Config) (paths []string) {
	add := func(argv []string) {
		for _, arg := range argv {
			if filepath.IsAbs(arg) {
				paths = append(paths, arg)
			}
		}
	}
	for _, h := range cfg.Hooks {
		add(h.Call.Command)
	}
	add(cfg.Replication.Hold.Command)
	add(cfg.Replication.Release.Command)
	for _, h := range cfg.Hosts {
		for _, w := range h.Workloads {
			add(w.PowerOn)
			add(w.PowerOff)
			add(w.Status)
		}
	}
	return paths
}

// owners are users who may change the daemon anyway.
type owners map[uint32]bool

// chain looks at path and at the directories above it.
func (o owners) chain(path string, open map[string]string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	for {
		if who := o.others(path); who != "" {
			open[path] = who
		}
		up := filepath.Dir(path)
		if up == path {
			return
		}
		path = up
	}
}

// people is the first user's number that distributions give to people, each with a
// group of that number for themselves. The group of a daemon's user has others.
const people = 1000

// others says who else may write path, and nothing where nobody may, where it is a
// link, or not there. In a directory with the sticky bit nobody moves another's file.
func (o owners) others(path string) string {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return ""
	}
	sticky := st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0
	switch {
	case !o[st.Uid]:
		return site.UserName(int(st.Uid)) + ", whose it is"
	case sticky:
		return ""
	case st.Mode&unix.S_IWOTH != 0:
		return "everybody"
	case st.Mode&unix.S_IWGRP != 0 && st.Gid != 0 && (st.Gid != st.Uid || st.Uid < people):
		return fmt.Sprintf("the group with number %d", st.Gid)
	}
	return ""
}
