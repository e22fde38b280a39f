package status

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/haulback/haulback/cmd/internal/screen"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

var start = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// rig is a model whose daemon is a list of what it was asked.
type rig struct {
	t      *testing.T
	m      *Model
	asked  []Request
	answer error
	cmds   []tea.Cmd // on their way
	quit   bool
}

func newRig(t *testing.T, b screen.Board) *rig {
	r := &rig{t: t}
	r.m = New(func(q Request) (string, error) {
		r.asked = append(r.asked, q)
		return "it is being done", r.answer
	}, b, false)
	r.m.now = func() time.Time { return start.Add(time.Minute) }
	r.send(tea.WindowSizeMsg{Width: 100, Height: 30})
	return r
}

// send gives the model messages; what it has started is on its way until end.
func (r *rig) send(msgs ...tea.Msg) {
	for _, msg := range msgs {
		if _, cmd := r.m.Update(msg); cmd != nil {
			if _, isTick := msg.(tick); !isTick {
				r.cmds = append(r.cmds, cmd)
			}
		}
	}
}

// end lets what is on its way come to its end.
func (r *rig) end() {
	list := r.cmds
	r.cmds = nil
	for _, cmd := range list {
		switch msg := cmd().(type) {
		case tea.QuitMsg:
			r.quit = true
		default:
			r.send(msg)
		}
	}
}

// keys presses some, by name where they have one.
func (r *rig) keys(names ...string) {
	for _, name := range names {
		special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown, "up": tea.KeyUp, "backspace": tea.KeyBackspace}
		switch code, ok := special[name]; {
		case ok:
			r.send(tea.KeyPressMsg{Code: code})
		case strings.HasPrefix(name, "ctrl+"):
			r.send(tea.KeyPressMsg{Code: rune(name[5]), Mod: tea.ModCtrl})
		default:
			for _, c := range name {
				r.send(tea.KeyPressMsg{Code: c, Text: string(c)})
			}
		}
	}
}

func (r *rig) seen() string { return r.m.View().Content }

func (r *rig) sees(want ...string) {
	r.t.Helper()
	for _, w := range want {
		if !strings.Contains(r.seen(), w) {
			r.t.Errorf("%q is not seen:\n%s", w, r.seen())
		}
	}
}

func vm(name string, revision uint64, a failback.Activity, s failback.State) *failback.Status {
	return &failback.Status{
		ID: name + "-1", Revision: revision, Created: start, Activity: a, State: s, Spec: failback.Spec{VM: name, PowerOn: true, Switch: failback.Switch{When: failback.WhenManual}},
		Target: hostctl.Ref{Host: "home", Name: name + "-prod"}, Replica: hostctl.Ref{Host: "dr", Name: name + "-dr"},
		Steps: []failback.Step{{Name: "power-on", Number: 9, State: failback.Done, Began: start}},
	}
}

func board(list ...*failback.Status) screen.Board { return screen.Board{Failbacks: list} }

func deciding(revision uint64) screen.Board {
	return board(vm("web", revision, failback.Deciding, failback.Failback))
}

