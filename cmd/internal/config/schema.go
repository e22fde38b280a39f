package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Schema is the JSON Schema (2020-12) of a configuration file or a drop-in, for
// editors and for who makes such files by program. What depends on several keys at
// once, or on the machine, is for Check alone.
func Schema() ([]byte, error) {
	root := schemaOf("", reflect.TypeFor[file]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of haulbackd"
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(root)
	return b.Bytes(), err
}

// schemaOf is the schema of a table, whose struct is t.
func schemaOf(name string, t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for i := range t.NumField() {
		path := tag(t.Field(i))
		if name != "" {
			path = name + "." + path
		}
		field := t.Field(i).Type
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		switch k := described(path); {
		case k != nil:
			properties[k.path] = k.schema(field)
			if k.required {
				required = append(required, k.path)
			}
		case field.Kind() == reflect.Slice:
			properties[tag(t.Field(i))] = map[string]any{"type": "array", "items": schemaOf(path, field.Elem())}
		default:
			properties[tag(t.Field(i))] = schemaOf(path, field)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	for _, table := range tables {
		if table.name == name {
			s["description"] = plain(table.effect)
		}
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// schema is the schema of one key, whose field is a t.
func (k *key) schema(t reflect.Type) map[string]any {
	s := typeOf(t)
	text := k.effect
	if r := k.bounds(); r != "" && k.enum == nil {
		text += " Range: " + r + "."
	}
	if k.def != nil {
		s["default"] = k.def
	} else if k.defText != "" {
		text += " Default: " + k.defText + "."
	}
	s["description"] = plain(text)
	if k.example != nil {
		s["examples"] = []any{k.example}
	}
	one := s
	if t.Kind() == reflect.Slice {
		one = s["items"].(map[string]any)
	}
	if k.enum != nil {
		one["enum"] = k.enum
	}
	if p := patterns[k.form]; p != "" {
		one["pattern"] = p
	}
	if one["type"] == "integer" {
		for word, text := range map[string]string{"minimum": k.least, "maximum": k.most} {
			if n, err := strconv.Atoi(text); err == nil {
				one[word] = n
			}
		}
	}
	return s
}

// typeOf is the type of a value in the schema.
func typeOf(t reflect.Type) map[string]any {
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": typeOf(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": typeOf(t.Elem())}
	}
	return map[string]any{"type": []string{"string", "integer"}} // steps, by name or number
}

var link = regexp.MustCompile(`\[([^]]+)\]\([^)]+\)`)

// plain is Markdown without its signs.
func plain(text string) string {
	return strings.ReplaceAll(link.ReplaceAllString(text, "$1"), "`", "")
}
