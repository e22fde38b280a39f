package config

import (
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/cmd/internal/strict"
)

// Setting is one value of a configuration and where it comes from.
type Setting struct {
	Table    string // "", "limits", "[export]"; a name in brackets is an element of an array of tables
	Key      string // within the table
	Path     string // of both: "export[0].uri"
	Value    any    // nil: neither set, nor a default
	Origin   string // "FILE:LINE", or "default"
	Redacted bool   // Value is not what stands there
}

// Settings are the values of the file at path and its drop-ins, and with effective
// also those that hold because they say nothing. The error is that of Load.
func Settings(path string, effective bool) ([]Setting, error) {
	cfg, d, err := load(path)
	if err != nil {
		return nil, err
	}
	w := &walker{places: d.places, effective: effective, defaults: cfg.defaults()}
	w.table("", "", reflect.ValueOf(d.file))
	return w.list, nil
}

// defaults are the values that hold for keys that are not set.
func (c *Config) defaults() map[string]any {
	e := c.Limits.Engine().Effective()
	bytes := func(n int64) string { return strings.Replace(strings.Replace(size.Text(n), ".0 ", "", 1), " ", "", 1) }
	return map[string]any{
		"listen": c.Listen, "transports": []string{"quic", "tls"}, "gro": true, "gso": true, "state_dir": c.Site.Dir(), "key_file": c.Site.KeyFile(),
		"log.level": strings.ToLower(c.Log.Level.String()), "log.format": c.Log.Format,
		"limits.memory": bytes(e.Memory), "limits.workers": e.Workers, "limits.checkpoint": bytes(e.Checkpoint),
		"limits.cpus": runtime.GOMAXPROCS(0), "limits.window": bytes(e.Window), "limits.sessions": e.Sessions, "limits.refine": e.Refine.String(),
		"limits.compress": e.Compress.String(),
		"control.socket":  c.Control.Socket, "jobs.disks": 4, "jobs.per_host": 2, "jobs.keep": "720h",
		"metrics.plaintext": false, "controller.name": hostName(), "controller.vms": 4, "controller.disks": 8, "replication.timeout": short(DefaultTimeout),
	}
}

// walker collects settings from a struct with toml tags: a section that is
// added to the file is shown without another word.
type walker struct {
	places    strict.Places
	effective bool
	defaults  map[string]any
	list      []Setting
}

func (w *walker) table(table, prefix string, v reflect.Value) {
	var later []func() // TOML has the tables after the keys
	for i := range v.NumField() {
		name := tag(v.Type().Field(i))
		field := v.Field(i)
		means := field.Kind() == reflect.Pointer // that it is there means something, even when it is empty
		for field.Kind() == reflect.Pointer && !field.IsNil() {
			field = field.Elem()
		}
		switch {
		case name == "" || name == "-":
		case field.Kind() == reflect.Struct:
			later = append(later, func() {
				shown := len(w.list)
				w.table(strict.Bare(prefix)+name, prefix+name+".", field)
				if means && len(w.list) == shown { // no key is set: say that it is there
					all := *w
					all.effective = true
					all.table(strict.Bare(prefix)+name, prefix+name+".", field)
					w.list = all.list
				}
			})
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			later = append(later, func() {
				for i := range field.Len() {
					w.table("["+strict.Bare(prefix)+name+"]", fmt.Sprintf("%s%s[%d].", prefix, name, i), field.Index(i))
				}
			})
		default:
			w.value(table, name, prefix+name, field)
		}
	}
	for _, f := range later {
		f()
	}
}

func (w *walker) value(table, name, path string, v reflect.Value) {
	s := Setting{Table: table, Key: name, Path: path, Origin: "default"}
	switch at, set := w.places[path]; {
	case set:
		s.Value, s.Origin = v.Interface(), at.String()
	case !w.effective:
		return
	case strings.Contains(path, "["): // of a table that may be there several times
		k := described(strict.Bare(path))
		if k == nil || k.def == nil {
			return // what is not set there is nothing, or hangs on other keys
		}
		s.Value = k.def
	default:
		s.Value = w.defaults[path]
	}
	// What has a secret does not load; who prints does not rely on it.
	if text, ok := s.Value.(string); ok {
		s.Value, s.Redacted = redact(text)
	}
	w.list = append(w.list, s)
}

// Text is the settings as TOML, with the origin of each as a comment. Read back
// it means the same, but for what was redacted.
func Text(list []Setting) (string, error) {
	var b strings.Builder
	last := ""
	for _, s := range list {
		if head := strings.TrimSuffix(strings.TrimSuffix(s.Path, s.Key), "."); head != last {
			fmt.Fprintf(&b, "\n[%s]\n", s.Table)
			last = head
		}
		line := "# " + s.Key + " is not set"
		if s.Value != nil {
			text, err := assignment(s.Key, s.Value)
			if err != nil {
				return "", fmt.Errorf("%s: %w", s.Path, err)
			}
			line = text
		}
		fmt.Fprintf(&b, "%-44s # %s\n", line, s.Origin)
	}
	return b.String(), nil
}

// assignment is one line of TOML; a table in it is written inline.
func assignment(key string, value any) (string, error) {
	m, ok := value.(map[string]string)
	if !ok {
		text, err := toml.Marshal(map[string]any{key: value})
		return strings.TrimSpace(string(text)), err
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		text, err := toml.Marshal(map[string]string{k: m[k]})
		if err != nil {
			return "", err
		}
		parts = append(parts, strings.TrimSpace(string(text)))
	}
	return key + " = { " + strings.Join(parts, ", ") + " }", nil
}
