package osdtest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// QuirkNames are what Parse takes, in the order of Quirks.
func QuirkNames() (all []string) {
	for f := range reflect.TypeFor[Quirks]().Fields() {
		all = append(all, dashed(f.Name))
	}
	return all
}

// dashed is "empty-ids" for EmptyIDs.
func dashed(name string) string {
	var b strings.Builder
	before := ' '
	for _, r := range name {
		if unicode.IsUpper(r) && unicode.IsLower(before) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
		before = r
	}
	return b.String()
}

// Parse sets one misbehaviour: "no-restore", "async-restore=3", "path=/dev/fake/1"; with
// what it is about after a dot: "slow.Attach=2s", "fail.Clone=10:no luck" (a gRPC code and
// a text), "unfit.ID=down".
func (q *Quirks) Parse(text string) error {
	name, value, _ := strings.Cut(text, "=")
	name, key, keyed := strings.Cut(name, ".")
	all := reflect.ValueOf(q).Elem()
	for i := range all.NumField() {
		if dashed(all.Type().Field(i).Name) != name {
			continue
		}
		field := all.Field(i).Addr().Interface()
		if !keyed {
			return explain(text, set(field, value))
		}
		return explain(text, setKey(field, key, value))
	}
	return fmt.Errorf("misbehaviour %q: there is none of that name", name)
}

func explain(text string, err error) error {
	if err != nil {
		return fmt.Errorf("misbehaviour %q: %w", text, err)
	}
	return nil
}

func set(field any, value string) (err error) {
	switch f := field.(type) {
	case *bool:
		if *f = true; value != "" {
			*f, err = strconv.ParseBool(value)
		}
	case *int:
		*f, err = strconv.Atoi(value)
	case *int64:
		*f, err = strconv.ParseInt(value, 10, 64)
	case *string:
		*f = value
	default:
		err = fmt.Errorf("write what it is about after a dot, such as a method")
	}
	return err
}

func setKey(field any, key, value string) (err error) {
	switch f := field.(type) {
	case *map[string]string:
		put(f, key, value)
	case *map[string]int:
		var n int
		if n, err = strconv.Atoi(value); err == nil {
			put(f, key, n)
		}
	case *map[string]time.Duration:
		var d time.Duration
		if d, err = time.ParseDuration(value); err == nil {
			put(f, key, d)
		}
	case *map[string]Failure:
		number, text, _ := strings.Cut(value, ":")
		var code uint64
		if code, err = strconv.ParseUint(number, 10, 32); err == nil {
			put(f, key, Failure{Code: uint32(code), Text: text})
		}
	default:
		err = fmt.Errorf("it has nothing after a dot")
	}
	return err
}

func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = value
}
