package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/run"
	"github.com/haulback/haulback/bench/wan"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/size"
)

// wanResults is the file of results in the directory of --out.
const wanResults = "wan.jsonl"

// wanFlags are as typed.
type wanFlags struct {
	out, dir, bin, size string
	runs                int
	losses, transports  []string
}

// wanCommand is haulbench wan.
func wanCommand() *cobra.Command {
	var f wanFlags
	cmd := &cobra.Command{
		Use: "wan", Short: "Measure copies over an emulated long link", Args: cobra.NoArgs,
		Long: `Copy a disk of incompressible data between two network namespaces, whose link has
1 Gbit/s, a round trip of 50 ms, a queue of 50 ms, and losses; with each
transport. The rate is that of bytes that became durable, without the start of
the copy. Each end has GOMAXPROCS=1; the link takes about a quarter of a core.

Only root can make the namespaces. Nothing of them stays, however this ends. A
copy that is not over after 45 s is ended; its rate counts.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := f.measurement()
			if err != nil {
				return &exitcode.UsageError{Err: err}
			}
			return measureWAN(cmd, m, f.out)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.out, "out", "out/bench", "`DIR` for the results; made if it is not there")
	fl.StringVar(&f.dir, "dir", "", "`DIR` for the disks, 6 GiB for 3GiB (default $HAULBACK_BENCH_DIR, else /var/tmp)")
	fl.StringVar(&f.bin, "bin", "", "`DIR` with haulback and haulbackd (default that of haulbench)")
	fl.StringVar(&f.size, "size", "3GiB", "`SIZE` of the disk")
	fl.IntVar(&f.runs, "runs", 1, "`N` rounds of each")
	fl.StringSliceVar(&f.losses, "losses", []string{"0", "0.01", "0.1", "1"}, "`PERCENT` of the packets that are lost, comma separated")
	fl.StringSliceVar(&f.transports, "transports", []string{"auto", "quic", "tls"}, "`NAMES` of transports, comma separated")
	return cmd
}

// measurement checks what was typed.
func (f *wanFlags) measurement() (m wan.Measurement, err error) {
	if f.bin, err = programsIn(f.bin); err != nil {
		return m, err
	}
	if f.dir == "" {
		if f.dir = os.Getenv("HAULBACK_BENCH_DIR"); f.dir == "" {
			f.dir = "/var/tmp"
		}
	}
	if f.dir, err = filepath.Abs(f.dir); err != nil {
		return m, err
	}
	m = wan.Default(f.bin, f.dir)
	if m.Size, err = size.Parse(f.size); err != nil {
		return m, fmt.Errorf("--size: %w", err)
	}
	if m.Size < 64<<20 {
		return m, fmt.Errorf("--size %s: at least 64MiB", f.size)
	}
	if m.Runs = f.runs; m.Runs < 1 || m.Runs > 100 {
		return m, fmt.Errorf("--runs %d: from 1 to 100", m.Runs)
	}
	m.Losses, m.Transports = nil, f.transports
	for _, text := range f.losses {
		percent, err := strconv.ParseFloat(text, 64)
		if err != nil || !(percent >= 0 && percent <= 50) {
			return m, fmt.Errorf("--losses %s: a percentage from 0 to 50", text)
		}
		loss, _ := strconv.ParseFloat(fmt.Sprintf("%.10g", percent/100), 64) // 0.1 % is 0.001 and nothing beside it
		m.Losses = append(m.Losses, loss)
	}
	if len(m.Losses) == 0 || len(m.Transports) == 0 {
		return m, errors.New("--losses and --transports: at least one of each")
	}
	return m, nil
}

// programsIn is the directory where haulback's programs are.
func programsIn(dir string) (string, error) {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	for _, program := range []string{"haulback", "haulbackd"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return "", fmt.Errorf("--bin %s: no %s is there; run make all", dir, program)
		}
	}
	return filepath.Abs(dir)
}

// measureWAN keeps each result as it comes.
func measureWAN(cmd *cobra.Command, m wan.Measurement, dir string) (err error) {
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(m.Dir, 0o700)); err != nil {
		return err
	}
	name := filepath.Join(dir, wanResults)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := result.NewWriter(f)
	setup := result.Setup{
		Began: time.Now().UTC(), Commit: run.Commit(cmd.Context()), Machine: measure.Machine(m.Dir), Runs: m.Runs, Seed: m.Seed, Size: m.Size,
		Cores: map[result.End]string{result.Source: "GOMAXPROCS=1", result.Target: "GOMAXPROCS=1"}, CPUBy: "wait4", Args: os.Args[1:],
	}
	if err := w.Write(result.Line{Setup: &setup}); err != nil {
		return err
	}
	m.Log = cmd.OutOrStdout()
	fmt.Fprintf(m.Log, "wan: %s\n", m.Setup())
	bad := 0
	if err := m.Run(cmd.Context(), func(l result.Line) error {
		if l.Run != nil && !l.Run.OK() {
			bad++
		}
		return w.Write(l)
	}); err != nil {
		return err
	}
	fmt.Fprintf(m.Log, "all runs: %s\n", name)
	if bad > 0 {
		return fmt.Errorf("%d runs over %s failed", bad, strings.Join(m.Transports, ", "))
	}
	return nil
}
