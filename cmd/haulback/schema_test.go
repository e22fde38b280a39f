package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

const schemaFile = "../../docs/cli.schema.json"

// rawSchema is the document as it stands.
func rawSchema(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// close makes v, and every object below it that names its fields, refuse others.
// The document itself allows them, for those who read; whoever writes has to
// have documented them.
func closed(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"]; ok && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, w := range v {
			closed(w)
		}
	case []any:
		for _, w := range v {
			closed(w)
		}
	}
}

// validator checks lines, and remembers which definitions they met.
type validator struct {
	byName map[string]*jsonschema.Schema
	met    map[string]bool
}

func newValidator(t *testing.T) *validator {
	t.Helper()
	doc := rawSchema(t)
	closed(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("cli.json", doc); err != nil {
		t.Fatal(err)
	}
	v := &validator{byName: map[string]*jsonschema.Schema{}, met: map[string]bool{}}
	for name := range doc["$defs"].(map[string]any) {
		s, err := c.Compile("cli.json#/$defs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		v.byName[name] = s
	}
	return v
}

// line checks one line: it meets exactly one definition.
func (v *validator) line(text string) error {
	line, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	kind := line.(map[string]any)["message_type"]
	var names []string
	var why []string
	for name, s := range v.byName {
		if err := s.Validate(line); err == nil {
			names = append(names, name)
			v.met[name] = true
		} else if strings.HasPrefix(name, fmt.Sprint(kind)) || kind == "summary" && strings.HasSuffix(name, "_summary") {
			why = append(why, err.Error())
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no definition in %s fits %s\n%s", schemaFile, text, strings.Join(why, "\n"))
	}
	return nil
}

// check validates what a command wrote with --json.
func (v *validator) check(t *testing.T, what string, r cmdtest.Result) {
	t.Helper()
	for line := range strings.Lines(r.Out) {
		if err := v.line(line); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.Code == 0 {
		return
	}
	all := strings.Split(strings.TrimSpace(r.Stderr), "\n")
	last := all[len(all)-1]
	if err := v.line(last); err != nil || !strings.Contains(last, `"message_type":"exit_error"`) || !strings.Contains(last, fmt.Sprintf(`"code":%d,`, r.Code)) {
		t.Errorf("%s: exit code %d, and the last line on standard error is %s (%v)", what, r.Code, last, err)
	}
}

// streams validates what a command wrote whose data has standard output or
// input.
func (v *validator) streams(t *testing.T, what string, r cmdtest.Result) {
	t.Helper()
	if r.Stderr == "" {
		t.Errorf("%s: no line at all", what)
	}
	v.check(t, what, cmdtest.Result{Code: r.Code, Out: r.Stderr, Stderr: r.Stderr})
}

// TestSchema holds every command, in its modes, against the document: each line
// is described, and each description is of a line.
func TestSchema(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	lone := cmdtest.NewSite(t, &programs, "lone")
	a, b, equal := desk.Disk("a", 3*mib+5, 1), desk.Disk("b", 3*mib+5, 2), desk.Disk("c", 3*mib+5, 1)
	wrong := filepath.Join(desk.Dir, "wrong.toml")
	write(t, wrong, "listen = 7\n")
	twice := filepath.Join(desk.Dir, "twice.toml")
	write(t, twice, "listen = \"x\"\n[log]\nlevel = \"loud\"\n")
	good := desk.Configure(cmdtest.Export("x", a, "source", home))
	desk.Pair(home)
	p := home.Disk("p", 2*mib, 3)
	proof := recordOf(t, desk, nil)
	d := home.Daemon(cmdtest.Export("p", p, "source", desk), cmdtest.Export("q", home.Disk("q", 2*mib, 4), "target", desk))
	socket := home.State + "/control.sock"
	home.Disk("p.other", 2*mib, 5)
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"version"}},
		{0, []string{"capabilities"}},
		{0, []string{"support"}},
		{0, []string{"peer", "id"}},
		{0, []string{"peer", "add", home.ID, "--name", "home", "--address", d.Listen}},
		{0, []string{"peer", "add", lone.ID, "--name", "lone"}},
		{0, []string{"peer", "list"}},
		{0, []string{"peer", "remove", "lone"}},
		{10, []string{"peer", "remove", "nobody"}},
		{0, []string{"probe", a}},
		{0, []string{"probe", d.URI("p")}},
		{12, []string{"probe", d.URI("none")}},
		{0, []string{"copy", d.URI("p"), desk.Disk("pulled", 2*mib, 9)}},
		{0, []string{"copy", desk.Disk("pushed", 2*mib, 8), d.URI("q")}},
		{4, []string{"diff", a, d.URI("p")}},
		{4, []string{"verify", a, b}},
		{4, []string{"diff", a, b}},
		{0, []string{"diff", a, equal}},
		{10, []string{"diff", d.URI("p"), d.URI("q")}},
		{0, []string{"extents", a}},
		{0, []string{"extents", a, "--max", "1"}},
		{0, []string{"extents", a, "--cbt", "fiemap:" + b, "--fallback"}},
		{14, []string{"extents", a, "--cbt", "fiemap:" + b}},
		{0, []string{"estimate", a}},
		{0, []string{"estimate", a, b, "--cbt", "fiemap:" + b}},
		{10, []string{"estimate", b, filepath.Join(desk.Dir, "none")}},
		{0, []string{"copy", a, b, "--progress-fd", ""}},
		{0, []string{"copy", a, b, "--verify", "full"}},
		{0, []string{"copy", a, b, "--cbt", "fiemap:" + equal}},
		{0, []string{"copy", a, filepath.Join(desk.Dir, "new.qcow2"), "--create"}},
		{0, []string{"verify", a, b}},
		{0, []string{"config", "check", good}},
		{0, []string{"config", "show", good}},
		{0, []string{"config", "show", "--effective", good}},
		{10, []string{"config", "check", wrong}},
		{10, []string{"config", "show", twice}},
		{10, []string{"config", "check", "/none"}},
		{0, []string{"selfcheck", "--config", good}},
		{10, []string{"selfcheck", "--config", twice}},
		{0, []string{"job", "submit", "--id", "s", "export:p", p + ".new", "--create", "--wait", "--label", "vm=1", "--socket", socket}},
		{0, []string{"job", "submit", "--id", "s", "export:p", p + ".new", "--create", "--label", "vm=1", "--socket", socket}},
		{4, []string{"job", "submit", "--id", "v", "--mode", "verify", p, p + ".other", "--wait", "--socket", socket}},
		{0, []string{"job", "list", "--socket", socket}},
		{0, []string{"job", "get", "v", "--socket", socket}},
		{4, []string{"job", "watch", "v", "--socket", socket}},
		{11, []string{"job", "cancel", "s", "--socket", socket}},
		{0, []string{"job", "remove", "s", "--socket", socket}},
		{10, []string{"job", "get", "s", "--socket", socket}},
		{13, []string{"job", "list", "--socket", socket + "x"}},
		{0, []string{"status", "--socket", socket}},
		{0, []string{"record", "verify", proof}},
		{0, []string{"record", "show", proof}},
		{4, []string{"record", "verify", a}},
		{10, []string{"copy", a}},
		{10, []string{"copy", a, b, "--nonsense"}},
		{10, []string{"nonsense"}},
		{10, []string{"peer", "nonsense"}},
		{10, []string{"copy", a, b, "--retry", "x"}},
	} {
		r := desk.Run(append(c.args, "--json")...)
		what := strings.Join(c.args, " ")
		if r.Code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", what, r.Code, c.code, r.Out, r.Stderr)
		}
		v.check(t, what, r)
		if r.Out == "" && r.Code == 0 {
			t.Errorf("%s: no line at all", what)
		}
	}
	for _, args := range [][]string{{"submit", "--id", "j1", home.Disk("s", mib, 5), home.Disk("d", mib, 6), "--wait"}, {"get", "j1"}, {"list"}} {
		r := home.Run(append([]string{"--json", "job"}, args...)...)
		if v.check(t, "job "+args[0], r); r.Code != 0 || r.Out == "" {
			t.Errorf("job %q: exit code %d: %s", args, r.Code, r.Stderr)
		}
	}
	v.check(t, "job get of none", home.Run("--json", "job", "get", "none"))
	schemaOfPairing(t, v, home, d.Listen)
	schemaOfFailbacks(t, v)
	stream := filepath.Join(desk.Dir, "stream")
	v.streams(t, "dump", dumpTo(t, desk, stream, "--json", a))
	v.streams(t, "restore", restoreFrom(t, desk, stream, "--json", b))
	v.streams(t, "check", restoreFrom(t, desk, stream, "--json", "--verify-only"))
	v.streams(t, "changes without a base", dumpTo(t, desk, stream, "--json", a, "--cbt", "fiemap:"+equal, "--strict"))
	x := desk.Start("--json", "nbd", "serve", a)
	cmdtest.Await(t, "the server", func() bool { return strings.Contains(x.Stdout(), "\n") })
	x.Signal(os.Interrupt)
	v.check(t, "nbd serve", cmdtest.Result{Out: x.Wait().Out})
	for _, rare := range []string{"status", "event"} { // of long copies; TestSchemaOfALongCopy
		v.met[rare] = true
	}
	for name := range v.byName {
		if !v.met[name] {
			t.Errorf("no command wrote a line of definition %s", name)
		}
	}
}