// TestKeys: a key asks, its answer is one call with the revision that was shown,
// and nothing else is one.
func TestKeys(t *testing.T) {
	standing := board(vm("web", 5, failback.Standing, failback.ReadyToSwitch))
	running := screen.Board{Jobs: []*screen.Job{{Job: job.Job{ID: "nightly", Phase: job.InProgress, Created: start, Revision: 5}}}}
	for _, c := range []struct {
		name string
		b    screen.Board
		keys []string
		want screen.Verb // empty: nobody is asked
		sees string
	}{
		{"commit", deciding(5), []string{"c", "web", "enter"}, screen.Commit, "it is being done"},
		{"undo", deciding(5), []string{"u", "web", "enter"}, screen.Undo, "it is being done"},
		{"undo tells", deciding(5), []string{"u"}, "", "home/web-prod goes OFF, dr/web-dr goes ON"},
		{"commit tells", deciding(5), []string{"c"}, "", "cannot be undone any more"},
		{"switch", standing, []string{"s", "yes", "enter"}, screen.Switch, "it is being done"},
		{"another pass", standing, []string{"r", "yes", "enter"}, screen.Continue, ""},
		{"cancel", standing, []string{"x", "yes", "enter"}, screen.Cancel, ""},
		{"pause", running, []string{"p", "yes", "enter"}, screen.Pause, ""},
		{"cancel a job", running, []string{"x", "yes", "enter"}, screen.Cancel, ""},
		{"yes is no name", deciding(5), []string{"c", "yes", "enter"}, "", "Type web; nothing was done"},
		{"no name", deciding(5), []string{"c", "enter", "enter"}, "", "Type web"},
		{"mended", deciding(5), []string{"c", "wex", "backspace", "b", "enter"}, screen.Commit, ""},
		{"mended anew", deciding(5), []string{"c", "nonsense", "ctrl+u", "web", "enter"}, screen.Commit, ""},
		{"left", deciding(5), []string{"c", "web", "esc", "enter"}, "", ""},
		{"one key is no yes", standing, []string{"s", "y", "enter"}, "", "Type yes; nothing was done"},
		{"text for another window", standing, []string{"s", "ystem", "enter", "esc"}, "", ""},
		{"not in this state", deciding(5), []string{"s"}, "", "switched already"},
		{"not of jobs", running, []string{"c"}, "", "only failbacks have that"},
		{"nothing there", screen.Board{}, []string{"c"}, "", "no row is chosen"},
		{"help has no verbs", deciding(5), []string{"?", "c"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.b)
			r.keys(c.keys...)
			r.end()
			switch {
			case c.want == "" && len(r.asked) > 0:
				t.Errorf("asked of the daemon: %v", r.asked)
			case c.want != "" && (len(r.asked) != 1 || r.asked[0].Verb != c.want):
				t.Errorf("asked %v, want one %s", r.asked, c.want)
			case c.want != "" && r.asked[0].Item.Failback != nil && r.asked[0].Item.Failback.Revision != 5:
				t.Errorf("revision %d", r.asked[0].Item.Failback.Revision)
			}
			r.sees(c.sees)
		})
	}
}

// TestPaste: the name may be pasted.
func TestPaste(t *testing.T) {
	r := newRig(t, deciding(5))
	r.keys("c")
	r.send(tea.PasteMsg{Content: "web"})
	r.keys("enter")
	r.end()
	if len(r.asked) != 1 {
		t.Errorf("asked %v", r.asked)
	}
}

// TestTwice: a key that repeats, or is pressed again, does nothing twice; the
// next verb waits for the answer of the one before.
func TestTwice(t *testing.T) {
	r := newRig(t, board(vm("web", 5, failback.Standing, failback.ReadyToSwitch)))
	r.keys("s", "yes", "enter", "enter", "enter", "s")
	r.sees("switch of web is on its way")
	r.keys("yes", "enter")
	if r.end(); len(r.asked) != 1 {
		t.Errorf("asked %d times", len(r.asked))
	}
	r.answer = errors.New("STATE_CONFLICT: the failback has changed")
	r.keys("x", "yes", "enter")
	r.end()
	if r.sees("cancel of web: NOT done", "has changed"); len(r.asked) != 2 {
		t.Errorf("asked %d times", len(r.asked))
	}
}

// TestTypedOn: letters that were meant for a question that went away are no keys.
func TestTypedOn(t *testing.T) {
	r := newRig(t, board(vm("easyusers", 5, failback.Deciding, failback.Failback), vm("db", 1, failback.Standing, failback.ReadyToSwitch)))
	r.keys("down", "c", "ea")
	r.send(Board(board(vm("easyusers", 6, failback.Standing, failback.ReadyToSwitch))))
	r.sees("Nothing was done", "has changed while you were asked")
	r.keys("syusers", "enter")
	if r.end(); len(r.asked) > 0 || r.m.window.Ask != nil {
		t.Errorf("asked %v; shown %v", r.asked, r.m.window.Ask)
	}
}

