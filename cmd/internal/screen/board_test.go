package screen

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// jobsOf are jobs in each phase that an operator meets.
func jobsOf() []*Job {
	disk := func(name string, phase job.Phase, done float64) job.DiskStatus {
		d := job.DiskStatus{Name: name, Run: "01905a5e-7d3a-7c51-b0cb-3b3a52a1d2e3", Phase: phase, Starts: 1, Started: start}
		d.Outcome.Counters = job.Counters{Total: 40 * gib, Scanned: int64(done * 40 * gib), Verified: int64(done * 40 * gib), Differing: 3 * gib, Sent: 2 * gib, Wire: gib}
		return d
	}
	one := func(id string, phase job.Phase, disks ...job.DiskStatus) *Job {
		j := &Job{Job: job.Job{ID: id, Owner: "uid 0", Phase: phase, Created: at(-time.Hour), Started: start, Disks: disks, Revision: 7, Spec: job.Spec{Mode: job.Copy}}}
		for i := range disks {
			j.Spec.Disks = append(j.Spec.Disks, job.Disk{Name: disks[i].Name, Source: fmt.Sprintf("/srv/%s.img", disks[i].Name), Target: "haulback://home:7420/" + disks[i].Name})
		}
		if phase.Ended() {
			j.Ended = at(10 * time.Minute)
		}
		return j
	}
	running := one("nightly", job.InProgress, disk("disk0", job.InProgress, 0.43), disk("disk1", job.Completed, 1), disk("disk2", job.Accepted, 0))
	running.Disks[1].Outcome.Verified, running.Disks[2].Outcome.Counters = true, job.Counters{}
	running.Rates = map[string]Rate{"disk0": {Scan: 88 * mib, Wire: 12 * mib, Left: 12 * time.Minute}}
	running.Notes = []string{"03:05:00 disk0: the link was lost", "03:05:04 disk0: goes on where it was"}
	failed := one("archive", job.Failed, disk("disk0", job.Failed, 0.2))
	failed.Failure = &job.Failure{Reason: job.ReasonNoSpace, Text: "/srv/archive.img: no space left on device", Retry: job.RetryBackoff, Exit: 3}
	failed.Disks[0].Failure = failed.Failure
	done := one("weekly", job.Completed, disk("disk0", job.Completed, 1))
	done.Disks[0].Outcome.Verified, done.Disks[0].Outcome.Equal, done.Disks[0].Outcome.Root[0] = true, true, 0xab
	queued := one("queued", job.Accepted, job.DiskStatus{Name: "disk0", Phase: job.Accepted})
	paused := one("paused", job.Paused, disk("disk0", job.Paused, 0.7))
	return []*Job{running, failed, done, queued, paused}
}

var controller = Daemon{Where: "/run/haulback/control.sock", Version: "v0.4.0", Started: at(-3 * time.Hour), Controller: true, Open: 3, Sessions: 1, AtOnce: 4}

// boards are what a board may hold.
func boards() map[string]*Board {
	all := statuses()
	vm := func(activity, name string) *failback.Status {
		s := *all[activity]
		s.ID, s.Spec.VM = name+"-1", name
		return &s
	}
	out := map[string]*Board{
		"empty": {Daemon: controller},
		"jobs":  {Daemon: Daemon{Where: "/run/haulback/control.sock", Version: "v0.4.0", Started: at(-time.Hour), Draining: true, Open: 3, AtOnce: 4}, Jobs: jobsOf()},
		"all": {Daemon: controller, Jobs: jobsOf(), Failbacks: []*failback.Status{
			vm("waiting", "ldap"), vm("syncing", "mail"), vm("ready to switch", "wiki"), vm("switching", "shop"), vm("deciding", "db"), vm("halted", "web"),
			vm("committed", "dns"), vm("canceling", "proxy"), vm("over budget", "erp"),
		}},
	}
	for name := range all {
		out[name] = &Board{Daemon: controller, Failbacks: []*failback.Status{all[name]}}
	}
	lost := *out["all"]
	lost.Daemon.Lost = &Lost{Since: at(14 * time.Minute), Why: "no daemon at the control socket /run/haulback/control.sock; start haulbackd (systemctl start haulbackd), or name its socket with --socket"}
	out["lost"] = &lost
	return out
}

