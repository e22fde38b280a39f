package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

func (h *homing) planCommand() *cobra.Command {
	var f homeFlags
	var group string
	var measure bool
	cmd := &cobra.Command{
		Use: "plan VM | --group NAME", Short: "Tell what bringing a VM home would do, lose and take; nothing is done", Args: cobra.MaximumNArgs(1),
		Long:              "Tell what bringing a VM home would do: every action on a host, which disk goes\nwhere, what is overwritten, how much is moved, how long it takes and how it is\ntaken back. Nothing is done. With problems the exit code is not 0.",
		ValidArgsFunction: h.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, specs, err := h.specs(cmd, &f, args, group)
			if err != nil {
				return err
			}
			for _, s := range specs {
				p, err := c.plan(cmd.Context(), &s, measure)
				if err != nil {
					return err
				}
				if err := h.showPlan(cmd, p, screen.Full, startLine(cmd, &s)); err != nil {
					return err
				}
				if err := problems(p); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&group, "group", "", "all VMs of the group `NAME` of the controller's configuration")
	cmd.Flags().BoolVar(&measure, "measure", false, "read a sample of both sides, to tell how much differs and how long pass 1 takes at most")
	return cmd
}

// startLine is the command that starts what was planned.
func startLine(cmd *cobra.Command, s *failback.Spec) string {
	line := "haulback failback start " + s.VM
	if s.Group != "" && cmd.Flags().Changed("group") {
		line = "haulback failback start --group " + quoted(s.Group)
	}
	for _, arg := range given(cmd) {
		line += " " + quoted(arg)
	}
	return line
}

func (h *homing) showPlan(cmd *cobra.Command, p *failback.Plan, detail screen.Detail, start string) error {
	if h.g.json {
		return report.WriteLine(cmd.OutOrStdout(), report.TypePlan, lineOfPlan(p))
	}
	return say(cmd, screen.Plan(p, start, detail, screenWidth()))
}

// specs are those of one VM, or of all of a group, whose configuration says
// order and priority.
func (h *homing) specs(cmd *cobra.Command, f *homeFlags, args []string, group string) (*caller, []failback.Spec, error) {
	switch {
	case len(args) == 0 && group == "":
		return nil, nil, usage("%s: name the VM, or --group", cmd.CommandPath())
	case len(args) > 0 && group != "":
		return nil, nil, usage("%s: name a VM or a group, not both; a VM of a group comes home alone with its own name", cmd.CommandPath())
	}
	name := group
	if len(args) > 0 {
		name = args[0]
	}
	s, err := f.spec(name, time.Now())
	if err != nil {
		return nil, nil, err
	}
	c, err := h.g.caller(&h.flags)
	if err != nil || group == "" {
		return c, []failback.Spec{s}, err
	}
	members, err := c.group(cmd.Context(), group)
	if err != nil {
		return nil, nil, err
	}
	var out []failback.Spec
	for _, m := range members {
		one := s
		one.VM, one.Group, one.Order = m.VM, group, m.Order
		if !cmd.Flags().Changed("priority") {
			one.Priority = m.Priority
		}
		out = append(out, one)
	}
	return c, out, nil
}

// group is what the controller's configuration says of a group.
func (c *caller) group(ctx context.Context, name string) (members []failback.Spec, err error) {
	var groups []*controlv1.FailbackGroup
	err = c.call(ctx, func(ctx context.Context) error {
		r, err := c.failbacks.ListGroups(ctx, &controlv1.ListGroupsRequest{})
		groups = r.GetGroups()
		return err
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range groups {
		if names = append(names, g.Name); g.Name != name {
			continue
		}
		for _, m := range g.Members {
			p, err := jobpb.ToPriority("priority", m.Priority)
			if err != nil {
				return nil, err
			}
			members = append(members, failback.Spec{VM: m.Vm, Order: int(m.Order), Priority: p})
		}
		return members, nil
	}
	if len(names) == 0 {
		return nil, usage("--group %s: the controller's configuration has no [[group]]", name)
	}
	return nil, usage("--group %s: the controller has no such group; it has %s", name, strings.Join(names, ", "))
}

func (c *caller) plan(ctx context.Context, s *failback.Spec, measure bool) (p *failback.Plan, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		r, err := c.failbacks.Plan(ctx, &controlv1.PlanRequest{Spec: failbackpb.FromSpec(s), Measure: measure})
		if err == nil {
			p, err = failbackpb.ToPlan(r.GetPlan())
		}
		return err
	})
	return p, err
}

// startFlags are those of start besides the spec.
type startFlags struct {
	homeFlags
	waitFlags
	id, group    string
	yes, measure bool
}

func (h *homing) startCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use: "start VM | --group NAME", Short: "Bring a VM home: shows the plan, asks, and begins", Args: cobra.MaximumNArgs(1),
		Long: `Bring a VM home. The plan is shown first: what is overwritten, how long it takes
and how to go back. Then the name of the VM has to be typed; a script says --yes.
What runs is what was shown: when anything in it has changed meanwhile, nothing is
begun.

The replica goes on serving until the switch, which waits for your word unless
--switch says another thing. It is watched until it needs you; Ctrl-C ends the
watching and not the failback.`,
		ValidArgsFunction: h.completeVMs,
		RunE:              func(cmd *cobra.Command, args []string) error { return h.start(cmd, &f, args) },
	}
	f.homeFlags.add(cmd)
	p := cmd.Flags()
	p.StringVar(&f.id, "id", "", "`ID` of the failback, your choice; the same again begins nothing new (default the VM and the time)")
	p.StringVar(&f.group, "group", "", "all VMs of the group `NAME` of the controller's configuration")
	p.BoolVar(&f.yes, "yes", false, "do not ask")
	p.BoolVar(&f.measure, "measure", false, "read a sample of both sides first, to tell how much differs and how long pass 1 takes at most")
	f.waitFlags.add(cmd)
	return cmd
}

