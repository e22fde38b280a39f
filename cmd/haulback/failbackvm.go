package main

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

func (h *homing) vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "vm", Short: "The VMs that can be brought home: which replica belongs to which original", Args: cobra.NoArgs,
		Long: "The VMs that can be brought home. Whoever replicates a VM says which replica\nbelongs to which original; a backup server does it by the API.",
	}
	cmd.AddCommand(h.vmPutCommand(), h.vmListCommand(), h.vmGetCommand(), h.vmRemoveCommand())
	return cmd
}

// pairVerb is a command that asks one thing of one VM and prints what it is then.
func (h *homing) pairVerb(name, short, long string, do func(context.Context, controlv1.FailbacksClient, string) (*controlv1.Pair, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " VM", Short: short, Long: long, Args: cobra.ExactArgs(1), ValidArgsFunction: h.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error { return h.onePair(cmd, args[0], do) },
	}
}

func (h *homing) onePair(cmd *cobra.Command, name string, do func(context.Context, controlv1.FailbacksClient, string) (*controlv1.Pair, error)) error {
	c, err := h.g.caller(&h.flags)
	if err != nil {
		return err
	}
	var p failback.Pair
	err = c.call(cmd.Context(), func(ctx context.Context) error {
		m, err := do(ctx, c.failbacks, name)
		if err == nil {
			p, err = failbackpb.ToPair("pair", m)
		}
		return err
	})
	if err != nil {
		return err
	}
	if h.g.json {
		return report.WriteLine(cmd.OutOrStdout(), report.TypeVM, lineOfVM(&p))
	}
	return say(cmd, screen.Pair(&p, time.Now(), screenWidth()))
}

func getPair(ctx context.Context, c controlv1.FailbacksClient, name string) (*controlv1.Pair, error) {
	r, err := c.GetPair(ctx, &controlv1.GetPairRequest{Name: name})
	return r.GetPair(), err
}

func (h *homing) vmPutCommand() *cobra.Command {
	var original, replica string
	var disks []string
	cmd := h.pairVerb("put", "Declare a VM, or say anew what it is", `Declare a VM, or say anew what it is. HOST is the name that the controller's
configuration has for a vCenter or an ESXi; VM is a name, a UUID, id:ID or the
path of its configuration. Prefer UUIDs: names are not unique.

The disks are paired by label, size and content when no --disk says it.`, nil)
	cmd.Example = "  haulback failback vm put web --original home/web-prod --replica dr/web-replica"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := failback.Pair{Name: args[0]}
		for _, side := range []struct {
			flag, text string
			ref        *hostctl.Ref
		}{{"--original", original, &p.Original}, {"--replica", replica, &p.Replica}} {
			if side.text == "" {
				return usage("vm put: %s HOST/VM is needed", side.flag)
			}
			host, q, err := parseVM(side.flag, side.text)
			if err != nil {
				return err
			}
			if q.Path != "" {
				return usage("%s %s: declare a VM by name, UUID or id:ID; a path may change", side.flag, side.text)
			}
			*side.ref = hostctl.Ref{Host: host, ID: q.ID, UUID: q.UUID, Name: q.Name}
		}
		known, err := pairs("disk", disks)
		if err != nil {
			return err
		}
		for _, replica := range sorted(known) {
			for _, id := range []string{replica, known[replica]} {
				if uuid.Validate(id) != nil {
					return usage("--disk %s=%s: write the UUIDs of both disks", replica, known[replica])
				}
			}
			p.Disks = append(p.Disks, failback.DiskPair{Replica: replica, Original: known[replica]})
		}
		return h.onePair(cmd, p.Name, func(ctx context.Context, c controlv1.FailbacksClient, name string) (*controlv1.Pair, error) {
			req := &controlv1.PutPairRequest{Pair: failbackpb.FromPair(&p)}
			if old, err := getPair(ctx, c, name); err == nil { // it is said anew
				req.ExpectedRevision = old.GetRevision()
			} else if !refusedAsUnknown(err) {
				return nil, err
			}
			r, err := c.PutPair(ctx, req)
			return r.GetPair(), err
		})
	}
	cmd.ValidArgsFunction = h.completeVMs
	f := cmd.Flags()
	f.StringVar(&original, "original", "", "`HOST/VM` that is production")
	f.StringVar(&replica, "replica", "", "`HOST/VM` that is its replica")
	f.StringArrayVar(&disks, "disk", nil, "`REPLICA=ORIGINAL` disks that belong together, by their UUIDs; may be repeated")
	return cmd
}

func (h *homing) vmListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the VMs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			var all []failback.Pair
			err = c.call(cmd.Context(), func(ctx context.Context) error {
				r, err := c.failbacks.ListPairs(ctx, &controlv1.ListPairsRequest{})
				for _, m := range r.GetPairs() {
					p, err := failbackpb.ToPair("pair", m)
					if err != nil {
						return err
					}
					all = append(all, p)
				}
				return err
			})
			if err != nil || !h.g.json {
				if err == nil {
					err = say(cmd, screen.Pairs(all, screenWidth()))
				}
				return err
			}
			for i := range all {
				if err := report.WriteLine(cmd.OutOrStdout(), report.TypeVM, lineOfVM(&all[i])); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (h *homing) vmGetCommand() *cobra.Command {
	return h.pairVerb("get", "Tell what is known of a VM", "", getPair)
}

func (h *homing) vmRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove VM", Short: "Forget a VM that no failback works on", Args: cobra.ExactArgs(1), ValidArgsFunction: h.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			err = c.call(cmd.Context(), func(ctx context.Context) error {
				_, err := c.failbacks.RemovePair(ctx, &controlv1.RemovePairRequest{Name: args[0]})
				return err
			})
			if err != nil {
				return err
			}
			return h.g.print(cmd, map[string]string{"removed": args[0]}, "removed "+args[0])
		},
	}
}

func (h *homing) failoverCommand() *cobra.Command {
	return h.pairVerb("failover", "Say that the replica serves now; nothing is powered on or off",
		"Say that the replica of a VM serves now, because its original is lost or off.\nhaulback powers nothing on or off; it marks the VM as in Failover, from which a\nfailback may be started.",
		func(ctx context.Context, c controlv1.FailbacksClient, name string) (*controlv1.Pair, error) {
			r, err := c.Failover(ctx, &controlv1.FailoverRequest{Name: name})
			return r.GetPair(), err
		})
}

func (h *homing) undoFailoverCommand() *cobra.Command {
	return h.pairVerb("undo-failover", "Say that the original serves, as if there had been no failover",
		"Say that the original serves, as if there had been no failover. haulback powers\nnothing on or off. What the replica has written is of no interest any more: it is\nnot brought home.",
		func(ctx context.Context, c controlv1.FailbacksClient, name string) (*controlv1.Pair, error) {
			r, err := c.UndoFailover(ctx, &controlv1.UndoFailoverRequest{Name: name})
			return r.GetPair(), err
		})
}

func (h *homing) checkCommand() *cobra.Command {
	return h.pairVerb("check", "Tell whether a VM may be replicated now: exit code 11 while a failback holds it",
		"Tell whether a VM may be replicated now. A replication job asks before it begins.\nWhile a failback holds the VM the exit code is 11 and the text names it.",
		func(ctx context.Context, c controlv1.FailbacksClient, name string) (*controlv1.Pair, error) {
			if _, err := c.CheckReplication(ctx, &controlv1.CheckReplicationRequest{Name: name}); err != nil {
				return nil, err
			}
			return getPair(ctx, c, name)
		})
}
