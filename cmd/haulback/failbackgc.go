package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

func (h *homing) recordCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "record VM|ID", Short: "Print the signed record of a failback", Args: cobra.ExactArgs(1), ValidArgsFunction: h.completeVMs,
		Long: "Print the signed record of a failback: who confirmed what, every action on a host\nwith its time, what was overwritten, and the roots of all disks. It is checked\nwithout the daemon: haulback record verify FILE.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			s, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var text string
			err = c.call(cmd.Context(), func(ctx context.Context) error {
				r, err := c.failbacks.GetRecord(ctx, &controlv1.GetRecordRequest{Id: s.ID})
				text = r.GetRecord()
				return err
			})
			switch {
			case err != nil:
				return err
			case out != "":
				if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
					return usage("--out: %w", err)
				}
				return h.g.print(cmd, map[string]string{"id": s.ID, "file": out}, fmt.Sprintf("the record of %s is in %s", s.ID, out))
			case h.g.json:
				return report.WriteLine(cmd.OutOrStdout(), report.TypeSummary, map[string]string{"id": s.ID, "record": text})
			}
			return say(cmd, text)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write it to `FILE`, to the byte")
	return cmd
}

func (h *homing) gcCommand() *cobra.Command {
	var remove, yes bool
	cmd := &cobra.Command{
		Use: "gc", Short: "List what failbacks have left on the hosts and none needs; --remove removes it", Args: cobra.NoArgs,
		Long: "List what failbacks have left on the hosts and no failback needs any more:\nsnapshots, marks, disabled methods, VMs that were made. Only what is haulback's own\nis ever listed or removed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			list, err := c.garbage(cmd.Context(), false)
			if err != nil {
				return err
			}
			if !remove || len(list) == 0 {
				return h.leftovers(cmd, list, false)
			}
			if !h.g.json {
				if err := h.leftovers(cmd, list, false); err != nil {
					return err
				}
			}
			if err := h.confirm(cmd, "remove", fmt.Sprintf("The %d listed above are removed from the hosts for good.", len(list)), yes); err != nil {
				return err
			}
			if list, err = c.garbage(cmd.Context(), true); err != nil {
				return err
			}
			return h.leftovers(cmd, list, true)
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "remove what is found, after asking")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *caller) garbage(ctx context.Context, remove bool) (list []failback.Leftover, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		r, err := c.failbacks.Garbage(ctx, &controlv1.GarbageRequest{Remove: remove})
		for _, m := range r.GetLeftovers() {
			list = append(list, failbackpb.ToLeftover(m))
		}
		return err
	})
	return list, err
}

// leftovers prints what was found; what could not be removed is an error.
func (h *homing) leftovers(cmd *cobra.Command, list []failback.Leftover, removed bool) error {
	stuck := 0
	for _, l := range list {
		if l.Error != "" {
			stuck++
		}
		if h.g.json {
			if err := report.WriteLine(cmd.OutOrStdout(), report.TypeLeftover, lineOfLeftover(l, removed)); err != nil {
				return err
			}
		}
	}
	gone := 0
	if removed {
		gone = len(list) - stuck
	}
	var err error
	switch {
	case h.g.json:
		err = report.WriteLine(cmd.OutOrStdout(), report.TypeSummary, map[string]int{"leftovers": len(list), "removed_leftovers": gone})
	case removed:
		var rest []failback.Leftover
		for _, l := range list {
			if l.Error != "" {
				rest = append(rest, l)
			}
		}
		text := fmt.Sprintf("Removed %d of %d.\n", gone, len(list))
		if len(rest) > 0 {
			text += screen.Leftovers(rest, screenWidth())
		}
		err = say(cmd, text)
	default:
		err = say(cmd, screen.Leftovers(list, screenWidth()))
	}
	if err == nil && removed && stuck > 0 {
		err = &exitcode.Said{Code: exitcode.Host, Text: fmt.Sprintf("%d of %d could not be removed", stuck, len(list))}
	}
	return err
}
