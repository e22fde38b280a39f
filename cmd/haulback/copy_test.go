package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

const mib = 1 << 20

// pair is a command line and a daemon with a target and a source, each of
// other contents.
type pair struct {
	desk, home     *cmdtest.Site
	daemon         *cmdtest.Daemon
	local          string // a disk at desk
	source, target string // the daemon's
}

func newPair(t *testing.T, size int, tables ...string) *pair {
	t.Helper()
	p := &pair{desk: cmdtest.NewSite(t, &programs, "desk"), home: cmdtest.NewSite(t, &programs, "home")}
	p.desk.Pair(p.home)
	p.local = p.desk.Disk("local.img", size, 1)
	p.source, p.target = p.home.Disk("source.img", size, 2), p.home.Disk("target.img", size, 3)
	p.daemon = p.home.Daemon(append(p.exports(), tables...)...)
	return p
}

func (p *pair) exports() []string {
	return []string{
		cmdtest.Export("source", p.source, "source", p.desk),
		cmdtest.Export("target", "file://"+p.target, "target", p.desk),
	}
}

func TestCopyLocal(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "desk")
	a, b := s.Disk("a", 3*mib+4097, 1), s.Disk("b", 4*mib, 2)
	r := s.OK("copy", a, b, "--verify=full")
	if !strings.Contains(r.Out, "Verified:") || !strings.Contains(r.Out, "longer than the source") {
		t.Errorf("summary lacks the verdict or the note about the larger target:\n%s", r.Out)
	}
	if err := os.Truncate(b, 3*mib+4097); err != nil {
		t.Fatal(err)
	}
	cmdtest.MustEqual(t, a, b)
	s.OK("copy", a, s.Dir+"/new", "--create")
	cmdtest.MustEqual(t, a, s.Dir+"/new")
}

func TestCopyOverNetwork(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"quic", "tls"} {
		t.Run(transport, func(t *testing.T) {
			p := newPair(t, 3*mib)
			r := p.desk.OK("copy", p.local, p.daemon.URI("target"), "--transport", transport)
			cmdtest.MustEqual(t, p.local, p.target)
			if !strings.Contains(r.Out, "on the wire over "+transport) {
				t.Errorf("summary does not name the transport %s:\n%s", transport, r.Out)
			}
			r = p.desk.OK("copy", p.daemon.URI("source"), p.local, "--transport", transport)
			cmdtest.MustEqual(t, p.source, p.local)
			if !strings.Contains(r.Out, "compared   3.0 MiB of 3.0 MiB") {
				t.Errorf("summary of a pull lacks the sizes:\n%s", r.Out)
			}
		})
	}
}

// TestOrder tells one daemon to push to another; this site may not use the
// target itself.
func TestOrder(t *testing.T) {
	t.Parallel()
	desk, from, to := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "from"), cmdtest.NewSite(t, &programs, "to")
	desk.Pair(from, to)
	from.Pair(to)
	a, b := from.Disk("a", 3*mib, 1), to.Disk("b", 3*mib, 2)
	x := from.Daemon(cmdtest.Export("src", a, "source", desk))
	y := to.Daemon(cmdtest.Export("dst", b, "target", from))
	for _, transport := range []string{"quic", "tls"} {
		desk.OK("copy", x.URI("src"), y.URI("dst"), "--transport", transport)
		cmdtest.MustEqual(t, a, b)
	}
	desk.OK("verify", x.URI("src"), y.URI("dst"))
	from.Disk("a", 3*mib, 7)
	if r := desk.Run("verify", x.URI("src"), y.URI("dst")); r.Code != 4 {
		t.Errorf("verify of different disks by order: exit code %d, want 4\n%s", r.Code, r.Stderr)
	}
	y.Signal(syscall.SIGKILL)
	y.Wait()
	if r := desk.Run("copy", x.URI("src"), y.URI("dst"), "--retry", "0s"); r.Code != 13 {
		t.Errorf("order to a daemon that is gone: exit code %d, want 13\n%s", r.Code, r.Stderr)
	}
}