// schemaOfPairing has the lines of who is let in, and of the record of it.
func schemaOfPairing(t *testing.T, v *validator, home *cmdtest.Site, listen string) {
	t.Helper()
	fourth := cmdtest.NewSite(t, &programs, "fourth")
	r := home.OK("--json", "peer", "invite", "--name", "fourth", "--address", listen)
	v.check(t, "peer invite", r)
	code := filepath.Join(fourth.Dir, "code")
	write(t, code, lastLine(t, r.Out, "summary")["code"].(string))
	cmdtest.Await(t, "the daemon to open the invitation", func() bool {
		r = fourth.Run("--json", "peer", "join", "--name", "home", "--code-file", code)
		return r.Code == 0
	})
	v.check(t, "peer join", r)
	r = fourth.OK("--json", "peer", "rotate", "prepare")
	v.check(t, "peer rotate prepare", r)
	next := lastLine(t, r.Out, "summary")["id"].(string)
	v.check(t, "peer add --next", home.OK("--json", "peer", "add", next, "--name", "fourth", "--next"))
	v.check(t, "peer list", home.OK("--json", "peer", "list"))
	v.check(t, "peer rotate switch", fourth.OK("--json", "peer", "rotate", "switch"))
	v.check(t, "peer promote", home.OK("--json", "peer", "promote", "fourth"))
	r = home.OK(
		"--json", "ticket", "issue", "--export", "q", "--op", "write", "--source-peer", "fourth", "--target-peer", "self", "--run", uuid.NewString(),
		"--device", "file:1:2", "--size", "5")
	v.check(t, "ticket issue", r)
	ticket := filepath.Join(home.Dir, "ticket")
	write(t, ticket, lastLine(t, r.Out, "summary")["ticket"].(string))
	v.check(t, "ticket show", home.OK("--json", "ticket", "show", ticket))
	v.check(t, "ticket show of none", home.Run("--json", "ticket", "show", code+"x"))
	v.check(t, "audit verify", fourth.OK("--json", "audit", "verify"))
	r = fourth.OK("--json", "audit", "show")
	if v.check(t, "audit show", r); !strings.Contains(r.Out, `"action":"peer.join"`) || lastLine(t, r.Out, "summary")["records"].(float64) < 3 {
		t.Errorf("audit show: %s", r.Out)
	}
	list, err := filepath.Glob(filepath.Join(fourth.State, "audit", "*.jsonl"))
	if err != nil || len(list) == 0 {
		t.Fatal("no record", err)
	}
	text, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	write(t, list[0], strings.Replace(string(text), "peer.join", "peer.jest", 1))
	if r := fourth.Run("--json", "audit", "verify"); r.Code != 4 {
		t.Errorf("a changed record: exit code %d: %s", r.Code, r.Out)
	} else {
		v.check(t, "audit verify of a changed record", r)
	}
	r = fourth.OK("--json", "audit", "show")
	if v.check(t, "audit show of a changed record", r); !strings.Contains(r.Out, `"message_type":"warning"`) {
		t.Errorf("audit show does not warn: %s", r.Out)
	}
}

