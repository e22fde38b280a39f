package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// Peer is a program and one way to run it.
type Peer struct {
	Name, Variant string
	Title         string // one line for people
	Encrypted     bool
	Cases         []result.Case // in which it runs
	Reads         bool          // it writes nothing: a limit
	Asked         bool          // it runs only when its ID is asked for
	tools         []string      // that have to be in PATH
	flags         []string      // regular expressions that match the help of "haulback copy"
	strings       []string      // that the haulback program has to contain
	prepare       func(context.Context, *Kit) (remarks []string, err error)
	plan          func(*Kit, Job) (Plan, error)
}

// ID is name and variant: "rsync/delta".
func (p *Peer) ID() string {
	if p.Variant == "" {
		return p.Name
	}
	return p.Name + "/" + p.Variant
}

// Plan says what is started for a job.
func (p *Peer) Plan(k *Kit, j Job) (Plan, error) { return p.plan(k, j) }

// Job is one run.
type Job struct {
	Case  result.Case
	Dir   string // for the run's own files; empty, and removed afterwards
	Size  int64  // bytes of all disks
	Disks []Disk // at least one; peers of the usual cases get one
}

// Disk is a pair of disks.
type Disk struct {
	Source  string // path of the disk that is read
	Target  string // path of the disk that is overwritten; it exists
	Tracked string // path of a qcow2 that has the source as its data, and the dirty bitmap Bitmap; or empty
}

// Bitmap is the name of the dirty bitmap of a tracked disk.
const Bitmap = "changes"

// Plan is what is started for a job.
type Plan struct {
	Servers []Server
	Clients []measure.Command // started together; the run is over when all have ended
	// Read tells, after the run, what the peer says of it. It may be nil.
	Read func() (extra map[string]float64, note string, err error)
}

// Server is a process that has to be ready before the clients are started.
type Server struct {
	measure.Command
	TCP    int    // ready when it listens there
	Log    string // ready when its Stderr holds this
	Unix   string // ready when this socket is there
	Finish bool   // it ends by itself, and the run is not over before

	Process *measure.Process // once it is started
}

// Commands is what is started, for people, with the core of each end. Where a word of
// it begins with one of dirs, which come in pairs, it has the second in its place: no
// result tells where things lie on a machine.
func (p *Plan) Commands(core func(result.End) int, dirs ...string) (all []string) {
	short := strings.NewReplacer(dirs...)
	for i := range p.Servers {
		all = append(all, short.Replace(p.Servers[i].Line(core(p.Servers[i].End))))
	}
	for i := range p.Clients {
		all = append(all, short.Replace(p.Clients[i].Line(core(p.Clients[i].End))))
	}
	return all
}

// Dirs are the directories of k, for Commands.
func (k *Kit) Dirs() []string { return []string{k.dir, "KIT", k.bin, "bin"} }

// Kit is what plans are made with: programs, keys and certificates. Open makes it.
type Kit struct {
	dir     string // keys, certificates; private
	bin     string // haulback's programs
	help    string // of haulback copy
	program []byte // haulback, to look for strings in
	why     map[string]string
	remarks map[string][]string
}

// Open prepares all of the peers that can run, in a directory of its own. Bin
// has haulback and haulbackd.
func Open(ctx context.Context, dir, bin string, all []Peer) (*Kit, error) {
	k := &Kit{dir: dir, why: map[string]string{}, remarks: map[string][]string{}}
	var err error
	if k.bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	haulback := filepath.Join(k.bin, "haulback")
	help, err := exec.CommandContext(ctx, haulback, "copy", "--help").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s copy --help: %w: %s", haulback, err, help)
	}
	k.help = string(help)
	if k.program, err = os.ReadFile(haulback); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i := range all {
		k.open(ctx, &all[i])
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	k.program = nil // 20 MiB that nobody needs any more
	return k, nil
}

func (k *Kit) open(ctx context.Context, p *Peer) {
	why := k.missing(p)
	if why == "" && p.prepare != nil {
		remarks, err := p.prepare(ctx, k)
		if err != nil {
			why = err.Error()
		}
		k.remarks[p.ID()] = remarks
	}
	if why != "" {
		k.why[p.ID()] = why
	}
}

// missing says what p needs and this machine, or this haulback, has not.
func (k *Kit) missing(p *Peer) string {
	for _, tool := range p.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not in PATH"
		}
	}
	for _, flag := range p.flags {
		if !regexp.MustCompile(flag).MatchString(k.help) {
			return fmt.Sprintf("the help of this tree's haulback copy does not match %q", flag)
		}
	}
	for _, s := range p.strings {
		if !strings.Contains(string(k.program), s) {
			return "haulback of this tree knows no " + s
		}
	}
	return ""
}

// Why says why a peer cannot run; empty when it can.
func (k *Kit) Why(p *Peer) string { return k.why[p.ID()] }

// Remarks are what was learned of a peer when it was prepared.
func (k *Kit) Remarks(p *Peer) []string { return k.remarks[p.ID()] }

// All is every peer, in the order in which the rounds go.
func All() []Peer {
	return slices.Concat(limits(), haulback(), special(), links(), rsync(), bdsync(), nbdcopy(), qemu())
}

// Select are the peers whose name or ID is in the list; all when it is empty. A
// peer that wants to be asked for is in only by its ID. A name that nobody has
// is an error.
func Select(all []Peer, names []string) ([]Peer, error) {
	var some []Peer
	known := map[string]bool{}
	for _, p := range all {
		known[p.Name], known[p.ID()] = true, true
		byName := !p.Asked && (len(names) == 0 || slices.Contains(names, p.Name))
		if byName || slices.Contains(names, p.ID()) {
			some = append(some, p)
		}
	}
	for _, n := range names {
		if !known[n] {
			return nil, fmt.Errorf("no peer %q; there are %s", n, strings.Join(ids(all), ", "))
		}
	}
	return some, nil
}

func ids(all []Peer) (list []string) {
	for i := range all {
		if id := all[i].ID(); !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}

// port is where the servers listen: below what the kernel hands out by itself.
const port = 17420

// The cases of the workload's image.
var (
	deltas = []result.Case{result.Same, result.OnePercent, result.TenPercent}
	full   = []result.Case{result.Empty}
	every  = []result.Case{result.Same, result.OnePercent, result.TenPercent, result.Empty}
)
