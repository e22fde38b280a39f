package main

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/limits"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

const copyHelp = `Make the target equal to the source: read both, send only what differs, read
back what was written, and prove that both are equal. The target is marked
before its first byte is overwritten; when the copy is cut, the same command
goes on.

` + transfer.Help + `

With --cbt only what change tracking calls changed is compared, and a sample of
the rest: one grain of 64 KiB in 256, at least 64. If one of the sample differs,
tracking has lost changes, and everything is compared after all. The target has
to hold what the source held when the tracking began. Such a copy is "Verified
(sampled n of m)"; add --verify full to read the rest as well.

With an export on both sides the daemon of the source is ordered to push to the
daemon of the target; the two must be paired with each other, and this site must
be an operator of the source.`

// flags are those of copy and verify, as typed.
type flags struct {
	rate, transport, verify, run string
	compress                     string
	readRate, latency            string
	cbt                          string
	sample                       int64
	retry                        time.Duration
	progressFD                   string
	sourceTicket, targetTicket   string
	refine                       string
	create, strict               bool
}

func copyCommand(g *global) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "copy SOURCE TARGET", Short: "Make the target equal to the source, and prove it", Long: copyHelp, Args: cobra.ExactArgs(2),
		Example: "  haulback copy /srv/new.img /srv/old.img\n  haulback copy /dev/vg/replica haulback://home:7420/vm1-disk0 --rate 50MiB\n  haulback copy 'nbd+unix:///vda?socket=/run/vm1.sock' haulback://home:7420/vm1-disk0 --cbt bitmap:since-failover",
		RunE: func(cmd *cobra.Command, args []string) error {
			return move(cmd.Context(), g, &f, wire.ModeCopy, args[0], args[1])
		},
	}
	copyFlags(cmd, &f)
	ticketFlagsOf(cmd, &f)
	progressFlag(cmd, &f, "the target is Verified")
	cmd.Flags().StringVar(&f.run, "run", "", "`ID` of an earlier run to go on with")
	cmd.Flags().StringVar(&f.refine, "refine", "auto", "`WHEN` to send, of grains that differ, only the pieces of 4 KiB that do: auto (while the wire is what the copy waits for), on or off; a source behind a daemon goes by that daemon's setting")
	cmd.Flags().StringVar(&f.compress, "compress", "auto", "`WHEN` to compress what is sent from a disk of this machine: auto (where the wire is slower than the encoder), on or off; "+
		"a daemon that sends goes by its own configuration")
	return cmd
}

// copyFlags say what a copy does; a job has them too.
func copyFlags(cmd *cobra.Command, f *flags) {
	linkFlags(cmd, f)
	cmd.Flags().StringVar(&f.verify, "verify", "pass", "`HOW` to verify: pass (what was written is read back) or full (everything is read again at the end)")
	cmd.Flags().StringVar(&f.cbt, "cbt", site.TrackFull, "`HOW` the source's changes are tracked: full (not at all, read everything), bitmap:NAME (dirty bitmap of an NBD export), "+
		"fiemap:PATH (file that the source was cloned from), export (what the source's daemon has configured)")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "fail with exit code 14 where change tracking cannot be used or is caught in a lie")
	cmd.Flags().Int64Var(&f.sample, "sample", 0, "compare one grain in `N` of what change tracking calls unchanged (default 256)")
	cmd.Flags().BoolVar(&f.create, "create", false, "make the target file or VMDK when there is none, as large as the source")
}

