package screen

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Window is how somebody looks at a board.
type Window struct {
	Width, Height int
	Filter        Filter
	Chosen        string    // the Key of the item that keys are about
	Top           int       // the first row of the list that is seen; Draw keeps the chosen one in sight
	Open          bool      // the chosen item has all of the screen
	Scroll        int       // lines of it that are above the screen
	Help          bool      // the keys are told
	Ask           *Question // somebody is asked
	Typed         string    // the answer so far
	Said          Line      // the answer to the last key
	ASCII         bool      // the terminal has no other characters
}

// The least that a board is drawn on.
const (
	LeastWidth  = 40
	LeastHeight = 10
)

// The fixed rows of a board: the head, the heads of list and details, the answer
// and the keys.
const (
	headRows = 3
	footRows = 2
)

// Draw makes the rows of a terminal: as many as it has at most, and none wider.
// It puts Top and Scroll of w right.
func (b *Board) Draw(w *Window, now time.Time) []Line {
	var out []Line
	if w.Width < LeastWidth || w.Height < LeastHeight {
		out = []Line{{Text: fmt.Sprintf("too small: %dx%d, needs %dx%d; Ctrl-C quits", w.Width, w.Height, LeastWidth, LeastHeight)}}
	} else {
		list := b.Items(w.Filter, b.Now(now))
		out = b.head(w, list, now)
		room := w.Height - headRows - footRows
		body := b.body(w, list, now, room)
		out = append(out, body[:min(len(body), room)]...)
		for len(out) < w.Height-footRows {
			out = append(out, Line{})
		}
		out = append(out, Line{Text: clean(w.Said.Text), Mood: w.Said.Mood}, b.keys(w, list))
	}
	for i := range out {
		out[i].Text = w.safe(out[i].Text)
	}
	return out[:min(len(out), max(w.Height, 0))]
}

// safe is the last thing that happens to a row: it fits, and whatever its parts
// have let pass, nothing in it speaks to the terminal.
func (w *Window) safe(text string) string {
	text = clip(strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError:
			return '?'
		case w.ASCII && runeColumns(r) == 0:
			return -1
		case w.ASCII && r >= 0x7f && r != '…':
			return '?'
		}
		return r
	}, text), max(w.Width, 0))
	if w.ASCII {
		text = strings.ReplaceAll(text, "…", "~")
	}
	return strings.TrimRight(text, " ")
}

// head says which daemon it is, whether it answers, and what there is to do.
func (b *Board) head(w *Window, list []Item, now time.Time) []Line {
	d := &b.Daemon
	clock := now.Local().Format("15:04:05")
	title := "haulback status  " + clean(d.Where)
	title = clip(title, w.Width-len(clock)-2)
	out := []Line{{Text: title + strings.Repeat(" ", max(w.Width-columns(title)-len(clock), 1)) + clock, Mood: Title}}
	if l := d.Lost; l != nil {
		text := fmt.Sprintf("CONNECTION LOST at %s, %s ago: what stands below is as it was then", l.Since.Local().Format("15:04:05"), Span(now.Sub(l.Since)))
		return append(out, Line{Text: text, Mood: Alarm}, Line{Text: "trying again; " + clean(l.Why), Mood: Alarm})
	}
	state := Line{Text: d.text(now)}
	if d.Draining {
		state.Mood = Word
	}
	return append(out, state, b.counts(w, list, now))
}

// text is the daemon in one line.
func (d *Daemon) text(now time.Time) string {
	state := "ready"
	if d.Draining {
		state = "DRAINING: takes no new work"
	}
	text := state + ", " + clean(d.Version)
	if !d.Started.IsZero() {
		text += ", up " + Span(now.Sub(d.Started))
	}
	if d.Controller {
		text += ", controller"
	}
	return text + fmt.Sprintf(", %s open, %s, %d disks at once", plural(d.Open, "job"), plural(d.Sessions, "session"), d.AtOnce)
}

// reading is said of a list that is not whole yet.
const reading = "the daemon is asked what there is ..."

