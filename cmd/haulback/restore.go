package main

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

const restoreHelp = `Read a stream of haulback dump from standard input and make a disk of this
machine equal to it, as haulback copy does: the target is read, what differs is
written and read back, and the result is proved before it is called Verified.
What is told of the run, text or JSON lines, goes to standard error.

A full stream makes any target of at least its size equal to what was dumped. A
stream of changes goes only onto its base: the journal of the target has to say
that the base was restored or copied there and Verified, or --base-root says what
the target holds, or --check-base reads all of it, before and after. Without
--check-base such a restore is "Verified (sampled n of m)".

A restore that is cut leaves the target Inconsistent; restore the stream again,
from its start. Exit code 4: the stream is damaged or cut; 14: the target is not
its base.

With --verify-only the stream is read and checked, and nothing is written.

` + transfer.Help

// restoreSpec is what a restore is asked for, by flags or by a file.
type restoreSpec struct {
	Target     string `json:"target"`
	Create     bool   `json:"create"`
	BaseRoot   string `json:"base_root"`
	CheckBase  bool   `json:"check_base"`
	VerifyOnly bool   `json:"verify_only"`

	flags flags // --progress-fd: a descriptor is the caller's, not a file's
}

func restoreCommand(g *global) *cobra.Command {
	var s restoreSpec
	var file string
	cmd := &cobra.Command{
		Use: "restore TARGET", Short: "Make a disk equal to a stream, and prove it", Long: restoreHelp,
		Args: func(cmd *cobra.Command, args []string) error {
			if s.VerifyOnly && file == "" {
				return cobra.MaximumNArgs(1)(cmd, args)
			}
			return diskOrSpec(&file)(cmd, args)
		},
		Example: "  haulback restore /srv/vm1.img --create <vm1.hb\n" +
			"  zstd -dc full.hb.zst | haulback restore /dev/vg/vm1 --json 2>restore.json\n" +
			"  haulback restore --verify-only <tuesday.hb",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "-" {
				return usage("--spec -: standard input has the stream; name a file")
			}
			if err := fromFile(cmd, file, &s); err != nil {
				return err
			}
			if len(args) > 0 {
				s.Target = args[0]
			}
			return g.restore(cmd.Context(), &s)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&s.Create, "create", false, "make the target file or VMDK when there is none, as large as the dumped disk")
	f.StringVar(&s.BaseRoot, "base-root", "", "`ROOT` of what the target holds, of a caller who knows")
	f.BoolVar(&s.CheckBase, "check-base", false, "read all of the target before and after a stream of changes: it is then Verified without a sample")
	f.BoolVar(&s.VerifyOnly, "verify-only", false, "read and check the stream and write nothing")
	progressFlag(cmd, &s.flags, "the target is Verified, or with --verify-only the stream is whole")
	f.StringVar(&file, "spec", "", "read target and options from a JSON `FILE`, named like the flags")
	return cmd
}

// options checks all that can be checked without touching a disk.
func (s *restoreSpec) options() (e *transfer.Endpoint, o mover.RestoreOptions, err error) {
	if s.VerifyOnly && s.Target == "" {
		return nil, o, nil
	}
	if e, err = transfer.ParseEndpoint(s.Target); err != nil {
		return nil, o, err
	}
	switch {
	case e.Remote():
		return nil, o, usage("%s: restore writes disks of this machine; run it on the host of that daemon, or restore to a file here and copy that", s.Target)
	case s.VerifyOnly:
	case e.Missing() && !s.Create && e.Disk.CanCreate():
		return nil, o, usage("target %s: there is no such file; add --create to make it as large as the dumped disk", s.Target)
	case e.Missing() && !s.Create:
		return nil, o, usage("%s: there is no such file or device; check the path", s.Target)
	case s.Create && !e.Disk.CanCreate():
		return nil, o, usage("--create: makes raw files and VMDKs only; make %s where it lives, as large as the dumped disk", s.Target)
	case s.BaseRoot != "" && s.CheckBase:
		return nil, o, usage("--base-root and --check-base: the one is your word for what the other reads; name one")
	}
	if s.BaseRoot != "" {
		raw, err := hex.DecodeString(s.BaseRoot)
		if err != nil || len(raw) != cbt.DigestSize {
			return nil, o, usage("--base-root %q: 64 hexadecimal digits", s.BaseRoot)
		}
		o.Base = cbt.Digest(raw)
	}
	o.CheckBase = s.CheckBase
	return e, o, nil
}

