package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/workload"
)

// Options say what is run.
type Options struct {
	Size  int64
	Seed  uint64
	Parts []Part   // in this order
	Peers []string // names or IDs; empty: all
	Dir   string   // where images are kept, and everything else is made
	Bin   string   // where haulback's programs are
	Roots []string // where the image's files are taken from; nil: /usr and /opt
	Quick bool
	Most  time.Duration // when so much is over, cases have one round each; 0: never
	Args  []string      // for the record

	Out  *result.Writer // gets each line as it comes; nil: nobody
	Tell func(string)   // a line for people
}

// Part is the cases that are run at one place.
type Part struct {
	Place result.Place
	Cases []result.Case // in this order; at other places than the disk of Anywhere only
	Runs  int           // rounds of each case
}

// Cases are all cases, in the order of a full benchmark.
var Cases = []result.Case{
	result.Same, result.OnePercent, result.TenPercent, result.Empty,
	result.Hint, result.HintSmall, result.HintLarge, result.Huge, result.ManyDisks, result.OneDisk, result.Payload, result.WAN,
}

// Anywhere are the cases of the workload's image alone, which can be run in
// memory and cold too. Empty comes last: see stage.plain.
var Anywhere = []result.Case{result.Same, result.OnePercent, result.TenPercent, result.Empty}

// ErrFailed is returned when runs failed: at least one result differed from its
// source, or a peer did not do its work.
var ErrFailed = errors.New("runs failed")

// bench is a benchmark that runs.
type bench struct {
	Options
	Part    // that is run now
	cores   map[result.End]int
	scratch string // removed at the end; of the part in memory, in memory
	image   *workload.Image
	kit     *peers.Kit
	peers   []peers.Peer
	results result.Results
	seen    map[string]bool // titles of peers whose commands are in the results
	began   time.Time
	failed  int
}

// Run runs a benchmark. What was measured is returned also with an error.
func Run(ctx context.Context, o Options) (*result.Results, error) {
	b := &bench{Options: o, seen: map[string]bool{}, began: time.Now()}
	if err := b.setUp(ctx); err != nil {
		return &b.results, err
	}
	defer os.RemoveAll(b.scratch)
	defer b.image.Close()
	for _, b.Part = range o.Parts {
		var err error
		if b.Place == result.InMemory {
			err = b.inMemory(ctx)
		} else {
			err = b.runCases(ctx)
		}
		if err != nil {
			return &b.results, err
		}
	}
	if b.failed > 0 {
		return &b.results, fmt.Errorf("%d %w", b.failed, ErrFailed)
	}
	return &b.results, nil
}

// runCases runs the cases of a part.
func (b *bench) runCases(ctx context.Context) error {
	for _, c := range b.Cases {
		if err := b.runCase(ctx, c); err != nil {
			return fmt.Errorf("case %s, %v: %w", c, b.Place, err)
		}
	}
	return nil
}

// line keeps a line of the results, in memory and on disk.
func (b *bench) line(l result.Line) error {
	b.results.Add(l)
	if b.Out == nil {
		return nil
	}
	return b.Out.Write(l)
}

func (b *bench) tell(format string, args ...any) { b.Tell(fmt.Sprintf(format, args...)) }

func (b *bench) setUp(ctx context.Context) (err error) {
	if b.peers, err = peers.Select(peers.All(), b.Peers); err != nil {
		return err
	}
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return err
	}
	if b.scratch, err = os.MkdirTemp(b.Dir, "run-"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(b.scratch)
		}
	}()
	b.cores = cores()
	setup := result.Setup{
		Began: time.Now().UTC(), Commit: Commit(ctx), Machine: measure.Machine(b.Dir), Seed: b.Seed, Size: b.Size, Quick: b.Quick, Args: b.Args,
		Versions: measure.Versions(ctx, "rsync", "bdsync", "nbdkit", "nbdcopy", "qemu-img", "certtool", "b3sum", "fio", "socat"), Cores: map[result.End]string{},
	}
	if i := slices.IndexFunc(b.Parts, func(p Part) bool { return p.Place == result.OnDisk }); i >= 0 {
		setup.Runs = b.Parts[i].Runs
	}
	for _, e := range measure.Ends {
		setup.Cores[e] = "all"
		if c, ok := b.cores[e]; ok {
			setup.Cores[e] = strconv.Itoa(c)
		}
	}
	room, err := measure.NewRoom("try", b.cores)
	if err != nil {
		return err
	}
	setup.CPUBy = room.CPUBy()
	lacks := room.Lacks()
	room.Close()
	m := setup.Machine
	b.tell("%s, %d CPUs, %d GiB, %s, %s; disks on %s; load %s", m.CPU, m.Cores, m.Memory>>30, m.OS, m.Kernel, m.Disk, m.Load)
	b.tell("CPUs: source end %s, target end %s; CPU time by %s; haulback %s", setup.Cores[result.Source], setup.Cores[result.Target], setup.CPUBy, setup.Commit)
	for _, l := range lacks {
		b.tell("NOT MEASURED: %s", l)
	}
	if err := b.line(result.Line{Setup: &setup}); err != nil {
		return err
	}
	if err := b.openKit(ctx); err != nil {
		return err
	}
	b.image, err = workload.Open(ctx, b.Dir, workload.Spec{Size: b.Size, Seed: b.Seed, Roots: b.Roots}, b.Tell)
	return err
}