// window looks at the first row of a board.
func window(b *Board, width, height int, now time.Time) *Window {
	w := &Window{Width: width, Height: height}
	if list := b.Items(ShowAll, now); len(list) > 0 {
		w.Chosen = list[0].Key()
	}
	return w
}

// plainText is rows as they would stand on a terminal without colours.
func plainText(lines []Line) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(line.Text + "\n")
	}
	return b.String()
}

// TestBoards has the screens of the view as text.
func TestBoards(t *testing.T) {
	now := at(15 * time.Minute)
	show := func(name string, b *Board, change func(*Window), sizes ...[2]int) {
		for _, size := range sizes {
			w := window(b, size[0], size[1], now)
			change(w)
			text := plainText(b.Draw(w, now))
			if n := strings.Count(text, "\n"); n > size[1] {
				t.Errorf("%s: %d rows on a terminal of %d", name, n, size[1])
			}
			golden(t, fmt.Sprintf("board %s %dx%d", name, size[0], size[1]), text, size[0])
		}
	}
	plain := func(*Window) {}
	usual, large, huge, small := [2]int{80, 24}, [2]int{120, 40}, [2]int{200, 50}, [2]int{40, 10}
	all := boards()
	for name, b := range all {
		show(name, b, plain, usual)
	}
	show("all", all["all"], plain, large, huge, small, [2]int{39, 12}, [2]int{3, 1})
	show("lost", all["lost"], plain, small, large)
	show("ascii", all["all"], func(w *Window) { w.ASCII = true }, usual)
	show("help", all["all"], func(w *Window) { w.Help = true }, usual, small)
	show("details", all["halted"], func(w *Window) { w.Open = true }, large)
	show("details scrolled", all["deciding"], func(w *Window) { w.Open, w.Scroll = true, 1000 }, usual)
	show("details of a job", all["jobs"], func(w *Window) { w.Open, w.Chosen = true, "job/nightly" }, large)
	show("job", all["jobs"], func(w *Window) { w.Chosen = "job/nightly" }, usual)
	show("urgent", all["all"], func(w *Window) { w.Filter = ShowUrgent }, usual)
	for _, c := range []struct {
		board string
		verb  Verb
	}{{"deciding", Commit}, {"deciding", Undo}, {"ready to switch", Switch}, {"halted", Continue}, {"halted", Cancel}} {
		b := all[c.board]
		q := b.Items(ShowAll, now)[0].Ask(c.verb)
		show("ask "+string(c.verb), b, func(w *Window) { w.Ask = &q }, usual)
	}
	told := Question{Title: "Nothing was done", Facts: []string{"commit: it has changed while you were asked"}}
	show("told", all["deciding"], func(w *Window) { w.Ask = &told }, usual)
	q := all["deciding"].Items(ShowAll, now)[0].Ask(Undo)
	show("ask on a small terminal", all["deciding"], func(w *Window) { w.Ask = &q }, small)
	golden(t, "board plain", all["all"].Text(now), 400)
}

