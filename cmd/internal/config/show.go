package config

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
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

// Settings are the values of the file at path, and with effective also those
// that hold because the file says nothing. The error is that of Load.
func Settings(path string, effective bool) ([]Setting, error) {
	cfg, f, places, err := load(path)
	if err != nil {
		return nil, err
	}
	w := &walker{path: path, places: places, effective: effective, defaults: cfg.defaults()}
	w.table("", "", reflect.ValueOf(*f))
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
		"controller.name": hostName(), "controller.vms": 4, "controller.disks": 8, "replication.timeout": short(DefaultTimeout),
	}
}

// walker collects settings from a struct with toml tags: a section that is
// added to the file is shown without another word.
type walker struct {
	path      string
	places    strict.Places
	effective bool
	defaults  map[string]any
	list      []Setting
}

func (w *walker) table(table, prefix string, v reflect.Value) {
	var later []func() // TOML has the tables after the keys
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("toml"), ",")
		field := v.Field(i)
		means := field.Kind() == reflect.Pointer // that it is there means something, even when it is empty
		for field.Kind() == reflect.Pointer && !field.IsNil() {
			field = field.Elem()
		}
		switch {
		case name == "" || name == "-":
		case field.Kind() == reflect.Struct && !isText(field):
			later = append(later, func() {
				shown := len(w.list)
				w.table(path(prefix)+name, prefix+name+".", field)
				if means && len(w.list) == shown { // no key is set: say that it is there
					all := *w
					all.effective = true
					all.table(path(prefix)+name, prefix+name+".", field)
					w.list = all.list
				}
			})
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			later = append(later, func() {
				for i := range field.Len() {
					w.table("["+path(prefix)+name+"]", fmt.Sprintf("%s%s[%d].", prefix, name, i), field.Index(i))
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

// path is a prefix without the numbers of its elements, as in the head of a
// table.
func path(prefix string) string { return element.ReplaceAllString(prefix, "") }

var element = regexp.MustCompile(`\[\d+\]`)

// isText reports whether a struct is one value in TOML.
func isText(v reflect.Value) bool {
	_, ok := v.Interface().(interface{ MarshalText() ([]byte, error) })
	return ok
}

func (w *walker) value(table, name, path string, v reflect.Value) {
	s := Setting{Table: table, Key: name, Path: path, Origin: "default"}
	switch line, set := w.places[path]; {
	case set:
		s.Value, s.Origin = v.Interface(), fmt.Sprintf("%s:%d", w.path, line)
	case !w.effective || strings.Contains(path, "["):
		return
	default:
		s.Value = w.defaults[path]
	}
	s.Value, s.Redacted = redact(name, s.Value)
	w.list = append(w.list, s)
}

// secretName is a key whose value nobody should read over a shoulder. Files that
// hold secrets are named by their path, which is none.
var secretName = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|credential|private_?key)s?$`)

// hidden stands in the place of a secret.
const hidden = "(redacted)"

// redact takes secrets out of a value. Our own URIs have no place for one, and
// refuse them; a value may be one that a driver of its own understands.
func redact(name string, v any) (any, bool) {
	s, ok := v.(string)
	switch {
	case ok && s != "" && secretName.MatchString(name):
		return hidden, true
	case !ok || !strings.Contains(s, "://"):
		return v, false
	}
	u, err := url.Parse(s)
	if err != nil {
		return v, false
	}
	found := false
	if _, has := u.User.Password(); has {
		u.User, found = url.UserPassword(u.User.Username(), "redacted"), true
	}
	query := u.Query()
	for key := range query {
		if secretName.MatchString(key) {
			query.Set(key, "redacted")
			found = true
		}
	}
	if !found {
		return s, false
	}
	u.RawQuery = query.Encode()
	return u.String(), true
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
