package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
)

// moment is a hook's moment with a name that a host could have made up.
func moment(step string, number int, after bool) failback.Hook {
	return failback.Hook{
		Failback: "fb-1", Run: "00000000-0000-4000-8000-000000000001", VM: "web-1", Step: step, Number: number, After: after, State: failback.Failover,
		Original: hostctl.Ref{Host: "home", ID: "vm-1", UUID: "u1", Name: "web; rm -rf $HOME\n\x1b[31m`id`"},
		Replica:  hostctl.Ref{Host: "dr", ID: "vm-2", UUID: "u2", Name: "web_replica"},
		Target:   hostctl.Ref{Host: "home", ID: "vm-1", UUID: "u1", Name: "web"},
	}
}

// sh is a hook that runs a shell script.
func sh(name, step, script string, args ...string) config.Hook {
	return config.Hook{Name: name, Steps: []string{step}, Call: config.Call{Command: append([]string{"/bin/sh", "-c", script, name}, args...), Timeout: time.Minute}}
}

func caller(t *testing.T, cfg config.Config) (*Caller, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	c := &Caller{Log: slog.New(slog.NewTextHandler(&log, nil))}
	c.Use(&cfg)
	return c, &log
}

// TestChosen: which hooks a moment has.
func TestChosen(t *testing.T) {
	out := t.TempDir() + "/out"
	note := func(name, step string, after bool, vms ...string) config.Hook {
		h := sh(name, step, `echo "$0" >>"$1"`, out)
		h.After, h.VMs = after, vms
		return h
	}
	c, _ := caller(t, config.Config{Hooks: []config.Hook{
		note("by-name", "power-on", false), note("by-number", "9", false), note("after", "power-on", true), note("web", "power-on", false, "db-*", "web-*"),
		note("db", "power-on", false, "db-*"), note("other", "pass-1", false),
		note("passes", "pass", false),
	}})
	for _, x := range []struct {
		h    failback.Hook
		want string
	}{
		{moment("power-on", 9, false), "by-name by-number web"},
		{moment("power-on", 9, true), "after"},
		{moment("unmark-target", 9, false), "by-number"},
		{moment("pass-1", 3, false), "other passes"},
		{moment("pass-12", 3, false), "passes"},
		{moment("power-on-2", 9, false), "by-name by-number web"},
		{moment("pass-1", 3, true), ""},
	} {
		reset(t, out)
		if err := c.Run(t.Context(), x.h); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(read(t, out)), " "); got != x.want {
			t.Errorf("%s, after %v: %q, want %q", x.h.Step, x.h.After, got, x.want)
		}
	}
	want := []string{
		"before: by-name (/bin/sh)", "before: by-number (/bin/sh)", "after: after (/bin/sh)", "before: web (/bin/sh) for db-*, web-*", "before: db (/bin/sh) for db-*",
	}
	if got := c.Named("power-on"); !slices.Equal(got, want) {
		t.Errorf("Named: %q, want %q", got, want)
	}
	if got := c.Named("guard-replica"); got != nil {
		t.Errorf("Named of a step without hooks: %q", got)
	}
	c.Use(&config.Config{})
	if got := c.Named("power-on"); got != nil {
		t.Errorf("after a reload: %q", got)
	}
}

// TestFacts: what a program gets, and that it gets nothing else.
func TestFacts(t *testing.T) {
	t.Setenv("HAULBACK_TEST_CANARY", "canary")
	dir := t.TempDir()
	c, _ := caller(t, config.Config{Hooks: []config.Hook{sh("dns", "power-on", `env >"$1/env"; cat >"$1/in"; pwd >"$1/pwd"`, dir)}})
	if err := c.Run(t.Context(), moment("power-on", 9, false)); err != nil {
		t.Fatal(err)
	}
	env := strings.Split(strings.TrimSpace(read(t, dir+"/env")), "\n")
	for _, w := range []string{
		"HOME=/", "LANG=C.UTF-8", "HAULBACK_HOOK=dns", "HAULBACK_FAILBACK=fb-1", "HAULBACK_RUN=00000000-0000-4000-8000-000000000001", "HAULBACK_VM=web-1",
		"HAULBACK_STEP=power-on", "HAULBACK_NUMBER=9", "HAULBACK_WHEN=before", "HAULBACK_STATE=Failover",
		"HAULBACK_ORIGINAL_HOST=home", "HAULBACK_ORIGINAL_ID=vm-1", "HAULBACK_ORIGINAL_UUID=u1", "HAULBACK_ORIGINAL_NAME=web; rm -rf $HOME ?[31m`id`",
		"HAULBACK_REPLICA_NAME=web_replica", "HAULBACK_TARGET_NAME=web",
	} {
		if !slices.Contains(env, w) {
			t.Errorf("%q is not in\n%s", w, strings.Join(env, "\n"))
		}
	}
	for _, line := range env {
		if strings.Contains(line, "canary") || !strings.HasPrefix(line, "HAULBACK_") && !slices.Contains([]string{"PATH", "HOME", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}, line[:strings.IndexByte(line, '=')]) {
			t.Errorf("it has %q", line)
		}
	}
	if got := strings.TrimSpace(read(t, dir+"/pwd")); got != "/" {
		t.Errorf("it runs in %q", got)
	}
	var e event
	if err := json.Unmarshal([]byte(read(t, dir+"/in")), &e); err != nil {
		t.Fatal(err)
	}
	if e.Schema != 1 || e.Kind != "hook" || e.Hook != "dns" || e.Step != "power-on" || e.Number != 9 || e.When != "before" || e.Replica.UUID != "u2" || e.Target.ID != "vm-1" ||
		e.Original.Name != "web; rm -rf $HOME ?[31m`id`" {
		t.Errorf("%+v", e)
	}
}