// restore reads one stream from standard input.
func (g *global) restore(ctx context.Context, s *restoreSpec) error {
	e, o, err := s.options()
	if err != nil {
		return err
	}
	in, done, err := streamIn(ctx)
	if err != nil {
		return err
	}
	defer done()
	r, err := archive.NewReader(in)
	if err != nil {
		return streamError(ctx, err)
	}
	bar, err := s.flags.progress()
	if err != nil {
		return err
	}
	h, out := r.Header(), g.streamOutput()
	live := bar.with(out)
	start := report.Start{Mode: report.ModeRestore, Run: uuid.UUID(h.Run).String(), Source: "-", Target: s.Target, Tracking: h.Tracking}
	if s.VerifyOnly {
		start.Mode = report.ModeCheck
		return bar.end(g.look(ctx, r, out, live, start))
	}
	return bar.end(g.restoreTo(ctx, e, r, o, live, start))
}

// restoreTo writes the stream to a disk.
func (g *global) restoreTo(ctx context.Context, e *transfer.Endpoint, r *archive.Reader, o mover.RestoreOptions, out report.Output, start report.Start) error {
	h := r.Header()
	create := int64(0)
	if e.Missing() {
		if h.Kind != archive.Full {
			return usage("target %s: there is no such file, so it cannot be the base of a stream of changes; restore the full stream first", e.Text)
		}
		create = h.Size
	}
	w, err := g.open(0, mover.Auto, mover.Auto)
	if err != nil {
		return err
	}
	defer w.close()
	out.Started(start)
	p := &mover.Progress{Event: func(text string) { out.Remark(report.Event, text) }}
	stop := report.Follow(out, p.Counters, p.Bound, g.every())
	began := time.Now()
	target := mover.Endpoint{Name: e.Text, Open: opener(site.Disk{URI: e.Text, Create: create, Log: report.NewLog(out)})}
	rep, err := w.engine.Restore(ctx, target, r, o, p)
	stop()
	if err == nil && (rep.State != wire.StateVerified || !rep.Equal && !rep.Hinted) {
		err = wire.Errorf(wire.CodeVerify, "the target is %v and not proved", rep.State)
	}
	if rep.Epoch > 0 {
		out.Summary(report.Result{Start: start, Report: rep, Phases: []report.Phase{{Name: "restore", Dur: time.Since(began)}}})
	}
	if err != nil {
		return streamError(ctx, err)
	}
	return nil
}

// opener makes a file that is not there also when it is looked at first.
func opener(d site.Disk) mover.OpenDisk {
	open := d.Opener()
	return func(ctx context.Context, access mover.Access) (mover.Disk, error) {
		if d.Create > 0 {
			access = mover.ReadWrite
		}
		return open(ctx, access)
	}
}

// look reads the stream to its end. out tells how it ends, live what is
// meanwhile.
func (g *global) look(ctx context.Context, r *archive.Reader, out, live report.Output, start report.Start) error {
	start.Target = ""
	live.Started(start)
	p, began, buf := new(wire.Counters), time.Now(), make([]byte, cbt.BatchSize)
	p.Total = r.Header().Map.Len()
	next := began.Add(g.every())
	for ctx.Err() == nil {
		it, err := r.Next(func(e cbt.Extent) []byte { return buf[:e.Len] })
		if errors.Is(err, io.EOF) {
			live.Close()
			report.Streamed(out, report.Stream{
				Start: start, Header: r.Header(), Totals: r.Totals(), Bytes: r.Consumed(), Phases: []report.Phase{{Name: "check", Dur: time.Since(began)}},
			})
			return nil
		}
		if err != nil {
			live.Close()
			return streamError(ctx, err)
		}
		p.Scanned += it.Extent.Len
		p.Verified, p.Wire = p.Scanned, r.Consumed()
		if now := time.Now(); now.After(next) {
			live.Status(*p, "")
			next = now.Add(g.every())
		}
	}
	return streamError(ctx, context.Cause(ctx))
}
