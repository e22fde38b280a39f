// Package strict decodes TOML files and refuses what it does not know: a
// misspelt key would otherwise be a setting that silently does nothing.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Decode reads text, the contents of file, into v. Its error has, for each
// mistake, the file, line, column and key, and shows the place with a caret.
func Decode(file string, text []byte, v any) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(v)
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var list []error
		for i := range missing.Errors {
			list = append(list, explain(file, "unknown key", &missing.Errors[i]))
		}
		return errors.Join(list...)
	}
	if de, ok := errors.AsType[*toml.DecodeError](err); ok {
		return explain(file, strings.TrimPrefix(de.Error(), "toml: "), de)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func explain(file, what string, de *toml.DecodeError) error {
	line, column := de.Position()
	key := ""
	if k := de.Key(); len(k) > 0 {
		key = " " + strings.Join(k, ".")
	}
	return &Mistake{File: file, Line: line, Column: column, Key: strings.Join(de.Key(), "."), Err: errors.New(what + key), Place: de.String()}
}

// Mistake is one thing that is wrong with a file.
type Mistake struct {
	File         string
	Line, Column int    // from 1; 0: not known
	Key          string // dotted, or empty
	Err          error
	Place        string // the lines around it with a caret, or empty
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

// Places knows the line of each key of a TOML document, for the mistakes that
// show only when the values are looked at together.
type Places map[string]int

// Index finds the places in text, which Decode has accepted. The n-th (from 0)
// table of an array of tables is "name[n]", its key "name[n].key".
func Index(text []byte) Places {
	places, counts, table := Places{}, map[string]int{}, ""
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		name, line := keyOf(&p, e)
		switch e.Kind {
		case unstable.Table:
			table = name + "."
		case unstable.ArrayTable:
			name = fmt.Sprintf("%s[%d]", name, counts[name])
			counts[name[:strings.LastIndexByte(name, '[')]]++
			table = name + "."
		case unstable.KeyValue:
			name = table + name
		}
		places[name] = line
	}
	return places
}

// keyOf is the dotted key of an expression and its line.
func keyOf(p *unstable.Parser, e *unstable.Node) (string, int) {
	var parts []string
	line := 0
	for it := e.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
		if line == 0 {
			line = p.Shape(it.Node().Raw).Start.Line
		}
	}
	return strings.Join(parts, "."), line
}

// Wrong is the mistake in the value of key, or in the table that lacks it.
func (p Places) Wrong(file, key string, err error) error {
	m := &Mistake{File: file, Key: key, Err: err}
	for at := key; m.Line == 0; {
		m.Line = p[at]
		i := strings.LastIndexByte(at, '.')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	return m
}

// At is "file:line" of key, or of the table that lacks it.
func (p Places) At(file, key string) string {
	for {
		if line := p[key]; line > 0 {
			return fmt.Sprintf("%s:%d", file, line)
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return file
		}
		key = key[:i]
	}
}
