package measure

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How CPU time can be taken.
const (
	byV2   = "cgroup v2"
	byV1   = "cgroup v1"
	byProc = "/proc"
)

// group is the processes of one end.
type group struct {
	by   string
	dir  string
	base time.Duration // used before the run began

	mu   sync.Mutex
	own  []int                 // started here; all there is without a cgroup
	last map[int]time.Duration // of each, when it was last seen
}

// mounts are where cgroups may be, the better ones first, with what a group there has.
var mounts = []struct{ dir, by, file string }{
	{"/sys/fs/cgroup", byV2, "cpu.stat"},
	{"/sys/fs/cgroup/unified", byV2, "cpu.stat"},
	{"/sys/fs/cgroup/cpuacct", byV1, "cpuacct.usage"},
	{"/sys/fs/cgroup/cpu,cpuacct", byV1, "cpuacct.usage"},
}

func newGroup(name string) (*group, error) {
	for _, m := range mounts {
		dir := filepath.Join(m.dir, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		g := &group{by: m.by, dir: dir}
		if _, err := os.Stat(filepath.Join(dir, m.file)); err == nil {
			return g, nil
		}
		_ = os.Remove(dir)
	}
	return &group{by: byProc, last: map[int]time.Duration{}}, nil
}

// enter makes a process that is about to start a member: by the file that its
// clone is given (v2), or by the thread that starts it (v1). Leave undoes it;
// the v1 thread goes back to where it was, which is the root of the hierarchy
// for everybody who was not moved.
func (g *group) enter(a *syscall.SysProcAttr) (leave func(), err error) {
	switch g.by {
	case byV2:
		f, err := os.Open(g.dir)
		if err != nil {
			return nil, err
		}
		a.UseCgroupFD, a.CgroupFD = true, int(f.Fd())
		return func() { f.Close() }, nil
	case byV1:
		if err := os.WriteFile(filepath.Join(g.dir, "tasks"), []byte("0"), 0); err != nil {
			return nil, err
		}
		return func() { _ = os.WriteFile(filepath.Join(filepath.Dir(g.dir), "tasks"), []byte("0"), 0) }, nil
	}
	return func() {}, nil
}

// add takes note of a process that was started.
func (g *group) add(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own = append(g.own, pid)
}

// pids are all members that live.
func (g *group) pids() (all []int) {
	if g.by == byProc {
		g.mu.Lock()
		defer g.mu.Unlock()
		return append(all, g.own...)
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for _, s := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
			all = append(all, pid)
		}
	}
	return all
}

// total is what the members used since they began.
func (g *group) total() time.Duration {
	var d time.Duration
	var text []byte
	var err error
	switch g.by {
	case byV2:
		if text, err = os.ReadFile(filepath.Join(g.dir, "cpu.stat")); err == nil {
			d, err = parseCPUStat(string(text))
		}
	case byV1:
		var n int64
		if text, err = os.ReadFile(filepath.Join(g.dir, "cpuacct.usage")); err == nil {
			n, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			d = time.Duration(n)
		}
	default:
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, pid := range g.own {
			if used, err := readUsed(pid); err == nil {
				g.last[pid] = used
			}
			d += g.last[pid]
		}
	}
	if err != nil {
		return g.base // as if nothing had been used: not measured
	}
	return d
}

func (g *group) zero() { g.base = g.total() }

func (g *group) used() time.Duration { return g.total() - g.base }

// remove ends the members that are left, each by its process ID, and the group.
func (g *group) remove() {
	if g.by == byProc {
		return
	}
	for range 200 { // they are killed: within 2 s they are gone
		pids := g.pids()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