// TestSchemaOfALongCopy has the lines that only time brings.
func TestSchemaOfALongCopy(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	desk, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	desk.Pair(home)
	a := desk.Disk("a", 64*mib, 1) // a minute, which nobody waits for
	d := home.Daemon(cmdtest.Export("q", home.Disk("q", 64*mib, 4), "target", desk))
	c := desk.Start("--json", "copy", a, d.URI("q"), "--rate", "1MiB", "--retry", "1m")
	cmdtest.Await(t, "a line that says what limits the copy", func() bool { return strings.Contains(c.Stdout(), `"limited_by":"job rate"`) || c.Ended() })
	d.Signal(os.Interrupt)
	d.Wait()
	cmdtest.Await(t, "the event", func() bool { return strings.Contains(c.Stdout(), `"event"`) })
	c.Signal(os.Interrupt)
	r := c.Wait()
	if v.check(t, "copy", r); r.Code != 3 && r.Code != 130 {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	if !strings.Contains(r.Out, `"limited_by":"job rate"`) {
		t.Errorf("no line says what limits the copy:\n%s", r.Out)
	}
	if !v.met["status"] || !v.met["event"] {
		t.Errorf("met %v", v.met)
	}
}

// TestSchemaIsInTheManual: every type and field has its row in docs/cli.md, and
// every example of a field that there is none is a row too many.
func TestSchemaIsInTheManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(text)
	_, tables, ok := strings.Cut(manual, "\n## Lines\n")
	if !ok {
		t.Fatal("docs/cli.md has no section Lines")
	}
	for name, def := range rawSchema(t)["$defs"].(map[string]any) {
		fields := def.(map[string]any)["properties"].(map[string]any)
		kind := fields["message_type"].(map[string]any)["const"].(string)
		if !strings.Contains(tables, "### `"+kind+"`: "+def.(map[string]any)["description"].(string)) {
			t.Errorf("%s has no section in docs/cli.md", name)
		}
		for field := range fields {
			if !strings.Contains(manual, "`"+field+"`") {
				t.Errorf("field %s of %s is not in docs/cli.md", field, name)
			}
		}
	}
}
