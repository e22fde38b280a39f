package screen

import (
	"strings"
	"unicode"
)

// labels is the width of the column that names a row.
const labels = 11

// page collects lines of a width.
type page struct {
	width int
	b     strings.Builder
}

// narrow is the least that a screen is made for.
const narrow = 40

func newPage(width int) *page { return &page{width: max(width, narrow)} }

// say writes text with its first line after first, the rest below it.
func (p *page) say(first, text string) {
	rest := strings.Repeat(" ", columns(first))
	for _, line := range wrap(text, p.width-len(rest)) {
		p.line(first + line)
		first = rest
	}
}

// line writes one as it is: a command, or what has been cut.
func (p *page) line(text string) {
	p.b.WriteString(strings.TrimRight(text, " "))
	p.b.WriteByte('\n')
}

// row writes a named row; one without text is left out.
func (p *page) row(name, text string) {
	if text != "" {
		p.say("  "+pad(name, labels), text)
	}
}

// head begins a section.
func (p *page) head(text string) {
	p.line("")
	p.line(text)
}

// commands ends a screen.
func (p *page) commands(list []Command) {
	if len(list) == 0 {
		return
	}
	p.head("Type next")
	for _, c := range list {
		if c.Line == "" {
			p.say("  ", c.Why)
			continue
		}
		p.line("  " + c.Line)
		p.say("      ", c.Why)
	}
}

func (p *page) String() string { return p.b.String() }

// maxMarks is how many combining marks one character of a language has.
const maxMarks = 4

// clean makes what others have said fit to print, on one line.
func clean(s string) string {
	marks := 0
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if marks++; !unicode.Is(unicode.Mn, r) {
			marks = 0
		}
		switch {
		case marks > maxMarks: // they take no room, and are no end
			return -1
		case unicode.IsSpace(r):
			return ' '
		case unicode.In(r, unicode.Variation_Selector, unicode.Me): // makes the character before it wider, for some terminals
			return -1
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)), " ")
}

// wide are the scripts whose characters take two columns of a terminal.
var wide = []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul}

// runeColumns is what a character takes; terminals agree on the usual ones.
func runeColumns(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r):
		return 0
	case r >= 0x1f1e6 && r <= 0x1f1ff: // half a flag, which terminals draw as wide as a whole one
		return 2
	case r >= 0x1100 && (unicode.In(r, wide...) || r >= 0x3000 && r <= 0x303e || r >= 0xff01 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1faff):
		return 2
	}
	return 1
}

func columns(s string) (n int) {
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

// cut is what of s fits into width columns.
func cut(s string, width int) string {
	n := 0
	for i, r := range s {
		if n += runeColumns(r); n > width {
			return s[:i]
		}
	}
	return s
}

// clip is cut, and says that something is missing.
func clip(s string, width int) string {
	switch {
	case columns(s) <= width:
		return s
	case width < 1:
		return ""
	}
	return cut(s, width-1) + "…"
}

// pad fills s up to width columns; one that is longer gets one blank.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-columns(s), 1))
}

// wrap breaks text at blanks into lines of width columns. A word that is longer
// is broken: it is a path, and it has to be seen whole.
func wrap(text string, width int) []string {
	width = max(width, 10)
	var lines []string
	text = clean(text)
	line, used := "", 0 // line is always what text begins with
	for rest := text; rest != ""; {
		word, after, _ := strings.Cut(rest, " ")
		n := columns(word)
		switch {
		case line == "":
			line, used = word, n
		case used+1+n <= width:
			line, used = text[:len(line)+1+len(word)], used+1+n
		default:
			lines, text = append(lines, line), rest
			line, used = word, n
		}
		for used > width {
			head := cut(line, width)
			lines, text = append(lines, head), text[len(head):]
			line, used = line[len(head):], used-columns(head)
		}
		rest = after
	}
	return append(lines, line)
}

// Wrap breaks each line of text at a width.
func Wrap(text string, width int) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, wrap(line, width)...)
	}
	return strings.Join(lines, "\n")
}
