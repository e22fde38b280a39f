package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/hostctl/osd"
)

// sample is a configuration whose last table is the one that is asked for, or whose
// first lines are the top.
func sample(table, line string) string {
	key, _, _ := strings.Cut(line, " = ")
	head := controllerLine
	text, ok := map[string]string{
		"peer":          "[[peer]]\nname = \"dr\"\nid = \"ID\"\n",
		"export":        "[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\n",
		"openstorage":   profileText,
		"controller":    "",
		"replication":   "[replication]\nhold = [\"/bin/true\"]\nrelease = [\"/bin/true\"]\n",
		"host":          hostText,
		"host.workload": strings.TrimPrefix(clusterText, profileText+controllerLine) + execText,
		"hook":          hookText + "command = [\"/bin/true\"]\n",
		"group":         "[[group]]\nname = \"g\"\nmembers = [{vm = \"a\"}]\n",
		"group.members": "[[group]]\nname = \"g\"\n[[group.members]]\nvm = \"a\"\n",
	}[table]
	switch {
	case table == "":
		return line + "\n" + head
	case !ok:
		text = "[" + table + "]\n"
	case table == "host.workload":
		head = profileText + controllerLine
	case key == "long_timeout": // which is not below it
		text += "timeout = \"1s\"\n"
	}
	if i := strings.LastIndex(text, "\n"+key+" = "); i >= 0 && key != "" { // it is there already
		end := i + 1 + strings.IndexByte(text[i+1:], '\n')
		text = text[:i] + text[end:]
	}
	return head + text + line + "\n"
}

// try loads a sample, and returns the mistakes in the key at path.
func try(t *testing.T, path, text string) (*Config, []*strict.Mistake) {
	t.Helper()
	file, _ := write(t, "")
	if !strings.HasPrefix(text, "state_dir") {
		text = fmt.Sprintf("state_dir = %q\n", filepath.Join(filepath.Dir(file), "state")) + text
	}
	must(t, os.WriteFile(file, []byte(strings.Replace(text, "ID", newID(t), 1)), 0o600))
	cfg, err := Load(file)
	return cfg, slices.DeleteFunc(strict.Mistakes(err), func(m *strict.Mistake) bool { return strict.Bare(m.Key) != path })
}

// eachKey calls f with every key, its path and the type of its field.
func eachKey(f func(table string, k *key, path string, field reflect.Type)) {
	types := map[string]reflect.Type{"": reflect.TypeFor[file]()}
	for _, t := range tables {
		prefix := ""
		if t.name != "" {
			types[t.name], _ = tableType(types, t.name)
			prefix = t.name + "."
		}
		for i := range t.keys {
			f(t.name, &t.keys[i], prefix+t.keys[i].path, fieldOf(types[t.name], t.keys[i].path))
		}
	}
}

// TestEveryKeyIsDescribed: what the structs have and what tables say of it is the
// same, and no key is one for a secret.
func TestEveryKeyIsDescribed(t *testing.T) {
	known := map[string]bool{"": true}
	var walk func(prefix string, s reflect.Type)
	walk = func(prefix string, s reflect.Type) {
		for i := range s.NumField() {
			path, field := prefix+tag(s.Field(i)), s.Field(i).Type
			for field.Kind() == reflect.Pointer || field.Kind() == reflect.Slice && field.Elem().Kind() == reflect.Struct {
				field = field.Elem()
			}
			known[path] = true
			if field.Kind() == reflect.Struct {
				walk(path+".", field)
			} else if described(path) == nil {
				t.Errorf("the key %s is described nowhere", path)
			}
		}
	}
	walk("", reflect.TypeFor[file]())
	for _, table := range tables {
		if !known[table.name] || table.effect == "" || table.reload == "" {
			t.Errorf("the table %q is described and is none, or not fully", table.name)
		}
	}
	eachKey(func(_ string, k *key, path string, field reflect.Type) { // panics at a key that is none
		if k.effect == "" || !strings.HasSuffix(k.effect, ".") && !strings.HasSuffix(k.effect, ":") {
			t.Errorf("the effect of %s is no sentence: %q", path, k.effect)
		}
		if strict.Secret(k.path) {
			t.Errorf("%s has a secret in the file", path)
		}
		if k.bounds() == "" && field.Kind() != reflect.Bool && !(field.Kind() == reflect.Pointer && field.Elem().Kind() == reflect.Bool) {
			t.Errorf("%s has no range", path)
		}
	})
}

