package hostctl

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds what is kept of one text of a host, in bytes.
const maxText = 500

// Clean is a host's text as one line that a terminal or a log can show: control
// characters, also those that turn the direction of writing, become blanks.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return ' '
		}
		return r
	}, s)
	return Cut(strings.TrimSpace(s))
}

// Cut keeps s within 500 bytes, at a rune.
func Cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