// TestOrderWithinADaemon copies between two exports of one daemon, in it; who may
// not use the target does not get there by an order to the source.
func TestOrderWithinADaemon(t *testing.T) {
	t.Parallel()
	desk, other, far := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "other"), cmdtest.NewSite(t, &programs, "far")
	far.Pair(desk, other)
	a, b := far.Disk("a", 3*mib, 1), far.Disk("b", 3*mib, 2)
	d := far.Daemon(cmdtest.Export("src", a, "source", desk, other), cmdtest.Export("dst", b, "target", desk))
	for _, s := range []*cmdtest.Site{other, desk} {
		r := s.Run("copy", d.URI("src"), d.URI("dst"))
		if s == other {
			if r.Code != 12 || !strings.Contains(r.Stderr, "dst") {
				t.Errorf("by one who may not use the target: exit code %d, want 12\n%s", r.Code, r.Stderr)
			}
			continue
		}
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
		}
		cmdtest.MustEqual(t, a, b)
	}
	desk.OK("verify", d.URI("src"), d.URI("dst"))
	flip(t, b, 100_000)
	if r := desk.Run("verify", d.URI("src"), d.URI("dst")); r.Code != 4 {
		t.Errorf("verify of different disks: exit code %d, want 4\n%s", r.Code, r.Stderr)
	}
}

func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	p := newPair(t, 3*mib)
	p.desk.OK("copy", p.local, p.daemon.URI("target"))
	r := p.desk.OK("verify", p.local, p.daemon.URI("target"))
	if !strings.Contains(r.Out, "3145728 bytes") {
		t.Errorf("verify does not say how much it compared:\n%s", r.Out)
	}
	flip(t, p.target, 100_000)
	r = p.desk.Run("verify", p.local, p.daemon.URI("target"))
	if r.Code != 4 || !strings.Contains(r.Out, "bytes 65536 to 131071") {
		t.Errorf("exit code %d, want 4, and the range 65536 to 131071 in:\n%s%s", r.Code, r.Out, r.Stderr)
	}
	r = p.desk.Run("--json", "verify", p.daemon.URI("target"), p.local)
	if sum := lastLine(t, r.Out, "summary"); r.Code != 4 || len(sum["bad"].([]any)) != 1 {
		t.Errorf("exit code %d, want 4, and one bad range in %v", r.Code, sum)
	}
	if e := lastLine(t, r.Stderr, "exit_error"); e["code"] != 4.0 {
		t.Errorf("last line of stderr is %v, want an exit_error with code 4", e)
	}
	// To be asked whether two disks are equal, and to find that they are not, is no fault of a daemon.
	cmdtest.Await(t, "the log of both", func() bool { return strings.Count(p.daemon.Stderr(), "session done: the disks differ") == 2 })
	if log := p.daemon.Stderr(); strings.Contains(log, "level=ERROR") || strings.Contains(log, `"ERROR"`) {
		t.Errorf("the daemon complains:\n%s", log)
	}
}

func TestJSONLines(t *testing.T) {
	t.Parallel()
	p := newPair(t, 3*mib)
	r := p.desk.OK("copy", p.local, p.daemon.URI("target"), "--json")
	var types []string
	for _, m := range lines(t, r.Out) {
		types = append(types, m["message_type"].(string))
		if m["schema"] != 1.0 || !strings.HasSuffix(m["time"].(string), "Z") {
			t.Errorf("line without schema 1 and time in UTC: %v", m)
		}
	}
	if types[0] != "started" || types[len(types)-1] != "summary" {
		t.Errorf("message types %q, want started first and summary last", types)
	}
	sum := lastLine(t, r.Out, "summary")
	if sum["state"] != "Verified" || sum["equal"] != true || sum["changed"] != 3.0*mib || sum["requested_transport"] != "auto" || sum["transport_reason"] == nil {
		t.Errorf("summary %v", sum)
	}
}

// TestResume drains the daemon in mid-copy, and starts it again at the same
// address: the copy goes on by itself and ends verified. The first daemon holds it, by
// reading its disk slowly: so little is under way.
func TestResume(t *testing.T) {
	t.Parallel()
	p := newPair(t, 24*mib, "[limits]\nread_rate = \"1MiB\"\n")
	c := p.desk.Start("copy", p.local, p.daemon.URI("target"), "--retry", "60s", "--json")
	written := awaitWritten(t, c)
	p.daemon.Signal(syscall.SIGTERM)
	if r := p.daemon.Wait(); r.Code != 0 {
		t.Fatalf("drain: exit code %d, want 0\n%s", r.Code, r.Stderr)
	}
	p.daemon = p.home.DaemonAt(p.daemon.Listen, p.exports()...)
	r := c.Wait()
	sum := lastLine(t, r.Out, "summary")
	if r.Code != 0 || sum["reconnects"] == 0.0 || !strings.Contains(r.Out, `"message_type":"event"`) {
		t.Fatalf("exit code %d, want 0, a reconnect and an event:\n%s%s", r.Code, r.Out, r.Stderr)
	}
	cmdtest.MustEqual(t, p.local, p.target)
	if sent, had := sum["sent"].(float64), sum["had"].(float64); sent > 24*mib+8*mib || had < written {
		t.Errorf("sent %.0f bytes of 24 MiB, and had %.0f of %.0f: the drain lost what was written", sent, had, written)
	}
}

