package wire

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable reports whether p is UTF-8 without control characters, so that a
// peer's text can neither break a log line nor move a terminal's cursor
// (reliability rule C15).
func printable(p []byte) bool {
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if (r == utf8.RuneError && n == 1) || !unicode.IsPrint(r) {
			return false
		}
		p = p[n:]
	}
	return true
}

// clean makes s fit for a text field: printable and at most maxText bytes.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

func appendText(b []byte, s string) []byte {
	s = clean(s)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// Type implements Frame.
func (e *Error) Type() Type { return TypeError }

func (e *Error) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(e.Code))
	return appendText(b, e.Text)
}

func (e *Error) parseBody(b []byte) error {
	f := fields{b: b}
	e.Code, e.Text, e.Remote = Code(f.u16()), f.text(), true
	return f.done(TypeError)
}

func parseError(b []byte) error {
	e := new(Error)
	if err := e.parseBody(b); err != nil {
		return err
	}
	return e
}

// AsError gives err the form in which it crosses the wire: the *Error in its
// chain, or code with err's text.
func AsError(err error, code Code) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Code: e.Code, Text: err.Error(), Err: err, Remote: e.Remote}
	}
	if errors.Is(err, ErrFrame) {
		code = CodeFrame
	}
	return &Error{Code: code, Text: err.Error(), Err: err}
}