func verifyCommand(g *global) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "verify A B", Short: "Compare two disks and change nothing", Args: cobra.ExactArgs(2),
		Long: "Read two disks to the end and say where they differ. Nothing is written.\nExit code 0: equal; 4: different.\n\n" + transfer.Help,
		RunE: func(cmd *cobra.Command, args []string) error {
			return move(cmd.Context(), g, &f, wire.ModeVerify, args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", "`ID` of the run that tickets are for")
	linkFlags(cmd, &f)
	ticketFlagsOf(cmd, &f)
	progressFlag(cmd, &f, "both are equal")
	return cmd
}

func linkFlags(cmd *cobra.Command, f *flags) {
	cmd.Flags().StringVar(&f.rate, "rate", "", "at most `SIZE` per second on the wire, as in 50MiB (default no limit)")
	cmd.Flags().StringVar(&f.readRate, "read-rate", "", "read, and hash, at most `SIZE` per second from the disk at each end, as in 200MiB (default no limit)")
	cmd.Flags().StringVar(&f.latency, "latency", "", "back off when the storage at either end takes longer than `TIME` for 256 KiB, as in 20ms (default never)")
	cmd.Flags().StringVar(&f.transport, "transport", site.Auto, "`NAME` of the transport: auto, quic (UDP) or tls (TCP)")
	cmd.Flags().DurationVar(&f.retry, "retry", 5*time.Minute, "how long to go on without progress after the peer was lost; 0s: not at all")
}

// ticketFlagsOf are for exports that want tickets.
func ticketFlagsOf(cmd *cobra.Command, f *flags) {
	cmd.Flags().StringVar(&f.sourceTicket, "source-ticket", "", "`FILE` with a controller's ticket, for a source export that wants one; read again at every try, so that a new one can take its place")
	cmd.Flags().StringVar(&f.targetTicket, "target-ticket", "", "`FILE` with a controller's ticket, for a target export that wants one")
}

// packing is what --compress asks for. The end that sends compresses, so it is of
// no use where that is another one.
func (f *flags) packing(src string) (mover.Choice, error) {
	c, err := mover.ParseChoice("--compress", f.compress)
	if err != nil {
		return c, usage("%w", err)
	}
	if c != mover.Auto && strings.HasPrefix(src, "haulback://") {
		return c, usage("--compress %s: it is the source's daemon that sends %s: set compress in its configuration", c, src)
	}
	return c, nil
}

// spec is what the flags ask for.
func (f *flags) spec(mode wire.Mode, src, dst string) (transfer.Spec, error) {
	s := transfer.Spec{
		Mode: mode, Source: src, Target: dst, Tracking: f.cbt, Strict: f.strict, Sample: f.sample, Create: f.create,
		Transport: f.transport, Retry: f.retry,
	}
	var err error
	if s.Throttle, err = f.throttle(); err != nil {
		return s, err
	}
	switch f.verify {
	case "", "pass":
	case "full":
		s.Full = true
	default:
		return s, usage("--verify %q: pass or full", f.verify)
	}
	if s.Run, err = runID(f.run); err != nil {
		return s, err
	}
	if s.SourceTicket, err = ticketFrom(f.sourceTicket); err != nil {
		return s, err
	}
	if s.TargetTicket, err = ticketFrom(f.targetTicket); err != nil {
		return s, err
	}
	s.GoOn = "run the same command with --run " + uuid.UUID(s.Run).String()
	return s, nil
}

// throttle is what limits the copy, at each end.
func (f *flags) throttle() (*throttle.Throttle, error) {
	var l throttle.Limits
	var err error
	if l.Wire, err = limits.Rate(f.rate); err != nil {
		return nil, usage("--rate: %w", err)
	}
	if l.Read, err = limits.Rate(f.readRate); err != nil {
		return nil, usage("--read-rate: %w", err)
	}
	if l.Latency, err = limits.Latency(f.latency); err != nil {
		return nil, usage("--latency: %w", err)
	}
	return throttle.New(l)
}

// move copies or compares two disks.
func move(ctx context.Context, g *global, f *flags, mode wire.Mode, src, dst string) error {
	progress, err := f.progress()
	if err != nil {
		return err
	}
	return g.transfer(ctx, f, mode, src, dst, func(*transfer.Transfer) report.Output {
		return progress.with(g.output())
	}, progress.end)
}

// transfer runs a transfer that tells ready's output how it goes; end gets its
// error and gives that of the command.
func (g *global) transfer(ctx context.Context, f *flags, mode wire.Mode, src, dst string, ready func(*transfer.Transfer) report.Output, end func(error) error) error {
	spec, err := f.spec(mode, src, dst)
	if err != nil {
		return err
	}
	refine, err := mover.ParseChoice("--refine", f.refine)
	if err != nil {
		return usage("%w", err)
	}
	t, err := transfer.New(spec)
	if err != nil {
		return err
	}
	compress, err := f.packing(src)
	if err != nil {
		return err
	}
	w, err := g.open(spec.Sample, refine, compress)
	if err != nil {
		return err
	}
	defer w.close()
	if err := t.Pin(w.reach); err != nil {
		return err
	}
	_, err = t.Run(ctx, w.engine, ready(t), g.every())
	return end(err)
}
