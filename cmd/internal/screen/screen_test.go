package screen

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	gib = 1 << 30
	mib = 1 << 20
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // screens show the operator's clock
	os.Exit(m.Run())
}

var start = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return start.Add(d) }

func ref(host, vm, id string) hostctl.Ref { return hostctl.Ref{Host: host, ID: id, Name: vm} }

// journal is the steps up to and with the one named, the last in state last.
func journal(upto string, last failback.StepState) []failback.Step {
	all := []failback.Step{
		{Name: "guard", Number: 1, Text: "keep home from moving web-prod and dr from moving web-replica"},
		{Name: "power-off-target", Number: 1, State: failback.Skipped, Text: "web-prod is off already"},
		{Name: "protect-target", Number: 1, Text: "rollback point haulback-0190-protect-target on web-prod"},
		{Name: "mark-target", Number: 1, Text: "web-prod is marked inconsistent"},
		{Name: "track-replica", Number: 2, Text: "change tracking of web-replica, snapshot haulback-0190-track-replica-1"},
		{Name: "pair-disks", Number: 2, Text: "2 disks are paired"},
		{Name: "pass-1", Number: 3, Text: "pass 1 of 2 disks"},
		{Name: "power-off-replica", Number: 4, Text: "web-replica is off, its guest was shut down"},
		{Name: "protect-replica", Number: 5, Text: "protective snapshot haulback-0190-protect-replica on web-replica"},
		{Name: "final-pass", Number: 6, Text: "final pass of 2 disks"},
		{Name: "state", Number: 7, Text: "web is in state Failback"},
		{Name: "hold-replication", Number: 7, Text: "replication of web is held"},
		{Name: "power-on", Number: 9, Text: "web-prod is on"},
	}
	for i := range all {
		s := &all[i]
		s.Attempt, s.Began = 1, at(time.Duration(i)*time.Minute)
		s.Ended = s.Began.Add(7 * time.Second)
		if s.State == "" {
			s.State = failback.Done
		}
		if s.Name == upto {
			s.State = last
			if last == failback.Intent {
				s.Ended = time.Time{}
			}
			return all[:i+1]
		}
	}
	return all
}

func status(activity failback.Activity, state failback.State, upto string, last failback.StepState) *failback.Status {
	return &failback.Status{
		ID: "web-20261122-030000", Run: "01905a5e-7d3a-7c51-b0cb-3b3a52a1d2e3", Owner: "uid 0", Revision: 7, Created: start,
		Spec:  failback.Spec{VM: "web", Destination: failback.Original, Switch: failback.Switch{When: failback.WhenManual, Budget: time.Minute}, PowerOn: true},
		State: state, Activity: activity, Steps: journal(upto, last),
		Original: ref("home", "web-prod", "vm-42"), Replica: ref("dr", "web-replica", "vm-7"), Target: ref("home", "web-prod", "vm-42"),
		Disks: []failback.Disk{
			{Label: "scsi0:0", Replica: hostctl.Disk{Label: "scsi0:0", Size: 40 * gib}, Matched: "label and size, 63 of 64 sampled grains alike"},
			{Label: "scsi0:1", Replica: hostctl.Disk{Label: "scsi0:1", Size: 512 * gib}, Matched: "label and size, 60 of 64 sampled grains alike"},
		},
	}
}

// passes gives both disks a pass: the first has ended, the second is at share.
func passes(s *failback.Status, share float64, final bool) *failback.Status {
	for i := range s.Disks {
		d := &s.Disks[i]
		size := d.Replica.Size
		p := failback.Pass{
			Number: 1, Asked: "hash", Used: "full", Reason: "the first pass compares everything", Final: final, Began: at(6 * time.Minute), Rate: 312.5 * mib,
			Counters: job.Counters{Total: size, Verified: int64(share * float64(size)), Differing: 3*gib + 200*mib, Sent: 2*gib + 900*mib},
		}
		if final {
			p.Number, p.Used, p.Reason, p.Asked = 2, "hint", "change tracking since pass 1", "cbt"
			p.Counters.Differing, p.Counters.Sent = 120*mib, 90*mib
		}
		if i == 0 {
			p.Ended, p.Verified, d.Verified = at(8*time.Minute), true, true
			if final {
				d.Sampled = "sampled 160.0 MiB of 39.8 GiB"
			}
		} else {
			p.Left = 19*time.Minute + 12*time.Second
			p.Event = "the link to home was lost and picked up again"
		}
		d.Passes = append(d.Passes, p)
	}
	return s
}

