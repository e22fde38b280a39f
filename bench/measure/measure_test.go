package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/bench/result"
)

func TestParsers(t *testing.T) {
	const dev = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"  eth0: 99 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n    lo:123456789012 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
	if n, err := parseDev(dev, "lo"); n != 123456789012 || err != nil {
		t.Errorf("lo: %d, %v", n, err)
	}
	for _, bad := range []string{"", "lo", "lo: 1 2", "lo: x 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0"} {
		if _, err := parseDev(bad, "lo"); err == nil {
			t.Errorf("/proc/net/dev %q was taken", bad)
		}
	}
	if d, err := parseCPUStat("usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n"); d != 1500*time.Millisecond || err != nil {
		t.Errorf("cpu.stat: %v, %v", d, err)
	}
	for _, bad := range []string{"", "user_usec 1\n", "usage_usec x\n"} {
		if _, err := parseCPUStat(bad); err == nil {
			t.Errorf("cpu.stat %q was taken", bad)
		}
	}
	const stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 1 0 100 1000 10"
	if d, err := parseStat(stat); d != 2500*time.Millisecond || err != nil {
		t.Errorf("stat: %v, %v", d, err)
	}
	for _, bad := range []string{"", "77 (x) S 1 2", "77 (x", strings.Replace(stat, "150", "x", 1)} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("stat %q was taken", bad)
		}
	}
	if n, err := parseHWM("Name:\tx\nVmPeak:\t 999 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"); n != 2<<20 || err != nil {
		t.Errorf("VmHWM: %d, %v", n, err)
	}
	for _, bad := range []string{"", "Name:\tx\n", "VmHWM:\t x kB\n"} {
		if _, err := parseHWM(bad); err == nil {
			t.Errorf("status %q was taken", bad)
		}
	}
	const tcp = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:440C 00000000:0000 0A 00000000:00000000\n   1: 0100007F:440D 0100007F:1234 01 0:0\n"
	for port, want := range map[int]bool{0x440c: true, 0x440d: false, 0x1234: false} {
		if listens(tcp, "tcp", port) != want {
			t.Errorf("port %d is listened at: %t", port, !want)
		}
	}
	if !listens("  1: 00000000000000000000000000000000:440C 0:0 07 0:0\n", "udp", 0x440c) {
		t.Error("a UDP port is not seen")
	}
}

func TestMachineParsers(t *testing.T) {
	model, virtual := parseCPU("processor\t: 0\nmodel name\t: Some CPU 9\nflags\t\t: fpu hypervisor sse\n\nprocessor\t: 1\nmodel name\t: Other\n")
	if model != "Some CPU 9" || virtual == "" {
		t.Errorf("CPU %q %q", model, virtual)
	}
	if n := parseMemory("MemFree: 1 kB\nMemTotal:       2048 kB\n", "MemTotal:"); n != 2<<20 {
		t.Errorf("memory %d", n)
	}
	if n, err := Available(); n <= 0 || err != nil {
		t.Errorf("available memory %d, %v", n, err)
	}
	if s := parseRelease("NAME=x\nPRETTY_NAME=\"Some OS 12\"\n"); s != "Some OS 12" {
		t.Errorf("release %q", s)
	}
	if s := parseMount("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n23 1 0:5 / /x rw - tmpfs none rw\n", "254:0"); s != "ext4 on /dev/vda" {
		t.Errorf("mount %q", s)
	}
	m := Machine(t.TempDir())
	if m.Cores < 1 || m.Memory == 0 || m.Kernel == "" || m.Load == "" {
		t.Errorf("this machine: %+v", m)
	}
	if v := Versions(t.Context(), "cmp", "no-such-program"); v["cmp"] == "" || len(v) != 2 {
		t.Errorf("versions %v", v)
	}
}

func TestLine(t *testing.T) {
	c := Command{Args: []string{"a b", "plain", "it's"}, Env: []string{"X=1"}, Stdin: "in", Stdout: "/out"}
	if got, want := c.Line(1), `X=1 taskset -c 1 'a b' plain 'it'\''s' <in >/out`; got != want {
		t.Errorf("line %s, want %s", got, want)
	}
	if got, want := (&Command{Args: []string{"x"}}).Line(-1), "x"; got != want {
		t.Errorf("line %s, want %s", got, want)
	}
}

