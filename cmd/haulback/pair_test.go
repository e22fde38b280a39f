package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
)

// codeFile writes the code of invite to a file of s.
func codeFile(t *testing.T, s *cmdtest.Site, code string) string {
	t.Helper()
	path := filepath.Join(s.Dir, "code")
	if err := os.WriteFile(path, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// audited verifies the record of s and gives its actions with object and outcome.
func audited(t *testing.T, s *cmdtest.Site) string {
	t.Helper()
	s.OK("audit", "verify")
	var all []string
	for line := range strings.Lines(s.OK("audit", "show", "--json").Out) {
		var r struct{ Action, Object, Outcome string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r.Action+" "+r.Object+" "+r.Outcome)
	}
	return strings.Join(all, "\n")
}

func has(t *testing.T, record string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains("\n"+record+"\n", "\n"+w+"\n") {
			t.Errorf("the record lacks %q:\n%s", w, record)
		}
	}
}

// TestPairByCode pairs two sites with one command each, copies, and pairs
// nobody else.
func TestPairByCode(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"quic", "tls"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			home, desk, thief := cmdtest.NewSite(t, &programs, "home"), cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "thief")
			target := home.Disk("target.img", 2*mib, 1)
			source := desk.Disk("source.img", 2*mib, 2)
			d := home.Daemon(cmdtest.Export("target", target, "target", desk))
			join := func(s *cmdtest.Site, code string) cmdtest.Result {
				return s.Run("peer", "join", "--name", "home", "--address", "desk.example:7420", "--code-file", codeFile(t, s, code), "--transport", transport)
			}
			if r := join(desk, "x"); r.Code != 10 || !strings.Contains(r.Stderr, "not a pairing code") {
				t.Errorf("no code: %d %s", r.Code, r.Stderr)
			}
			code := strings.TrimSpace(home.OK("peer", "invite", "--name", "desk", "--address", d.Listen).Out)
			st, err := os.Stat(filepath.Join(home.State, "invitations.json"))
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Fatalf("%v, %v", st, err)
			}
			kept, err := os.ReadFile(filepath.Join(home.State, "invitations.json"))
			if err != nil || strings.Contains(string(kept), code[:5]) && strings.Contains(string(kept), code[30:40]) {
				t.Errorf("the code is kept: %s, %v", kept, err)
			}
			// At once: a script that pairs and copies waits for nothing.
			if r := join(desk, code); r.Code != 0 {
				t.Fatalf("right after the invitation: %d %s", r.Code, r.Stderr)
			}
			desk.OK("copy", source, d.URI("target"), "--transport", transport)
			cmdtest.MustEqual(t, source, target)
			if r := join(thief, code); r.Code != 12 {
				t.Errorf("the code a second time: %d %s", r.Code, r.Stderr)
			}
			if r := join(desk, code); r.Code != 0 {
				t.Errorf("the same joiner again, as after a lost answer: %d %s", r.Code, r.Stderr)
			}
			if out := home.OK("peer", "list").Out; !strings.Contains(out, "desk.example:7420") || !strings.Contains(out, desk.ID) || strings.Contains(out, thief.ID) {
				t.Errorf("peers of home:\n%s", out)
			}
			if out := desk.OK("peer", "list").Out; !strings.Contains(out, d.Listen) || !strings.Contains(out, home.ID) {
				t.Errorf("peers of desk:\n%s", out)
			}
			has(t, audited(t, home), "peer.invited desk ok", "daemon.start "+d.Listen+" ok", "peer.joined desk ok", "session.begin target ok", "session.end target ok")
			has(t, audited(t, desk), "peer.join home ok", "peer.added home ok")
			thief.OK("peer", "add", home.ID, "--name", "home", "--address", d.Listen)
			for range 3 { // let in right after each time, to an export that is not for it
				home.OK("peer", "add", thief.ID, "--name", "thief")
				if r := thief.Run("probe", d.URI("target"), "--transport", transport); r.Code != 12 || !strings.Contains(r.Stderr, "for this peer") {
					t.Errorf("right after it was paired: %d %s", r.Code, r.Stderr)
				}
				home.OK("peer", "remove", "thief")
			}
			if strings.Contains(d.Stderr(), code[30:44]) {
				t.Error("the code is in the log")
			}
		})
	}
}

