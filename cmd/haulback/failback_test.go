package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

func (f *fakeController) run(t *testing.T, args ...string) cmdtest.Result {
	t.Helper()
	return programs.Run(t, "haulback", append([]string{"failback", "--socket", f.socket}, args...)...)
}

// TestFailbackArguments: what is wrong is said before anybody is called.
func TestFailbackArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		want string
	}{
		{"start", "name the VM"},
		{"start web --group shop --yes", "not both"},
		{"start web --destination moon", "original, existing or new"},
		{"start web --destination existing", "--target home/web-restored"},
		{"start web --target home/x", "goes with --destination existing"},
		{"start web --destination existing --target x", "write HOST/VM"},
		{"start web --name x", "go with --destination new"},
		{"start web --thin scsi0:0", "go with --destination new"},
		{"start web --destination new --thin a --thick a", "named twice"},
		{"start web --destination new --grow scsi0:0=5", "as in 64MiB"},
		{"start web --destination new --datastore a --datastore b", "DISK=DATASTORE"},
		{"start web --map scsi0:0", "= between them"},
		{"start web --network a=b --network a=c", "named twice"},
		{"start web --switch whenever", "now, manual, or a time"},
		{"start web --switch 2001-01-01T00:00", "is over"},
		{"start web --tracking guess", "hash or cbt"},
		{"start web --verify none", "pass or full"},
		{"start web --priority urgent", "low, normal or high"},
		{"start web --grace -1s", "0 or more"},
		{"start web --auto-undo-after 1h --auto-commit-after 1h", "choose one"},
		{"start web --downtime-budget -1s", "cannot be negative"},
		{"start web --detach --watch", "choose one"},
		{"start web --rate fast", "as in 64MiB"},
		{"vm put web --original home/web", "--replica HOST/VM"},
		{"vm put web --original home/web --replica web", "write HOST/VM"},
		{"vm put web --original home/web --replica dr/web --disk a=b", "UUIDs"},
		{"switch", "accepts 1 arg"},
		{"commit web db", "accepts 1 arg"},
		{"nonsense", "nonsense"},
	} {
		r := programs.Run(t, "haulback", append([]string{"failback", "--socket", "/none"}, strings.Fields(c.args)...)...)
		if r.Code != 10 || !strings.Contains(r.Stderr, c.want) || r.Out != "" {
			t.Errorf("%s: exit code %d, %q; want 10 and %q", c.args, r.Code, r.Stderr+r.Out, c.want)
		}
	}
	if r := programs.Run(t, "haulback", "failback", "--socket", "/none", "status", "web"); r.Code != 13 {
		t.Errorf("no daemon: exit code %d: %s", r.Code, r.Stderr)
	}
}

// TestFailbackAsks: without a terminal nobody is asked, and nothing is done.
func TestFailbackAsks(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set("web-1", func(s *failback.Status) { s.State, s.Activity = failback.Failback, failback.Deciding })
	f.offer(func() {
		f.left = []failback.Leftover{{Host: "home", Kind: "snapshot", Name: "haulback-x", Why: "over"}}
	})
	for _, args := range []string{"start web", "commit web", "undo web", "gc --remove", "--json start web", "--json undo web"} {
		r := f.run(t, strings.Fields(args)...)
		if r.Code != 10 || !strings.Contains(r.Stderr, "--yes") {
			t.Errorf("%s: exit code %d: %s", args, r.Code, r.Stderr)
		}
	}
	for _, said := range f.said() {
		if !strings.HasPrefix(said, "plan") {
			t.Errorf("%s was asked of the daemon", said)
		}
	}
}