// openKit prepares the peers and says which are left out.
func (b *bench) openKit(ctx context.Context) (err error) {
	if b.kit, err = peers.Open(ctx, filepath.Join(b.scratch, "kit"), b.Bin, b.peers); err != nil {
		return err
	}
	for i := range b.peers {
		p := &b.peers[i]
		if why := b.kit.Why(p); why != "" && b.runs(p) {
			b.tell("LEFT OUT: %s: %s", p.ID(), why)
			if err := b.line(result.Line{LeftOut: &result.LeftOut{Name: p.Name, Variant: p.Variant, Why: why}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// runs tells whether a peer has a case in any part.
func (b *bench) runs(p *peers.Peer) bool {
	return slices.ContainsFunc(b.Parts, func(part Part) bool {
		return slices.ContainsFunc(part.Cases, func(c result.Case) bool { return slices.Contains(p.Cases, c) })
	})
}

// cores gives each end one of the CPUs that this process may use; nil when
// there is only one.
func cores() map[result.End]int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() < 2 {
		return nil
	}
	var free []int
	for c := range len(set) * 64 {
		if set.IsSet(c) {
			free = append(free, c)
		}
	}
	return map[result.End]int{result.Source: free[0], result.Target: free[1]}
}

// Commit is what this program was built from, as the toolchain recorded it; in
// a work tree, of which the toolchain knows nothing, as git has it now.
func Commit(ctx context.Context) string {
	revision, dirty := "", ""
	if i, ok := debug.ReadBuildInfo(); ok {
		for _, s := range i.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "-dirty"
			}
		}
	}
	if revision == "" {
		head, err := exec.CommandContext(ctx, "git", "rev-parse", "HEAD").Output()
		if err != nil {
			return "unknown"
		}
		revision = strings.TrimSpace(string(head))
		if changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(changes) > 0 {
			dirty = "-dirty"
		}
	}
	return revision[:min(len(revision), 12)] + dirty
}

// runCase lets all peers of a case do its work, in turn.
func (b *bench) runCase(ctx context.Context, c result.Case) error {
	if c == result.WAN {
		return b.wan(ctx)
	}
	var some []*peers.Peer
	for i := range b.peers {
		if p := &b.peers[i]; slices.Contains(p.Cases, c) && b.kit.Why(p) == "" {
			some = append(some, p)
		}
	}
	if len(some) == 0 {
		return nil // nobody to do it, and that was said
	}
	s, err := b.stage(ctx, c)
	if err != nil {
		return err
	}
	defer s.close()
	s.image.Place = b.Place
	if err := b.line(result.Line{Image: &s.image}); err != nil {
		return err
	}
	b.tell("\ncase %s, %v: %d MiB, %d writes, %.1f MiB differ in 4 KiB blocks, %.1f MiB in 64 KiB extents", c, b.Place, s.image.Bytes>>20, s.image.Writes, mib(s.image.Changed), mib(s.image.Extents))
	for n := range b.Runs {
		if spent := time.Since(b.began); n > 0 && b.Most > 0 && spent > b.Most {
			b.tell("  no further round: %v are over, and this is to be quick", spent.Round(time.Second))
			break
		}
		for _, p := range some {
			if err := b.one(ctx, c, p, s, n+1); err != nil {
				return fmt.Errorf("%s, round %d: %w", p.ID(), n+1, err)
			}
		}
	}
	return nil
}

// one is one run of one peer, with what has to be done before and after it. An
// error ends the benchmark; a run that fails does not.
func (b *bench) one(ctx context.Context, c result.Case, p *peers.Peer, s *stage, n int) error {
	j := peers.Job{Case: c, Disks: s.disks, Size: s.image.Bytes}
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return err
		}
	}
	r := result.Run{Case: c, Place: b.Place, Peer: p.Name, Variant: p.Variant, N: n, Image: s.image.Bytes}
	if err := b.measured(ctx, p, &j, &r); err != nil {
		return err
	}
	if !p.Reads {
		if err := b.judge(ctx, s, &r); err != nil {
			return err
		}
	}
	if !r.OK() {
		b.failed++
	}
	b.Tell(Line(&r, b.Runs))
	return b.line(result.Line{Run: &r})
}

// judge compares what a run made, and puts it back.
func (b *bench) judge(ctx context.Context, s *stage, r *result.Run) error {
	if r.Error != "" {
		r.Cmp = result.NotCompared // it has failed already, and anything may be in the target
		return s.restart(ctx)
	}
	r.Cmp = result.Equal
	for _, d := range s.disks {
		same, err := b.same(ctx, d.Source, d.Target)
		if err != nil {
			return err
		}
		if !same {
			r.Cmp, r.Error = result.Differ, filepath.Base(d.Target)+" differs from its source"
			return s.restart(ctx)
		}
	}
	if s.after == nil {
		return nil
	}
	return s.after(ctx)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
