package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/cmd/internal/screen/status"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/wire"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

const statusHelp = `Show what a daemon does: its failbacks and jobs, what needs you first. On a terminal
it is a view that stays, with keys for switch, commit, undo and others; each asks
before it does anything, and ? tells them all. Leaving it changes nothing.

When the daemon goes away the view says so, since when, and comes back to it.

Not on a terminal, with --plain, or with TERM=dumb: one line for each thing, once.
The exit code is 0 whatever stands there; 13: no daemon answers, or you left before it
had answered a verb.`

func statusCommand(g *global) *cobra.Command {
	var f controlFlags
	var plain bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show what a daemon does, and decide: a live view of failbacks and jobs", Long: statusHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.caller(&f)
			if err != nil {
				return err
			}
			if !g.json && !plain && canDraw() {
				return view(cmd.Context(), c)
			}
			b, err := newFeed(c).once(cmd.Context())
			switch {
			case err != nil:
				return err
			case g.json:
				return writeBoard(cmd, &b)
			}
			return say(cmd, b.Text(time.Now()))
		},
	}
	addControlFlags(cmd, &f)
	cmd.Flags().BoolVar(&plain, "plain", false, "one line for each thing, once, also on a terminal")
	return cmd
}

// canDraw reports whether somebody sits at a terminal that can be drawn on.
func canDraw() bool {
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb" && term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// asciiOnly reports whether the locale has no UTF-8. Without any locale it is
// taken for one, as a shell in a container has none and its terminal can.
func asciiOnly() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(os.Getenv(name)); v != "" {
			return !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
		}
	}
	return false
}

// drawEvery is how often the view may change: a few times a second is what eyes
// follow, and what hundreds of jobs cost little at.
const drawEvery = 250 * time.Millisecond

// endTime is how long the view may take to its end before it is left as it stands.
const endTime = 3 * time.Second

// late has something endTime after ctx is done.
func late(ctx context.Context) <-chan time.Time {
	c := make(chan time.Time, 1)
	context.AfterFunc(ctx, func() { time.AfterFunc(endTime, func() { c <- time.Now() }) })
	return c
}

// screenOut hides from Bubble Tea that it writes to a terminal, so that the sizes
// of the window come from view alone: Bubble Tea sets what it reads them from
// anew when it comes back from a suspension, beside the goroutine that reads it.
type screenOut struct{ io.Writer }