// waitFlags say whether to look on.
type waitFlags struct{ detach, watch bool }

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.detach, "detach", false, "return at once; haulback failback watch looks on later")
	cmd.Flags().BoolVar(&f.watch, "watch", true, "look on until it needs you or ends")
}

// check refuses what contradicts itself.
func (f *waitFlags) check(cmd *cobra.Command) error {
	if f.detach && f.watch && cmd.Flags().Changed("watch") {
		return usage("--detach and --watch: choose one")
	}
	return nil
}

func (f *waitFlags) leaves() bool { return f.detach || !f.watch }

// planned is a failback that waits to be confirmed.
type planned struct {
	id   string
	spec failback.Spec
	plan *failback.Plan
}

func (h *homing) start(cmd *cobra.Command, f *startFlags, args []string) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	c, specs, err := h.specs(cmd, &f.homeFlags, args, f.group)
	if err != nil {
		return err
	}
	if f.id != "" && f.group != "" {
		return usage("--id: each VM of a group has its own; leave it out")
	}
	if f.id != "" {
		if s, err := c.again(cmd.Context(), f.id, &specs[0]); s != nil || err != nil {
			return h.begun(cmd, c, f, []*failback.Status{s}, err)
		}
	}
	var all []planned
	for _, s := range specs {
		p, err := c.plan(cmd.Context(), &s, f.measure)
		if err != nil {
			return err
		}
		if err := h.showPlan(cmd, p, screen.Short, ""); err != nil {
			return err
		}
		if err := problems(p); err != nil {
			return err
		}
		id := f.id
		if id == "" {
			id = newID(s.VM, time.Now())
		}
		all = append(all, planned{id, s, p})
	}
	if len(all) == 0 {
		return usage("--group %s: it has no VMs", f.group)
	}
	name, what := all[0].spec.VM, "the VM's name"
	if f.group != "" {
		name, what = f.group, fmt.Sprintf("the group's name (%d VMs)", len(all))
	}
	h.warn(cmd, &all[0].spec)
	if err := h.confirm(cmd, name, consequence(all)+" To begin, type "+what+".", f.yes); err != nil {
		return err
	}
	var started []*failback.Status
	for _, p := range all {
		s, err := c.begin(cmd.Context(), p.id, &p.spec, p.plan.Digest.String())
		if err != nil {
			return h.begun(cmd, c, f, started, err)
		}
		started = append(started, s)
	}
	return h.begun(cmd, c, f, started, nil)
}

// warn says loudly what cannot be had back.
func (h *homing) warn(cmd *cobra.Command, s *failback.Spec) {
	for _, w := range []struct {
		on   bool
		text string
	}{
		{s.NoRollback, "WARNING: no rollback point is made. When this failback fails or is undone, what the target has now is LOST FOR GOOD."},
		{s.PowerOnUnproved, "WARNING: the VM will be powered on although a disk is NOT VERIFIED. That is recorded with your name."},
		{s.Policy.After > 0, fmt.Sprintf("WARNING: %s by itself after %s in state Failback.", map[bool]string{true: "it is undone", false: "it is committed"}[s.Policy.Undo], screen.Span(s.Policy.After))},
	} {
		if !w.on {
			continue
		}
		if h.g.json {
			_ = report.WriteLine(cmd.OutOrStdout(), report.TypeWarning, report.Text{Text: w.text})
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "\n"+w.text)
		}
	}
}

// consequence is what the operator confirms, in one sentence.
func consequence(all []planned) string {
	overwrites := false
	for _, p := range all {
		overwrites = overwrites || p.plan.Target != nil
	}
	text := "The replica goes on serving until the switch."
	if overwrites {
		text = "The disks named above are OVERWRITTEN. " + text
	}
	return text
}

// again is the failback that was started under an ID before, or nil.
func (c *caller) again(ctx context.Context, id string, spec *failback.Spec) (*failback.Status, error) {
	there := false
	err := c.call(ctx, func(ctx context.Context) error {
		_, err := c.failbacks.Get(ctx, &controlv1.GetFailbackRequest{Id: id})
		if there = err == nil; !there && refusedAsUnknown(err) {
			return nil
		}
		return err
	})
	if err != nil || !there {
		return nil, err
	}
	return c.begin(ctx, id, spec, "")
}

func (c *caller) begin(ctx context.Context, id string, spec *failback.Spec, digest string) (s *failback.Status, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		r, err := c.failbacks.Start(ctx, &controlv1.StartRequest{Id: id, Spec: failbackpb.FromSpec(spec), ConfirmedDigest: digest})
		if err == nil {
			s, err = failbackpb.ToStatus(r.GetFailback())
		}
		return err
	})
	return s, err
}

// begun says what was started, and looks on.
func (h *homing) begun(cmd *cobra.Command, c *caller, f *startFlags, list []*failback.Status, err error) error {
	if err != nil {
		for _, s := range list {
			if s != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "haulback: begun before that, and it goes on: "+s.ID)
			}
		}
		return err
	}
	if f.leaves() {
		return h.each(cmd, list)
	}
	return h.look(cmd, c, list, goalHome)
}

func (h *homing) each(cmd *cobra.Command, list []*failback.Status) error {
	for _, s := range list {
		if h.g.json {
			if err := h.show(cmd, s); err != nil {
				return err
			}
			continue
		}
		if err := say(cmd, fmt.Sprintf("%s\nfailback %s; haulback failback watch %s looks on\n", screen.Sentence(s, time.Now()), s.ID, s.Spec.VM)); err != nil {
			return err
		}
	}
	return nil
}