// counts is how many rows are how urgent.
func (b *Board) counts(w *Window, list []Item, now time.Time) Line {
	var n [isOver + 1]int
	all := list
	if w.Filter != ShowAll {
		all = b.Items(ShowAll, now)
	}
	for _, it := range all {
		n[it.urgency()]++
	}
	out := Line{}
	var parts []string
	for u, text := range [...]string{"HALTED", "YOUR WORD", "SWITCHING", "FAILED", "at work", "in line", "ended"} {
		if n[u] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[u], text))
		}
	}
	switch out.Text = strings.Join(parts, ", "); {
	case b.Daemon.Reading:
		out.Text = strings.TrimPrefix(out.Text+"; "+reading, "; ")
	case out.Text == "":
		out.Text = "nothing to do"
	}
	switch {
	case n[standsStill]+n[hasFailed] > 0:
		out.Mood = Alarm
	case n[wantsYou] > 0:
		out.Mood = Word
	}
	if w.Filter != ShowAll {
		out.Text += fmt.Sprintf("; shown: %s (%d)", w.Filter, len(list))
	}
	return out
}

// body is what is between head and foot.
func (b *Board) body(w *Window, list []Item, now time.Time, room int) []Line {
	chosen := b.find(list, w.Chosen)
	switch {
	case w.Ask != nil:
		return w.asking(room)
	case w.Help:
		return b.scrolled(w, plainLines(helpText), room)
	case w.Open && chosen >= 0:
		return b.scrolled(w, plainLines(b.whole(list[chosen], b.Now(now), w.Width)), room)
	}
	return b.both(w, list, chosen, now, room)
}

func plainLines(text []string) (out []Line) {
	for _, line := range text {
		out = append(out, Line{Text: line})
	}
	return out
}

// find is where the item of a key stands, or -1.
func (b *Board) find(list []Item, key string) int {
	for i, it := range list {
		if it.Key() == key {
			return i
		}
	}
	return -1
}

// scrolled is the part of lines that is in sight; the last row says that there is more.
func (b *Board) scrolled(w *Window, lines []Line, room int) []Line {
	w.Scroll = max(min(w.Scroll, len(lines)-room+1), 0)
	if len(lines) <= room {
		w.Scroll = 0
		return lines
	}
	seen := append([]Line(nil), lines[w.Scroll:min(w.Scroll+room-1, len(lines))]...)
	return append(seen, Line{Text: fmt.Sprintf("-- lines %d to %d of %d; arrows move", w.Scroll+1, w.Scroll+len(seen), len(lines)), Mood: Faint})
}

// splitAt is the height from which the details have a place below the list.
const splitAt = 16

// both is the list, and below it what is chosen.
func (b *Board) both(w *Window, list []Item, chosen int, now time.Time, room int) []Line {
	if len(list) == 0 {
		text := "No job and no failback is known here."
		switch {
		case b.Daemon.Reading:
			text = reading
		case w.Filter != ShowAll:
			text = "Nothing of this kind; tab shows others."
		}
		return []Line{{}, {Text: "  " + text}}
	}
	n := names(list, w.Width)
	out := []Line{{Text: "       " + pad("NAME", n+2) + pad("STATE", stateWidth+1) + "WHAT IT DOES", Mood: Title}}
	rows := room - 1
	var details []string
	if w.Height >= splitAt && chosen >= 0 { // the details get what they need, but not most of the list's place
		rows = room - 2
		details = b.brief(list[chosen], b.Now(now), w.Width, rows-min(len(list), max(rows*2/5, 3)))
		rows = min(len(list), rows-len(details))
	}
	w.Top = max(min(w.Top, chosen, len(list)-rows), chosen-rows+1, 0)
	for i := w.Top; i < min(w.Top+rows, len(list)); i++ {
		out = append(out, b.row(list[i], b.Now(now), n, w.Width, i == chosen))
	}
	if len(details) == 0 {
		return out
	}
	rule := strings.Repeat("-", 3)
	if more := len(list) - rows; more > 0 {
		rule += fmt.Sprintf(" %d to %d of %d ", w.Top+1, w.Top+rows, len(list))
	}
	out = append(out, Line{Text: rule + strings.Repeat("-", max(w.Width-columns(rule), 0)), Mood: Faint})
	return append(out, plainLines(details)...)
}

