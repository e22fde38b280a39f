package config

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"

	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/vddk"
)

// noSecrets refuses values that have a login or a key in them, and takes it out, so
// that no mistake in the rest of the value repeats it. Keys for a secret do not
// exist: strict refuses them.
func (c *checker) noSecrets(prefix string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			c.noSecrets(prefix, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			key := tag(v.Type().Field(i))
			if prefix != "" {
				key = prefix + "." + key
			}
			c.noSecrets(key, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			at := prefix
			if v.Index(i).Kind() == reflect.Struct {
				at = fmt.Sprintf("%s[%d]", prefix, i)
			}
			c.noSecrets(at, v.Index(i))
			if i > 0 && v.Index(i).Kind() == reflect.String && follows(v.Index(i-1).String(), v.Index(i).String()) {
				c.hide(at, v.Index(i), v.Index(i-1).String()+" "+strict.Hidden)
			}
		}
	case reflect.String:
		if text, found := redact(v.String()); found {
			c.hide(prefix, v, text)
		}
	}
}

// hide tells of a secret in v, a value of key, and puts text in its place.
func (c *checker) hide(key string, v reflect.Value, text string) {
	name := strict.Bare(key)
	err := fmt.Errorf("%s: a secret stands in %s; nothing secret stands in a configuration: %s", name, text, elsewhere(name))
	c.errs = append(c.errs, c.places.Secret(c.path, key, err))
	c.secrets[key] = true
	v.SetString(text)
}

// follows reports whether an argument of a program is the secret that the one before
// announces, as in --password X. A path is where one is, and that is as it should be.
func follows(before, s string) bool {
	return strings.HasPrefix(before, "-") && strict.Secret(before) && s != "" && !strings.HasPrefix(s, "-") && !strings.HasPrefix(s, "/")
}

// elsewhere is where the secret of a key belongs.
func elsewhere(name string) string {
	switch name {
	case "host.url":
		return "write user, and password_file = \"/PATH\" or the name of a credential"
	case "hook.url", "replication.url", "openstorage.endpoint":
		return "write token_file = \"/PATH\", or the name of a credential"
	case "export.uri", "export.vddk":
		return "name the file that has it in the URI: password-file=/PATH of vddk://, tls-certificates=/DIR of nbds://"
	case "hook.command", "replication.hold", "replication.release", "host.workload.power_on", "host.workload.power_off", "host.workload.status":
		return "every user of the machine sees the arguments of programs; have the program read a file"
	}
	return "take it out"
}

// redact takes secrets out of a value: a URI, or an argument of a program, as in
// --password=X. None of our URIs has a place for one; that of a hook may.
func redact(s string) (string, bool) {
	if !strings.Contains(s, "://") {
		name, value, _ := strings.Cut(s, "=")
		if value == "" || strings.ContainsAny(name, " /") || !strict.Secret(name) {
			return s, false
		}
		return name + "=" + strict.Hidden, true
	}
	hidden := vddk.HideLogin(s)
	found := hidden != s
	rest, query, _ := strings.Cut(hidden, "?")
	var params []string
	for param := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(param, "=")
		if name, err := url.QueryUnescape(key); value != "" && (err != nil || strict.Secret(name)) {
			param, found = key+"="+strict.Hidden, true
		}
		params = append(params, param)
	}
	if !found {
		return s, false
	}
	if query != "" {
		rest += "?" + strings.Join(params, "&")
	}
	return rest, true
}