// windowSize is that of the terminal in cells, or what every terminal has where
// it does not say.
func windowSize() (width, height int) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// view is the live view. The terminal is put back in whatever way it ends.
func view(ctx context.Context, c *caller) error {
	f := newFeed(c)
	if err := c.call(ctx, f.info); err != nil { // nobody there: that is no view
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // by default it ends a process where it stands
	defer signal.Stop(hangup)
	stop := make(chan os.Signal, 1)
	defer signal.Stop(stop)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	model := status.New(func(r status.Request) (string, error) { return f.do(ctx, r) }, f.board(), asciiOnly())
	width, height := windowSize()
	p := tea.NewProgram(model, tea.WithoutSignalHandler(), tea.WithFPS(int(2*time.Second/drawEvery)), tea.WithFilter(suspending(ctx, stop, resized)),
		tea.WithOutput(screenOut{os.Stdout}), tea.WithColorProfile(colorprofile.Detect(os.Stdout, os.Environ())), tea.WithWindowSize(width, height))

	var all sync.WaitGroup
	guarded := func(work func()) { // a panic must not leave the terminal raw
		all.Go(func() { cancel(caught(func() error { work(); return nil })) })
	}
	guarded(func() { f.run(ctx) })
	guarded(func() { f.tell(ctx, p) })
	guarded(func() {
		for {
			select {
			case <-hangup:
				cancel(wire.Errorf(wire.CodeCanceled, "%w", exitcode.ErrCanceled))
			case <-stop:
				p.Send(tea.SuspendMsg{})
			case <-resized:
				width, height := windowSize()
				p.Send(tea.WindowSizeMsg{Width: width, Height: height})
			case <-ctx.Done():
				return
			}
		}
	})
	// Not ended by its context: killed it closes what its reader still reads.
	guarded(func() { <-ctx.Done(); p.Quit() })
	before, _ := term.GetState(int(os.Stdin.Fd()))
	over := make(chan error, 1)
	go func() { // ends with the process where the terminal takes nothing any more
		_, err := p.Run()
		over <- err
	}()
	var err error
	select {
	case err = <-over:
	case <-late(ctx):
		if before != nil {
			_ = term.Restore(int(os.Stdin.Fd()), before)
		}
		os.Exit(int(exitcode.Of(context.Cause(ctx)))) // to say why would wait for that terminal, too
	}
	ended := context.Cause(ctx)
	cancel(nil)
	all.Wait()
	if c, ok := errors.AsType[*crash](ended); ok {
		panic(c)
	}
	if text := model.Unanswered(); text != "" { // he reads it where he has gone to
		return &exitcode.Said{Code: exitcode.Unavailable, Text: text}
	}
	if ended != nil {
		return ended
	}
	return err
}

// tell hands boards to the view, not more often than it is drawn.
func (f *feed) tell(ctx context.Context, p *tea.Program) {
	for {
		select {
		case <-f.news:
		case <-ctx.Done():
			return
		}
		p.Send(status.Board(f.board()))
		select {
		case <-time.After(drawEvery):
		case <-ctx.Done():
			return
		}
	}
}

// do has the daemon do what was confirmed of an item as it was shown.
func (f *feed) do(ctx context.Context, r status.Request) (said string, err error) {
	if r.Item.Job != nil {
		return f.doJob(ctx, r)
	}
	var answer error
	s, err := f.c.change(ctx, r.Item.Failback, func(ctx context.Context, c controlv1.FailbacksClient, s *failback.Status) (m *controlv1.Failback, err error) {
		defer func() { answer = err }()
		switch r.Verb {
		case screen.Switch:
			w := failback.Switch{When: failback.WhenNow, Budget: s.Spec.Switch.Budget, Passes: s.Spec.Switch.Passes}
			m, err := c.Switch(ctx, &controlv1.SwitchRequest{Id: s.ID, Switch: failbackpb.FromSwitch(w), ExpectedRevision: s.Revision})
			return m.GetFailback(), err
		case screen.Commit:
			m, err := c.Commit(ctx, &controlv1.CommitRequest{Id: s.ID, ExpectedRevision: s.Revision})
			return m.GetFailback(), err
		case screen.Undo:
			m, err := c.Undo(ctx, &controlv1.UndoRequest{Id: s.ID, ExpectedRevision: s.Revision})
			return m.GetFailback(), err
		case screen.Cancel:
			m, err := c.Cancel(ctx, &controlv1.CancelFailbackRequest{Id: s.ID, ExpectedRevision: s.Revision})
			return m.GetFailback(), err
		case screen.Continue:
			m, err := c.Continue(ctx, &controlv1.ContinueRequest{Id: s.ID, ExpectedRevision: s.Revision})
			return m.GetFailback(), err
		}
		return nil, usage("%s is nothing that is done to a failback", r.Verb)
	})
	if err != nil {
		return "", became(answer, err)
	}
	f.tookFailback(s)
	return screen.Sentence(s, time.Now()), nil
}

// became is err, and says of one that is no answer of the daemon that it may have
// done what it was asked all the same: the way there is what has failed.
func became(answer, err error) error {
	info, said := jobpb.Info(answer)
	dial, ok := errors.AsType[*net.OpError](answer)
	switch {
	case said && info.Reason != jobpb.ReasonDeadline, ok && dial.Op == "dial", exitcode.Of(answer) == exitcode.Usage:
		return err
	}
	return fmt.Errorf("%w, look at it again: %w", status.ErrUnknown, err)
}

// doJob looks first whether the job is where it was shown: its verbs have no
// revision that could be expected.
func (f *feed) doJob(ctx context.Context, r status.Request) (said string, err error) {
	id := r.Item.Job.ID
	now, err := f.job(ctx, func(ctx context.Context) (*controlv1.Job, error) {
		m, err := f.c.jobs.Get(ctx, &controlv1.GetRequest{Id: id})
		return m.GetJob(), err
	})
	switch {
	case err != nil:
		return "", err
	case !now.SamePlace(r.Item):
		return "", &exitcode.Said{Code: exitcode.Locked, Text: "it has changed meanwhile: " + now.Sentence(time.Now())}
	}
	var answer error
	now, err = f.job(ctx, func(ctx context.Context) (_ *controlv1.Job, err error) {
		defer func() { answer = err }()
		switch r.Verb {
		case screen.Pause:
			m, err := f.c.jobs.Pause(ctx, &controlv1.PauseRequest{Id: id})
			return m.GetJob(), err
		case screen.Resume:
			m, err := f.c.jobs.Resume(ctx, &controlv1.ResumeRequest{Id: id})
			return m.GetJob(), err
		case screen.Cancel:
			m, err := f.c.jobs.Cancel(ctx, &controlv1.CancelRequest{Id: id})
			return m.GetJob(), err
		}
		return nil, usage("%s is nothing that is done to a job", r.Verb)
	})
	if err != nil {
		return "", became(answer, err)
	}
	f.tookJob(&now.Job.Job)
	return now.Sentence(time.Now()), nil
}

// job asks for something about a job, whose answer is the job.
func (f *feed) job(ctx context.Context, ask func(context.Context) (*controlv1.Job, error)) (it screen.Item, err error) {
	err = f.c.call(ctx, func(ctx context.Context) error {
		m, err := ask(ctx)
		if err != nil {
			return err
		}
		j, err := jobpb.ToJob(m)
		if err == nil {
			it.Job = &screen.Job{Job: *j}
		}
		return err
	})
	return it, err
}

// daemonLine is the daemon in JSON.
type daemonLine struct {
	Where      string `json:"where"`
	Version    string `json:"version"`
	Site       string `json:"id"`
	Started    string `json:"started,omitempty"`
	Draining   bool   `json:"is_draining"`
	Controller bool   `json:"is_controller"`
	Open       int    `json:"jobs"`
	Sessions   int    `json:"sessions"`
	AtOnce     int    `json:"running_disks"`
}

// writeBoard writes a board as lines of JSON, in the order of the view.
func writeBoard(cmd *cobra.Command, b *screen.Board) error {
	d := &b.Daemon
	line := daemonLine{d.Where, d.Version, d.Site, stamp(d.Started), d.Draining, d.Controller, d.Open, d.Sessions, d.AtOnce}
	if err := report.WriteLine(cmd.OutOrStdout(), report.TypeDaemon, line); err != nil {
		return err
	}
	for _, it := range b.Items(screen.ShowAll, time.Now()) {
		kind, line := report.TypeFailback, any(nil)
		if it.Failback != nil {
			line = lineOfFailback(it.Failback)
		} else {
			kind, line = report.TypeJob, lineOfJob(&it.Job.Job)
		}
		if err := report.WriteLine(cmd.OutOrStdout(), kind, line); err != nil {
			return err
		}
	}
	return nil
}
