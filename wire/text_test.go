package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTextField(t *testing.T) {
	long := strings.Repeat("ä", maxText/2)
	for _, tt := range []struct {
		text string
		ok   bool
	}{
		{"", true},
		{"vm1-disk0 at 10.0.0.1", true},
		{"Größe 東京 \u2713 \ufffd", true},
		{long, true},
		{long + "x", false},
		{"a\nb", false},
		{"\x00", false},
		{"\x1b[2J", false},
		{"\x7f", false},
		{"\u0085", false}, // C1 control
		{"\u202e", false}, // turns the line around
		{"\u200b", false}, // cannot be seen
		{"\u2028", false}, // ends a line in some viewers
		{"\xff", false},
		{"a\xc3", false},
		{"\xc0\x80", false},         // overlong zero
		{"\xed\xa0\x80", false},     // a surrogate
		{"\xf4\x90\x80\x80", false}, // beyond Unicode
		{strings.Repeat("\xbf", 3), false},
	} {
		body := append(binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(len(tt.text))), tt.text...)
		var e Error
		err := Parse(&e, body)
		if tt.ok && (err != nil || e.Text != tt.text) || !tt.ok && !errors.Is(err, ErrFrame) {
			t.Errorf("%q: %v", tt.text, err)
		}
		if !tt.ok && e.Text != "" {
			t.Errorf("%q is refused and given out all the same: %q", tt.text, e.Text)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"plain":                        "plain",
		"two\nlines\t\x1b[31m":         "two?lines??[31m",
		"\xff\xfe":                     "??",
		"\u202eevil":                   "?evil",
		strings.Repeat("a", 300):       strings.Repeat("a", maxText),
		strings.Repeat("ä", 300):       strings.Repeat("ä", maxText/2),
		"x" + strings.Repeat("ä", 300): "x" + strings.Repeat("ä", (maxText-1)/2),
		strings.Repeat("\xff", 300):    strings.Repeat("?", maxText),
	} {
		got := clean(in)
		if got != want || len(got) > maxText || !utf8.ValidString(got) || !printable([]byte(got)) {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestErrorCrosses sends what no text field may hold: it arrives as something
// that can be logged.
func TestErrorCrosses(t *testing.T) {
	for _, text := range []string{"a\nb", strings.Repeat("\x00", 1000), "\xff", "open /dev/sdb: \x1b[2J"} {
		b := AppendFrame(nil, Errorf(CodeOpen, "%s", text))
		_, _, err := NewReader(strings.NewReader(string(b)), MaxControlBody).Next()
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.Remote || e.Code != CodeOpen || !printable([]byte(e.Text)) || len(e.Text) > maxText {
			t.Errorf("%q arrives as %#v", text, err)
		}
	}
}

func TestErrorf(t *testing.T) {
	two := Errorf(CodeVersion, "%w: at x: %w", ErrVersion, io.ErrUnexpectedEOF)
	if !errors.Is(two, ErrVersion) || !errors.Is(two, io.ErrUnexpectedEOF) {
		t.Error("Errorf loses the causes when there are two")
	}
	one := Errorf(CodeRead, "read: %w", io.ErrUnexpectedEOF)
	if one.Err != io.ErrUnexpectedEOF || one.Text != "read: unexpected EOF" {
		t.Errorf("one cause: %#v", one)
	}
	if none := Errorf(CodeRead, "read"); none.Err != nil {
		t.Errorf("no cause: %#v", none)
	}
}

func TestAsError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code Code
	}{
		{io.EOF, CodeRead},
		{fmt.Errorf("x: %w", ErrFrame), CodeFrame},
		{fmt.Errorf("x: %w", Errorf(CodeFenced, "y")), CodeFenced},
	} {
		e := AsError(tt.err, CodeRead)
		if e.Code != tt.code || e.Text != tt.err.Error() || !errors.Is(e, tt.err) || e.Remote {
			t.Errorf("AsError(%v) = %#v", tt.err, e)
		}
	}
	if e := AsError(fmt.Errorf("x: %w", &Error{Code: CodeBusy, Remote: true}), CodeRead); !e.Remote || e.Code != CodeBusy {
		t.Errorf("the peer's word became ours: %#v", e)
	}
}

// TestCodes fails when a code or a state has no word, or a code has another's.
func TestCodes(t *testing.T) {
	if len(codeNames) != int(CodeSwitch)+1 || len(stateNames) != int(StatePoisoned)+1 {
		t.Error("a code or a state has no name")
	}
	seen := map[string]bool{}
	for _, n := range codeNames {
		if n == "" || seen[n] {
			t.Errorf("code name %q", n)
		}
		seen[n] = true
	}
	if s := Code(4711).String(); s != "code 4711" {
		t.Error(s)
	}
	if CodeUnreachable != 28 || CodeFenced != 11 || CodeBinding != 14 || CodeVerify != 24 {
		t.Error("a code was renumbered")
	}
}