func whole(s *failback.Status) *failback.Status {
	for i := range s.Disks {
		d := &s.Disks[i]
		p := &d.Passes[len(d.Passes)-1]
		p.Ended, p.Verified, p.Left, p.Event, d.Verified = at(9*time.Minute), true, 0, "", true
		p.Counters.Verified = p.Counters.Total
	}
	return s
}

func statuses() map[string]*failback.Status {
	out := map[string]*failback.Status{}
	out["waiting"] = &failback.Status{
		ID: "web-20261122-030000", Owner: "uid 0", Created: start, State: failback.Failover, Activity: failback.Waiting,
		Spec: failback.Spec{VM: "web", Destination: failback.Original, Group: "shop", Order: 2, Switch: failback.Switch{When: failback.WhenNow}},
		Wait: "waits for its turn: 4 VMs are in passes, db is next", Next: "guard both VMs", Replica: ref("dr", "web-replica", "vm-7"), Target: ref("home", "web-prod", "vm-42"),
	}
	s := passes(status(failback.Syncing, failback.Failover, "pass-1", failback.Intent), 0.43, false)
	s.Next = "a second pass of what the replica has changed meanwhile, then ReadyToSwitch"
	s.Warnings = []string{"web-prod has 1 snapshot of somebody else (before-upgrade); it stays"}
	out["syncing"] = s
	s = whole(passes(status(failback.Standing, failback.ReadyToSwitch, "pass-1", failback.Done), 1, false))
	s.Forecast = failback.Forecast{Downtime: 42 * time.Second, Dirty: 2 * mib, Passes: 2, Within: true, Text: "2.0 MiB/s change, 312.5 MiB/s move, 35s to shut down and start"}
	s.Next = "nothing, until you say switch"
	out["ready to switch"] = s
	s = passes(status(failback.Switching, failback.ReadyToSwitch, "final-pass", failback.Intent), 0.9, true)
	s.Next = "state Failback, then web-prod is powered on"
	s.Forecast.Downtime = 42 * time.Second
	out["switching"] = s
	s = whole(passes(status(failback.Deciding, failback.Failback, "power-on", failback.Done), 1, true))
	s.Downtime = 51 * time.Second
	s.Next = "nothing, until you say commit or undo"
	out["deciding"] = s
	s = whole(passes(status(failback.Standing, failback.ReadyToSwitch, "pass-1", failback.Done), 1, false))
	s.Spec.Switch.When = failback.WhenNow
	s.Forecast = failback.Forecast{Downtime: 3 * time.Minute, Passes: 8, Text: "final pass 2m40s"}
	s.Wait = "8 passes do not bring the downtime below 1m0s: waits for the word to switch"
	out["over budget"] = s
	s = passes(status(failback.Switching, failback.Failover, "final-pass", failback.Intent), 0.2, true)
	s.Disks[1].Failure = &job.Failure{Reason: "STORAGE", Text: "scsi0:1: write 1 MiB at 5 GiB: no space left on device", Exit: 3}
	s.Halted = &failback.Halt{
		Step: "final-pass", Number: 6, Reason: "STORAGE", At: at(10 * time.Minute), Text: "scsi0:1: write 1 MiB at 5 GiB: no space left on device",
		Remedy: "free at least 12.0 GiB on [LocalDS_0] of home, then continue",
	}
	out["halted"] = s
	s = whole(passes(status(failback.Committed, failback.Ready, "power-on", failback.Done), 1, true))
	s.Downtime, s.Ended = 51*time.Second, at(time.Hour)
	out["committed"] = s
	s = passes(status(failback.Canceling, failback.Failover, "pass-1", failback.Compensating), 0.5, false)
	s.Spec.NoRollback = true
	out["canceling"] = s
	return out
}

