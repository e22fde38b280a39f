package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/control"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

// stage is the real engine behind the real control API, on two hosts in memory.
type stage struct {
	t        *testing.T
	socket   string
	home, dr *hosttest.Fake
	mover    *hosttest.Mover
	original hostctl.Ref
	replica  hostctl.Ref
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "hb-stage-") // a socket's path has to be short
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := new(hosttest.Log)
	s := &stage{t: t, socket: filepath.Join(dir, "s"), home: hosttest.NewFake("home", log), dr: hosttest.NewFake("dr", log)}
	disk := func(first byte) []byte {
		return append([]byte{first}, bytes.Repeat([]byte("0123456789abcdef"), 4<<10)[1:]...)
	}
	s.original = s.home.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-prod"}, Power: hostctl.Off}, disk(1), disk(2))
	s.replica = s.dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-replica"}, Power: hostctl.On, Tools: true}, disk(3), disk(4))
	s.mover = hosttest.NewMover(log, s.home, s.dr)
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "failback.db")})
	check(t, err)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	engine, err := failback.Open(t.Context(), failback.Config{
		Store: db, Lease: db, Mover: s.mover, Log: quiet, Hosts: map[string]*hostctl.Host{"home": s.home.Host(), "dr": s.dr.Host()},
	})
	check(t, err)
	server, err := control.Listen(t.Context(), control.Config{
		Socket: s.socket, Failbacks: engine, Log: quiet, // nobody calls the others
		Jobs: struct{ control.Jobs }{}, Daemon: struct{ control.Daemon }{}, Endpoint: struct{ control.Endpoint }{}, Extents: struct{ control.Extents }{},
	})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { ran <- engine.Run(ctx) }()
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-served
		<-ran
		_ = engine.Close()
		_ = db.Close()
	})
	return s
}

// ok runs a command that ends with code and says want.
func (s *stage) ok(code int, want, args string) cmdtest.Result {
	s.t.Helper()
	r := programs.Run(s.t, "haulback", append([]string{"failback", "--socket", s.socket}, strings.Fields(args)...)...)
	if r.Code != code || !strings.Contains(r.Out+r.Stderr, want) {
		s.t.Fatalf("%s: exit code %d, want %d and %q:\n%s\n%s", args, r.Code, code, want, r.Out, r.Stderr)
	}
	return r
}

func (s *stage) power(f *hosttest.Fake, vm hostctl.Ref, want hostctl.Power) {
	s.t.Helper()
	if is, ok := f.VM(vm.UUID); !ok || is.Power != want {
		s.t.Errorf("VM %s: power %v, want %v", vm.Name, is.Power, want)
	}
}

// declared says what the VM is, and that its replica serves.
func (s *stage) declared() {
	s.t.Helper()
	s.ok(0, "web is Ready", "vm put web --original home/web-prod --replica dr/web-replica")
	s.ok(0, "home/web-prod", "vm put web --original home/web-prod --replica dr/web-replica") // the same again
	s.ok(10, "Ready", "start web --yes")
	s.ok(0, "web is in Failover", "failover web")
}

// TestFailbackHome: from the declaration to the commit, as an operator types it.
func TestFailbackHome(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.declared()
	s.ok(0, "OVERWRITE", "plan web")
	s.ok(0, "READY TO SWITCH", "start web --yes --power-on")
	s.power(s.dr, s.replica, hostctl.On)
	s.ok(10, "waits for the switch", "commit web --yes")
	check(t, s.dr.Write(s.replica.UUID, 1, 5, []byte("written while it serves")))
	s.ok(0, "waits for your word: commit or undo", "switch web")
	s.power(s.dr, s.replica, hostctl.Off)
	s.power(s.home, s.original, hostctl.On)
	s.ok(11, "held", "check web")
	for disk := range 2 {
		if !bytes.Equal(s.home.Bytes(s.original.UUID, disk), s.dr.Bytes(s.replica.UUID, disk)) {
			t.Errorf("disk %d differs", disk)
		}
	}
	s.ok(10, "cannot be canceled", "cancel web")
	s.ok(0, "home for good", "commit web --yes")
	s.ok(0, "web is Ready", "check web")
	s.ok(0, "Nothing of haulback is left", "gc")
	s.ok(0, "home for good", "list")
}

// TestFailbackBack: undo and cancel leave both VMs as they were, and what stands
// still says how to go on.
func TestFailbackBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.declared()
	was := s.home.Bytes(s.original.UUID, 0)
	s.ok(0, "watch web looks on", "start web --yes --detach --id one")
	s.ok(0, "the failback was canceled", "cancel web")
	s.ok(0, "waits for your word", "start web --yes --switch now --power-on")
	s.ok(0, "the failback was undone", "undo web --yes")
	s.power(s.dr, s.replica, hostctl.On)
	s.power(s.home, s.original, hostctl.Off)
	if !bytes.Equal(s.home.Bytes(s.original.UUID, 0), was) {
		t.Error("the original is not what it was")
	}
	s.home.Plan(hosttest.Fault{Method: "Protect", When: hosttest.Before, Final: true, Text: "the datastore is read-only"})
	s.ok(5, "STANDS STILL at step 1 (protect-target)", "start web --yes")
	s.ok(0, "haulback failback continue web", "status web")
	s.ok(0, "READY TO SWITCH", "continue web")
	s.ok(0, "the failback was canceled", "cancel web")
}