// TestFailbackStart: what was shown is what runs, and --id begins nothing twice.
func TestFailbackStart(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	r := f.run(t, "start", "web", "--yes", "--detach", "--id", "mine", "--switch", "now", "--no-rollback-point", "--grace", "0")
	if r.Code != 0 || !strings.Contains(r.Out, "OVERWRITE") || !strings.Contains(r.Out, "watch web") || !strings.Contains(r.Stderr, "LOST FOR GOOD") {
		t.Fatalf("exit code %d:\n%s\n%s", r.Code, r.Out, r.Stderr)
	}
	got := f.begun()[0]
	if got.ConfirmedDigest != f.digest() || !got.Spec.NoRollback || got.Spec.Grace.AsDuration() >= 0 || got.Spec.Switch.When.String() != "WHEN_NOW" {
		t.Errorf("started %v", got)
	}
	if r := f.run(t, "start", "web", "--yes", "--detach", "--id", "mine", "--switch", "now", "--no-rollback-point", "--grace", "0"); r.Code != 0 || strings.Contains(r.Out, "Plan") {
		t.Errorf("again: exit code %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	f.offer(func() {
		f.plan.Problems = []hostctl.Problem{{Reason: "PRIVILEGE_MISSING", Text: "the login may not snapshot web-prod", Remedy: "grant it"}, {Reason: "NO_SPACE", Text: "x"}}
	})
	for _, verb := range []string{"plan", "start"} {
		r = f.run(t, verb, "web")
		if r.Code != 5 || !strings.Contains(r.Out, "CANNOT be brought home yet: 2 problems") || !strings.Contains(r.Stderr, "grant it; and 1 more") {
			t.Errorf("%s with problems: exit code %d: %s%s", verb, r.Code, r.Out, r.Stderr)
		}
	}
	f.offer(func() { f.plan.Problems = []hostctl.Problem{{Reason: "AUTH", Text: "not paired"}} })
	if r = f.run(t, "plan", "web"); !strings.HasSuffix(r.Stderr, "home: not paired\n") {
		t.Errorf("a problem without a remedy: %q", r.Stderr)
	}
	if said := strings.Join(f.said(), ","); strings.Count(said, "start web") != 1 {
		t.Errorf("asked %s", said)
	}
}

// TestFailbackGroup: members, order and priority are the configuration's, the
// rest is the caller's.
func TestFailbackGroup(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.pair("db", "")
	r := f.run(t, "start", "--group", "shop", "--yes", "--detach", "--power-on")
	if r.Code != 0 || len(f.begun()) != 2 {
		t.Fatalf("exit code %d: %s%s", r.Code, r.Out, r.Stderr)
	}
	for i, want := range []struct {
		vm       string
		order    int32
		priority string
	}{{"db", 1, "PRIORITY_HIGH"}, {"web", 2, "PRIORITY_NORMAL"}} {
		s := f.begun()[i].Spec
		if s.Vm != want.vm || s.Order != want.order || s.Priority.String() != want.priority || s.Group != "shop" || !s.PowerOn {
			t.Errorf("member %d: %v", i, s)
		}
	}
	if r := f.run(t, "plan", "--group", "ship"); r.Code != 10 || !strings.Contains(r.Stderr, "it has shop") {
		t.Errorf("no such group: exit code %d: %s", r.Code, r.Stderr)
	}
	f.set("a", func(s *failback.Status) { s.Spec.VM, s.Activity = "db", failback.Deciding })
	f.set("b", func(s *failback.Status) { s.Spec.VM, s.Activity = "web", failback.Canceled })
	if r := f.run(t, "watch", "db", "web"); r.Code != 130 || !strings.Contains(r.Out, "db: failback a of db") || !strings.Contains(r.Out, "web  Failover") {
		t.Errorf("exit code %d: %s%s", r.Code, r.Out, r.Stderr)
	}
}