func plans() map[string]*failback.Plan {
	thin := hostctl.Disk{Label: "scsi0:0", File: "[LocalDS_0] web-prod/web-prod.vmdk", Size: 40 * gib}
	replica := hostctl.VM{
		Ref: ref("dr", "web-replica", "vm-7"), Power: hostctl.On, Path: "[DrDS] web-replica/web-replica.vmx",
		Disks: []hostctl.Disk{{Label: "scsi0:0", Size: 40 * gib}, {Label: "scsi0:1", Size: 512 * gib}},
	}
	target := hostctl.VM{Ref: ref("home", "web-prod", "vm-42"), Power: hostctl.Off, Path: "[LocalDS_0] web-prod/web-prod.vmx"}
	data := thin
	data.Label, data.File, data.Size = "scsi0:1", "[LocalDS_0] web-prod/web-prod_1.vmdk", 512*gib
	original := &failback.Plan{
		VM: "web", Destination: failback.Original, Replica: replica, Target: &target, Bytes: 4 * gib, AtMost: 552 * gib, Time: 31 * time.Minute, Downtime: 42 * time.Second,
		Why:      "the original VM is there: only what differs between it and the replica crosses the wire",
		Reckoned: "256 of 9043968 grains were read on both sides, at 310 MiB/s",
		Disks: []failback.PlanDisk{
			{
				Label: "scsi0:0", Replica: replica.Disks[0], Target: &thin, Mode: "hash", Differing: 3 * gib, Error: 400 * mib, AtMost: 40 * gib,
				Reason: "the original was not shut down cleanly, its change tracking cannot know", Matched: "label and size, 63 of 64 sampled grains alike",
			},
			{Label: "scsi0:1", Replica: replica.Disks[1], Target: &data, Mode: "hash", Differing: -1, AtMost: 512 * gib, Reason: "asked for", Matched: "label and size"},
			{Label: "scsi0:2", Replica: hostctl.Disk{Size: 8 * gib}, Excluded: true},
		},
		Actions: []failback.Action{
			{Step: "guard", Number: 1, Host: "home", Text: "keep the host from moving web-prod", Undo: "free it"},
			{Step: "protect-target", Number: 1, Host: "home", Text: "make rollback point on web-prod", Undo: "revert to it, then remove it"},
			{Step: "pass-1", Number: 3, Text: "compare both disks and move what differs, while web-replica serves", Overwrites: "the disks scsi0:0 and scsi0:1 of home/web-prod", Undo: "revert web-prod to its rollback point"},
			{Step: "power-off-replica", Number: 4, Host: "dr", Text: "power off web-replica (guest shutdown, at most 5m0s)", Undo: "power it on"},
			{Step: "power-on", Number: 9, Host: "home", Text: "power on web-prod", Undo: "power it off"},
		},
		Warnings: []string{"web-prod has 4 CPUs and web-replica 8: the configuration of web-prod stays"},
	}
	broken := *original
	broken.Problems = []hostctl.Problem{
		{Reason: "TARGET_TOO_SMALL", Text: "scsi0:1 of home/web-prod has 500.0 GiB, the replica's 512.0 GiB", Remedy: "grow it on the host, or leave the disk out with --exclude scsi0:1"},
		{Reason: "PRIVILEGE", Text: "the login haulback of home may not VirtualMachine.State.CreateSnapshot on web-prod", Remedy: "grant it"},
	}
	fresh := *original
	fresh.Destination, fresh.Target, fresh.Warnings = failback.New, nil, nil
	fresh.Disks = []failback.PlanDisk{{Label: "scsi0:0", Replica: replica.Disks[0], Mode: "full", Reason: "the target is made empty", Differing: 40 * gib, AtMost: 40 * gib}}
	fresh.Actions = []failback.Action{{Step: "create-target", Number: 1, Host: "home", Text: "make web-replica in [LocalDS_0] with 1 disk", Undo: "delete it"}}
	return map[string]*failback.Plan{"original": original, "problems": &broken, "new": &fresh}
}

// golden holds text against a file of testdata, and its lines against a width.
func golden(t *testing.T, file, text string, width int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("%s: %d columns: %s", file, n, line)
		}
	}
	path := filepath.Join("testdata", strings.ReplaceAll(file, " ", "-")+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, text, want)
	}
}

