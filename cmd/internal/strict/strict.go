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
// table of an array of tables is "name[n]", its key "name[n].key", whether it is
// written as a table or in braces.
func Index(text []byte) Places {
	x := index{places: Places{}, counts: map[string]int{}}
	table := ""
	x.p.Reset(text)
	for x.p.NextExpression() {
		e := x.p.Expression()
		parts, line := x.keyOf(e)
		switch e.Kind {
		case unstable.Table:
			name := x.name(parts)
			x.places[name], table = line, name+"."
		case unstable.ArrayTable:
			name := x.name(parts[:len(parts)-1])
			if name != "" {
				name += "."
			}
			name += parts[len(parts)-1]
			n := x.counts[name]
			x.counts[name]++
			name = fmt.Sprintf("%s[%d]", name, n)
			x.places[name], table = line, name+"."
		case unstable.KeyValue:
			x.value(table+strings.Join(parts, "."), line, e.Value())
		}
	}
	return x.places
}

type index struct {
	p      unstable.Parser
	places Places
	counts map[string]int // of the tables of each array
}

// name is the name of a table: where a part of it is an array of tables, its
// last one is meant.
func (x *index) name(parts []string) string {
	name := ""
	for i, part := range parts {
		if i > 0 {
			name += "."
		}
		name += part
		if n := x.counts[name]; n > 0 {
			name = fmt.Sprintf("%s[%d]", name, n-1)
		}
	}
	return name
}

// value notes the place of a key and of the keys of the tables in braces that
// are its value.
func (x *index) value(name string, line int, v *unstable.Node) {
	x.places[name] = line
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if kv := it.Node(); kv.Kind == unstable.KeyValue {
				parts, at := x.keyOf(kv)
				x.value(name+"."+strings.Join(parts, "."), at, kv.Value())
			}
		}
	case unstable.Array:
		n := 0
		for it := v.Children(); it.Next(); {
			if e := it.Node(); e.Kind == unstable.InlineTable {
				x.value(fmt.Sprintf("%s[%d]", name, n), line, e)
				n++
			}
		}
	}
}

// keyOf is the key of an expression and its line.
func (x *index) keyOf(e *unstable.Node) (parts []string, line int) {
	for it := e.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
		if line == 0 {
			line = x.p.Shape(it.Node().Raw).Start.Line
		}
	}
	return parts, line
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