// TestDefaults: what is said to hold where a key is missing does.
func TestDefaults(t *testing.T) {
	file, _ := write(t, "state_dir = \"STATE\"\n"+sample("replication", ""))
	list, err := Settings(file, true)
	must(t, err)
	effective := map[string]any{}
	for _, s := range list {
		if s.Origin == "default" {
			effective[s.Path] = s.Value
		}
	}
	profile := map[string]any{
		"devices": osd.DefaultDevices, "timeout": short(osd.DefaultTimeout),
		"auth": osd.AuthToken, "restore": osd.RestoreMover, "dev_root": "/",
	}
	eachKey(func(table string, k *key, path string, field reflect.Type) {
		value, top := effective[path]
		switch want, ofProfile := profile[k.path]; {
		case table == "openstorage" && ofProfile:
			if !reflect.DeepEqual(k.def, want) {
				t.Errorf("%s: %v is documented, osd has %v", path, k.def, want)
			}
		case top && k.def != nil && !reflect.DeepEqual(value, k.def):
			t.Errorf("%s: %v is documented, %v holds", path, k.def, value)
		case top && k.def == nil && value != nil && k.defText == "":
			t.Errorf("%s: nothing is documented, %v holds", path, value)
		case !top && k.def != nil:
			text, err := assignment(k.path, k.def)
			must(t, err)
			// With the key and without it the same comes out, from one file.
			without, wrong := try(t, path, "state_dir = \"/nowhere\"\n"+sample(table, ""))
			with, wrongToo := try(t, path, "state_dir = \"/nowhere\"\n"+sample(table, text))
			if len(wrong)+len(wrongToo) > 0 || with == nil || without == nil {
				t.Errorf("%s: %v %v", path, wrong, wrongToo)
				return
			}
			with.File, without.File, with.Warnings, without.Warnings = "", "", nil, nil
			with.Peers, with.Own, without.Peers, without.Own = nil, nil, nil, nil
			for i := range with.Exports {
				with.Exports[i].names, without.Exports[i].names = exportTOML{}, exportTOML{}
			}
			if !reflect.DeepEqual(with, without) {
				t.Errorf("%s = %v: is documented as the default, and means another thing:\n%+v\n%+v", path, k.def, with, without)
			}
		}
	})
}

// beyond are the values below the least and above the most of a key.
func beyond(t *testing.T, k *key, number bool) (list []string) {
	t.Helper()
	for i, edge := range []string{k.least, k.most} {
		step := int64(2*i - 1)
		switch {
		case edge == "":
		case number:
			n, err := strconv.ParseInt(edge, 10, 64)
			must(t, err)
			list = append(list, strconv.FormatInt(n+step, 10))
		case k.form == sizeForm:
			n, err := size.Parse(edge)
			must(t, err)
			list = append(list, fmt.Sprintf("\"%dB\"", n+step))
		default:
			d, err := time.ParseDuration(edge)
			must(t, err)
			list = append(list, fmt.Sprintf("\"%dns\"", d.Nanoseconds()+step))
		}
	}
	return list
}

// TestRanges: the least and the most that are documented go through, what is beyond
// them does not, and the mistake has the range.
func TestRanges(t *testing.T) {
	tested := 0
	eachKey(func(table string, k *key, path string, field reflect.Type) {
		number := field.Kind() == reflect.Int
		list := field.Kind() == reflect.Slice
		literal := func(v string) string {
			switch {
			case number:
				return k.path + " = " + v
			case list:
				return fmt.Sprintf("%s = [%q]", k.path, v)
			}
			return fmt.Sprintf("%s = %q", k.path, v)
		}
		for _, good := range append(slices.Clone(k.enum), k.least, k.most) {
			if good == "" {
				continue
			}
			tested++
			if _, wrong := try(t, path, sample(table, literal(good))); len(wrong) > 0 {
				t.Errorf("%s = %s is documented: %v", path, good, wrong)
			}
		}
		for _, bad := range beyond(t, k, number) {
			_, wrong := try(t, path, sample(table, k.path+" = "+bad))
			if !slices.ContainsFunc(wrong, func(m *strict.Mistake) bool { return strings.Contains(m.Error(), k.bounds()) }) {
				t.Errorf("%s = %s is beyond %s: %v", path, bad, k.bounds(), wrong)
			}
		}
		if k.enum != nil {
			_, wrong := try(t, path, sample(table, literal("nonsense")))
			for _, word := range append(slices.Clone(k.enum), "nonsense") {
				if len(wrong) != 1 || !strings.Contains(wrong[0].Err.Error(), word) {
					t.Errorf("%s = nonsense: no %s in %v", path, word, wrong)
				}
			}
		}
		if k.required {
			_, wrong := try(t, path, strings.ReplaceAll(sample(table, k.path+" = 0"), k.path+" = 0\n", ""))
			if len(wrong) == 0 {
				t.Errorf("%s is missing, and is not missed", path)
			}
		}
	})
	if tested < 60 {
		t.Errorf("%d values were tried", tested)
	}
}
