package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// given are the flags of a command as they were typed, but for those that say
// where the daemon is and how it is told.
func given(cmd *cobra.Command) []string {
	var out []string
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed || f.Name == "group" || f.Name == "measure" {
			return
		}
		list, many := f.Value.(pflag.SliceValue)
		switch {
		case many:
			for _, v := range list.GetSlice() {
				out = append(out, "--"+f.Name, v)
			}
		case f.Value.Type() == "bool":
			out = append(out, "--"+f.Name)
		default:
			out = append(out, "--"+f.Name, f.Value.String())
		}
	})
	return out
}

// quoted is a word as a shell takes it.
func quoted(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-_./:=,+@%", r) && (r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z')
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// verbFlags are those of a verb about one failback.
type verbFlags struct {
	waitFlags
	yes bool
}

// still refuses what was confirmed of another place: somebody else, or the
// failback itself, was faster than the typing.
func (c *caller) still(ctx context.Context, shown *failback.Status) error {
	now, err := c.status(ctx, shown.ID)
	switch {
	case err != nil:
		return err
	case !screen.SamePlace(now, shown):
		return &exitcode.Said{Code: exitcode.Locked, Text: "it has changed while you typed, and nothing was done: " + screen.Sentence(now, time.Now())}
	}
	return nil
}

// asking changes one failback.
type asking func(context.Context, controlv1.FailbacksClient, *failback.Status) (*controlv1.Failback, error)

// verb is a command that asks one thing of one failback, and looks on until it
// is done.
type verb struct {
	use, short, long string
	want             goal
	question         func(*failback.Status) string // what is confirmed; nil: nothing
	later            func() bool                   // it is not done now: nobody looks on; nil: it is
	do               asking
}

func (h *homing) verb(v verb) *cobra.Command {
	var f verbFlags
	cmd := &cobra.Command{
		Use: v.use + " VM|ID", Short: v.short, Long: v.long, Args: cobra.ExactArgs(1), ValidArgsFunction: h.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			s, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if v.question != nil {
				question := screen.Sentence(s, time.Now()) + "\n" + v.question(s)
				if err := h.confirm(cmd, s.Spec.VM, screen.Wrap(question, screenWidth()), f.yes); err != nil {
					return err
				}
				if err := c.still(cmd.Context(), s); err != nil {
					return err
				}
			}
			if s, err = c.change(cmd.Context(), s, v.do); err != nil {
				return err
			}
			later := v.later != nil && v.later() && !cmd.Flags().Changed("watch")
			if f.leaves() || later {
				return h.each(cmd, []*failback.Status{s})
			}
			return h.look(cmd, c, []*failback.Status{s}, v.want)
		},
	}
	if v.question != nil {
		cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask for the VM's name")
	}
	f.waitFlags.add(cmd)
	return cmd
}

func (c *caller) change(ctx context.Context, s *failback.Status, do asking) (out *failback.Status, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		m, err := do(ctx, c.failbacks, s)
		if err == nil {
			out, err = failbackpb.ToStatus(m)
		}
		return err
	})
	return out, err
}

func (h *homing) switchCommand() *cobra.Command {
	var at string
	var manual bool
	var budget time.Duration
	cmd := h.verb(verb{
		use: "switch", short: "Power the replica off and bring the rest home: now, at a time, or when you say so",
		long:  "Say anew when the replica is powered off and the rest comes home. Without a flag:\nnow, or as soon as the disks allow. Users are without the VM from the replica's\npower-off until it runs at home.",
		later: func() bool { return manual || at != "" },
		do: func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (*controlv1.Failback, error) {
			w := failback.Switch{When: failback.WhenNow}
			switch {
			case manual && at != "":
				return nil, usage("--at and --manual: choose one")
			case manual:
				w.When = failback.WhenManual
			case at != "":
				var err error
				if w, err = moment("--at", at, time.Now()); err != nil {
					return nil, err
				}
			}
			if w.Budget, w.Passes = s.Spec.Switch.Budget, s.Spec.Switch.Passes; budget > 0 {
				w.Budget = budget
			}
			r, err := c.Switch(ctx, &controlv1.SwitchRequest{Id: s.ID, Switch: failbackpb.FromSwitch(w)})
			return r.GetFailback(), err
		},
	})
	cmd.Flags().StringVar(&at, "at", "", "not before `TIME`, as in 2026-11-22T03:00 or 03:00")
	cmd.Flags().BoolVar(&manual, "manual", false, "not by itself: when you say switch again")
	cmd.Flags().DurationVar(&budget, "downtime-budget", 0, "repeat passes until the switch is expected to take less than `TIME`")
	return cmd
}