// TestTwoJoiners use one code at once: one of them is paired, the others are refused.
func TestTwoJoiners(t *testing.T) {
	t.Parallel()
	home := cmdtest.NewSite(t, &programs, "home")
	d := home.Daemon()
	code := strings.TrimSpace(home.OK("peer", "invite", "--name", "desk", "--address", d.Listen).Out)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 3 {
		s := cmdtest.NewSite(t, &programs, fmt.Sprint("desk", i))
		file := codeFile(t, s, code)
		wg.Go(func() {
			r := cmdtest.Result{Code: 13}
			for began := time.Now(); r.Code == 13 && time.Since(began) < cmdtest.Deadline/2; { // not answered in time: neither let in nor refused
				r = s.Run("peer", "join", "--name", "home", "--code-file", file, "--transport", "tls")
			}
			mu.Lock()
			defer mu.Unlock()
			if r.Code == 0 {
				won++
			} else if r.Code != 12 {
				t.Errorf("one who came second: exit code %d, want 12\n%s", r.Code, r.Stderr)
			}
		})
	}
	wg.Wait()
	if out := home.OK("peer", "list").Out; won != 1 || strings.Count(out, "desk") != 1 {
		t.Errorf("%d have joined:\n%s", won, out)
	}
}

// TestRemovedPeerIsCutOff removes a peer whose copy runs: it ends at once, and
// nothing is written after that. Nobody sends SIGHUP.
func TestRemovedPeerIsCutOff(t *testing.T) {
	t.Parallel()
	p := newPair(t, 64*mib)
	x := p.desk.Start("copy", p.local, p.daemon.URI("target"), "--rate", "1MiB", "--retry", "0s")
	cmdtest.Await(t, "the copy to write", func() bool { return strings.Contains(p.daemon.Stderr(), `"op":"push"`) && written(t, p) })
	p.home.OK("peer", "remove", "desk")
	began := time.Now()
	cmdtest.Await(t, "the session to end", func() bool { return strings.Contains(p.daemon.Stderr(), "is not paired with") })
	t.Logf("figure: cut off %v after the command returned", time.Since(began))
	before, err := os.ReadFile(p.target)
	if err != nil {
		t.Fatal(err)
	}
	if r := x.Wait(); r.Code == 0 {
		t.Fatalf("the copy ended well: %s%s", r.Out, r.Stderr)
	}
	if r := p.desk.Run("copy", p.local, p.daemon.URI("target"), "--retry", "0s"); r.Code != 12 {
		t.Errorf("the next one: %d %s", r.Code, r.Stderr)
	}
	after, err := os.ReadFile(p.target)
	if err != nil || string(before) != string(after) {
		t.Errorf("something was written after the cut: %v", err)
	}
	// Paired again, the truth is told.
	p.home.OK("peer", "add", p.desk.ID, "--name", "desk")
	cmdtest.Await(t, "desk to be let in", func() bool {
		r := p.desk.Run("probe", p.daemon.URI("target"))
		return r.Code == 0 && strings.Contains(r.Out, "Inconsistent")
	})
	has(t, audited(t, p.home), "peer.removed desk ok", "session.end target failed")
}

// written reports whether the target is not what it was any more.
func written(t *testing.T, p *pair) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(p.home.State, "audit", "*.jsonl"))
	if err != nil || len(names) == 0 {
		return false
	}
	a, b := make([]byte, mib), make([]byte, mib)
	for path, buf := range map[string][]byte{p.target: a, p.local: b} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.ReadAt(buf, 0)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return string(a) == string(b)
}