// TestStale: what was confirmed is what was shown.
func TestStale(t *testing.T) {
	for _, c := range []struct {
		name string
		next screen.Board
		sees string
		does bool
	}{
		{"moved on", board(vm("web", 6, failback.Undoing, failback.Failback)), "it has changed while you were asked: web is being undone", false},
		{"gone", board(vm("db", 6, failback.Deciding, failback.Failback)), "it is gone", false},
		{"lost", screen.Board{Failbacks: deciding(5).Failbacks, Daemon: screen.Daemon{Lost: &screen.Lost{Since: start}}}, "does not answer any more", false},
		{"the same place, another line of the journal", deciding(6), "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, deciding(5))
			r.keys("c", "we")
			r.send(Board(c.next))
			r.sees(c.sees)
			r.keys("b", "enter")
			r.end()
			if (len(r.asked) > 0) != c.does {
				t.Errorf("asked %v", r.asked)
			}
			if c.does && r.asked[0].Item.Failback.Revision != 6 {
				t.Errorf("revision %d", r.asked[0].Item.Failback.Revision)
			}
		})
	}
}

// TestLost: of a daemon that does not answer nothing is asked.
func TestLost(t *testing.T) {
	b := deciding(5)
	b.Daemon.Lost = &screen.Lost{Since: start, Why: "no daemon"}
	r := newRig(t, b)
	r.keys("c")
	r.end()
	if r.sees("CONNECTION LOST", "the daemon does not answer; nothing was done"); len(r.asked) > 0 {
		t.Errorf("asked %v", r.asked)
	}
}

// TestChosen: keys stay with what was chosen, wherever it moves in the list, and
// before the first key the most urgent row is the chosen one.
func TestChosen(t *testing.T) {
	r := newRig(t, board(vm("a", 1, failback.Syncing, failback.Failover)))
	b := board(vm("a", 1, failback.Syncing, failback.Failover), vm("b", 1, failback.Deciding, failback.Failback), vm("c", 1, failback.Standing, failback.ReadyToSwitch))
	r.send(Board(b))
	if r.m.window.Chosen != "failback/b-1" {
		t.Errorf("chosen %s before the first key", r.m.window.Chosen)
	}
	r.keys("down", "down", "j", "up")
	if r.m.window.Chosen != "failback/c-1" {
		t.Fatalf("chosen %s", r.m.window.Chosen)
	}
	halted := vm("a", 2, failback.Syncing, failback.Failover)
	halted.Halted = &failback.Halt{Step: "pass-1", Number: 3, Text: "x"}
	r.send(Board(board(b.Failbacks[1], b.Failbacks[2], halted)))
	r.keys("s", "yes", "enter")
	r.end()
	if len(r.asked) != 1 || r.asked[0].Item.Key() != "failback/c-1" {
		t.Errorf("asked %v", r.asked)
	}
	r.keys("tab", "tab", "tab", "tab") // jobs: there is none
	r.sees("Nothing of this kind")
	r.keys("c", "web", "enter", "tab")
	if r.end(); len(r.asked) != 1 || r.m.window.Chosen == "" {
		t.Errorf("asked %v, chosen %q", r.asked, r.m.window.Chosen)
	}
}

// TestQuit: leaving asks nobody, from everywhere.
func TestQuit(t *testing.T) {
	for _, keys := range [][]string{{"q"}, {"esc"}, {"ctrl+c"}, {"enter", "q"}, {"enter", "esc", "esc"}, {"?", "q"}, {"c", "web", "ctrl+c"}} {
		r := newRig(t, deciding(5))
		r.keys(keys...)
		if r.end(); !r.quit || len(r.asked) > 0 {
			t.Errorf("%v: quit %v, asked %v", keys, r.quit, r.asked)
		}
	}
	r := newRig(t, deciding(5))
	if r.keys("enter", "esc"); r.quit {
		t.Error("Esc leaves the details first")
	}
}