// TestOnError: what halts, what warns, and what comes after it.
func TestOnError(t *testing.T) {
	out := t.TempDir() + "/out"
	bad := sh("bad", "power-on", `echo "$0" >>"$1"; printf 'first\nlast \033[31mwords\r\n' >&2; exit 3`, out)
	next := sh("next", "power-on", `echo "$0" >>"$1"`, out)
	c, log := caller(t, config.Config{Hooks: []config.Hook{bad, next}})
	var called []Called
	c.Note = func(_ context.Context, x Called) { called = append(called, x) }
	err := c.Run(t.Context(), moment("power-on", 9, false))
	if want := "hook bad before power-on: /bin/sh: exit status 3: first; last ?[31mwords"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := read(t, out); got != "bad\n" {
		t.Errorf("ran %q: nothing comes after what halts", got)
	}
	if len(called) != 1 || called[0].Hook != "bad" || called[0].What != "/bin/sh" || called[0].Err == nil {
		t.Errorf("noted %+v", called)
	}
	reset(t, out)
	bad.Warn = true
	c.Use(&config.Config{Hooks: []config.Hook{bad, next}})
	if err := c.Run(t.Context(), moment("power-on", 9, false)); err != nil {
		t.Error(err)
	}
	if got := read(t, out); got != "bad\nnext\n" {
		t.Errorf("ran %q", got)
	}
	if text := log.String(); !strings.Contains(text, "exit status 3") || strings.Contains(text, "\x1b") {
		t.Errorf("log: %q", text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx, moment("power-on", 9, false)); err == nil {
		t.Error("a hook that only warns hides that its caller is gone")
	}
}

func TestReplication(t *testing.T) {
	dir := t.TempDir()
	call := func(word string) config.Call {
		return config.Call{Command: []string{"/bin/sh", "-c", `env >"$2/env"; cat >"$2/in"; test "$HAULBACK_ACTION" = "$1"`, "sh", word, dir}, Timeout: time.Minute}
	}
	pair := &failback.Pair{
		Name: "web", Original: hostctl.Ref{Host: "home", ID: "vm-9", UUID: "u9"}, Replica: hostctl.Ref{Host: "dr", ID: "vm-2"}, State: failback.Failback,
		Former: &hostctl.Ref{Host: "home", UUID: "u1"}, Excluded: []hostctl.Ref{{UUID: "u1"}},
	}
	c, _ := caller(t, config.Config{})
	if err := c.Hold(t.Context(), pair, "fb-1"); err != nil {
		t.Errorf("nobody replicates: %v", err)
	}
	c.Use(&config.Config{Replication: config.Replication{Hold: call("hold"), Release: call("release")}})
	for _, f := range []func(context.Context, *failback.Pair, string) error{c.Hold, c.Release} {
		if err := f(t.Context(), pair, "fb-1"); err != nil {
			t.Error(err)
		}
	}
	var e event
	if err := json.Unmarshal([]byte(read(t, dir+"/in")), &e); err != nil {
		t.Fatal(err)
	}
	if e.Kind != "replication" || e.Action != "release" || e.Failback != "fb-1" || e.Original.UUID != "u9" || e.Former == nil || e.Former.UUID != "u1" || len(e.Excluded) != 1 || e.Target != nil {
		t.Errorf("%+v", e)
	}
	if env := read(t, dir+"/env"); strings.Contains(env, "HAULBACK_TARGET") || !strings.Contains(env, "HAULBACK_ORIGINAL_UUID=u9\n") {
		t.Errorf("env:\n%s", env)
	}
	c.Use(&config.Config{Replication: config.Replication{Hold: call("other"), Release: call("release")}})
	if err := c.Hold(t.Context(), pair, "fb-1"); err == nil || !strings.Contains(err.Error(), "replication: hold web: /bin/sh: exit status 1") {
		t.Errorf("got %v", err)
	}
}

func TestSaid(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{" \n\t ", ""},
		{"a\r\nb\x00c\xff\u202e", ": a ; b?c??"},
		{strings.Repeat("x", maxText+1), ": ..." + strings.Repeat("x", maxText)},
	} {
		if got := said(c.in, false); got != c.want {
			t.Errorf("said(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	var w tail
	for range 3 {
		if n, err := w.Write(bytes.Repeat([]byte("y"), maxTail-1)); n != maxTail-1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(w.text) != maxTail || !strings.HasPrefix(w.String(), ": ...y") {
		t.Errorf("%d bytes are kept: %s", len(w.text), w.String())
	}
}