// TestFailbackWatch: a line for each thing that happens, until it needs the
// operator; the exit code says how it stands.
func TestFailbackWatch(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	step := func(state failback.StepState) []failback.Step {
		return []failback.Step{{Name: "pass-1", Number: 3, State: state, Attempt: 1, Text: "pass 1 of 1 disk", Began: time.Now(), Ended: time.Now().Add(2 * time.Second)}}
	}
	f.set("web-1", func(s *failback.Status) { s.Steps = step(failback.Intent) })
	x := programs.Start(t, "haulback", "failback", "--socket", f.socket, "watch", "web")
	cmdtest.Await(t, "the step", func() bool { return strings.Contains(x.Stdout(), "step 3: pass 1 of 1 disk") })
	f.set("web-1", func(s *failback.Status) { s.Steps = step(failback.Done) })
	cmdtest.Await(t, "its end", func() bool { return strings.Contains(x.Stdout(), "step 3 done") })
	f.set("web-1", func(s *failback.Status) { s.Activity, s.State = failback.Standing, failback.ReadyToSwitch })
	r := x.Wait()
	if r.Code != 0 || !strings.Contains(r.Out, "READY TO SWITCH") || !strings.HasSuffix(r.Out, "loses nothing\n") || strings.Contains(r.Out, "\x1b") {
		t.Errorf("exit code %d:\n%s%s", r.Code, r.Out, r.Stderr)
	}
	halt := func(reason string) func(*failback.Status) {
		return func(s *failback.Status) {
			s.Halted = &failback.Halt{Step: "final-pass", Number: 6, Reason: reason, Text: "it broke", Remedy: "mend it", At: time.Now()}
		}
	}
	for _, c := range []struct {
		name string
		to   func(*failback.Status)
		args string
		code int
		want string
	}{
		{"halted", halt("STORAGE"), "watch web", 3, "stands still at step 6 (final-pass): it broke; mend it"},
		{"not proved", halt("CHECKSUM_MISMATCH"), "watch web", 4, "it broke"},
		{"host refuses", halt("HOST_REFUSED"), "watch web", 5, "it broke"},
		{"home", func(s *failback.Status) {
			s.Halted, s.Activity, s.State = nil, failback.Deciding, failback.Failback
		}, "watch web", 0, "commit or undo"},
		{"switch at", nil, "switch web --manual", 0, "watch web looks on"},
		{"commit", nil, "commit web --yes", 0, "home for good"},
		{"committed", nil, "watch web", 0, "home for good"},
		{"undo", func(s *failback.Status) { s.Activity, s.State = failback.Deciding, failback.Failback }, "undo web --yes", 0, "at its replica again"},
		{"undone", nil, "watch web", 1, "its replica serves"},
		{"cancel", func(s *failback.Status) { s.Activity = failback.Syncing }, "cancel web", 0, "was canceled"},
		{"canceled", nil, "watch web", 130, "was canceled"},
		{"continue", func(s *failback.Status) { halt("STORAGE")(s); s.Activity = failback.Deciding }, "continue web", 0, "waits for your word"},
		{"limits", nil, "limits web --rate 1MiB --priority high", 0, "waits for your word"},
		{"check", nil, "check web", 11, "held by failback web-1"},
		{"unknown", nil, "status nobody", 10, "no failback nobody"},
		{"by ID", nil, "status web-1", 0, "waits for your word"},
		{"all", nil, "status", 0, "waits for your word"},
		{"list", nil, "list", 0, "WHERE IT STANDS"},
		{"record", nil, "record web", 0, "{\"record\":1}\n"},
	} {
		if c.to != nil {
			f.set("web-1", c.to)
		}
		if r := f.run(t, strings.Fields(c.args)...); r.Code != c.code || !strings.Contains(r.Out+r.Stderr, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", c.name, r.Code, c.code, c.want, r.Out, r.Stderr)
		}
	}
}

// TestFailbackInterrupted: Ctrl-C ends the watching and not the failback.
func TestFailbackInterrupted(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set("web-1", func(*failback.Status) {})
	x := programs.Start(t, "haulback", "failback", "--socket", f.socket, "watch", "web")
	cmdtest.Await(t, "the first line", func() bool { return strings.Contains(x.Stdout(), "web-1") })
	x.Signal(os.Interrupt)
	if r := x.Wait(); r.Code != 130 || !strings.Contains(r.Stderr, "the failback goes on, haulback failback watch web looks on") || len(f.said()) > 0 {
		t.Errorf("exit code %d: %s; %q", r.Code, r.Stderr, f.said())
	}
}

// TestFailbackNames: a shell is offered the VMs that the daemon knows.
func TestFailbackNames(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.pair("db", "")
	for _, verb := range []string{"start", "status", "commit", "undo", "failover"} {
		r := programs.Run(t, "haulback", "__complete", "failback", "--socket", f.socket, verb, "")
		if !strings.HasPrefix(r.Out, "db\nweb\n") {
			t.Errorf("%s: %q %s", verb, r.Out, r.Stderr)
		}
	}
	for _, verb := range []string{"switch", "commit", "undo", "cancel", "continue", "limits", "record"} {
		if r := f.run(t, verb, "db"); r.Code != 10 || !strings.Contains(r.Stderr, "haulback: db has no failback") {
			t.Errorf("%s of a VM without a failback: exit code %d: %s", verb, r.Code, r.Stderr)
		}
	}
	if r := programs.Run(t, "haulback", "__complete", "failback", "--socket", "/none", "start", ""); r.Code != 0 || strings.Contains(r.Out, "web") {
		t.Errorf("nobody there: %q", r.Out)
	}
	if r := programs.Run(t, "haulback", "__complete", "failback", "start", "web", "--destination", ""); !strings.Contains(r.Out, "existing") {
		t.Errorf("destinations: %q", r.Out)
	}
}