func TestScreens(t *testing.T) {
	now := at(15 * time.Minute)
	for _, width := range []int{80, 120} {
		for name, s := range statuses() {
			golden(t, fmt.Sprintf("status %s %d", name, width), Status(s, now, width), width)
			golden(t, fmt.Sprintf("live %s %d", name, width), strings.Join(Lines(s, now, width, 24), "\n")+"\n", width)
		}
		for name, p := range plans() {
			detail := Full
			if name == "new" {
				detail = Short
			}
			golden(t, fmt.Sprintf("plan %s %d", name, width), Plan(p, "haulback failback start web", detail, width), width)
		}
	}
	list := []*failback.Status{statuses()["halted"], statuses()["syncing"], statuses()["committed"]}
	golden(t, "list 80", Failbacks(list, at(2*time.Hour), 80), 80)
	pair := failback.Pair{Name: "web", Original: ref("home", "web-prod", "vm-42"), Replica: ref("dr", "web-replica", "vm-7"), State: failback.Failover, Since: start}
	golden(t, "pairs 80", Pairs([]failback.Pair{pair, {Name: "db", State: failback.Ready, Original: ref("home", "db", "vm-1"), Replica: ref("dr", "db", "vm-2")}}, 80), 80)
	golden(t, "pair 80", Pair(&pair, now, 80), 80)
	golden(t, "leftovers 80", Leftovers([]failback.Leftover{
		{Host: "home", VM: ref("home", "web-prod", "vm-42"), Kind: "snapshot", Name: "haulback-0190-protect-target", Run: "0190", Why: "its failback web-1 was committed"},
		{Host: "dr", VM: ref("dr", "web-replica", "vm-7"), Kind: "guard", Name: "0190", Why: "no failback is known", Error: "the login may not enable methods"},
	}, 80), 80)
}

// TestChanges: a log has each thing once, in order.
func TestChanges(t *testing.T) {
	var text strings.Builder
	var before *failback.Status
	all := statuses()
	for _, name := range []string{"waiting", "syncing", "ready to switch", "switching", "halted", "deciding", "deciding"} {
		for _, line := range Changes(before, all[name]) {
			fmt.Fprintln(&text, line)
		}
		before = all[name]
	}
	golden(t, "changes", text.String(), 400)
	for _, name := range []string{"syncing", "halted"} { // what was before is passed over
		golden(t, "changes attached "+name, strings.Join(Changes(nil, all[name]), "\n")+"\n", 400)
	}
	if again := Changes(before, before); len(again) > 0 {
		t.Errorf("nothing has changed: %q", again)
	}
}

// TestHostile: what a host says cannot speak to the terminal, nor make a screen
// wider.
func TestHostile(t *testing.T) {
	s := statuses()["halted"]
	evil := "\x1b]0;owned\x07\u202e\r\nweb " + strings.Repeat("\u65e5\u672c", 60)
	s.Target.Name, s.Halted.Text, s.Wait, s.Disks[1].Label, s.Disks[1].Failure.Text = evil, evil, evil, evil, evil
	p := plans()["problems"]
	p.Problems[0].Text, p.Actions[0].Text, p.Target.Path, p.Disks[0].Target.File = evil, evil, evil, evil
	for _, text := range []string{
		Status(s, start, 80), Plan(p, "", Full, 80), strings.Join(Lines(s, start, 80, 24), "\n"), strings.Join(Changes(nil, s), "\n"),
		Failbacks([]*failback.Status{s}, start, 80),
	} {
		for _, r := range text {
			if r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' {
				t.Fatalf("%q has %q", text, r)
			}
		}
	}
	for line := range strings.Lines(Status(s, start, 80) + Plan(p, "", Full, 80)) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestLines: what is drawn again and again fits into the terminal, however small.
func TestLines(t *testing.T) {
	s := statuses()["syncing"]
	for range 40 {
		s.Disks = append(s.Disks, s.Disks[1])
	}
	for _, size := range [][2]int{{80, 24}, {40, 10}, {20, 5}, {200, 50}, {80, 2}, {1, 1}} {
		lines := Lines(s, start, size[0], size[1])
		if len(lines) >= size[1] && size[1] > 1 {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if columns(line) > size[0] {
				t.Errorf("%v: %d columns: %s", size, columns(line), line)
			}
		}
	}
}

// TestRegion: a terminal that became narrower has broken the lines, and what is
// drawn next begins where the first one did.
func TestRegion(t *testing.T) {
	var b strings.Builder
	r := NewRegion(&b)
	r.Draw(80, []string{strings.Repeat("x", 79), "short"})
	r.Draw(30, []string{"y"})
	r.Say(30, "said")
	r.Draw(30, []string{"z"})
	r.Close(30)
	want := strings.Repeat("x", 79) + "\nshort\n" + "\r\x1b[4A\x1b[Jy\n" + "\r\x1b[1A\x1b[Jsaid\n" + "z\n" + "\r\x1b[1A\x1b[J"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
}
