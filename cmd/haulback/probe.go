package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
)

func probeCommand(g *global) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "probe DISK", Short: "Tell what is known about a disk, and change nothing", Args: cobra.ExactArgs(1),
		Long: "Tell size, kind and abilities of a disk, and what its journal says: which run\nwrote to it last, and whether it was proved equal to its source.\n\n" + transfer.Help,
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
	for _, name := range []string{"rate", "read-rate", "latency", "retry"} {
		_ = cmd.Flags().MarkHidden(name) // fails only for a flag that is not there
	}
	return cmd
}

// probed is what probe prints.
type probed struct{ transfer.Probed }

func probe(ctx context.Context, g *global, f *flags, text string) (*probed, error) {
	e, err := transfer.ParseEndpoint(text)
	if err != nil {
		return nil, err
	}
	w, err := g.open(0, mover.Auto, mover.Auto)
	if err != nil {
		return nil, err
	}
	defer w.close()
	p, err := transfer.Probe(ctx, w.engine, w.journals, w.reach, e, f.transport)
	if err != nil {
		return nil, err
	}
	return &probed{*p}, nil
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
