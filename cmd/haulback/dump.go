package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

const dumpHelp = `Read a disk of this machine and write it to standard output as a stream that
haulback restore reads, for a program that stores it: a backup server, a file, a
tape. What is told of the run, text or JSON lines, goes to standard error.

With --cbt and --base the stream has only what change tracking calls changed
since the base was dumped, and a sample of the rest. It can be restored only onto
its base. Where change tracking cannot be used, all of the disk is dumped, and
the stream and the summary say so; with --strict the command fails instead, with
exit code 14 and before the first byte.

A dump that fails has no trailer: nothing takes what it wrote for a whole stream.
The stream is documented in wire/archive/doc.go. docs/integration.md has a
worked plugin of a backup server.

` + transfer.Help

// dumpSpec is what a dump is asked for, by flags or by a file.
type dumpSpec struct {
	Disk     string            `json:"disk"`
	Tracking string            `json:"cbt"`
	Base     string            `json:"base"`
	Strict   bool              `json:"strict"`
	Sample   int64             `json:"sample"`
	Compress string            `json:"compress"`
	Run      string            `json:"run"`
	Labels   map[string]string `json:"labels"`

	flags flags // --progress-fd: a descriptor is the caller's, not a file's
}

func dumpCommand(g *global) *cobra.Command {
	var s dumpSpec
	var file string
	cmd := &cobra.Command{
		Use: "dump DISK", Short: "Write a disk to standard output as a stream", Long: dumpHelp, Args: diskOrSpec(&file),
		Example: "  haulback dump /srv/vm1.img >vm1.hb 2>vm1.log\n" +
			"  haulback dump /dev/vg/vm1 --json 2>full.json | zstd >full.hb.zst\n" +
			"  haulback dump 'nbd+unix:///vda?socket=/run/vm1.sock' --cbt bitmap:monday --base full.json >tuesday.hb",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fromFile(cmd, file, &s); err != nil {
				return err
			}
			if len(args) > 0 {
				s.Disk = args[0]
			}
			return g.dump(cmd.Context(), &s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Tracking, "cbt", site.TrackFull, "`HOW` the changes are tracked: full (not at all), bitmap:NAME (dirty bitmap of an NBD export), fiemap:PATH (file that the disk was cloned from)")
	f.StringVar(&s.Base, "base", "", "what the changes are of: the `ROOT` or run ID of a dump or copy, or the file with its JSON lines")
	f.BoolVar(&s.Strict, "strict", false, "fail with exit code 14 where change tracking cannot be used")
	f.Int64Var(&s.Sample, "sample", 0, "dump one grain in `N` of what change tracking calls unchanged (default 256)")
	f.StringVar(&s.Compress, "compress", "lz4", "`HOW` to compress: lz4 (where it gains) or none")
	f.StringVar(&s.Run, "run", "", "`ID` of the stream, that no other has (default a new one)")
	f.StringToStringVar(&s.Labels, "label", nil, "`NAME=TEXT` for the header of the stream; may be repeated")
	progressFlag(cmd, &s.flags, "the stream is whole")
	f.StringVar(&file, "spec", "", "read disk and options from a JSON `FILE`, named like the flags; - is standard input")
	return cmd
}

// options checks all that can be checked without touching a disk.
func (s *dumpSpec) options() (e *transfer.Endpoint, o mover.DumpOptions, err error) {
	if e, err = transfer.ParseEndpoint(s.Disk); err != nil {
		return nil, o, err
	}
	tracked := s.Tracking != "" && s.Tracking != site.TrackFull
	switch {
	case e.Remote():
		return nil, o, usage("%s: dump reads disks of this machine; run it on the host of that daemon, or copy the export to a file here and dump that", s.Disk)
	case e.Missing():
		return nil, o, usage("%s: there is no such file or device; check the path", s.Disk)
	case !tracked && (s.Strict || s.Sample != 0):
		return nil, o, usage("--strict and --sample go with --cbt, which says how changes are tracked")
	case s.Sample < 0:
		return nil, o, usage("--sample %d: one grain in so many, at least 1", s.Sample)
	case tracked != (s.Base != ""):
		return nil, o, usage("--cbt and --base go together: a stream of changes is of no use without the name of what has changed")
	case s.Compress != "lz4" && s.Compress != "none" && s.Compress != "":
		return nil, o, usage("--compress %q: lz4 or none", s.Compress)
	}
	o.Raw = s.Compress == "none"
	if o.Labels, err = labelsOf(s.Labels); err != nil {
		return nil, o, err
	}
	if tracked {
		if err := site.CheckTrack(s.Tracking); err != nil {
			return nil, o, usage("--cbt: %w", err)
		}
		if o.Base, err = parseBase(s.Base); err != nil {
			return nil, o, usage("--base: %w", err)
		}
		o.Tracking, o.Track = s.Tracking, wire.TrackingUse
		if s.Strict {
			o.Track = wire.TrackingStrict
		}
	}
	if o.Run, err = runID(s.Run); err == nil && o.Run == o.Base.Run {
		err = usage("--run %s: the base has that name; give every stream one of its own, or leave --run out", s.Run)
	}
	return e, o, err
}

// dump writes one stream to standard output.
func (g *global) dump(ctx context.Context, s *dumpSpec) error {
	e, o, err := s.options()
	if err != nil {
		return err
	}
	to, done, err := streamOut(ctx)
	if err != nil {
		return err
	}
	defer done()
	bar, err := s.flags.progress()
	if err != nil {
		return err
	}
	w, err := g.open(s.Sample, mover.Auto, mover.Auto)
	if err != nil {
		return err
	}
	defer w.close()
	out := g.streamOutput()
	return bar.end(g.dumpTo(ctx, to, w, e, o, out, barred{out, bar}))
}

// dumpTo is one dump. out tells how it ends, live what is meanwhile.
func (g *global) dumpTo(ctx context.Context, to *os.File, w *work, e *transfer.Endpoint, o mover.DumpOptions, out, live report.Output) error {
	d, err := e.Describe(ctx)
	if err != nil {
		return err
	}
	start := report.Start{Mode: report.ModeDump, Run: uuid.UUID(o.Run).String(), Source: e.Text, Target: "-", Tracking: cmp.Or(o.Tracking, site.TrackFull)}
	live.Started(start)
	for _, text := range []string{d.Warning, d.SourceWarning} {
		if text != "" {
			out.Remark(report.Warning, e.Text+": "+text)
		}
	}
	if null(to) >= 0 {
		out.Remark(report.Warning, "standard output is /dev/null: nobody keeps the stream, so it is no base and no backup")
	}
	p := &mover.Progress{Event: func(text string) { out.Remark(report.Event, text) }}
	stop := report.Follow(live, p.Counters, p.Bound, g.every())
	began, before := time.Now(), lastWrite(&d)
	source := mover.Endpoint{Name: e.Text, Open: site.Disk{URI: e.Text, Track: o.Tracking, Log: report.NewLog(out)}.Opener()}
	rep, err := w.engine.Dump(ctx, source, to, o, p)
	stop()
	if err == nil {
		err = whole(to)
	}
	if err != nil {
		return streamError(ctx, err)
	}
	if after := lastWrite(&d); !after.Equal(before) {
		out.Remark(report.Warning, e.Text+": somebody wrote to it while it was dumped: each grain of the stream is as it was at some moment; dump a snapshot or a clone instead")
	}
	report.Streamed(out, report.Stream{
		Start: start, Header: &rep.Header, Totals: rep.Totals, Bytes: rep.Bytes, Phases: []report.Phase{{Name: "dump", Dur: time.Since(began)}},
	})
	return nil
}

// lastWrite is when a raw file was last written to; zero for a disk that does not
// tell.
func lastWrite(d *vddk.Description) (t time.Time) {
	if d.Kind != "file" {
		return t
	}
	if st, err := os.Stat(d.Path); err == nil {
		t = st.ModTime()
	}
	return t
}

// barred is Output for a dump, whose bar is what was written: there is nothing to
// verify.
type barred struct {
	report.Output
	fd *progressFD // nil: none
}

// Started implements report.Output.
func (b barred) Started(s report.Start) {
	if b.fd != nil {
		b.fd.with(report.NewText(io.Discard, io.Discard, func() int { return 0 })).Started(s)
	}
	b.Output.Started(s)
}

// Status implements report.Output.
func (b barred) Status(c wire.Counters, limitedBy string) {
	b.Output.Status(c, limitedBy)
	if b.fd != nil {
		c.Verified = c.Scanned + c.Holes
		b.fd.Status(c, limitedBy)
	}
}

// streamOutput is where a run is told whose data has standard output.
func (g *global) streamOutput() report.Output {
	if g.json {
		return report.NewJSON(os.Stderr)
	}
	return report.NewText(os.Stderr, os.Stderr, terminalWidth)
}

// whole makes a stream in a file durable: who sees exit code 0 may delete what
// the disk had before.
func whole(f *os.File) error {
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return f.Close()
}

func labelsOf(m map[string]string) (list []archive.Label, err error) {
	for _, key := range sortedKeys(m) {
		list = append(list, archive.Label{Key: key, Value: m[key]})
	}
	if err := archive.CheckLabels(list); err != nil {
		return nil, usage("--label: %w", err)
	}
	return list, nil
}
