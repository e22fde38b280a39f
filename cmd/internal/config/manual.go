package config

import (
	"fmt"
	"reflect"
	"strings"
)

const manualHead = `# Every key of the configuration

Written by "haulback config schema --markdown >docs/configuration.md". How the
files are read, checked and shown: [operation.md](operation.md#configure).

A text stands in quotes, a number and true or false without. Sizes are a whole number
and a unit of 1024s: "B", "KiB", "MiB", "GiB", "TiB". Times are numbers with units:
"100us", "20ms", "30s", "5m", "1h30m".
`

// Manual is docs/configuration.md: every key, table by table.
func Manual() string {
	var b strings.Builder
	b.WriteString(manualHead)
	types := map[string]reflect.Type{"": reflect.TypeFor[file]()}
	for _, t := range tables {
		head := "The top of the file"
		if t.name != "" {
			types[t.name], head = tableType(types, t.name)
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s SIGHUP: %s.\n\n| key | type | default | range | effect |\n|---|---|---|---|---|\n", head, t.effect, t.reload)
		for _, k := range t.keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.path, typeText(fieldOf(types[t.name], k.path)), k.defaultText(), k.rangeText(), k.effect)
		}
	}
	return b.String()
}

// tableType is the struct of a table and its heading. The table that it is in stands
// before it.
func tableType(types map[string]reflect.Type, name string) (t reflect.Type, head string) {
	parent, last, head := "", name, "["+name+"]"
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		parent, last = name[:i], name[i+1:]
	}
	t = fieldOf(types[parent], last)
	if t.Kind() == reflect.Slice {
		head = "[" + head + "]"
	}
	if t.Kind() != reflect.Struct {
		t = t.Elem()
	}
	return t, head
}

// fieldOf is the type of the field of t that is a key.
func fieldOf(t reflect.Type, key string) reflect.Type {
	for i := range t.NumField() {
		if tag(t.Field(i)) == key {
			return t.Field(i).Type
		}
	}
	panic("config: the key " + key + " is described and is none")
}

func typeText(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeText(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "number"
	case reflect.Slice:
		return "list"
	case reflect.Map:
		return "table of texts"
	}
	return "text"
}

func (k *key) defaultText() string {
	if k.def != nil {
		return "`" + valueText(k.def) + "`"
	}
	if k.required {
		return "**required**"
	}
	return k.defText
}

// rangeText has the values in code, and what is in words already as it is.
func (k *key) rangeText() string {
	var parts []string
	for _, v := range k.enum {
		parts = append(parts, "`"+v+"`")
	}
	if parts != nil {
		return strings.Join(parts, ", ")
	}
	text := k.bounds()
	if k.example != nil {
		text += ", as in `" + valueText(k.example) + "`"
	}
	return strings.ReplaceAll(text, "|", "\\|")
}

// valueText is a value as it stands in a file.
func valueText(v any) string {
	text, err := assignment("x", v)
	if err != nil {
		panic(err) // of a value in tables
	}
	text = strings.TrimPrefix(text, "x = ")
	return strings.ReplaceAll(text, "'", `"`)
}
