package strict

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// decoder holds a document against the type that it is to be read into. The
// library does it too, but it takes Listen for listen and [export] for [[export]],
// stops at the first wrong type, and names types of ours.
type decoder struct {
	file     string
	places   Places
	mistakes []*Mistake
}

// err is everything that is wrong, in the order of the file.
func (d *decoder) err() error {
	slices.SortStableFunc(d.mistakes, func(a, b *Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for _, m := range d.mistakes {
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

func (d *decoder) wrong(key, format string, args ...any) {
	d.mistakes = append(d.mistakes, d.places.Wrong(d.file, key, fmt.Errorf(format, args...)))
}

// table checks the keys of a table, which is to become a struct of type t.
func (d *decoder) table(prefix string, tree map[string]any, t reflect.Type) {
	fields := keysOf(t)
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if want, ok := fields[key]; ok {
			d.value(prefix+key, tree[key], want)
			continue
		}
		d.unknown(d.first(prefix+key, tree[key]), prefix, key, fields)
	}
}

// unknown tells a key that a table does not have. The value of one that is, or may
// be meant as, one for a secret is not shown.
func (d *decoder) unknown(at, prefix, key string, fields map[string]reflect.Type) {
	near := nearest(key, fields)
	m := d.places.Wrong(d.file, at, fmt.Errorf("unknown key %s%s", Bare(prefix+key), hint(key, near, Bare(prefix), fields)))
	if Secret(key) || strings.HasSuffix(near, "_file") {
		m = d.places.Secret(d.file, at, m.Err)
	}
	d.mistakes = append(d.mistakes, m)
}

// first is the name of key in Places: of an array of tables it is that of its
// first one.
func (d *decoder) first(key string, v any) string {
	if _, ok := d.places[key]; !ok {
		if _, ok := v.([]any); ok {
			return key + "[0]"
		}
	}
	return key
}

// value checks a value that is to become a t.
func (d *decoder) value(key string, v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch list, isList := v.([]any); {
	case t.Kind() == reflect.Struct:
		if tree, ok := v.(map[string]any); ok {
			d.table(key+".", tree, t)
			return
		}
	case t.Kind() == reflect.Map:
		if tree, ok := v.(map[string]any); ok {
			for _, k := range slices.Sorted(maps.Keys(tree)) {
				d.value(key+"."+k, tree[k], t.Elem())
			}
			return
		}
	case t.Kind() == reflect.Slice && isList:
		if i := slices.IndexFunc(list, func(e any) bool { return !fits(e, t.Elem()) }); i >= 0 {
			d.wrong(d.first(key, v), "%s: entry %d is %s; write %s", Bare(key), i+1, have(list[i]), kind(t, Bare(key)))
			return
		}
		if t.Elem().Kind() == reflect.Struct {
			for i, e := range list {
				d.table(fmt.Sprintf("%s[%d].", key, i), e.(map[string]any), t.Elem())
			}
		}
		return
	case fits(v, t):
		return
	}
	d.wrong(d.first(key, v), "%s: %s; write %s", Bare(key), have(v), kind(t, Bare(key)))
}

// fits reports whether v can become a t, which is no list or table of its own.
func fits(v any, t reflect.Type) bool {
	switch v.(type) {
	case string:
		return t.Kind() == reflect.String || t.Kind() == reflect.Interface
	case int64:
		return t.Kind() == reflect.Int || t.Kind() == reflect.Int32 || t.Kind() == reflect.Interface
	case bool:
		return t.Kind() == reflect.Bool || t.Kind() == reflect.Interface
	case map[string]any:
		return t.Kind() == reflect.Struct || t.Kind() == reflect.Interface
	}
	return t.Kind() == reflect.Interface
}

// have names what stands in a file, and kind what belongs there.
func have(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a point"
	case bool:
		return "true or false"
	case map[string]any:
		return "a table"
	case []any:
		return "a list"
	}
	return "a date or time"
}

func kind(t reflect.Type, key string) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int32:
		return "a whole number, without quotes"
	case reflect.Bool:
		return "true or false, without quotes"
	case reflect.Struct:
		return "a table, [" + key + "]"
	case reflect.Map:
		return "a table of texts, as in { name = \"text\" }"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "tables, each [[" + key + "]]"
		}
		return "a list of texts, as in [\"text\"]"
	}
	return "a text, in quotes"
}

// keysOf are the keys that a struct has, and their types.
func keysOf(t reflect.Type) map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("toml"), ","); name != "" && name != "-" {
			keys[name] = t.Field(i).Type
		}
	}
	return keys
}

// nearest is the key that may be meant with one that is unknown, or empty.
func nearest(key string, fields map[string]reflect.Type) (near string) {
	least := len(key)/3 + 2
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if n := distance(strings.ToLower(key), name); n < least {
			near, least = name, n
		}
	}
	return near
}

// hint says what to do about a key that is unknown in a table.
func hint(key, near, table string, fields map[string]reflect.Type) string {
	if Secret(key) {
		for _, file := range []string{key + "_file", "password_file", "token_file"} {
			if _, ok := fields[file]; ok {
				return fmt.Sprintf("; nothing secret stands in a configuration: put it into a file that only the daemon may read, and write %s = \"/PATH\"", file)
			}
		}
		return "; nothing secret stands in a configuration: files and credentials have it, see password_file, token_file and key_file"
	}
	if near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	if table == "" {
		table = "the file"
	} else {
		table = "[" + strings.TrimSuffix(table, ".") + "]"
	}
	return fmt.Sprintf("; %s has %s", table, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
}

// distance is how many letters have to be put in, taken out, exchanged or swapped
// to make a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