// TestRoom runs programs in a room and looks what was measured.
func TestRoom(t *testing.T) {
	r, err := NewRoom("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			r.Close()
		}
	}()
	if os.Geteuid() == 0 && len(r.Lacks()) > 0 {
		t.Logf("not all can be measured here: %v", r.Lacks())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out := filepath.Join(t.TempDir(), "out")
	start := func(e result.End, script string) *Process {
		p, err := r.Start(Command{End: e, Args: []string{"bash", "-c", script}, Stdout: out, Env: []string{"HAULBENCH_TEST=yes"}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	// 50 ms of CPU time in one end only, by as much as bash counts to.
	p := start(result.Source, `echo $HAULBENCH_TEST; for ((i = 0; i < 200000; i++)); do :; done; exit 3`)
	if _, exit, err := p.Wait(ctx); exit != 3 || err != nil {
		t.Errorf("exit code %d, %v", exit, err)
	}
	if b, _ := os.ReadFile(out); string(b) != "yes\n" {
		t.Errorf("it printed %q", b)
	}
	cpu, rss := r.CPU(), r.RSS()
	if r.CPUBy() != byProc && (cpu[result.Source] < 0.02 || cpu[result.Target] != 0) {
		t.Errorf("CPU %v", cpu)
	}
	if rss[result.Source] < 1<<20 || rss[result.Source] > 64<<20 || rss[result.Target] != 0 {
		t.Errorf("RSS %v", rss)
	}
	r.Restart()
	if c := r.CPU()[result.Source]; c != 0 {
		t.Errorf("CPU %v after a restart", c)
	}

	// a child of a child, and one that does not want to end: Close ends them
	long := start(result.Target, `trap '' TERM; sleep 1000 & echo $!; wait`)
	var child int
	for child == 0 && ctx.Err() == nil {
		b, _ := os.ReadFile(out)
		_, _ = fmt.Sscan(string(b), &child)
		time.Sleep(5 * time.Millisecond)
	}
	short, cancelShort := context.WithTimeoutCause(ctx, time.Millisecond, errors.New("too long"))
	defer cancelShort()
	if _, exit, err := start(result.Source, "exec sleep 1000").Wait(short); exit != -1 || err == nil || err.Error() != "too long" {
		t.Errorf("a process that took too long: exit code %d, %v", exit, err)
	}
	_ = long.cmd.Process.Kill() // as if it had ended by itself; its child lives on
	if _, exit, _ := long.Wait(ctx); exit != -1 {
		t.Errorf("killed: exit code %d", exit)
	}
	by := r.CPUBy()
	closed = true
	r.Close()
	if by != byProc {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err == nil && !strings.Contains(string(text), ") Z ") {
			t.Errorf("process %d has outlived its room: %s", child, text)
		}
		left, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/haulbench-%d-test*", os.Getpid()))
		if len(left) > 0 {
			t.Errorf("cgroups left: %v", left)
		}
	}
}

// TestRoomWire sends bytes inside a room.
func TestRoomWire(t *testing.T) {
	r, err := NewRoom("wire", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if len(r.Lacks()) > 0 {
		t.Skip("needs root: ", r.Lacks())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const port = 17420
	server, err := r.Start(Command{End: result.Target, Args: []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", fmt.Sprint(port), "null", "1M"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Listens(ctx, "tcp", port); err != nil {
		t.Fatal(err)
	}
	if !server.Running() {
		t.Error("the server has ended")
	}
	r.Restart()
	client, err := r.Start(Command{End: result.Source, Args: []string{"bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d; head -c 100000 /dev/zero >&3", port)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := client.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.Wire(); n < 100 || n > 1<<20 {
		t.Errorf("%d bytes on the wire", n)
	}
	short, cancel2 := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel2()
	if err := r.Listens(short, "tcp", port+1); err == nil || !strings.Contains(err.Error(), "17421") {
		t.Errorf("nobody listens there: %v", err)
	}
}