// schemaOfFailbacks has the lines of failbacks.
func schemaOfFailbacks(t *testing.T, v *validator) {
	t.Helper()
	f := newFake(t)
	f.offer(func() { f.plan.Problems = []hostctl.Problem{{Reason: "NO_SPACE", Text: "x", Remedy: "y"}} })
	v.check(t, "plan with problems", f.run(t, "--json", "plan", "web"))
	f.offer(func() {
		f.plan.Problems, f.plan.Disks[0].Differing = nil, -1
		f.left = []failback.Leftover{{Host: "home", VM: hostctl.Ref{Host: "home", ID: "vm-1"}, Kind: "snapshot", Name: "haulback-x", Run: "r", Why: "over", Error: "not allowed"}}
	})
	now := time.Now()
	busy := func(s *failback.Status) {
		s.Halted = &failback.Halt{Step: "final-pass", Number: 6, Reason: "STORAGE", Text: "it broke", Remedy: "mend it", At: now}
		s.Next, s.Wait, s.Warnings, s.Downtime = "a", "b", []string{"c"}, time.Second
		s.Spec.Group, s.Spec.Order, s.Spec.Switch = "shop", 2, failback.Switch{When: failback.WhenAt, At: now, Budget: time.Minute}
		s.Forecast = failback.Forecast{Downtime: time.Second, Dirty: 5, Passes: 1, Within: true, Text: "d"}
		s.Steps = []failback.Step{{Name: "pass-1", Number: 3, State: failback.Done, Attempt: 1, Host: "home", VM: "web", Before: "on", Task: "task-1", Began: now, Ended: now, Text: "t"}}
		s.Decisions = []failback.Decision{{What: "start", By: "uid 0", At: now, Text: "u"}}
		s.Disks = []failback.Disk{{
			Label: "scsi0:0", Replica: hostctl.Disk{Size: 5, File: "[a] b"}, Target: hostctl.Disk{File: "[c] d"}, Matched: "label", Verified: true, Sampled: "sampled 1 of 2",
			Failure: &job.Failure{Reason: "STORAGE", Text: "it broke", Retry: job.RetryBackoff, Exit: 3},
			Passes:  []failback.Pass{{Number: 1, Final: true, Asked: "hash", Used: "full", Reason: "r", Began: now, Ended: now, Epoch: 3, Event: "e", Rate: 5, Left: time.Second, Verified: true}},
		}}
		s.Disks[0].Root[0], s.Disks[0].Before[0], s.Disks[0].Passes[0].Root[0] = 1, 2, 3
	}
	for _, c := range []struct {
		code int
		args string
	}{
		{0, "vm put web --original home/web --replica dr/id:vm-7 --disk 6000c29b-0000-4000-8000-000000000001=6000c29b-0000-4000-8000-000000000002"},
		{0, "vm list"},
		{0, "vm get web"},
		{0, "failover web"},
		{0, "undo-failover web"},
		{0, "check web"},
		{0, "plan web"},
		{0, "start web --yes --detach --id web-1 --no-rollback-point"},
		{11, "check web"},
		{0, "status"},
		{0, "list"},
		{0, "limits web"},
		{3, "watch web"},
		{0, "continue web --detach"},
		{0, "switch web --at 23:59"},
		{0, "cancel web"},
		{0, "commit web --yes"},
		{0, "undo web --yes"},
		{0, "record web"},
		{0, "record web --out " + filepath.Join(t.TempDir(), "r.json")},
		{0, "gc"},
		{5, "gc --remove --yes"},
		{0, "vm remove web"},
		{10, "status nobody"},
		{10, "undo web"},
	} {
		if c.args == "status" {
			f.set("web-1", busy)
		}
		r := f.run(t, append([]string{"--json"}, strings.Fields(c.args)...)...)
		if v.check(t, c.args, r); r.Code != c.code || r.Code == 0 && r.Out == "" {
			t.Errorf("%s: exit code %d, want %d: %s%s", c.args, r.Code, c.code, r.Out, r.Stderr)
		}
	}
}
