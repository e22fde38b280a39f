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
	return fmt.Errorf("%s:%d:%d: %s%s\n%s", file, line, column, what, key, de.String())
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