// TestCancel stops the command line; the next run of it goes on.
func TestCancel(t *testing.T) {
	t.Parallel()
	p := newPair(t, 24*mib)
	c := p.desk.Start("copy", p.local, p.daemon.URI("target"), "--rate", "1MiB", "--json")
	awaitWritten(t, c)
	c.Signal(syscall.SIGINT)
	r := c.Wait()
	e := lastLine(t, r.Stderr, "exit_error")
	if text, _ := e["text"].(string); r.Code != 130 || !strings.Contains(text, "--run ") {
		t.Fatalf("exit code %d, want 130 and how to go on:\n%s", r.Code, r.Stderr)
	}
	sum := lastLine(t, r.Out, "summary")
	if sum["state"] != "Inconsistent" {
		t.Errorf("summary of a half copy: state %v, want Inconsistent", sum["state"])
	}
	run := sum["run"].(string)
	if out := p.desk.OK("probe", p.daemon.URI("target")).Out; !strings.Contains(out, "Inconsistent") || !strings.Contains(out, run) {
		t.Errorf("probe of a half copy does not say so:\n%s", out)
	}
	p.desk.OK("copy", p.local, p.daemon.URI("target"), "--run", run)
	cmdtest.MustEqual(t, p.local, p.target)
	if out := p.desk.OK("probe", p.daemon.URI("target")).Out; !strings.Contains(out, "Verified") {
		t.Errorf("probe after the copy does not say Verified:\n%s", out)
	}
}

// TestUnpairedEndsSession removes a peer in mid-copy: its session ends for
// good, without waiting for --retry, although the exports still name it and
// whatever else is wrong with the configuration.
func TestUnpairedEndsSession(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, p *pair){
		"exports gone":    func(t *testing.T, p *pair) { p.home.OK("peer", "remove", "desk"); p.home.Configure() },
		"exports name it": func(t *testing.T, p *pair) { p.home.OK("peer", "remove", "desk") },
		"and a mistake": func(t *testing.T, p *pair) {
			p.home.OK("peer", "remove", "desk")
			p.home.Configure("listen_port = 3\n")
		},
		"unreadable peers": func(t *testing.T, p *pair) { write(t, p.home.State+"/peers.toml", "[[peer]\n") },
		"neither of the two": func(t *testing.T, p *pair) {
			write(t, p.home.State+"/peers.toml", "[[peer]\n")
			p.home.Configure("[[export]\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 24*mib)
			c := p.desk.Start("copy", p.local, p.daemon.URI("target"), "--rate", "1MiB", "--json")
			awaitWritten(t, c)
			spoil(t, p)
			p.daemon.Signal(syscall.SIGHUP)
			if r := c.Wait(); r.Code != 12 {
				t.Errorf("exit code %d, want 12\n%s%s", r.Code, r.Out, r.Stderr)
			}
			if r := p.desk.Run("probe", p.daemon.URI("target")); r.Code != 12 {
				t.Errorf("probe by a peer that was removed: exit code %d, want 12\n%s", r.Code, r.Stderr)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitWritten waits until c has told that the target wrote something, and how much. It
// has to be held: one that is over shows nothing.
func awaitWritten(t *testing.T, c *cmdtest.Process) (written float64) {
	t.Helper()
	cmdtest.Await(t, "the first written bytes", func() bool {
		if c.Ended() {
			t.Fatalf("the copy ended too early:\n%s%s", c.Stdout(), c.Stderr())
		}
		told := c.Stdout()
		for _, m := range lines(t, told[:strings.LastIndex(told, "\n")+1]) {
			if m["message_type"] == "status" {
				written = m["written"].(float64)
			}
		}
		return written > 0
	})
	return written
}

func lines(t *testing.T, text string) (list []map[string]any) {
	t.Helper()
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		m := map[string]any{}
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		list = append(list, m)
	}
	return list
}

// lastLine is the last line, which has to be of that type.
func lastLine(t *testing.T, text, kind string) map[string]any {
	t.Helper()
	list := lines(t, text)
	if len(list) == 0 || list[len(list)-1]["message_type"] != kind {
		t.Fatalf("the last line is no %s:\n%s", kind, text)
	}
	return list[len(list)-1]
}

// flip changes one byte.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err = f.ReadAt(b[:], off); err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b[:], off)
	}
	if err != nil {
		t.Fatal(err)
	}
}
