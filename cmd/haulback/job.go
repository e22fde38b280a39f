package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

const jobHelp = `A job is run by a daemon of this machine (or, with --control, of another), and
goes on when the daemon, or its machine, is started again. It is Completed when
every one of its disks is verified, and never otherwise.

The caller chooses the ID. Submitting the same job under the same ID again is no
second job; another job under that ID is refused (exit code 10).

Exit codes are those of copy; 13: no daemon there; 12: not allowed to call it;
11: not in this phase; 10: no such job, or the ID is taken.`

func jobCommand(g *global) *cobra.Command {
	var f controlFlags
	cmd := &cobra.Command{Use: "job", Short: "Have a daemon copy or compare disks, whatever becomes of this terminal", Long: jobHelp, Args: cobra.NoArgs}
	addControlFlags(cmd, &f)
	cmd.AddCommand(jobSubmitCommand(g, &f), jobGetCommand(g, &f), jobListCommand(g, &f), jobWatchCommand(g, &f), jobLimitsCommand(g, &f),
		jobVerb(g, &f, "cancel", "Stop a job for good; targets that were begun stay Inconsistent", func(ctx context.Context, c controlv1.JobsClient, id string) (*controlv1.Job, error) {
			r, err := c.Cancel(ctx, &controlv1.CancelRequest{Id: id})
			return r.GetJob(), err
		}),
		jobVerb(g, &f, "pause", "Stop a job and release its disks, until resume", func(ctx context.Context, c controlv1.JobsClient, id string) (*controlv1.Job, error) {
			r, err := c.Pause(ctx, &controlv1.PauseRequest{Id: id})
			return r.GetJob(), err
		}),
		jobVerb(g, &f, "resume", "Go on with a job that is paused, or that failed and may go on", func(ctx context.Context, c controlv1.JobsClient, id string) (*controlv1.Job, error) {
			r, err := c.Resume(ctx, &controlv1.ResumeRequest{Id: id})
			return r.GetJob(), err
		}),
		jobTicketCommand(g, &f), jobRemoveCommand(g, &f))
	return cmd
}

// jobVerb is a command that asks one thing of one job.
func jobVerb(g *global, f *controlFlags, name, short string, do func(context.Context, controlv1.JobsClient, string) (*controlv1.Job, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.oneJob(cmd, f, args[0], do) },
	}
}

// oneJob asks and prints the job that comes back.
func (g *global) oneJob(cmd *cobra.Command, f *controlFlags, id string, do func(context.Context, controlv1.JobsClient, string) (*controlv1.Job, error)) error {
	c, err := g.caller(f)
	if err != nil {
		return err
	}
	var m *controlv1.Job
	err = c.call(cmd.Context(), func(ctx context.Context) error {
		m, err = do(ctx, c.jobs, id)
		return err
	})
	if err != nil {
		return err
	}
	return g.printJob(cmd.OutOrStdout(), m)
}

func jobGetCommand(g *global, f *controlFlags) *cobra.Command {
	return jobVerb(g, f, "get", "Tell where a job stands", func(ctx context.Context, c controlv1.JobsClient, id string) (*controlv1.Job, error) {
		r, err := c.Get(ctx, &controlv1.GetRequest{Id: id})
		return r.GetJob(), err
	})
}

func jobRemoveCommand(g *global, f *controlFlags) *cobra.Command {
	return &cobra.Command{
		Use: "remove ID", Short: "Forget a job that has ended", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.caller(f)
			if err != nil {
				return err
			}
			err = c.call(cmd.Context(), func(ctx context.Context) error {
				_, err := c.jobs.Remove(ctx, &controlv1.RemoveRequest{Id: args[0]})
				return err
			})
			if err != nil {
				return err
			}
			return g.print(cmd, map[string]string{"removed": args[0]}, "removed "+args[0])
		},
	}
}

