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

// clean makes what others have said fit to print, on one line.
func clean(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
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

// pad fills s up to width columns; one that is longer gets one blank.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-columns(s), 1))
}

// wrap breaks text at blanks into lines of width columns. A word that is longer
// is broken: it is a path, and it has to be seen whole.
func wrap(text string, width int) []string {
	width = max(width, 10)
	var lines []string
	line := ""
	for _, word := range strings.Fields(clean(text)) {
		switch {
		case line == "":
			line = word
		case columns(line)+1+columns(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
		for columns(line) > width {
			head := cut(line, width)
			lines, line = append(lines, head), line[len(head):]
		}
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
