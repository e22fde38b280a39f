package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/vix"
	"github.com/haulback/haulback/vddk/worker/control"
)

// shutdownLimit bounds the end: flush, close, EndAccess. Nobody may be there any
// more to kill a worker that hangs in it.
const shutdownLimit = 2 * time.Minute

// session is the life of the process.
//
//	main thread    Load, then the library's calls (vix.Library.Run)
//	conversation   reads requests; start, open and close run beside it
//	watchdog       looks for calls that hang, and kills the process
//	lines          writes log lines
//	NBD server     its own goroutines
type session struct {
	libDir string
	out    *control.Writer
	lines  *lines

	begin  chan *control.Start // to the main thread, once
	loaded chan error          // its answer
	work   sync.WaitGroup      // requests in work

	lib    *vix.Library // set before loaded is answered
	params vix.Params
	server *nbd.Server
	guard  *guard
	serve  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	start *control.Start
	ready bool // start was answered without an error
	last  int
	disks map[string]*export
}

func newSession(libDir string, out io.Writer) *session {
	w := control.NewWriter(out)
	return &session{
		libDir: libDir, out: w, lines: newLines(w),
		begin: make(chan *control.Start), loaded: make(chan error), disks: map[string]*export{},
	}
}

// run is the main thread. It returns when standard input has ended and all is
// closed.
func (s *session) run(in io.Reader) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopLines := s.lines.start()
	defer stopLines()
	ended := make(chan error, 1) // 1: the conversation does not wait for the reader
	go func() { ended <- s.talk(ctx, in) }()
	for {
		select {
		case start := <-s.begin:
			lib, err := vix.Load(vix.Config{LibDir: s.libDir, Log: s.lines.add})
			s.lib = lib
			s.loaded <- err
			if err == nil {
				go s.watch(ctx, start.CallLimit, start.IOLimit)
				lib.Run()
			}
		case err := <-ended:
			return err
		}
	}
}

// talk reads requests until standard input ends, then closes everything.
func (s *session) talk(ctx context.Context, in io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := control.Lines(in)
	var failure error
	for failure == nil && lines.Scan() {
		var r *control.Request
		if r, failure = control.ParseRequest(lines.Bytes()); failure == nil {
			failure = s.take(ctx, r)
		}
	}
	cancel() // opens that wait for their turn give up
	overdue := time.AfterFunc(shutdownLimit, func() { s.die("the end took longer than " + shutdownLimit.String()) })
	defer overdue.Stop()
	s.work.Wait()
	return errors.Join(failure, lines.Err(), s.shutdown())
}

// take starts what a request asks for. An error ends the conversation.
func (s *session) take(ctx context.Context, r *control.Request) error {
	if r.Ping != nil {
		return s.out.Write(control.Message{ID: r.ID})
	}
	s.mu.Lock()
	first := s.start == nil
	if first {
		s.start = r.Start
	}
	s.mu.Unlock()
	if first != (r.Start != nil) {
		return errors.New("control: start has to come first, and once")
	}
	s.work.Go(func() {
		m := s.answer(ctx, r)
		m.ID = r.ID
		_ = s.out.Write(m) // a supervisor that is gone closes standard input too
	})
	return nil
}

func (s *session) answer(ctx context.Context, r *control.Request) (m control.Message) {
	var err error
	switch {
	case r.Start != nil:
		m.Started, err = s.startUp(ctx, r.Start)
	case r.Open != nil:
		m.Opened, err = s.open(ctx, r.Open)
	case r.Close != nil:
		err = s.close(ctx, r.Close.Export)
	}
	m.Error = control.NewError(err)
	return m
}

func (s *session) startUp(ctx context.Context, r *control.Start) (*control.Started, error) {
	s.lines.hide(string(r.Password), string(r.Cookie))
	s.params = vix.Params{
		Server: r.Server, Port: uint32(r.Port), VM: r.VM, Thumbprint: r.Thumbprint,
		User: r.User, Password: string(r.Password), Cookie: string(r.Cookie),
	}
	s.begin <- r
	if err := <-s.loaded; err != nil {
		return nil, err
	}
	socket := filepath.Join(r.Dir, "nbd.sock")
	if err := s.listen(ctx, socket); err != nil {
		return nil, err
	}
	if r.Guard {
		s.guard = &guard{lib: s.lib, params: s.params, dir: r.StateDir, log: s.lines.add}
		if err := s.guard.begin(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	return &control.Started{Library: s.lib.Version(), Modes: s.lib.TransportModes(), Socket: socket}, nil
}

// listen serves NBD. The socket lies in a directory of the supervisor's user.
func (s *session) listen(ctx context.Context, socket string) error {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if s.server, err = nbd.NewServer(nbd.ServerConfig{Log: s.lines.logger()}); err != nil {
		ln.Close()
		return err
	}
	s.serve.Go(func() {
		if err := s.server.Serve(context.WithoutCancel(ctx), ln); err != nil {
			s.lines.add(vix.Warning, err.Error())
		}
	})
	return nil
}

// shutdown ends everything in the order that the library wants: no clients,
// disks flushed and closed, the VM set free, Exit.
func (s *session) shutdown() error {
	if s.lib == nil {
		return nil
	}
	var all []error
	if s.server != nil {
		all = append(all, s.server.Close())
		s.serve.Wait()
	}
	s.mu.Lock()
	disks := s.disks
	s.disks = nil
	s.mu.Unlock()
	for _, x := range disks {
		all = append(all, x.end())
	}
	ctx := context.Background() // whatever was cancelled: shutdownLimit bounds it
	if s.guard != nil {
		all = append(all, s.guard.end(ctx))
	}
	return errors.Join(append(all, s.lib.Close(ctx))...)
}

// watch kills the process when a call of the library hangs: nothing else ends
// it. The clients' connections break, which they may retry.
func (s *session) watch(ctx context.Context, call, io time.Duration) {
	tick := time.NewTicker(max(min(call, io)/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.lib.Stuck(call, io); err != nil {
				s.die(err.Error())
			}
		}
	}
}

// die says why, as far as somebody listens, and kills the process: an orderly
// exit would wait for the library.
func (s *session) die(why string) {
	said := make(chan struct{})
	go func() {
		_ = s.out.Write(control.Message{Fatal: s.lines.scrub(why)}) // last words
		close(said)
	}()
	select {
	case <-said:
	case <-time.After(time.Second):
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL) // it does not return
}

var errNotStarted = fmt.Errorf("the worker has not started")