func jobTicketCommand(g *global, f *controlFlags) *cobra.Command {
	var disk string
	cmd := &cobra.Command{
		Use: "ticket ID FILE", Short: "Hand in a controller's ticket for a disk of a job, in the place of the one before", Args: cobra.ExactArgs(2),
		Long: "Hand in a controller's ticket for a disk of a job, in the place of the one before.\nA ticket names the run of the disk, which haulback job get tells.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ticket, err := readTicket(cmd.InOrStdin(), args[1])
			if err != nil {
				return err
			}
			return g.oneJob(cmd, f, args[0], func(ctx context.Context, c controlv1.JobsClient, id string) (*controlv1.Job, error) {
				if _, err := c.SetTickets(ctx, &controlv1.SetTicketsRequest{Id: id, Tickets: []*controlv1.Ticket{{Disk: disk, Ticket: ticket}}}); err != nil {
					return nil, err
				}
				r, err := c.Get(ctx, &controlv1.GetRequest{Id: id})
				return r.GetJob(), err
			})
		},
	}
	cmd.Flags().StringVar(&disk, "disk", "disk0", "`NAME` of the disk in the job")
	return cmd
}

func jobListCommand(g *global, f *controlFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the jobs, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.caller(f)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !g.json {
				fmt.Fprintln(w, "ID\tPHASE\tDISKS\tVERIFIED\tCREATED\tFAILURE")
			}
			for req := (&controlv1.ListRequest{}); ; {
				var page *controlv1.ListResponse
				err := c.call(cmd.Context(), func(ctx context.Context) error {
					page, err = c.jobs.List(ctx, req)
					return err
				})
				if err != nil {
					return err
				}
				for _, m := range page.Jobs {
					if err := g.listJob(cmd.OutOrStdout(), w, m); err != nil {
						return err
					}
				}
				if req.PageToken = page.NextPageToken; req.PageToken == "" {
					return w.Flush()
				}
			}
		},
	}
}

func (g *global) listJob(out io.Writer, table io.Writer, m *controlv1.Job) error {
	if g.json {
		return g.printJob(out, m)
	}
	j, err := jobpb.ToJob(m)
	if err != nil {
		return err
	}
	verified, reason := 0, "-"
	for i := range j.Disks {
		if j.Disks[i].Outcome.Verified {
			verified++
		}
	}
	if j.Failure != nil {
		reason = j.Failure.Reason
	}
	_, err = fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", j.ID, j.Phase, len(j.Disks), verified, j.Created.Format(time.RFC3339), reason)
	return err
}

// jobFlags are those of job submit, as typed; flags are those of copy.
type jobFlags struct {
	flags
	id, mode, priority, spec string
	labels                   map[string]string
	windows                  []string
	wait                     bool
}

func jobSubmitCommand(g *global, cf *controlFlags) *cobra.Command {
	var f jobFlags
	cmd := &cobra.Command{
		Use: "submit [SOURCE TARGET]", Short: "Hand in a job", Args: cobra.RangeArgs(0, 2),
		Long: "Hand in a job of one pair of disks, or with --spec of several. The flags mean what\nthey mean for copy.\n\n" + transfer.Help +
			"\n  export:NAME                   an export of the daemon itself, by its name",
		Example: "  haulback job submit --id vm1-20261122 /srv/replica.img haulback://home:7420/vm1 --wait\n  haulback job submit --id vm1 --spec - < job.json",
		RunE:    func(cmd *cobra.Command, args []string) error { return submitJob(g, cf, &f, cmd, args) },
	}
	copyFlags(cmd, &f.flags)
	p := cmd.Flags()
	p.StringVar(&f.id, "id", "", "`ID` of the job, your choice: letters, digits, dots, dashes, underscores (default a new one, printed)")
	p.StringVar(&f.mode, "mode", "copy", "`WHAT` to do: copy or verify")
	p.StringVar(&f.priority, "priority", "normal", "`HOW` urgent: low, normal or high")
	p.StringVar(&f.spec, "spec", "", "`FILE` with the spec of the job in JSON, as docs/api.md has it; - for standard input")
	for _, name := range []string{"source-ticket", "target-ticket"} { // a ticket names the run, which the daemon chooses
		_ = p.MarkHidden(name)
	}
	windowFlag(cmd, &f)
	p.StringToStringVar(&f.labels, "label", nil, "`KEY=VALUE` of your own to keep with the job; may be repeated")
	p.BoolVar(&f.wait, "wait", false, "watch it to its end; the exit code is that of the job")
	return cmd
}

