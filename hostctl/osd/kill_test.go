package osd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// The variables by which the test binary is another process of ours.
const (
	childEndpoint = "OSD_CHILD_ENDPOINT"
	childLedger   = "OSD_CHILD_LEDGER"
	childWhat     = "OSD_CHILD_WHAT" // VOLUME[?SNAPSHOT]
	childKill     = "OSD_CHILD_KILL" // "before Attach": where it is killed
	childFiles    = "OSD_CHILD_FILES"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEndpoint) != "" {
		if err := child(context.Background()); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child opens a volume or snapshot, says so, waits for its input to end, and
// releases; or is killed on the way.
func child(ctx context.Context) error {
	cfg := Config{Name: "here", Endpoint: os.Getenv(childEndpoint), Auth: AuthNone}
	if files := os.Getenv(childFiles); files != "" {
		cfg.Files, cfg.Devices = true, []string{files}
	}
	c, err := Open(cfg)
	if err != nil {
		return err
	}
	c.wait = quick
	when, where, _ := strings.Cut(os.Getenv(childKill), " ")
	die := func(now, method string) {
		if when == now && where == path.Base(method) {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	conn, err := c.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
		die("before", method)
		err := invoke(ctx, method, req, reply, cc, o...)
		die("after", method)
		return err
	}))
	if err != nil {
		return err
	}
	c.use(conn)
	volume, snapshot, _ := strings.Cut(os.Getenv(childWhat), "?")
	a, err := NewKeeper(os.Getenv(childLedger), nil).Open(ctx, c, volume, snapshot, snapshot == "")
	if err != nil {
		return err
	}
	fmt.Println("open", a.Path())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return a.Release(ctx)
}

// process is a child.
type process struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func (r *rig) start(what, kill string) *process {
	r.t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEndpoint+"="+r.server.Endpoint(), childLedger+"="+r.ledger, childWhat+"="+what, childKill+"="+kill)
	if r.cfg.Files {
		p.cmd.Env = append(p.cmd.Env, childFiles+"="+r.cfg.Devices[0])
	}
	in, err := p.cmd.StdinPipe()
	ok(r.t, err)
	out, err := p.cmd.StdoutPipe()
	ok(r.t, err)
	p.in, p.out = in, bufio.NewReader(out)
	ok(r.t, p.cmd.Start())
	r.t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it has ended, as a rule
	return p
}

// killed waits for a child that is killed; its input ends after it has opened.
func (p *process) killed(t *testing.T) {
	t.Helper()
	ok(t, p.in.Close())
	text, _ := io.ReadAll(p.out)
	err := p.cmd.Wait()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child was not killed: %v, %s", err, text)
	}
}

// TestKill: wherever the owner is killed, Sweep, or the next Open, leaves nothing
// attached, no clone and no row.
func TestKill(t *testing.T) {
	r := newRig(t, osdtest.Config{Loop: osdtest.HasLoop() == nil})
	if r.cfg.Files {
		t.Log("NOT RUN on loop devices: there are none; files are used")
	}
	ctx := t.Context()
	r.k.wait.settle = 0
	id := r.volume("v", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	client := func(string) (*Client, error) { return r.c, nil }
	for _, test := range []struct {
		what    string
		methods []string
	}{{id, []string{"Attach", "Detach"}}, {id + "?" + s.ID, []string{"Clone", "Attach", "Detach", "Delete"}}} {
		for _, method := range test.methods {
			for _, when := range []string{"before", "after"} {
				volume, snapshot, _ := strings.Cut(test.what, "?")
				name := fmt.Sprintf("%s %s, snapshot %q", when, method, snapshot)
				r.start(test.what, when+" "+method).killed(t)
				for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
					if !s.Done {
						t.Errorf("%s: %+v", name, s)
					}
				}
				r.clean()
				if when == "after" && (method == "Attach" || method == "Clone") {
					r.start(test.what, when+" "+method).killed(t)
					a := must[*Attachment](t)(r.k.Open(ctx, r.c, volume, snapshot, false))
					ok(t, a.Release(ctx))
					r.clean()
				}
			}
		}
	}
	if left := points(r, id); len(left) != 1 {
		t.Errorf("%d snapshots and clones", len(left))
	}
}

// TestTwoProcesses: a live owner is left alone, and what somebody uses stays
// attached when its owner is killed.
func TestTwoProcesses(t *testing.T) {
	r := newRig(t, osdtest.Config{Loop: osdtest.HasLoop() == nil})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	s := must[Volume](t)(r.c.Snapshot(ctx, id, "point", labels))
	client := func(string) (*Client, error) { return r.c, nil }

	p := r.start(id, "")
	line, err := p.out.ReadString('\n')
	device, is := strings.CutPrefix(strings.TrimSpace(line), "open ")
	if err != nil || !is {
		t.Fatalf("the child says %q, %v", line, err)
	}
	_, err = r.k.Open(ctx, r.c, id, "", true)
	wants(t, err, fmt.Sprintf("process %d holds it", p.cmd.Process.Pid))
	retryable(t, err, true)
	if all := must[[]Swept](t)(r.k.Sweep(ctx, client)); len(all) != 0 {
		t.Errorf("a live owner's: %+v", all)
	}
	// Each process reads a snapshot through its own clone.
	q := r.start(id+"?"+s.ID, "")
	if line, err := q.out.ReadString('\n'); err != nil || !strings.HasPrefix(line, "open ") {
		t.Fatalf("the child says %q, %v", line, err)
	}
	a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, s.ID, false))
	if n := len(points(r, s.ID)); n != 2 {
		t.Errorf("%d clones", n)
	}
	ok(t, a.Release(ctx))
	ok(t, q.in.Close())
	ok(t, q.cmd.Wait())

	// A user that claims nothing, as QEMU: here, another process has it open.
	ok(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
	user := exec.Command("sleep", "60")
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	ok(t, err)
	user.Stdin = f
	ok(t, user.Start())
	t.Cleanup(func() { _ = user.Process.Kill() })
	ok(t, f.Close())
	for _, s := range must[[]Swept](t)(r.k.Sweep(ctx, client)) {
		if !s.Done || !strings.Contains(s.Text, fmt.Sprintf("it stays attached: process %d has it open", user.Process.Pid)) {
			t.Errorf("%+v", s)
		}
	}
	if n := r.server.Calls("Detach"); n != 2 {
		t.Errorf("%d Detach; those of the two clones are 2", n)
	}
	ok(t, user.Process.Kill())
	_ = user.Wait()
	ok(t, r.server.DetachOutside(id))
	r.clean()
}

// TestSweepClaimed: a device that is claimed, as a mount does, stays attached.
func TestSweepClaimed(t *testing.T) {
	r := newRig(t, osdtest.Config{Loop: true})
	ctx := t.Context()
	id := r.volume("v", 1, 1)
	a := must[*Attachment](t)(r.k.Open(ctx, r.c, id, "", true))
	a.h.row.leave() // its owner is dead
	f := open(t, a, os.O_RDWR|unix.O_EXCL)
	other := r.keeper()
	all := must[[]Swept](t)(other.Sweep(ctx, func(string) (*Client, error) { return r.c, nil }))
	if len(all) != 1 || !all[0].Done || !strings.Contains(all[0].Text, "it stays attached: it is mounted, or claimed") {
		t.Errorf("%+v", all)
	}
	ok(t, f.Close())
	ok(t, r.server.DetachOutside(id))
}