// TestBoardRefuses: a key that the state does not allow is refused with why, and
// what is asked names who goes off and on.
func TestBoardRefuses(t *testing.T) {
	all := statuses()
	jobs := map[string]*Job{}
	for _, j := range jobsOf() {
		jobs[j.ID] = j
	}
	vm := func(activity string) Item { return Item{Failback: all[activity]} }
	for _, c := range []struct {
		it   Item
		verb Verb
		want string // empty: it may be done
	}{
		{vm("deciding"), Commit, ""},
		{vm("deciding"), Undo, ""},
		{vm("deciding"), Switch, "switched already"},
		{vm("deciding"), Cancel, "undo it"},
		{vm("deciding"), Pause, "only jobs have that"},
		{vm("syncing"), Commit, "nothing was switched yet"},
		{vm("syncing"), Continue, "goes on by itself"},
		{vm("syncing"), Cancel, ""},
		{vm("halted"), Continue, ""},
		{vm("halted"), Undo, "x cancels it"},
		{vm("ready to switch"), Switch, ""},
		{vm("ready to switch"), Continue, ""},
		{vm("committed"), Undo, "over"},
		{vm("committed"), Commit, "already"},
		{vm("canceling"), Cancel, "already"},
		{Item{Job: jobs["nightly"]}, Commit, "only failbacks have that"},
		{Item{Job: jobs["nightly"]}, Pause, ""},
		{Item{Job: jobs["nightly"]}, Resume, "nothing is to be resumed"},
		{Item{Job: jobs["paused"]}, Resume, ""},
		{Item{Job: jobs["paused"]}, Pause, "or on its way there"},
		{Item{Job: jobs["archive"]}, Resume, ""},
		{Item{Job: jobs["archive"]}, Cancel, "has ended"},
		{Item{Job: jobs["weekly"]}, Resume, "nothing is to be resumed"},
	} {
		why := c.it.Refuses(c.verb)
		if c.want == "" && why != "" || c.want != "" && !strings.Contains(why, c.want) {
			t.Errorf("%s of %s: %q; want %q", c.verb, c.it.Sentence(start), why, c.want)
		}
	}
}

// TestBoardHostile: whatever others call their things, at any size, no row is
// wider than the terminal, none too many, and nothing speaks to the terminal.
func TestBoardHostile(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	parts := []string{"\x1b]0;owned\x07", "\x1b[2J", "\u202e", "\r\n", "\u009b31m", "日本語", "e\u0301", "👩‍💻", "❤️", "\xff\xfe", "%s%d", "web", " ", "\t", "ｆｕｌｌ", "한국", "\u200b", "🇩🇪", "کتاب"}
	evil := func() string {
		var b strings.Builder
		for range r.IntN(30) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		return b.String()
	}
	for range 100 {
		b := boards()["all"]
		b.Daemon.Where, b.Daemon.Version = evil(), evil()
		if r.IntN(2) == 0 {
			b.Daemon.Lost = &Lost{Since: start, Why: evil()}
		}
		for _, s := range b.Failbacks {
			s.ID, s.Spec.VM, s.Target.Name, s.Replica.Name, s.Wait, s.Next, s.Owner = evil(), evil(), evil(), evil(), evil(), evil(), evil()
			if s.Halted != nil {
				s.Halted.Text, s.Halted.Remedy, s.Halted.Step, s.Halted.Reason = evil(), evil(), evil(), evil()
			}
			for i := range s.Disks {
				s.Disks[i].Label, s.Disks[i].Matched = evil(), evil()
			}
			s.Warnings, s.Decisions = []string{evil()}, []failback.Decision{{What: evil(), By: evil(), Text: evil()}}
		}
		for _, j := range b.Jobs {
			j.ID, j.Owner, j.Notes = evil(), evil(), []string{evil()}
			j.Spec.Disks[0].Source, j.Disks[0].Name = evil(), evil()
			if j.Failure != nil {
				j.Failure.Text, j.Failure.Reason = evil(), evil()
			}
		}
		w := window(b, r.IntN(210), r.IntN(60), start)
		w.Open, w.Help, w.ASCII, w.Scroll, w.Top = r.IntN(3) == 0, r.IntN(9) == 0, r.IntN(3) == 0, r.IntN(30), r.IntN(30)
		w.Said, w.Typed = Line{Text: evil()}, evil()
		if list := b.Items(ShowAll, start); r.IntN(3) == 0 {
			it := list[r.IntN(len(list))]
			q := it.Ask(Cancel)
			w.Ask, w.Chosen = &q, it.Key()
		}
		lines := b.Draw(w, start)
		if len(lines) > w.Height {
			t.Fatalf("seed %d: %d rows on a terminal of %d", seed, len(lines), w.Height)
		}
		for _, line := range lines {
			if columns(line.Text) > w.Width || ansi.StringWidth(line.Text) > w.Width {
				t.Fatalf("seed %d: %d or %d columns on a terminal of %d: %q", seed, columns(line.Text), ansi.StringWidth(line.Text), w.Width, line.Text)
			}
			spoken(t, seed, line.Text, w.ASCII)
		}
		for line := range strings.Lines(b.Text(start)) {
			spoken(t, seed, strings.TrimSuffix(line, "\n"), false)
		}
	}
}

