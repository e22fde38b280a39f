package status

import (
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/haulback/haulback/cmd/internal/screen"
)

// key does what a key means where it was pressed.
func (m *Model) key(k tea.KeyPressMsg) tea.Cmd {
	m.moved = true
	switch word := k.String(); {
	case word == "ctrl+c":
		return tea.Quit
	case word == "ctrl+z":
		return tea.Suspend
	case m.window.Ask != nil:
		return m.answer(k)
	case m.window.Help:
		if word == "q" {
			return tea.Quit
		}
		if !m.scroll(word) {
			m.window.Help, m.window.Scroll = false, 0
		}
		return nil
	default:
		return m.command(word)
	}
}

// answer is a key while somebody is asked, or told.
func (m *Model) answer(k tea.KeyPressMsg) tea.Cmd {
	q := m.window.Ask
	switch word := k.String(); {
	case m.asked == nil: // letters may still come that were meant for the question
		if word == "enter" || word == "esc" {
			m.window.Ask = nil
		}
	case word == "esc":
		m.say(screen.Plain, string(m.asked.Verb)+": nothing was done")
		m.close()
	case word == "enter" && q.Answers(m.window.Typed):
		return m.confirmed()
	case word == "enter":
		m.window.Typed = ""
		m.say(screen.Word, "Type "+q.Type+"; nothing was done.")
	case word == "backspace":
		_, n := utf8.DecodeLastRuneInString(m.window.Typed)
		m.window.Typed = m.window.Typed[:len(m.window.Typed)-n]
	case word == "ctrl+u":
		m.window.Typed = ""
	default:
		m.typed(k.Text)
	}
	return nil
}

// maxTyped is more than a VM's name has: 80 characters, of up to four bytes and
// with marks.
const maxTyped = 1024

// typed adds to the answer, where one is typed.
func (m *Model) typed(text string) {
	if m.asked != nil && len(m.window.Typed)+len(text) <= maxTyped {
		m.window.Typed += text
	}
}

// command is a key over the list or the details.
func (m *Model) command(word string) tea.Cmd {
	if m.busy == nil {
		m.window.Said = screen.Line{}
	}
	switch word {
	case "q":
		return tea.Quit
	case "esc":
		if !m.window.Open {
			return tea.Quit
		}
		m.window.Open = false
	case "?":
		m.window.Help, m.window.Scroll = true, 0
	case "enter":
		m.window.Open, m.window.Scroll = !m.window.Open && m.window.Chosen != "", 0
	case "tab":
		m.window.Filter, m.window.Open, m.window.Top = m.window.Filter.Next(), false, 0
		if list := m.items(); m.place(list) < 0 {
			m.choose(list, 0)
		}
	default:
		for _, k := range screen.Keys {
			if k.Key == word {
				m.start(k)
				return nil
			}
		}
		m.scroll(word)
	}
	return nil
}

// scroll moves among rows, or lines where there are some, and reports whether
// the key is one that moves.
func (m *Model) scroll(word string) bool {
	page := max(m.window.Height/2, 1)
	by, known := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -page, "pgdown": page, "home": -far, "end": far}[word]
	switch {
	case !known:
		return false
	case m.window.Open || m.window.Help:
		m.window.Scroll = max(m.window.Scroll+by, 0) // Draw knows where it ends
	default:
		list := m.items()
		m.choose(list, m.place(list)+by)
	}
	return true
}

// far is more rows than there are.
const far = 1 << 30
