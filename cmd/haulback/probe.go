package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

func probeCommand(g *global) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "probe DISK", Short: "Tell what is known about a disk, and change nothing", Args: cobra.ExactArgs(1),
		Long: "Tell size, kind and abilities of a disk, and what its journal says: which run\nwrote to it last, and whether it was proved equal to its source.\n\n" + endpointHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := probe(cmd.Context(), g, &f, args[0])
			if err != nil {
				return err
			}
			if g.json {
				return g.print(cmd, p, "")
			}
			return p.table(cmd)
		},
	}
	linkFlags(cmd, &f)
	for _, name := range []string{"rate", "retry"} {
		_ = cmd.Flags().MarkHidden(name) // fails only for a flag that is not there
	}
	return cmd
}

// probed is what probe prints.
type probed struct {
	Disk       string   `json:"disk"`
	Kind       string   `json:"kind"`
	Size       int64    `json:"size"`
	SectorSize int64    `json:"sector_size,omitempty"`
	Identity   string   `json:"identity"`
	Cold       string   `json:"cold_reads"`
	Holes      *bool    `json:"knows_holes,omitempty"`
	Detail     string   `json:"detail,omitempty"`
	Role       string   `json:"role,omitempty"`
	Warning    string   `json:"warning,omitempty"`
	State      string   `json:"state,omitempty"`
	Reason     string   `json:"reason,omitempty"`
	Run        string   `json:"run,omitempty"`
	Pass       uint32   `json:"pass,omitempty"`
	Epoch      uint64   `json:"epoch,omitempty"`
	Durable    int64    `json:"durable,omitempty"`
	Root       string   `json:"root,omitempty"`
	Skipped    int64    `json:"skipped_grains,omitempty"`
	Sampled    int64    `json:"sampled_grains,omitempty"`
	Transport  string   `json:"transport,omitempty"`
	Tracking   []string `json:"tracking,omitempty"`
	Use        string   `json:"use,omitempty"`
}

func probe(ctx context.Context, g *global, f *flags, text string) (*probed, error) {
	t := &transfer{g: g, flags: f}
	var err error
	if t.settings, err = f.parse(); err != nil {
		return nil, err
	}
	if t.src, err = parseEndpoint(text); err != nil {
		return nil, err
	}
	t.dst = t.src
	stop, err := t.prepare(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	if !t.src.remote() {
		return probeHere(ctx, t)
	}
	p, err := t.engine.Probe(ctx, t.src.access(t.key, t.srcID, f.transport))
	if err != nil {
		return nil, unreachable(t.src, err, f.transport)
	}
	return probedThere(text, &p), nil
}

// allWarnings are those of a source too: what a probed disk is for is not known.
func allWarnings(d *vddk.Description) string {
	both := slices.DeleteFunc([]string{d.Warning, d.SourceWarning}, func(w string) bool { return w == "" })
	return strings.Join(both, "; ")
}

func probeHere(ctx context.Context, t *transfer) (*probed, error) {
	d, err := t.src.describe(ctx)
	if err != nil {
		return nil, err
	}
	out := &probed{
		Disk: t.src.text, Kind: d.Kind, Size: d.Size, SectorSize: d.SectorSize, Identity: d.Identity, Cold: d.Coldness,
		Holes: &d.CanMap, Detail: d.Detail, Warning: allWarnings(&d), Transport: d.Transport, Tracking: d.Bitmaps,
	}
	st, err := mover.ReadJournal(t.journals, d.Identity)
	if errors.Is(err, mover.ErrHeld) {
		out.Reason = "its journal is in use: a run works on it now"
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	out.Reason, out.Skipped, out.Sampled = st.Reason, st.Skipped, st.Sampled
	out.journal(st.State, st.Run, st.Pass, st.Epoch, st.Durable.Len(), st.Root)
	return out, nil
}

func probedThere(text string, p *wire.Probed) *probed {
	out := &probed{Disk: text, Kind: p.Kind, Size: p.Size, Identity: p.Identity, Cold: p.Cold, Role: "source", Use: p.Use}
	if p.Target {
		out.Role = "target"
		out.Skipped, out.Sampled = p.Skipped, p.Sampled
		out.journal(p.State, p.Run, p.Pass, p.Epoch, p.Durable, p.Root)
	}
	return out
}

func (p *probed) journal(state wire.State, run wire.RunID, pass uint32, epoch uint64, durable int64, root [32]byte) {
	p.State, p.Pass, p.Epoch, p.Durable = state.String(), pass, epoch, durable
	if run != (wire.RunID{}) {
		p.Run = uuid.UUID(run).String()
	}
	if (state == wire.StateVerified || state == wire.StateCopied) && p.Skipped == 0 { // else it is not the contents' root
		p.Root = fmt.Sprintf("%x", root)
	}
}

// sampledState is the state, with what a hint left out of its proof.
func (p *probed) sampledState() string {
	if p.Skipped == 0 {
		return p.State
	}
	return fmt.Sprintf("%s (sampled %d of %d grains that change tracking called unchanged)", p.State, p.Sampled, p.Sampled+p.Skipped)
}

func (p *probed) table(cmd *cobra.Command) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("disk", p.Disk)
	row("kind", p.Kind)
	row("detail", p.Detail)
	row("size", fmt.Sprintf("%s (%d bytes)", size.Text(p.Size), p.Size))
	if p.SectorSize > 1 {
		row("sector", fmt.Sprintf("%d bytes", p.SectorSize))
	}
	row("identity", p.Identity)
	row("cold reads", p.Cold)
	if p.Holes != nil {
		row("holes", map[bool]string{true: "known", false: "not known, everything is read"}[*p.Holes])
	}
	row("role", p.Role)
	row("transport", p.Transport)
	row("tracking", strings.Join(p.Tracking, ", "))
	row("state", p.sampledState())
	if p.Run != "" {
		row("run", fmt.Sprintf("%s, pass %d, epoch %d, %s durable", p.Run, p.Pass, p.Epoch, size.Text(p.Durable)))
	}
	row("root", p.Root)
	row("session", p.Use)
	row("reason", p.Reason)
	row("warning", p.Warning)
	return w.Flush()
}