func submitJob(g *global, cf *controlFlags, f *jobFlags, cmd *cobra.Command, args []string) error {
	spec, err := f.message(cmd, args)
	if err != nil {
		return err
	}
	c, err := g.caller(cf)
	if err != nil {
		return err
	}
	if f.id == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		f.id = id.String()
	}
	var r *controlv1.SubmitResponse
	err = c.call(cmd.Context(), func(ctx context.Context) error {
		r, err = c.jobs.Submit(ctx, &controlv1.SubmitRequest{Id: f.id, Spec: spec})
		return err
	})
	switch {
	case err != nil:
		return err
	case f.wait:
		return watchJob(cmd.Context(), g, c, f.id)
	case g.json:
		return g.printJob(cmd.OutOrStdout(), r.Job)
	}
	said := "submitted "
	if r.AlreadyExisted {
		said = "existed "
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), said+f.id)
	return err
}

func jobLimitsCommand(g *global, cf *controlFlags) *cobra.Command {
	var f jobFlags
	cmd := &cobra.Command{
		Use: "limits ID", Short: "Replace the limits of a job, at once and while it runs", Args: cobra.ExactArgs(1),
		Long: "Replace the limits of a job, at once and while it runs. What is left out has no\nlimit any more.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.limits()
			if err != nil {
				return err
			}
			return g.oneJob(cmd, cf, args[0], func(ctx context.Context, c controlv1.JobsClient, id string) (*controlv1.Job, error) {
				r, err := c.SetLimits(ctx, &controlv1.SetLimitsRequest{Id: id, Limits: allLimits(l)})
				return r.GetJob(), err
			})
		},
	}
	cmd.Flags().StringVar(&f.rate, "rate", "", "at most `SIZE` per second on the wire")
	cmd.Flags().StringVar(&f.readRate, "read-rate", "", "at most `SIZE` per second read and hashed, at each end")
	cmd.Flags().StringVar(&f.latency, "latency", "", "back off when the storage at either end takes longer than `TIME` for 256 KiB")
	windowFlag(cmd, &f)
	return cmd
}

func windowFlag(cmd *cobra.Command, f *jobFlags) {
	cmd.Flags().StringArrayVar(&f.windows, "window", nil, "`TIME` of the week with rates of its own, by the daemon's clock, as in 'Mon-Fri 08:00-18:00 10MiB'; may be repeated, the first that holds counts")
}

func jobWatchCommand(g *global, f *controlFlags) *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Tell what a job does until it ends, with its exit code", Args: cobra.ExactArgs(1),
		Long: "Tell what a job does until it ends, as copy tells of itself; the exit code is that\nof the job. When the daemon goes away, wait for it and go on. Ctrl-C ends the\nwatching and not the job.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.caller(f)
			if err != nil {
				return err
			}
			return watchJob(cmd.Context(), g, c, args[0])
		},
	}
}

// printJob prints a job for people, or as a line.
func (g *global) printJob(out io.Writer, m *controlv1.Job) error {
	j, err := jobpb.ToJob(m)
	if err != nil {
		return err
	}
	if g.json {
		return report.WriteLine(out, report.TypeJob, lineOfJob(j))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "job\t%s\n", j.ID)
	phase := j.Phase.String()
	if j.Wanted != 0 {
		phase += ", on its way to " + j.Wanted.String()
	}
	fmt.Fprintf(w, "phase\t%s\n", phase)
	for i := range j.Disks {
		tellDisk(w, j, i)
	}
	if j.Failure != nil {
		fmt.Fprintf(w, "failure\t%s: %s\n", j.Failure.Reason, j.Failure.Text)
	}
	return w.Flush()
}

func tellDisk(w io.Writer, j *job.Job, i int) {
	d := &j.Disks[i]
	said := d.Phase.String()
	if d.Outcome.State != "" {
		said += ", target " + d.Outcome.State
	}
	if c := &d.Outcome.Counters; c.Total > 0 && d.Phase != job.Completed {
		said += fmt.Sprintf(", %.1f%%", 100*float64(c.Verified+c.Skipped)/float64(c.Total))
	}
	fmt.Fprintf(w, "%s\t%s  (%s to %s, run %s)\n", d.Name, said, j.Spec.Disks[i].Source, j.Spec.Disks[i].Target, d.Run)
	if d.Failure != nil {
		fmt.Fprintf(w, "\t%s: %s\n", d.Failure.Reason, d.Failure.Text)
	}
}