// TestRemovedTargetIsCutOff is the same for a link that the daemon dialled: an
// order to push to a third site.
func TestRemovedTargetIsCutOff(t *testing.T) {
	t.Parallel()
	p := newPair(t, 64*mib)
	third := cmdtest.NewSite(t, &programs, "third")
	third.Pair(p.desk)
	changes := func() int { return strings.Count(p.daemon.Stderr(), `"peers changed"`) }
	before := changes()
	third.Pair(p.home)
	disk := third.Disk("disk.img", 64*mib, 5)
	d := third.Daemon(cmdtest.Export("disk", disk, "target", p.home))
	cmdtest.Await(t, "home to see whom it is paired with", func() bool { return changes() > before })
	x := p.desk.Start("copy", p.daemon.URI("source"), d.URI("disk"), "--rate", "1MiB", "--retry", "30s")
	cmdtest.Await(t, "the push to begin", func() bool { return strings.Contains(d.Stderr(), `"op":"push"`) })
	p.home.OK("peer", "remove", "third")
	cmdtest.Await(t, "the session at the third to end", func() bool {
		return strings.Contains(d.Stderr(), "session refused or failed") || strings.Contains(d.Stderr(), "session interrupted")
	})
	if r := x.Wait(); r.Code != 12 && r.Code != 3 && r.Code != 1 {
		t.Errorf("got %d %s%s", r.Code, r.Out, r.Stderr)
	}
}

// TestRotate changes the key of a daemon while another site goes on copying to
// it, and is killed between the steps as well.
func TestRotate(t *testing.T) {
	t.Parallel()
	p := newPair(t, 2*mib)
	copies := func(what string) {
		t.Helper()
		if r := p.desk.Run("copy", p.local, p.daemon.URI("target")); r.Code != 0 {
			t.Fatalf("%s: %d %s", what, r.Code, r.Stderr)
		}
	}
	if r := p.home.Run("peer", "rotate", "switch"); r.Code == 0 || !strings.Contains(r.Stderr, "prepare") {
		t.Errorf("nothing prepared: %d %s", r.Code, r.Stderr)
	}
	next := strings.TrimSpace(p.home.OK("peer", "rotate", "prepare").Out)
	if again := strings.TrimSpace(p.home.OK("peer", "rotate", "prepare").Out); again != next || next == p.home.ID {
		t.Fatalf("prepared %s, then %s", next, again)
	}
	copies("prepared")
	p.desk.OK("peer", "add", next, "--name", "home", "--next")
	copies("with both IDs")
	p.home.OK("peer", "rotate", "switch")
	copies("switched, the daemon still has the old key")
	p.daemon.Signal(syscall.SIGTERM)
	p.daemon.Wait()
	p.daemon = p.home.DaemonAt(p.daemon.Listen, p.exports()...)
	if now := strings.TrimSpace(p.home.OK("peer", "id").Out); now != next {
		t.Fatalf("the ID is %s, want %s", now, next)
	}
	copies("with the new key")
	p.desk.OK("peer", "promote", "home")
	copies("with the new ID only")
	if out := p.desk.OK("peer", "list").Out; strings.Contains(out, p.home.ID) || !strings.Contains(out, next) {
		t.Errorf("peers:\n%s", out)
	}
	has(t, audited(t, p.home), "key.prepared  ok", "key.switched  ok")
	has(t, audited(t, p.desk), "peer.rotated home ok")
}

var devicePattern = regexp.MustCompile(`"identity":"([^"]+)"`)

