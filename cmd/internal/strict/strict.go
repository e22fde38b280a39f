// Package strict decodes TOML files and refuses what it does not know: a
// misspelt key would otherwise be a setting that silently does nothing.
//
// What it says of a file shows the line and points at the key, but for what
// looks like a secret: a password in a file that has no place for one is a
// mistake, and mistakes are printed and logged.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Decode reads text, the contents of file, into v, and says where each key
// stands. Its error has every key that is unknown or of the wrong type, as a
// Mistake each; of mistakes in the syntax the first.
func Decode(file string, text []byte, v any) (Places, error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // some editors begin a file with it
	var tree map[string]any
	if err := Part(file, text, &tree); err != nil {
		return nil, err
	}
	places := index(file, text)
	d := decoder{places: places, file: file}
	d.table("", tree, reflect.TypeOf(v).Elem())
	if err := d.err(); err != nil {
		return places, err
	}
	return places, Part(file, text, v)
}

// Part reads of text, the contents of file, what v has keys for, whatever else
// stands there.
func Part(file string, text []byte, v any) error {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if err := toml.Unmarshal(text, v); err != nil {
		return syntax(file, text, err)
	}
	return nil
}

// syntax is what the parser says of text.
func syntax(file string, text []byte, err error) error {
	de, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return fmt.Errorf("%s: %w", file, err)
	}
	line, column := de.Position()
	p := Place{File: file, Line: line, Column: column, Width: 1}
	lines := strings.Split(string(text), "\n")
	if before := strings.Join(lines[:line-1], "\n"); strings.Count(before, `"""`)%2 == 0 && strings.Count(before, "'''")%2 == 0 {
		p.Text = lines[line-1] // else it is part of a text, which may be a secret
	}
	what := "not TOML: " + strings.TrimPrefix(de.Error(), "toml: ")
	return p.mistake(strings.Join(de.Key(), "."), errors.New(what))
}

// Mistake is one thing that is wrong with a file.
type Mistake struct {
	File         string
	Line, Column int    // from 1; 0: not known
	Key          string // dotted, or empty
	Err          error
	Place        string // the line with a caret, or empty
}

// Error has everything.
func (m *Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.File)
	for _, n := range []int{m.Line, m.Column} {
		if n > 0 {
			fmt.Fprintf(&b, ":%d", n)
		}
	}
	fmt.Fprintf(&b, ": %v", m.Err)
	if m.Place != "" {
		b.WriteString("\n" + m.Place)
	}
	return b.String()
}

// Unwrap is what is wrong, without the place.
func (m *Mistake) Unwrap() error { return m.Err }

// Mistakes are all that err has joined. What has no place in a file is a Mistake
// without one.
func Mistakes(err error) (list []*Mistake) {
	if m, ok := err.(*Mistake); ok {
		return []*Mistake{m}
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, Mistakes(e)...)
		}
		return list
	}
	if one := errors.Unwrap(err); one != nil {
		if list := Mistakes(one); len(list) > 1 || len(list) == 1 && list[0].File != "" {
			return list
		}
	}
	if err == nil {
		return nil
	}
	return []*Mistake{{Err: err}}
}
