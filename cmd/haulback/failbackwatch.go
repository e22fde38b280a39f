package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/internal/control/failbackpb"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

func (h *homing) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watch VM|ID...", Short: "Look on until a failback needs you or ends", Args: cobra.MinimumNArgs(1), ValidArgsFunction: h.completeVMs,
		Long: "Look on until a failback needs you or ends: on a terminal a bar for each disk, else\na line for each thing that happens. When the daemon goes away, wait for it and go\non. Ctrl-C ends the watching and not the failback.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := h.g.caller(&h.flags)
			if err != nil {
				return err
			}
			var list []*failback.Status
			for _, word := range args {
				s, err := c.find(cmd.Context(), word)
				if err != nil {
					return err
				}
				list = append(list, s)
			}
			return h.look(cmd, c, list, goalHome)
		},
	}
}

// looker tells what some failbacks do. It is for one goroutine; another reads the
// daemon's events.
type looker struct {
	h      *homing
	c      *caller
	out    *os.File
	want   goal
	ids    []string
	now    map[string]*failback.Status
	told   map[string]*failback.Status
	region *screen.Region // nil: no terminal
	after  uint64         // the last revision that was seen
	spoke  time.Time      // when the last line of counters was written
}

// look tells what the failbacks do until all of them rest. The error is that of
// the first that has one.
func (h *homing) look(cmd *cobra.Command, c *caller, list []*failback.Status, want goal) error {
	l := &looker{h: h, c: c, out: os.Stdout, want: want, now: map[string]*failback.Status{}, told: map[string]*failback.Status{}}
	if !h.g.json && term.IsTerminal(int(l.out.Fd())) {
		l.region = screen.NewRegion(l.out)
	}
	for _, s := range list {
		if l.now[s.ID] == nil {
			l.ids = append(l.ids, s.ID)
		}
		l.now[s.ID] = s
	}
	for _, id := range l.ids {
		l.tell(l.now[id], false)
	}
	if err := l.run(cmd.Context()); err != nil {
		return err
	}
	return l.end(cmd)
}

// run follows the daemon's events, over its restarts too.
func (l *looker) run(ctx context.Context) error {
	defer l.close()
	for gone := false; !l.rest(); {
		err := l.follow(ctx, func() {
			if gone {
				l.remark("the daemon is back")
			}
			gone = false
		})
		switch {
		case l.rest():
			return nil
		case ctx.Err() != nil:
			l.close()
			return fmt.Errorf("%w; the failback goes on, haulback failback watch %s looks on", context.Cause(ctx), l.now[l.ids[0]].Spec.VM)
		case err != nil && !away(err):
			return l.c.explain(ctx, err)
		case !gone:
			gone = true
			l.remark(fmt.Sprintf("the daemon at %s is away; waiting for it, the failback goes on when it is back", l.c.where))
		}
		select {
		case <-time.After(awayPause):
		case <-ctx.Done():
		}
	}
	return nil
}

// rest reports whether nobody has to be waited for.
func (l *looker) rest() bool {
	for _, id := range l.ids {
		if !rests(l.now[id], l.want) {
			return false
		}
	}
	return true
}

// follow reads events until all rest or the stream has ended.
func (l *looker) follow(ctx context.Context, back func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := &controlv1.WatchFailbacksRequest{AfterRevision: l.after}
	if len(l.ids) == 1 {
		req.FailbackId = l.ids[0]
	}
	stream, err := l.c.failbacks.Watch(ctx, req)
	if err != nil {
		return err
	}
	events, failed := make(chan *controlv1.WatchFailbacksResponse), make(chan error, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			m, err := stream.Receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case events <- m:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	defer func() {
		cancel()
		_ = stream.Close() // only read
		<-read
	}()
	return l.draw(ctx, events, failed, back)
}

// redraw is how often the times on a terminal are put right.
const redraw = 500 * time.Millisecond

func (l *looker) draw(ctx context.Context, events <-chan *controlv1.WatchFailbacksResponse, failed <-chan error, back func()) error {
	resized := make(chan os.Signal, 1)
	if l.region != nil {
		signal.Notify(resized, syscall.SIGWINCH)
		defer signal.Stop(resized)
	}
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case m := <-events:
			back()
			if err := l.event(m); err != nil {
				return err
			}
			if l.rest() {
				return nil
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-tick.C:
		case <-resized:
		case <-ctx.Done():
			return ctx.Err()
		}
		l.paint()
	}
}