// TestSmall: what cannot be read whole is not confirmed.
func TestSmall(t *testing.T) {
	r := newRig(t, deciding(5))
	r.send(tea.WindowSizeMsg{Width: 40, Height: 10})
	r.keys("u", "web", "enter")
	r.end()
	if r.sees("make the terminal larger"); len(r.asked) > 0 {
		t.Errorf("asked %v", r.asked)
	}
	r.send(tea.WindowSizeMsg{Width: 100, Height: 30})
	r.keys("enter")
	if r.end(); len(r.asked) != 1 {
		t.Errorf("asked %v", r.asked)
	}
}

// TestPaint: colours are put around rows, and only what has a mood has one.
func TestPaint(t *testing.T) {
	got := paint([]screen.Line{{Text: "a"}, {Text: "b", Mood: screen.Alarm, Chosen: true}, {Mood: screen.Alarm}})
	if want := "a\n\x1b[1;31;7mb\x1b[m\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNames: what has to be typed is what is shown, and never nothing.
func TestNames(t *testing.T) {
	for name, typed := range map[string]string{"": "yes", "a  b": "a b", "we\x00b": "we?b", strings.Repeat("\u65e5", 80): strings.Repeat("\u65e5", 80)} {
		s := vm("web", 5, failback.Deciding, failback.Failback)
		s.Spec.VM = name
		r := newRig(t, board(s))
		r.keys("c", "enter", "enter")
		if r.end(); len(r.asked) > 0 {
			t.Errorf("%q: Enter alone is asked of the daemon: %v", name, r.asked)
		}
		r.keys(typed, "enter")
		if r.end(); len(r.asked) != 1 {
			t.Errorf("%q: %q was typed, and nothing was asked:\n%s", name, typed, r.seen())
		}
	}
}

// TestOtherFacts: what was typed of other facts than those that stand there now is
// no answer, and of another halt there is no question any more.
func TestOtherFacts(t *testing.T) {
	standing := func(downtime time.Duration) *failback.Status {
		s := vm("web", 5, failback.Standing, failback.ReadyToSwitch)
		s.Forecast.Downtime = downtime
		return s
	}
	r := newRig(t, board(standing(time.Minute)))
	r.keys("s", "yes")
	r.send(Board(board(standing(5 * time.Hour))))
	r.sees("5h00m", "read it again")
	r.keys("enter")
	if r.end(); len(r.asked) > 0 {
		t.Errorf("asked %v", r.asked)
	}
	r.keys("yes", "enter")
	if r.end(); len(r.asked) != 1 {
		t.Errorf("asked %v", r.asked)
	}
	halted := func(step string) *failback.Status {
		s := vm("web", 5, failback.Syncing, failback.Failover)
		s.Halted = &failback.Halt{Step: step, Number: 3, Text: step + " failed", Remedy: "mend " + step}
		return s
	}
	r = newRig(t, board(halted("lock")))
	r.keys("r", "yes")
	r.send(Board(board(halted("pass-2"))))
	r.sees("Nothing was done", "has changed while you were asked")
}

// TestUnknown: a verb without an answer is not said to be not done.
func TestUnknown(t *testing.T) {
	r := newRig(t, deciding(5))
	r.answer = ErrUnknown
	r.keys("c", "web", "enter")
	if text := r.m.Unanswered(); !strings.Contains(text, "commit of web") {
		t.Errorf("who leaves now is told %q", text)
	}
	r.end()
	r.sees("NOT KNOWN")
	if strings.Contains(r.seen(), "NOT done") || r.m.Unanswered() != "" {
		t.Errorf("%q, %s", r.m.Unanswered(), r.seen())
	}
}
