package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/estimate"
	"github.com/haulback/haulback/cmd/internal/extents"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/vddk"
)

const estimateHelp = `Say what a copy would read, compare and send at most, from the disks' own maps
and from change tracking. With a TARGET a sample of grains of both disks says how
much differs; without one, how well the source compresses. Nothing is written.

Bounds of the sample hold with a confidence of 95 %. The time is that of reading
single grains, here and now: pessimistic for a disk that is fast in one go,
optimistic for one that lies in the page cache.

Both disks are opened by this process; an export of a daemon cannot be estimated.

` + transfer.Help

// estimateFlags are those of estimate, as typed.
type estimateFlags struct {
	cbt    string
	sample int64
}

func estimateCommand(g *global) *cobra.Command {
	var f estimateFlags
	cmd := &cobra.Command{
		Use: "estimate SOURCE [TARGET]", Short: "Say what a copy would read and send, and change nothing", Long: estimateHelp, Args: cobra.RangeArgs(1, 2),
		Example: "  haulback estimate /dev/vg/replica\n  haulback estimate /srv/new.img /srv/old.img --sample 4096 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			line, err := estimated(cmd.Context(), &f, args)
			if err != nil {
				return err
			}
			return g.print(cmd, line, line.text())
		},
	}
	cmd.Flags().StringVar(&f.cbt, "cbt", "", "`HOW` the source's changes are tracked: bitmap:NAME, fiemap:PATH (default not at all)")
	cmd.Flags().Int64Var(&f.sample, "sample", 1024, "read at most `N` grains of 64 KiB of each disk; 0: none")
	return cmd
}

// boundsLine is a likely number of bytes, and what it lies between.
type boundsLine struct {
	Low    int64 `json:"low"`
	Likely int64 `json:"likely"`
	High   int64 `json:"high"`
}

// estimateLine is an estimate in JSON.
type estimateLine struct {
	Source     string      `json:"source"`
	Target     string      `json:"target,omitempty"`
	Total      int64       `json:"total"`
	Data       int64       `json:"data"`
	ReadMax    int64       `json:"read_max"`
	Compared   int64       `json:"compare_max"`
	SendMax    int64       `json:"send_max"`
	Asked      string      `json:"requested_tracking,omitempty"`
	Actual     string      `json:"actual_tracking,omitempty"`
	Reason     string      `json:"tracking_reason,omitempty"`
	Sampled    int64       `json:"sampled_grains"`
	Candidates int64       `json:"candidate_grains"`
	Unreadable int64       `json:"unreadable_grains"`
	Differing  *boundsLine `json:"differing,omitempty"`
	Ratio      float64     `json:"compression_ratio,omitempty"`
	Wire       *boundsLine `json:"sent_wire,omitempty"`
	Rate       int64       `json:"sample_rate,omitempty"`
	Seconds    int64       `json:"estimated_read_seconds,omitempty"`
	Confidence float64     `json:"confidence,omitempty"`
}

func estimated(ctx context.Context, f *estimateFlags, args []string) (*estimateLine, error) {
	if f.sample < 0 {
		return nil, usage("--sample %d: a number of grains, or 0 for none", f.sample)
	}
	if f.cbt == site.TrackFull {
		f.cbt = ""
	}
	src, err := openHere(ctx, "estimate", args[0], f.cbt)
	if err != nil {
		return nil, err
	}
	defer src.Close() // only read
	line := &estimateLine{Source: args[0], Asked: f.cbt}
	r := estimate.Request{Source: src, Sample: f.sample}
	if len(args) == 2 {
		dst, err := openHere(ctx, "estimate", args[1], "")
		if err != nil {
			return nil, err
		}
		defer dst.Close() // only read
		if dst.Identity() == src.Identity() {
			return nil, usage("%s and %s are the same disk; name two different ones", args[0], args[1])
		}
		r.Target, line.Target = dst, args[1]
		if dst.Size() < src.Size() {
			return nil, usage("%s has %d bytes, %s has %d: make the target at least as large", args[1], dst.Size(), args[0], src.Size())
		}
	}
	if f.cbt != "" {
		ask(ctx, src, &r)
	}
	e, err := estimate.Make(ctx, r)
	if err != nil {
		return nil, err
	}
	line.fill(&e)
	return line, nil
}

// ask asks the source's tracker. That it has no answer is part of the estimate.
func ask(ctx context.Context, src vddk.Disk, r *estimate.Request) {
	t, ok := src.(extents.Tracker)
	if !ok {
		r.HintErr = fmt.Errorf("this disk has no change tracking")
		return
	}
	hint, err := t.Changed(ctx)
	if r.HintErr = err; err == nil {
		r.Hint = &hint
	}
}

func (l *estimateLine) fill(e *estimate.Estimate) {
	l.Total, l.Data, l.ReadMax, l.Compared, l.SendMax = e.Total, e.Data, e.ReadMax, e.Compared, e.SendMax
	l.Sampled, l.Candidates, l.Unreadable = e.Sampled, e.Candidates, e.Unreadable
	if l.Asked != "" {
		l.Actual, l.Reason = "full", report.OneLine(e.Reason)
		if e.Hinted {
			l.Actual = "hint"
		}
	}
	if e.Differing.Known {
		l.Differing = &boundsLine{e.Differing.Low, e.Differing.Likely, e.Differing.High}
		if e.Sampled < e.Candidates {
			l.Confidence = 0.95
		}
	}
	if e.Wire.Known {
		l.Ratio = e.Ratio
		l.Wire = &boundsLine{e.Wire.Low, e.Wire.Likely, e.Wire.High}
	}
	if e.Rate > 0 {
		l.Rate, l.Seconds = e.Rate, int64(e.ReadTime.Seconds())
	}
}

func (l *estimateLine) text() string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("source", "%s, %s (%d bytes), of it %s data", l.Source, size.Text(l.Total), l.Total, size.Text(l.Data))
	if l.Target != "" {
		row("target", "%s", l.Target)
	}
	if l.Asked != "" {
		row("tracking", "%s, %s: %s", l.Asked, map[string]string{"hint": "used", "full": "not used"}[l.Actual], l.Reason)
	}
	row("compare", "at most %s, %s of it read of the source", size.Text(l.Compared), size.Text(l.ReadMax))
	row("send", "at most %s, before compression", size.Text(l.SendMax))
	if l.Sampled > 0 {
		row("sample", "%d of %d grains of 64 KiB were read%s", l.Sampled, l.Candidates, unread(l.Unreadable))
	}
	between := func(x *boundsLine) string {
		if l.Confidence == 0 {
			return size.Text(x.Likely) + ", all of it was looked at"
		}
		return fmt.Sprintf("about %s; %s to %s with a confidence of 95 %%", size.Text(x.Likely), size.Text(x.Low), size.Text(x.High))
	}
	if l.Differing != nil {
		row("differing", "%s", between(l.Differing))
	}
	if l.Wire != nil {
		row("wire", "about %s, if all of it compresses to %.0f %% as the sample did; at most %s", size.Text(l.Wire.Likely), 100*l.Ratio, size.Text(l.Wire.High))
	}
	if l.Rate > 0 {
		row("time", "about %ds to read (an estimate: the sample was read at %s/s, %d bytes at a time)", l.Seconds, size.Text(l.Rate), cbt.GrainSize)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func unread(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d of them CANNOT BE READ", n)
}
