package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/bench/report"
	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/run"
	"github.com/haulback/haulback/bench/workload"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/size"
)

// flags are as typed.
type flags struct {
	size          string
	runs          int
	cases, peers  []string
	out, dir, bin string
	roots         []string
	seed          uint64
	on            []string
	quick         bool
}

// command is haulbench.
func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "haulbench", Short: "Compare haulback with other programs on the same work", Args: cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true,
		Long: `Make a disk image with a real file system, let haulback and other programs bring
a second one up to it, in turn, and tell wall time, CPU time of both ends, bytes
on the wire and memory of each. Every result is compared by cmp.

Each end has one CPU, and the network of each run is its own: run it as root, on
a machine with at least two CPUs and nothing else to do. A program that is not
there is left out, and that is said. Images are kept and used again.

Places: "disk" is --dir, with a warm page cache. "memory" is a tmpfs with a copy
of both disks, which haulbench mounts and unmounts: as root, with memory for twice
the image and 1 GiB; else it is left out. "cold" is --dir, with nothing of the
disks in the page cache. Only ` + join(run.Anywhere) + ` are run in memory and
cold; without --cases, cold only same.

Exit code 1: a result differed, or a program failed; 10: usage.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options(cmd)
			if err != nil {
				return &exitcode.UsageError{Err: err}
			}
			return bench(cmd.Context(), o, f.out, cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.size, "size", "", "`SIZE` of the image, as in 4GiB (default 4GiB, with --quick 1GiB)")
	fl.IntVar(&f.runs, "runs", 0, "`N` rounds of each case (default 5, with --quick 2); in memory and cold at most 3")
	fl.StringSliceVar(&f.on, "on", nil, "`PLACES` of the disks, comma separated: disk, memory, cold (default all; with --quick or --cases disk)")
	fl.StringSliceVar(&f.cases, "cases", nil, "`CASES` to run, comma separated: "+join(run.Cases)+" (default all)")
	fl.StringSliceVar(&f.peers, "peers", nil, "`PEERS` to run, comma separated, as in haulback,rsync/delta (default all; with --quick one of each kind)")
	fl.StringVar(&f.out, "out", "out/bench", "`DIR` for the results; made if it is not there")
	fl.StringVar(&f.dir, "dir", "", "`DIR` for images and everything else, 13 GiB for 4GiB (default $HAULBACK_BENCH_DIR, else /var/tmp/haulback-bench)")
	fl.StringVar(&f.bin, "bin", "", "`DIR` with haulback and haulbackd (default that of haulbench)")
	fl.StringSliceVar(&f.roots, "files-from", nil, "`DIRS` whose files are put into the image (default /usr,/opt)")
	fl.Uint64Var(&f.seed, "seed", 1, "`SEED` of the image and its changes")
	fl.BoolVar(&f.quick, "quick", false, "a smaller image, fewer rounds, fewer peers: under two minutes")
	cmd.AddCommand(payloadCommand(), wanCommand(), reportCommand())
	exitcode.Mark(cmd)
	return cmd
}

func join[S ~string](all []S) string {
	var b strings.Builder
	for i, s := range all {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(string(s))
	}
	return b.String()
}

// quickPeers are one of each kind.
var quickPeers = []string{"b3sum", "haulback/quic", "haulback/tls", "haulback/auto", "rsync/delta", "bdsync", "nbdcopy/tls", "nbdcopy/plain"}

// quickCases are those that take seconds.
var quickCases = []result.Case{result.Same, result.OnePercent, result.TenPercent, result.Empty, result.Hint}

// quickTime is when make bench-quick stops repeating: the rest of its two
// minutes is for the image, and for the cases that have not had a first round.
const quickTime = 45 * time.Second

// options checks what was typed.
func (f *flags) options(cmd *cobra.Command) (o run.Options, err error) {
	o = run.Options{Seed: f.seed, Peers: f.peers, Quick: f.quick, Roots: f.roots, Args: os.Args[1:]}
	text := cmp.Or(f.size, map[bool]string{false: "4GiB", true: "1GiB"}[f.quick])
	if o.Size, err = size.Parse(text); err != nil {
		return o, fmt.Errorf("--size: %w", err)
	}
	if o.Size < workload.MinSize || o.Size%(1<<20) != 0 {
		return o, fmt.Errorf("--size %s: a multiple of 1MiB, and at least %s", text, size.Text(workload.MinSize))
	}
	if !cmd.Flags().Changed("runs") {
		f.runs = map[bool]int{false: 5, true: 2}[f.quick]
	}
	if f.runs < 1 || f.runs > 1000 {
		return o, fmt.Errorf("--runs %d: from 1 to 1000", f.runs)
	}
	if o.Parts, err = f.parts(); err != nil {
		return o, err
	}
	if f.quick && len(f.cases) == 0 {
		o.Most = quickTime
	}
	if f.quick && len(o.Peers) == 0 {
		o.Peers = quickPeers
	}
	if _, err := peers.Select(peers.All(), o.Peers); err != nil {
		return o, fmt.Errorf("--peers: %w", err)
	}
	for _, d := range f.roots {
		if i, err := os.Stat(d); err != nil || !i.IsDir() {
			return o, fmt.Errorf("--files-from %s: %w", d, cmp.Or(err, errors.New("not a directory")))
		}
	}
	o.Dir = cmp.Or(f.dir, os.Getenv("HAULBACK_BENCH_DIR"), "/var/tmp/haulback-bench")
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return o, err
	}
	if o.Bin = f.bin; o.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		o.Bin = filepath.Dir(self)
	}
	for _, program := range []string{"haulback", "haulbackd"} {
		if _, err := os.Stat(filepath.Join(o.Bin, program)); err != nil {
			return o, fmt.Errorf("--bin %s: no %s is there; run make all", o.Bin, program)
		}
	}
	return o, nil
}

// fewRuns is how many rounds there are in memory and cold: with five make bench
// would take an hour, and where no disk is waited for, rounds differ less.
const fewRuns = 3

// parts are which cases run where.
func (f *flags) parts() (all []run.Part, err error) {
	cases, err := f.wanted()
	if err != nil {
		return nil, err
	}
	on := f.on
	switch {
	case len(on) > 0:
	case f.quick || len(f.cases) > 0:
		on = []string{"disk"}
	default:
		on = []string{"disk", "memory", "cold"}
	}
	some := slices.DeleteFunc(slices.Clone(run.Anywhere), func(c result.Case) bool { return !slices.Contains(cases, c) })
	few := min(f.runs, fewRuns)
	for _, place := range on {
		switch {
		case place == "disk":
			all = append(all, run.Part{Cases: cases, Runs: f.runs})
		case place != "memory" && place != "cold":
			return nil, fmt.Errorf("--on: no place %q; there are disk, memory, cold", place)
		case len(some) == 0:
			return nil, fmt.Errorf("--on %s: only %s can be run there, and --cases has none of them", place, join(run.Anywhere))
		case place == "cold" && len(f.cases) == 0:
			all = append(all, run.Part{Place: result.Cold, Cases: []result.Case{result.Same}, Runs: few})
		default:
			all = append(all, run.Part{Place: result.Place(place), Cases: some, Runs: few})
		}
	}
	return all, nil
}

// wanted are the cases of --cases, or else all, or those of a quick run.
func (f *flags) wanted() (some []result.Case, err error) {
	for _, c := range f.cases {
		if !slices.Contains(run.Cases, result.Case(c)) {
			return nil, fmt.Errorf("--cases: no case %q; there are %s", c, join(run.Cases))
		}
		some = append(some, result.Case(c))
	}
	switch {
	case len(some) > 0:
		return some, nil
	case f.quick:
		return quickCases, nil
	}
	return run.Cases, nil
}

// bench runs it, keeps each result as it comes, and prints the tables.
func bench(ctx context.Context, o run.Options, dir string, out io.Writer) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, "results.jsonl")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	o.Out = result.NewWriter(f)
	o.Tell = func(line string) { fmt.Fprintln(out, line) }
	all, err := run.Run(ctx, o)
	if len(all.Runs) > 0 {
		run.Table(out, all)
		reasons, rerr := report.ReadReasons(filepath.Join(dir, "reasons.json"))
		err = errors.Join(err, rerr, report.Write(dir, all, reasons))
		fmt.Fprintf(out, "\nall runs: %s\ntables and plots: %s\n", name, filepath.Join(dir, "README.md"))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("ended before its time: %w", ctx.Err())
	}
	return err
}