// spoken fails when a text has what a terminal obeys.
func spoken(t *testing.T, seed uint64, text string, ascii bool) {
	t.Helper()
	for _, r := range text {
		if r != ' ' && !unicode.IsPrint(r) || ascii && r >= 0x7f {
			t.Fatalf("seed %d: %q has %q", seed, text, r)
		}
	}
}

// TestBoardOfMany: among hundreds the chosen row is always in sight, and no row
// is drawn that has no place.
func TestBoardOfMany(t *testing.T) {
	b := boards()["all"]
	for i := range 500 {
		j := *jobsOf()[0]
		j.ID = fmt.Sprintf("job-%03d", i)
		b.Jobs = append(b.Jobs, &j)
	}
	w := window(b, 80, 24, start)
	list := b.Items(ShowAll, start)
	for _, i := range []int{0, 5, 250, len(list) - 1, 251, 0} {
		w.Chosen = list[i].Key()
		text := plainText(b.Draw(w, start))
		if !strings.Contains(text, "\n>") || !strings.Contains(text, clip(list[i].Name(), 20)) {
			t.Errorf("row %d is not in sight:\n%s", i, text)
		}
	}
}

// TestNumbers: whatever a daemon says, a bar has its width and a share is one.
func TestNumbers(t *testing.T) {
	for _, x := range []float64{-1, 2, math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := bar(x, 5); len(got) != 7 {
			t.Errorf("bar of %v: %q", x, got)
		}
	}
	for _, c := range []job.Counters{{Total: -5, Verified: 3}, {Total: 5, Verified: -9}, {Total: 5, Verified: math.MaxInt64, Skipped: 1}} {
		if got := part(&c); got < 0 || got > 1 {
			t.Errorf("part of %+v: %v", c, got)
		}
	}
}

// TestLong: a text of any length is broken in time that grows with it: of the
// square of 2 MiB nobody would see the end. Marks do not pile up.
func TestLong(t *testing.T) {
	const n = 2 * mib
	if got := wrap(strings.Repeat("x", n), 80); len(got) != (n+79)/80 || len(got[0]) != 80 {
		t.Errorf("%d lines", len(got))
	}
	if got := short(strings.Repeat("x, ", n/3), 80); got != strings.Repeat("x, ", 26)+"x" {
		t.Errorf("short: %q", got)
	}
	if got := short("one, two", 1); got != "one" {
		t.Errorf("short: %q", got)
	}
	if got := wrap("a bb  ccc dddddddddddd e", 10); strings.Join(got, "|") != "a bb ccc|dddddddddd|dd e" {
		t.Errorf("wrap: %q", got)
	}
	if got := clean("e" + strings.Repeat("\u0301", 100)); len(got) != 1+2*maxMarks {
		t.Errorf("clean: %q", got)
	}
}

// TestReading: a list that is not whole is not said to be empty.
func TestReading(t *testing.T) {
	b := &Board{Daemon: controller}
	b.Daemon.Reading = true
	text := plainText(b.Draw(window(b, 80, 24, start), start))
	if strings.Contains(text, "No job") || strings.Contains(text, "nothing to do") || !strings.Contains(text, reading) {
		t.Error(text)
	}
}
