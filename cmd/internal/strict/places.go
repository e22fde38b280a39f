package strict

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Place is where a key stands.
type Place struct {
	File         string
	Line, Column int    // from 1
	Width        int    // of the key, in bytes
	Text         string // the line
}

// String is "file:line".
func (p Place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// mistake is err, at p.
func (p Place) mistake(key string, err error) *Mistake {
	m := &Mistake{File: p.File, Line: p.Line, Column: p.Column, Key: key, Err: err}
	if p.Text == "" {
		return m
	}
	number := fmt.Sprint(p.Line)
	indent := strings.Map(func(r rune) rune { // as wide as what stands above it
		if r == '\t' {
			return r
		}
		return ' '
	}, p.Text[:min(p.Column-1, len(p.Text))])
	m.Place = fmt.Sprintf("%s| %s\n%s| %s%s", number, hush(strings.TrimRight(p.Text, "\r")), strings.Repeat(" ", len(number)), indent, strings.Repeat("~", p.Width))
	return m
}

// Places knows where each key of a TOML document stands, or of several that are
// read as one, for the mistakes that show only when the values are looked at
// together. The n-th (from 0) table of an array of tables is "name[n]", its key
// "name[n].key", whether it is written as a table or in braces.
type Places map[string]Place

// index finds the places in text, which the parser has accepted.
func index(file string, text []byte) Places {
	x := indexer{file: file, lines: strings.Split(string(text), "\n"), places: Places{}, counts: map[string]int{}}
	table := ""
	x.p.Reset(text)
	for x.p.NextExpression() {
		e := x.p.Expression()
		parts, at := x.keyOf(e)
		switch e.Kind {
		case unstable.Table:
			name := x.name(parts)
			x.places[name], table = at, name+"."
		case unstable.ArrayTable:
			name := x.name(parts[:len(parts)-1])
			if name != "" {
				name += "."
			}
			name += parts[len(parts)-1]
			n := x.counts[name]
			x.counts[name]++
			name = fmt.Sprintf("%s[%d]", name, n)
			x.places[name], table = at, name+"."
		case unstable.KeyValue:
			x.value(table+strings.Join(parts, "."), at, e.Value())
		}
	}
	return x.places
}

type indexer struct {
	file   string
	lines  []string
	p      unstable.Parser
	places Places
	counts map[string]int // of the tables of each array
}

// name is the name of a table: where a part of it is an array of tables, its
// last one is meant.
func (x *indexer) name(parts []string) string {
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
func (x *indexer) value(name string, at Place, v *unstable.Node) {
	x.places[name] = at
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
				x.value(fmt.Sprintf("%s[%d]", name, n), at, e)
				n++
			}
		}
	}
}

// keyOf is the key of an expression and its place.
func (x *indexer) keyOf(e *unstable.Node) (parts []string, at Place) {
	for it := e.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
		shape := x.p.Shape(it.Node().Raw)
		if at.Line == 0 {
			at = Place{File: x.file, Line: shape.Start.Line, Column: shape.Start.Column, Text: x.lines[shape.Start.Line-1]}
		}
		at.Width = shape.End.Column - at.Column
	}
	return parts, at
}

// find is where key stands, or the table that lacks it, or what stands first in a
// table that has no line of its own, as a in [a.b].
func (p Places) find(key string) (at Place, found bool) {
	for above := key; ; {
		if at, ok := p[above]; ok {
			return at, true
		}
		i := strings.LastIndexByte(above, '.')
		if i < 0 {
			break
		}
		above = above[:i]
	}
	for below, place := range p {
		if strings.HasPrefix(below, key+".") && (!found || cmp.Or(cmp.Compare(place.Line, at.Line), cmp.Compare(place.Column, at.Column)) < 0) {
			at, found = place, true
		}
	}
	return at, found
}

// Wrong is the mistake in the value of key, or in the table that lacks it. Where
// neither stands, the file has it as a whole.
func (p Places) Wrong(file, key string, err error) *Mistake {
	if at, ok := p.find(key); ok {
		return at.mistake(key, err)
	}
	return &Mistake{File: file, Key: key, Err: err}
}

// Secret is Wrong for a value that has a secret: none of it is shown.
func (p Places) Secret(file, key string, err error) *Mistake {
	at, ok := p.find(key)
	if !ok {
		return p.Wrong(file, key, err)
	}
	at.Text = at.Text[:min(at.Column-1+at.Width, len(at.Text))] + " = " + Hidden
	return at.mistake(key, err)
}

// At is "file:line" of key, or of the table that lacks it.
func (p Places) At(file, key string) string {
	if at, ok := p.find(key); ok {
		return at.String()
	}
	return file
}

var element = regexp.MustCompile(`\[\d+\]`)

// Bare is a key without the numbers of its tables.
func Bare(key string) string { return element.ReplaceAllString(key, "") }
