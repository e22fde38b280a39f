package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	must(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	must(t, err)
	c := jsonschema.NewCompiler()
	must(t, c.AddResource("config.json", doc))
	s, err := c.Compile("config.json")
	must(t, err)
	return s
}

// asJSON is a configuration as a validator wants it.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	var tree map[string]any
	must(t, toml.Unmarshal([]byte(text), &tree))
	raw, err := json.Marshal(tree)
	must(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	must(t, err)
	return v
}

// TestSchema: what the daemon takes the schema takes, and what is unknown, of the
// wrong type, missing or out of a range that a schema can have, both refuse.
func TestSchema(t *testing.T) {
	s := compiled(t)
	for _, table := range tables {
		if err := s.Validate(asJSON(t, strings.Replace(sample(table.name, ""), "ID", newID(t), 1))); err != nil {
			t.Errorf("the sample of [%s]: %v", table.name, err)
		}
		unknown := sample(table.name, "nonsense = 1")
		if err := s.Validate(asJSON(t, unknown)); err == nil {
			t.Errorf("the schema takes an unknown key of [%s]", table.name)
		}
	}
	eachKey(func(table string, k *key, path string, field reflect.Type) {
		var good []string
		for _, v := range []any{k.def, k.example} {
			if v != nil {
				text, err := assignment(k.path, v)
				must(t, err)
				good = append(good, text)
			}
		}
		for _, line := range good {
			if err := s.Validate(asJSON(t, sample(table, line))); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		bad := []string{k.path + " = 1.5"} // no key is a number with a point
		if k.enum != nil {
			bad = append(bad, k.path+" = \"nonsense\"", k.path+" = [\"nonsense\"]")
		}
		if k.least != "" {
			for _, v := range beyond(t, k, field.Kind() == reflect.Int) {
				if field.Kind() == reflect.Int {
					bad = append(bad, k.path+" = "+v)
				}
			}
			bad = append(bad, k.path+" = \"10 parrots\"")
		}
		if k.required {
			bad = append(bad, "")
		}
		for _, line := range bad {
			text := sample(table, line)
			if line == "" {
				text = strings.ReplaceAll(sample(table, k.path+" = 0"), k.path+" = 0\n", "")
			}
			if err := s.Validate(asJSON(t, text)); err == nil {
				t.Errorf("the schema takes %q in [%s]", line, table)
			}
			if _, wrong := try(t, path, text); len(wrong) == 0 {
				t.Errorf("the daemon takes %q in [%s]", line, table)
			}
		}
	})
}

// examples are the configurations that people copy: those of the manuals, of the
// demonstration and of the package's own documentation.
func examples(t *testing.T) map[string]string {
	t.Helper()
	list := map[string]string{}
	files, err := filepath.Glob("../../../docs/*.md")
	must(t, err)
	for _, f := range files {
		if filepath.Base(f) == "simulator.md" { // haulback-sim has files of its own
			continue
		}
		text, err := os.ReadFile(f)
		must(t, err)
		for _, m := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			list[filepath.Base(f)+": "+m[1][:min(20, len(m[1]))]] = m[1]
		}
	}
	demo, err := os.ReadFile("../../../deploy/demo/demo.sh")
	must(t, err)
	for i, m := range regexp.MustCompile(`(?s)<<TOML\n(.*?)\nTOML`).FindAllStringSubmatch(string(demo), -1) {
		list[fmt.Sprint("the demo's ", i)] = regexp.MustCompile(`\$(\([^)]*\)|\{[^}]*\}|\w+)`).ReplaceAllString(m[1], "x")
	}
	text, err := os.ReadFile("doc.go")
	must(t, err)
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if line, ok := strings.CutPrefix(line, "//\t"); ok {
			b.WriteString(line)
		}
	}
	list["doc.go"] = b.String()
	if len(list) < 8 {
		t.Fatalf("%d examples were found", len(list))
	}
	return list
}

// check is the other validator, with another reader of TOML.
const check = `
import json, sys, tomllib, jsonschema
v = jsonschema.Draft202012Validator(json.load(open("schema.json")))
jsonschema.Draft202012Validator.check_schema(v.schema)
for name, text in json.load(open("cases.json")).items():
    errors = list(v.iter_errors(tomllib.loads(text)))
    if bool(errors) != name.startswith("bad "):
        print(name, [e.message for e in errors])
`

// TestSchemaByAnother holds the schema and the examples against a validator that is
// not ours, in another language.
func TestSchemaByAnother(t *testing.T) {
	s := compiled(t)
	cases := examples(t)
	for name, text := range cases {
		if err := s.Validate(asJSON(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import tomllib, jsonschema").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: THE SCHEMA OF THE CONFIGURATION IS NOT CHECKED BY ANOTHER VALIDATOR: python3-jsonschema and Python 3.11 are not here: %v: %s", err, out)
	}
	for name, text := range map[string]string{
		"unknown key": "listne = \"x\"\n", "unknown table": "[logs]\n", "type": "listen = 1\n", "number": "[limits]\nworkers = \"2\"\n", "list": "transports = \"quic\"\n",
		"range": "[limits]\nworkers = 9\n", "word": "[log]\nlevel = \"loud\"\n", "no array": "[export]\nname = \"x\"\nrole = \"source\"\n", "no table": "[[log]]\n",
		"required": "[[export]]\nname = \"x\"\n", "deep": "[[host]]\nname = \"a\"\n[[host.workload]]\nname = \"b\"\nvolumes = [\"c\"]\ncompute = \"none\"\nvolume = 1\n",
		"size": "[limits]\nmemory = \"1GB\"\n", "step": "[[hook]]\nname = \"a\"\nwhen = \"after\"\nsteps = [true]\n",
	} {
		cases["bad "+name] = text
	}
	dir := t.TempDir()
	text, err := Schema()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "schema.json"), text, 0o600))
	raw, err := json.Marshal(cases)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "cases.json"), raw, 0o600))
	cmd := exec.Command(python, "-c", check)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestManual: docs/configuration.md is what the descriptions are.
func TestManual(t *testing.T) {
	const name = "../../../docs/configuration.md"
	text, err := os.ReadFile(name)
	must(t, err)
	if string(text) != Manual() {
		t.Errorf("%s is not what the keys are; run: go run ./cmd/haulback config schema --markdown >docs/configuration.md", name)
	}
	for _, m := range regexp.MustCompile(`\]\(([a-z]+\.md)(?:#([a-z-]+))?\)`).FindAllStringSubmatch(Manual(), -1) {
		page, err := os.ReadFile("../../../docs/" + m[1])
		if err != nil {
			t.Error(err)
			continue
		}
		found := m[2] == ""
		for line := range strings.Lines(string(page)) {
			head, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
			found = found || ok && line[0] == '#' && strings.ReplaceAll(strings.ToLower(strings.TrimSpace(head)), " ", "-") == m[2]
		}
		if !found {
			t.Errorf("there is no %s#%s", m[1], m[2])
		}
	}
}
