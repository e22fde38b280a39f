package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/extents"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

const extentsHelp = `List where a disk has data and where it has holes, or with --cbt where it
changed: in disk order, without overlap, while the disk is being asked. Nothing
is written.

With --max the list stops after so many extents, and the summary says at which
byte the next one begins: name it with --offset to go on.

Change tracking that cannot be used is exit code 14. With --fallback everything
counts as changed then, and a warning says why. Even an answer that can be used
is a hint and no proof: haulback copy compares a sample of the rest as well.

The disk is opened by this process; for an export of a daemon run this on the
daemon's machine.

` + transfer.Help

// extentsFlags are those of extents, as typed.
type extentsFlags struct {
	cbt, offset string
	max         int64
	fallback    bool
}

func extentsCommand(g *global) *cobra.Command {
	var f extentsFlags
	cmd := &cobra.Command{
		Use: "extents DISK", Short: "List what is allocated, or what changed", Long: extentsHelp, Args: cobra.ExactArgs(1),
		Example: "  haulback extents /srv/vm1.img\n  haulback extents 'nbd+unix:///vda?socket=/run/vm1.sock' --cbt bitmap:since-failover --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return listExtents(cmd.Context(), g, &f, args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&f.cbt, "cbt", "", "list what changed, by change tracking of the `HOW`: bitmap:NAME (dirty bitmap of an NBD export), fiemap:PATH (file that the disk was cloned from)")
	cmd.Flags().StringVar(&f.offset, "offset", "0", "begin at this byte, a number or a `SIZE` as in 64MiB")
	cmd.Flags().Int64Var(&f.max, "max", 0, "list at most `N` extents (default all)")
	cmd.Flags().BoolVar(&f.fallback, "fallback", false, "with --cbt: call everything changed where change tracking cannot be used, instead of exit code 14")
	return cmd
}

// parseOffset takes bytes with or without a unit: a script hands back what a
// summary said.
func parseOffset(flag, text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	n, err := size.Parse(text)
	if err != nil {
		return 0, usage("%s %q: bytes as a number from 0, or a size as in 64MiB", flag, text)
	}
	return n, nil
}

func listExtents(ctx context.Context, g *global, f *extentsFlags, disk string, stdout, stderr io.Writer) error {
	from, err := parseOffset("--offset", f.offset)
	switch {
	case err != nil:
		return err
	case f.max < 0:
		return usage("--max %d: a number of extents, or 0 for all", f.max)
	case f.fallback && f.cbt == "":
		return usage("--fallback: it goes with --cbt, which says what may fall back")
	}
	d, err := openHere(ctx, "extents", disk, f.cbt)
	if err != nil {
		return err
	}
	defer d.Close() // only read
	if from > d.Size() {
		return usage("--offset %d: beyond the end of %s, which has %d bytes", from, disk, d.Size())
	}
	l := &extentList{out: newExtentWriter(g, stdout), sum: extentSummary{Disk: disk, Size: d.Size(), Offset: from, Next: from, What: "allocated"}}
	seq := extents.Allocated(ctx, d, from)
	if f.cbt != "" {
		if seq, err = l.changed(ctx, d, f, from, func(text string) { warn(g, stdout, stderr, text) }); err != nil {
			return err
		}
	}
	return l.run(seq, f.max)
}

// openHere opens a disk that this process can open, to read it.
func openHere(ctx context.Context, verb, text, track string) (vddk.Disk, error) {
	e, err := transfer.ParseEndpoint(text)
	switch {
	case err != nil:
		return nil, err
	case e.Remote():
		return nil, usage("%s: %s reads the disk in this process, and that is an export of a daemon; run haulback %s there, with the URI that its configuration has for %q", text, verb, verb, e.Export)
	case e.Missing():
		return nil, usage("%s: there is no such file or device; check the path", text)
	}
	if track != "" {
		if err := site.CheckTrack(track); err != nil {
			return nil, usage("--cbt: %w", err)
		}
	}
	disk, err := vddk.Open(ctx, text, vddk.Options{Track: track})
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	return disk, nil
}

// warn tells what an operator should look at.
func warn(g *global, stdout, stderr io.Writer, text string) {
	if g.json {
		_ = report.WriteLine(stdout, report.TypeWarning, report.Text{Text: report.OneLine(text)})
		return
	}
	fmt.Fprintln(stderr, "haulback: warning: "+report.OneLine(text))
}

// extentLine is one extent in JSON.
type extentLine struct {
	Off        int64  `json:"offset"`
	Len        int64  `json:"length"`
	Kind       string `json:"kind"`
	Unreadable bool   `json:"unreadable,omitempty"`
}

// extentTitle stands above a table of extents.
const extentTitle = "          OFFSET           LENGTH  KIND\n"

// text is a row of the table.
func (e extentLine) text() string {
	mark := ""
	if e.Unreadable {
		mark = " (unreadable)"
	}
	return fmt.Sprintf("%16d %16d  %s%s\n", e.Off, e.Len, e.Kind, mark)
}

// extentSummary is the last line of a list.
type extentSummary struct {
	Disk     string `json:"disk"`
	Size     int64  `json:"size"`
	What     string `json:"mode"` // "allocated", "changed"
	Offset   int64  `json:"offset"`
	Next     int64  `json:"next_offset"` // where to go on; size, when complete
	Complete bool   `json:"complete"`
	Count    int64  `json:"extents"`
	Data     int64  `json:"data"`
	Hole     int64  `json:"hole"`
	Changed  int64  `json:"changed"`
	Asked    string `json:"requested_tracking,omitempty"`
	Actual   string `json:"actual_tracking,omitempty"` // "hint" or "full"
	Trust    string `json:"trust,omitempty"`
	Reason   string `json:"tracking_reason,omitempty"`
}

// extentWriter writes a list of extents, for people or for programs.
type extentWriter struct {
	json *report.Lines
	text *bufio.Writer
}

func newExtentWriter(g *global, out io.Writer) *extentWriter {
	if g.json {
		return &extentWriter{json: report.NewLines(out)}
	}
	return &extentWriter{text: bufio.NewWriterSize(out, 32<<10)}
}

func (w *extentWriter) title() {
	if w.text != nil {
		w.text.WriteString(extentTitle)
	}
}

func (w *extentWriter) extent(e extentLine) error {
	if w.json != nil {
		return w.json.Line(report.TypeExtent, e)
	}
	_, err := w.text.WriteString(e.text())
	return err
}

// flush lets a reader see what is there.
func (w *extentWriter) flush() error {
	if w.json != nil {
		return w.json.Flush()
	}
	return w.text.Flush()
}

// extentList is a list on its way out.
type extentList struct {
	out *extentWriter
	sum extentSummary
}

// changed is the extents that tracking calls changed, or all where it may fall
// back.
func (l *extentList) changed(ctx context.Context, d vddk.Disk, f *extentsFlags, from int64, warn func(string)) (iter.Seq2[extents.Extent, error], error) {
	l.sum.What, l.sum.Asked = "changed", f.cbt
	t, ok := d.(extents.Tracker)
	if !ok {
		return nil, usage("--cbt %s: this disk has no change tracking", f.cbt)
	}
	a, err := extents.Changed(ctx, t, d.Size())
	if err == nil {
		l.sum.Actual, l.sum.Trust, l.sum.Reason = "hint", a.Trust.String(), a.Remark
		return a.From(from), nil
	}
	if context.Cause(ctx) != nil || !f.fallback {
		return nil, wire.Errorf(wire.CodeHint, "%s: %w; with --fallback everything counts as changed", l.sum.Disk, err)
	}
	l.sum.Actual, l.sum.Reason = "full", report.OneLine(err.Error())
	warn(l.sum.Disk + ": everything counts as changed: " + err.Error())
	var whole cbt.Map
	whole.Add(cbt.Extent{Len: d.Size()})
	return extents.Answer{Map: whole}.From(from), nil
}

// run writes the list and what it comes to.
func (l *extentList) run(seq iter.Seq2[extents.Extent, error], most int64) error {
	l.out.title()
	l.sum.Complete = true
	for e, err := range seq {
		if err != nil {
			_ = l.out.flush() // the error below says more
			return fmt.Errorf("%s: at byte %d: %w", l.sum.Disk, l.sum.Next, err)
		}
		if most > 0 && l.sum.Count == most {
			l.sum.Complete, l.sum.Next = false, e.Off
			break
		}
		l.count(e)
		if err := l.out.extent(extentLine{Off: e.Off, Len: e.Len, Kind: string(e.Kind)}); err != nil {
			return err
		}
	}
	if l.sum.Complete {
		l.sum.Next = l.sum.Size
	}
	if l.out.json != nil {
		_ = l.out.json.Line(report.TypeSummary, l.sum) // Flush has the error
	} else {
		io.WriteString(l.out.text, l.sum.text())
	}
	return l.out.flush()
}

func (l *extentList) count(e extents.Extent) {
	l.sum.Count++
	l.sum.Next = e.End()
	switch e.Kind {
	case extents.Data:
		l.sum.Data += e.Len
	case extents.Hole:
		l.sum.Hole += e.Len
	case extents.ChangedHas:
		l.sum.Changed += e.Len
	}
}

func (s *extentSummary) text() string {
	text := fmt.Sprintf("%d extents: %s data, %s holes", s.Count, size.Text(s.Data), size.Text(s.Hole))
	if s.What == "changed" {
		text = fmt.Sprintf("%d extents: %s changed by %s", s.Count, size.Text(s.Changed), s.Asked)
		if s.Trust != "" {
			text += " (" + s.Trust + ")"
		}
		if s.Reason != "" {
			text += ", " + s.Reason
		}
	}
	text += fmt.Sprintf(", of %s (%d bytes)", size.Text(s.Size), s.Size)
	if !s.Complete {
		text += fmt.Sprintf("; go on with --offset %d", s.Next)
	}
	return text + "\n"
}
