package status

import (
	"errors"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/haulback/haulback/cmd/internal/screen"
)

// Request is what an operator has confirmed.
type Request struct {
	Verb Verb
	Item screen.Item // as it was shown last: its revision is the one that is expected
}

// Verb is screen.Verb.
type Verb = screen.Verb

// Doer has the daemon do it, and answers in one line what it came to.
type Doer func(r Request) (said string, err error)

// ErrUnknown is in the error of a Doer that has asked and does not know what became
// of it: the daemon may have done it.
var ErrUnknown = errors.New("whether it was done is NOT KNOWN")

// Board is the message with all that is known, newer than the one before.
type Board screen.Board

// done is the answer to a Request.
type done struct {
	request Request
	said    string
	err     error
}

// tick puts the times right that pass by themselves.
type tick time.Time

// Model implements tea.Model. It is for one goroutine, as Bubble Tea has it.
type Model struct {
	do     Doer
	now    func() time.Time
	board  screen.Board
	window screen.Window
	asked  *Request // of window.Ask
	busy   *Request // is on its way
	moved  bool     // a key was pressed: the chosen row stays what it is
}

// New is a model that shows nothing yet.
func New(do Doer, board screen.Board, ascii bool) *Model {
	m := &Model{do: do, now: time.Now, window: screen.Window{ASCII: ascii}}
	m.take(board)
	return m
}

// every is how often times that pass are drawn anew.
const every = time.Second

func again() tea.Cmd { return tea.Tick(every, func(t time.Time) tea.Msg { return tick(t) }) }

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd { return again() }

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.window.Width, m.window.Height = msg.Width, msg.Height
	case Board:
		m.take(screen.Board(msg))
	case tick:
		return m, again()
	case done:
		m.answered(msg)
	case tea.PasteMsg:
		m.typed(msg.Content)
	case tea.KeyPressMsg:
		return m, m.key(msg)
	}
	return m, nil
}

// View implements tea.Model.
func (m *Model) View() tea.View {
	v := tea.NewView(paint(m.board.Draw(&m.window, m.now())))
	v.AltScreen = true
	return v
}

// paint colours rows. The renderer leaves colours out where they are not wanted.
func paint(lines []screen.Line) string {
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		var codes []string
		if code := [...]string{screen.Title: "1", screen.Alarm: "1;31", screen.Word: "33", screen.Good: "32", screen.Faint: "2"}[line.Mood]; code != "" {
			codes = append(codes, code)
		}
		if line.Chosen {
			codes = append(codes, "7")
		}
		if len(codes) == 0 || line.Text == "" {
			b.WriteString(line.Text)
			continue
		}
		b.WriteString("\x1b[" + strings.Join(codes, ";") + "m" + line.Text + "\x1b[m")
	}
	return b.String()
}

// items are the rows as they are drawn.
func (m *Model) items() []screen.Item { return m.board.Items(m.window.Filter, m.board.Now(m.now())) }

// place is where the chosen item stands among list, or -1.
func (m *Model) place(list []screen.Item) int {
	for i, it := range list {
		if it.Key() == m.window.Chosen {
			return i
		}
	}
	return -1
}

// take shows another board. The chosen item stays chosen wherever it moves to;
// one that is gone leaves its place to a neighbour.
func (m *Model) take(b screen.Board) {
	before := m.place(m.items())
	m.board = b
	list := m.items()
	switch {
	case !m.moved:
		m.choose(list, 0)
	case m.place(list) < 0:
		m.window.Open, m.window.Scroll = false, 0
		m.choose(list, max(before, 0))
	}
	m.outdated()
}

// choose makes the row at i the one that keys are about.
func (m *Model) choose(list []screen.Item, i int) {
	m.window.Chosen = ""
	if len(list) > 0 {
		m.window.Chosen = list[min(max(i, 0), len(list)-1)].Key()
	}
}

// outdated takes back a question about something that is not so any more.
func (m *Model) outdated() {
	if m.asked == nil {
		return
	}
	shown := m.asked.Item
	now, there := m.board.Find(shown.Key())
	switch {
	case m.board.Daemon.Lost != nil:
		m.drop("the daemon does not answer any more")
	case !there:
		m.drop("it is gone")
	case !now.SamePlace(shown):
		m.drop("it has changed while you were asked: " + now.Sentence(m.now()))
	default: // the same place at a newer revision; what is said of it may be another thing
		m.asked.Item = now
		q := now.Ask(m.asked.Verb)
		if !slices.Equal(q.Facts, m.window.Ask.Facts) {
			m.window.Typed = ""
			m.say(screen.Word, "What it does has changed meanwhile: read it again.")
		}
		m.window.Ask = &q
	}
}

// close takes the question away.
func (m *Model) close() { m.asked, m.window.Ask, m.window.Typed = nil, nil, "" }

// drop takes the question away under the hands of somebody who types. What he
// types on is not taken for keys before he has read why.
func (m *Model) drop(why string) {
	why = string(m.asked.Verb) + " of " + m.asked.Item.Name() + ": " + why
	m.close()
	m.window.Ask = &screen.Question{Title: "Nothing was done", Facts: []string{why}}
	m.say(screen.Alarm, why)
}

func (m *Model) say(mood screen.Mood, text string) {
	m.window.Said = screen.Line{Text: text, Mood: mood}
}

// start asks before a verb, or says why there is nothing to ask.
func (m *Model) start(k screen.Key) {
	list := m.items()
	i := m.place(list)
	if i < 0 {
		m.say(screen.Word, k.Key+": no row is chosen")
		return
	}
	it := list[i]
	verb := k.Verb(it)
	switch why := it.Refuses(verb); {
	case m.board.Daemon.Lost != nil:
		m.say(screen.Alarm, string(verb)+": the daemon does not answer; nothing was done")
	case m.busy != nil:
		m.say(screen.Word, string(verb)+": "+string(m.busy.Verb)+" of "+m.busy.Item.Name()+" is on its way; wait for its answer")
	case why != "":
		m.say(screen.Word, string(verb)+": "+why)
	default:
		q := it.Ask(verb)
		m.asked, m.window.Ask, m.window.Typed, m.window.Said = &Request{verb, it}, &q, "", screen.Line{}
	}
}

// confirmed does what was asked, once.
func (m *Model) confirmed() tea.Cmd {
	if !m.window.Fits(m.window.Ask) {
		m.say(screen.Alarm, "make the terminal larger: what was not read is not confirmed")
		return nil
	}
	r := *m.asked
	m.close()
	m.busy = &r
	m.say(screen.Word, string(r.Verb)+" of "+r.Item.Name()+": the daemon is asked ...")
	return func() tea.Msg {
		said, err := m.do(r)
		return done{r, said, err}
	}
}

func (m *Model) answered(d done) {
	m.busy = nil
	head := string(d.request.Verb) + " of " + d.request.Item.Name() + ": "
	switch {
	case errors.Is(d.err, ErrUnknown):
		m.say(screen.Alarm, head+d.err.Error())
	case d.err != nil:
		m.say(screen.Alarm, head+"NOT done: "+d.err.Error())
	default:
		m.say(screen.Good, head+d.said)
	}
}

// Unanswered says what was confirmed and has no answer yet, for who leaves now;
// empty: nothing.
func (m *Model) Unanswered() string {
	if m.busy == nil {
		return ""
	}
	return string(m.busy.Verb) + " of " + m.busy.Item.Name() + ": left before the daemon answered; " + ErrUnknown.Error()
}