// TestTicketCommands opens an export by a ticket that another site has signed.
func TestTicketCommands(t *testing.T) {
	t.Parallel()
	desk, home, boss := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home"), cmdtest.NewSite(t, &programs, "boss")
	desk.Pair(home)
	boss.Pair(home, desk)
	source, target := desk.Disk("source.img", 2*mib, 1), home.Disk("target.img", 2*mib, 2)
	d := home.Daemon(cmdtest.Export("target", target, "target", desk) + "ticket = true\ncontrollers = [\"boss\"]\n")
	run := uuid.NewString()
	m := devicePattern.FindStringSubmatch(desk.OK("probe", d.URI("target"), "--json").Out)
	if m == nil {
		t.Fatal("probe tells no identity")
	}
	issue := func(by *cmdtest.Site, op string) string {
		r := by.OK("ticket", "issue", "--export", "target", "--op", op, "--source-peer", desk.ID, "--target-peer", home.ID, "--run", run, "--device", m[1], "--size", fmt.Sprint(2*mib), "--ttl", "5m")
		path := filepath.Join(by.Dir, op+".ticket")
		if err := os.WriteFile(path, []byte(r.Out), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := issue(boss, "write")
	if out := desk.OK("ticket", "show", good).Out; !strings.Contains(out, "good    yes") || !strings.Contains(out, boss.ID) {
		t.Errorf("show:\n%s", out)
	}
	for name, args := range map[string][]string{
		"none":       {"--run", run},
		"own":        {"--run", run, "--target-ticket", issue(desk, "write")},
		"to compare": {"--run", run, "--target-ticket", issue(boss, "verify")},
		"other run":  {"--run", uuid.NewString(), "--target-ticket", good},
	} {
		r := desk.Run(append([]string{"copy", source, d.URI("target")}, args...)...)
		if r.Code != 12 || !strings.Contains(r.Stderr, "opens only with a ticket that one of its controllers signed") {
			t.Errorf("%s: %d %s", name, r.Code, r.Stderr)
		}
	}
	desk.OK("copy", source, d.URI("target"), "--run", run, "--target-ticket", good)
	cmdtest.MustEqual(t, source, target)
	desk.OK("verify", source, d.URI("target"), "--run", run, "--target-ticket", issue(boss, "verify"))
	has(t, audited(t, home), "ticket.refused target refused", "session.begin target ok")
	has(t, audited(t, boss), "ticket.issued target ok")
}

// TestAuditCommands finds a change by command, with the exit code of one.
func TestAuditCommands(t *testing.T) {
	t.Parallel()
	a, b := cmdtest.NewSite(t, &programs, "a"), cmdtest.NewSite(t, &programs, "b")
	a.Pair(b)
	out := a.OK("audit", "verify").Out
	head := regexp.MustCompile(`head ([0-9a-f]{64})`).FindStringSubmatch(out)
	if head == nil {
		t.Fatalf("no head:\n%s", out)
	}
	a.OK("peer", "remove", "b")
	a.OK("audit", "verify", "--head", head[1])
	if r := a.Run("audit", "verify", "--head", strings.Repeat("0", 64)); r.Code != 4 {
		t.Errorf("a head of another log: %d %s", r.Code, r.Out)
	}
	path := filepath.Join(a.State, "audit", "0000000000000001.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "peer.removed", "peer.retained", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := a.Run("audit", "verify"); r.Code != 4 || !strings.Contains(r.Out, path+":") {
		t.Errorf("an edited line: %d %s", r.Code, r.Out)
	}
	// What cannot be recorded is not done.
	if err := os.RemoveAll(filepath.Join(b.State, "audit")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.State, "audit"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := b.Run("peer", "add", a.ID, "--name", "a2"); r.Code == 0 || !strings.Contains(r.Stderr, "nothing was changed") || strings.Contains(b.OK("peer", "list").Out, "a2") {
		t.Errorf("added without a record: %d %s", r.Code, r.Stderr)
	}
	// But nobody stays in for want of a record.
	if r := b.Run("peer", "remove", "a"); r.Code != 0 || !strings.Contains(r.Stderr, "mend the record") || strings.Contains(b.OK("peer", "list").Out, a.ID) {
		t.Errorf("removed without a record: %d %s", r.Code, r.Stderr)
	}
}

// TestAuditShowsOneLine: what strangers have said forges no line of the record on
// a terminal, and does nothing to the terminal.
func TestAuditShowsOneLine(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	at, err := site.At(s.State, "")
	if err != nil {
		t.Fatal(err)
	}
	log, err := at.Audit()
	if err != nil {
		t.Fatal(err)
	}
	const forged = "x\n     7 2026-11-22T00:00:00Z  uid 0 peer.removed mallory ok\x1b[2J\u009b2J\u202e"
	err = errors.Join(log.Append(t.Context(), audit.Entry{Actor: forged, Action: forged, Object: forged, Outcome: forged, Details: map[string]string{forged: forged}}), log.Close())
	if err != nil {
		t.Fatal(err)
	}
	out := s.OK("audit", "show").Out
	if n := strings.Count(out, "\n"); n != 3 || strings.ContainsAny(out, "\x1b\u009b\u202e") {
		t.Errorf("%d lines, want 3 (two of them heads):\n%q", n, out)
	}
}