// Fits reports whether a question is seen whole. What was not read is not
// confirmed.
func (w *Window) Fits(q *Question) bool {
	return w.Width >= LeastWidth && w.Height >= LeastHeight && len(w.questionLines(q)) <= w.Height-headRows-footRows
}

func (w *Window) questionLines(q *Question) []Line {
	out := []Line{{Text: q.Title, Mood: Title}}
	for _, fact := range q.Facts {
		for i, line := range wrap(fact, w.Width-4) {
			out = append(out, Line{Text: [2]string{"  - ", "    "}[min(i, 1)] + line})
		}
	}
	prompt := "Enter goes on"
	if q.Type != "" {
		prompt = "Type " + clean(q.Type) + " and Enter to do it, Esc leaves: " + clean(w.Typed) + "_"
	}
	for _, line := range wrap(prompt, w.Width) {
		out = append(out, Line{Text: line, Mood: Word})
	}
	return out
}

func (w *Window) asking(room int) []Line {
	out := w.questionLines(w.Ask)
	if len(out) > room {
		return append(out[:room-1:room-1], Line{Text: "make the terminal larger to read the rest; Esc leaves", Mood: Alarm})
	}
	if room-len(out) >= len(w.Ask.Facts)+1 { // air
		var airy []Line
		for i, line := range out {
			if i > 0 && !strings.HasPrefix(line.Text, "    ") {
				airy = append(airy, Line{})
			}
			airy = append(airy, line)
		}
		out = airy
	}
	return out
}

// helpText says the keys.
var helpText = []string{
	"  arrows, j k      the row above or below; in the details: a line",
	"  PgUp PgDn        a screen; Home End: the first, the last",
	"  Enter            all of the chosen row: passes, proof, steps; again: back",
	"  Tab              show all, what is open, what needs you, failbacks, jobs",
	"Of a failback; each asks first, and says what goes off and on and is lost",
	"  s                switch: the replica goes off, the rest comes home",
	"  c                commit: it works at home, keep it there",
	"  u                undo: it does not, the replica serves again",
	"  r                continue where it stands still, or another pass",
	"  x                cancel before it is home",
	"Of a job; each asks first",
	"  p   r   x        pause, resume, cancel for good",
	"",
	"  q, Esc, Ctrl-C   leave; whatever runs goes on. Ctrl-Z: for a while",
	"Before a row: ! stands still or has failed, ? waits for your word",
}

// keys are those that do something now.
func (b *Board) keys(w *Window, list []Item) Line {
	switch {
	case w.Ask != nil && w.Ask.Type != "":
		return Line{Text: "Enter do it  Esc leave, nothing is done", Mood: Faint}
	case w.Ask != nil:
		return Line{Text: "Enter go on", Mood: Faint}
	case w.Help:
		return Line{Text: "Esc back  q quit", Mood: Faint}
	}
	var parts []string
	if i := b.find(list, w.Chosen); i >= 0 && b.Daemon.Lost == nil {
		for _, k := range Keys {
			for _, v := range k.Verbs {
				if list[i].Refuses(v) == "" {
					parts = append(parts, k.Key+" "+string(v))
				}
			}
		}
	}
	if w.Open {
		parts = append(parts, "Enter back")
	} else {
		parts = append(parts, "Enter more", "Tab filter")
	}
	return Line{Text: strings.Join(append(parts, "? help", "q quit"), "  "), Mood: Faint}
}

// Key is a key and what it does, to a failback or to a job.
type Key struct {
	Key   string
	Verbs []Verb
}

// Keys are those that change something.
var Keys = []Key{{"s", []Verb{Switch}}, {"c", []Verb{Commit}}, {"u", []Verb{Undo}}, {"r", []Verb{Continue, Resume}}, {"p", []Verb{Pause}}, {"x", []Verb{Cancel}}}

// Verb is what a key does to the item, whether it may be done or not.
func (k Key) Verb(it Item) Verb {
	for _, v := range k.Verbs {
		if (v == Pause || v == Resume) == (it.Job != nil) {
			return v
		}
	}
	return k.Verbs[0]
}