func (h *homing) commitCommand() *cobra.Command {
	var drop bool
	cmd := h.verb(verb{
		use: "commit", short: "Keep the VM at home for good; there is no undo after it",
		long:     "Keep the VM at home for good. Its state is Ready and it is replicated again. The\nrollback point of the VM at home is removed; the protective snapshot of the replica\nstays as a restore point unless --delete-protective. There is no undo after it.",
		want:     goalCommit,
		question: func(*failback.Status) string { return screen.CommitText(drop) },
		do: func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (*controlv1.Failback, error) {
			r, err := c.Commit(ctx, &controlv1.CommitRequest{Id: s.ID, DeleteProtective: drop})
			return r.GetFailback(), err
		},
	})
	cmd.Flags().BoolVar(&drop, "delete-protective", false, "delete the replica's protective snapshot, too")
	return cmd
}

func (h *homing) undoCommand() *cobra.Command {
	var off bool
	cmd := h.verb(verb{
		use: "undo", short: "Take the VM back: its replica serves again, as it was when it was powered off",
		long:     "Take the VM back. The VM at home is powered off, the replica is put back to what it\nwas when it was powered off, proved to be equal to it, and powered on. What was\nwritten at home since then is lost. The VM at home is put back to its rollback point.",
		want:     goalBack,
		question: func(*failback.Status) string { return screen.UndoText(off) },
		do: func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (*controlv1.Failback, error) {
			r, err := c.Undo(ctx, &controlv1.UndoRequest{Id: s.ID, KeepOff: off})
			return r.GetFailback(), err
		},
	})
	cmd.Flags().BoolVar(&off, "keep-off", false, "leave the replica off")
	return cmd
}

func (h *homing) cancelCommand() *cobra.Command {
	return h.verb(verb{
		use: "cancel", short: "Stop before the VM is home; its replica serves and loses nothing",
		long: "Stop a failback before the VM is home. The replica goes on serving, or is powered on\nagain; it loses nothing. The VM at home is put back to its rollback point.",
		want: goalBack,
		do: func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (*controlv1.Failback, error) {
			r, err := c.Cancel(ctx, &controlv1.CancelFailbackRequest{Id: s.ID})
			return r.GetFailback(), err
		},
	})
}

func (h *homing) continueCommand() *cobra.Command {
	return h.verb(verb{
		use: "continue", short: "Go on where it stands still; or make another pass of a VM that is ready to switch",
		long: "Go on with a failback that stands still, when the cause is gone: the step is looked\nat first, and what is done already is not done again. Of a VM that is ready to\nswitch: bring home what the replica has changed meanwhile.",
		do: func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (*controlv1.Failback, error) {
			r, err := c.Continue(ctx, &controlv1.ContinueRequest{Id: s.ID})
			return r.GetFailback(), err
		},
	})
}

func (h *homing) limitsCommand() *cobra.Command {
	var f limitFlags
	var priority string
	cmd := &cobra.Command{
		Use: "limits VM|ID", Short: "Replace the limits of a failback, at once and while it runs", Args: cobra.ExactArgs(1), ValidArgsFunction: h.completeVMs,
		Long: "Replace the limits of a failback, at once and while it runs. What is left out has no\nlimit any more; the priority stays when it is left out.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.limits()
			if err != nil {
				return err
			}
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			s, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			p := s.Spec.Priority
			if cmd.Flags().Changed("priority") {
				if p, err = parsePriority(priority); err != nil {
					return err
				}
			}
			s, err = c.change(cmd.Context(), s, func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (*controlv1.Failback, error) {
				r, err := c.SetLimits(ctx, &controlv1.SetFailbackLimitsRequest{Id: s.ID, Limits: allLimits(l), Priority: jobpb.FromPriority(p)})
				return r.GetFailback(), err
			})
			if err != nil {
				return err
			}
			return h.show(cmd, s)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&priority, "priority", "normal", "`HOW` urgent: low, normal or high")
	return cmd
}