func (l *looker) event(m *controlv1.WatchFailbacksResponse) error {
	var body *controlv1.Failback
	live := false
	switch e := m.Event.(type) {
	case *controlv1.WatchFailbacksResponse_Failback:
		body = e.Failback
	case *controlv1.WatchFailbacksResponse_Progress:
		body, live = e.Progress, true
	case *controlv1.WatchFailbacksResponse_Reset_:
		l.after = 0
	}
	l.after = max(l.after, m.Revision)
	if l.now[body.GetId()] == nil {
		return nil
	}
	s, err := failbackpb.ToStatus(body)
	if err != nil {
		return err
	}
	if old := l.now[s.ID]; s.Revision < old.Revision { // told again after a restart of the stream
		return nil
	}
	l.now[s.ID] = s
	l.tell(s, live)
	return nil
}

// tell writes what is new with one failback.
func (l *looker) tell(s *failback.Status, live bool) {
	if l.h.g.json {
		now := time.Now()
		if live && now.Sub(l.spoke) < l.h.g.every() {
			return
		}
		if old := l.told[s.ID]; live || old == nil || old.Revision != s.Revision {
			l.spoke = now
			_ = report.WriteLine(l.out, report.TypeFailback, lineOfFailback(s)) // a reader that is gone stops nothing
		}
		l.told[s.ID] = s
		return
	}
	for _, line := range screen.Changes(l.told[s.ID], s) {
		if len(l.ids) > 1 {
			line = s.Spec.VM + ": " + line
		}
		l.say(line)
	}
	l.told[s.ID] = s
}

// remark says something that is of no failback.
func (l *looker) remark(text string) {
	if l.h.g.json {
		_ = report.WriteLine(l.out, report.TypeEvent, report.Text{Text: report.OneLine(text)})
		return
	}
	l.say(text)
}

func (l *looker) say(text string) {
	text = time.Now().Format("15:04:05 ") + text
	if l.region == nil {
		fmt.Fprintln(l.out, text)
		return
	}
	width, _ := l.size()
	l.region.Say(width, text)
}

// size is that of the terminal now.
func (l *looker) size() (width, height int) {
	width, height, err := term.GetSize(int(l.out.Fd()))
	if err != nil || width <= 0 || height <= 0 { // a terminal that does not know
		return 80, 24
	}
	return width, height
}

// paint draws the region anew.
func (l *looker) paint() {
	if l.region == nil {
		return
	}
	width, height := l.size()
	now := time.Now()
	var lines []string
	for _, id := range l.ids {
		if len(l.ids) == 1 {
			lines = screen.Lines(l.now[id], now, width-1, height)
			break
		}
		lines = append(lines, screen.Brief(l.now[id], now, width-1))
	}
	l.region.Draw(width, lines[:min(len(lines), max(height-1, 1))])
}

func (l *looker) close() {
	if l.region != nil {
		width, _ := l.size()
		l.region.Close(width)
	}
}

// end is the last screen and the exit code.
func (l *looker) end(cmd *cobra.Command) error {
	var first error
	var list []*failback.Status
	for _, id := range l.ids {
		list = append(list, l.now[id])
		if err := verdictOf(l.now[id], l.want); first == nil {
			first = err
		}
	}
	switch {
	case l.h.g.json:
		return first
	case len(list) == 1:
		if err := say(cmd, "\n"+screen.Status(list[0], time.Now(), screenWidth())); err != nil {
			return err
		}
	default:
		if err := say(cmd, "\n"+screen.Failbacks(list, time.Now(), screenWidth())); err != nil {
			return err
		}
	}
	return first
}
