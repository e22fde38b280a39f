package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

const failbackHelp = `Bring a VM home. A controller, which is a daemon with a [controller] in its
configuration, does the work and goes on whatever becomes of this terminal.

  haulback failback vm put web --original home/web --replica dr/web
  haulback failback failover web     once: say that the replica serves now
  haulback failback plan web         what would be done, lost, and how long
  haulback failback start web        shows the plan, asks, and begins
  haulback failback switch web       the replica goes off, the rest comes home
  haulback failback commit web       it works at home: keep it there
  haulback failback undo web         it does not: the replica serves again

haulback failback status web says at any time where it stands and what to type.

Exit codes: 0 done, or the VM waits for your word; 3 it stands still and can be
continued; 4 a disk is not proved; 5 a host refused; 10 usage, or not possible in
this state; 11 held by another; 13 nothing answers; 130 canceled.`

// homing is what the commands of failback share.
type homing struct {
	g     *global
	flags controlFlags
}

func failbackCommand(g *global) *cobra.Command {
	h := &homing{g: g}
	cmd := &cobra.Command{Use: "failback", Short: "Bring a VM home, then commit or undo it", Long: failbackHelp, Args: cobra.NoArgs}
	addControlFlags(cmd, &h.flags)
	cmd.AddCommand(
		h.vmCommand(), h.failoverCommand(), h.undoFailoverCommand(), h.checkCommand(),
		h.planCommand(), h.startCommand(), h.statusCommand(), h.listCommand(), h.watchCommand(),
		h.switchCommand(), h.commitCommand(), h.undoCommand(), h.cancelCommand(), h.continueCommand(),
		h.limitsCommand(), h.gcCommand(), h.recordCommand(),
	)
	return cmd
}

// screenWidth is how wide a screen is made: as the terminal, but not so wide that
// a line is hard to follow.
func screenWidth() int {
	const usual, widest = 80, 120
	width, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || width <= 0 {
		return usual
	}
	return min(width, widest)
}

// find is the failback that a word names: a VM, whose last one it is, or an ID.
func (c *caller) find(ctx context.Context, word string) (*failback.Status, error) {
	id, none := word, false
	err := c.call(ctx, func(ctx context.Context) error {
		r, err := c.failbacks.GetPair(ctx, &controlv1.GetPairRequest{Name: word})
		switch {
		case err == nil && r.GetPair().GetFailback() == "":
			none = true
		case err == nil:
			id = r.Pair.Failback
		case !refusedAsUnknown(err):
			return err
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case none: // not within call, which takes it for an error of the way there
		return nil, usage("%s has no failback; haulback failback plan %s tells what one would do", word, word)
	}
	return c.status(ctx, id)
}

// refusedAsUnknown: the daemon answers, and knows no such VM.
func refusedAsUnknown(err error) bool {
	_, said := jobpb.Info(err)
	return said && exitcode.Code(jobpb.Refusal(err).Exit) == exitcode.Usage
}

func (c *caller) status(ctx context.Context, id string) (s *failback.Status, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		r, err := c.failbacks.Get(ctx, &controlv1.GetFailbackRequest{Id: id})
		if err == nil {
			s, err = failbackpb.ToStatus(r.GetFailback())
		}
		return err
	})
	return s, err
}

// show prints a failback for people, or as a line.
func (h *homing) show(cmd *cobra.Command, s *failback.Status) error {
	if h.g.json {
		return report.WriteLine(cmd.OutOrStdout(), report.TypeFailback, lineOfFailback(s))
	}
	return say(cmd, screen.Status(s, time.Now(), screenWidth()))
}

func say(cmd *cobra.Command, text string) error {
	_, err := cmd.OutOrStdout().Write([]byte(text))
	return err
}

func (h *homing) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status [ID|VM]", Short: "Tell where a failback stands, what happens next and what to type", Args: cobra.MaximumNArgs(1),
		Long:              "Tell where a failback stands: which side has the authority, which way data goes,\nwhat happens next, who waits for whom, how to go back, and the exact next\ncommands. Without a name: of all that have not ended.",
		ValidArgsFunction: h.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return h.list(cmd, c, &controlv1.ListFailbacksRequest{Open: true}, h.show)
			}
			s, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return h.show(cmd, s)
		},
	}
}

func (h *homing) listCommand() *cobra.Command {
	var req controlv1.ListFailbacksRequest
	cmd := &cobra.Command{
		Use: "list", Short: "List the failbacks, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			return h.list(cmd, c, &req, nil)
		},
	}
	cmd.Flags().StringVar(&req.Vm, "vm", "", "only those of `VM`")
	cmd.Flags().StringVar(&req.Group, "group", "", "only those of the group `NAME`")
	cmd.Flags().BoolVar(&req.Open, "open", false, "only those that have not ended")
	_ = cmd.RegisterFlagCompletionFunc("vm", h.completeVMs)
	return cmd
}

// list prints page by page: each with show, or as a table.
func (h *homing) list(cmd *cobra.Command, c *caller, req *controlv1.ListFailbacksRequest, show func(*cobra.Command, *failback.Status) error) error {
	var all []*failback.Status
	for {
		var page *controlv1.ListFailbacksResponse
		err := c.call(cmd.Context(), func(ctx context.Context) (err error) {
			page, err = c.failbacks.List(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		for _, m := range page.Failbacks {
			s, err := failbackpb.ToStatus(m)
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		if req.PageToken = page.NextPageToken; req.PageToken == "" {
			break
		}
	}
	if show == nil && h.g.json {
		show = h.show
	}
	if show == nil || len(all) == 0 && !h.g.json {
		return say(cmd, screen.Failbacks(all, time.Now(), screenWidth()))
	}
	for i, s := range all {
		if i > 0 && !h.g.json {
			if err := say(cmd, "\n"); err != nil {
				return err
			}
		}
		if err := show(cmd, s); err != nil {
			return err
		}
	}
	return nil
}

// completeTime bounds what a shell waits for names.
const completeTime = 2 * time.Second

// completeVMs offers the names of the VMs that the daemon knows.
func (h *homing) completeVMs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	c, err := h.g.caller(&h.flags)
	if err != nil || len(args) > 0 {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	r, err := c.failbacks.ListPairs(ctx, &controlv1.ListPairsRequest{})
	if err != nil {
		return nil, none // nobody there: nothing is offered
	}
	var names []string
	for _, p := range r.Pairs {
		names = append(names, p.Name)
	}
	return names, none
}
