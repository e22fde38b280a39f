package mover_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// A source has at most a checkpoint, a window, and what its workers hold under way:
// 7 MiB. The rest of the disk beyond the gate is for the session after the change.
const (
	switchSize = 11 << 20
	switchGate = 3 << 20
)

var overTLS = mover.Route{Transport: "tls"}

// crossing is a copy over real links of loopback, of which a test changes the
// transport in the middle: what lies beyond the gate is not written before.
type crossing struct {
	t        *testing.T
	near     *wire.Key
	far      wire.ID
	udp, tcp string

	src, dst *movertest.Memory
	want     []byte
	site     *mover.Server
	gate     chan struct{} // closed when the other link is made
	open     sync.Once
	spoil    func(wire.Link) wire.Link // what becomes of the link that is made instead
	made     atomic.Int32              // links, but those asked for
	asked    []mover.Route             // of Reroute
	second   atomic.Bool               // the session after the first link has begun
	early    atomic.Int64              // bytes of the source that were read again from below the mark
	mark     int64                     // settled before anything is changed
	said     []string
	sessions []error // how those of the far end have ended
	mu       sync.Mutex
}

// gated is a target that waits at the gate, and a source that counts.
type gated struct {
	*movertest.Memory
	c *crossing
}

func (d gated) WriteAt(p []byte, off int64) (int, error) {
	if off >= switchGate {
		<-d.c.gate
	}
	return d.Memory.WriteAt(p, off)
}

func (d gated) ReadAt(p []byte, off int64) (int, error) {
	if d.c.second.Load() && off < d.c.mark {
		d.c.early.Add(int64(len(p)))
	}
	return d.Memory.ReadAt(p, off)
}

func (d gated) ReadCold(p []byte, off int64) (int, error) { return d.ReadAt(p, off) }

func (c *crossing) opens(m *movertest.Memory) mover.OpenDisk {
	return func(_ context.Context, a mover.Access) (mover.Disk, error) {
		mode := movertest.ReadOnly
		if a == mover.ReadWrite {
			mode = movertest.ReadWrite
		}
		d, err := m.Reopen(mode)
		if err != nil {
			return nil, err
		}
		return gated{d, c}, nil
	}
}

func newCrossing(t *testing.T) *crossing {
	want := make([]byte, switchSize) // noise: each grain differs, none is zero
	_, _ = rand.NewChaCha8([32]byte{4, 2}).Read(want)
	c := &crossing{t: t, near: wiretest.Key(t), want: want, gate: make(chan struct{}), mark: 1 << 20}
	c.src, c.dst = disk(want), disk(bytes.Repeat([]byte{2}, switchSize))
	key := wiretest.Key(t)
	c.far = key.ID()
	e, err := mover.NewEngine(c.config(), memState{})
	if err != nil {
		t.Fatal(err)
	}
	c.site = mover.NewServer(e, nil)
	c.site.Observe = func(_ context.Context, ev mover.SessionEvent) {
		if ev.Ended {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sessions = append(c.sessions, ev.Err)
		}
	}
	c.site.SetExports([]mover.Export{
		{Name: "target", Role: mover.RoleTarget, Open: c.opens(c.dst), Peers: []wire.ID{c.near.ID()}},
		{Name: "source", Role: mover.RoleSource, Open: c.opens(c.src), Peers: []wire.ID{c.near.ID()}},
	})
	udp, _, err := wire.ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	q, err := wire.ListenQUIC(udp, key, wiretest.NewPeers(c.near.ID()), wire.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := wire.ListenTLS(tcp, key, wiretest.NewPeers(c.near.ID()), wire.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	c.udp, c.tcp = q.Addr(), l.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	for _, l := range []wire.Listener{q, l} {
		go func() { _ = c.site.Serve(ctx, l) }()
	}
	t.Cleanup(func() {
		c.release()
		cancel()
		c.site.Drain()
		q.Close()
		l.Close()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *crossing) release() { c.open.Do(func() { close(c.gate) }) }

func (c *crossing) config() mover.Config {
	return mover.Config{Memory: 64 << 20, Workers: 1, Checkpoint: 1 << 20, Window: 4 << 20, CheckpointEvery: 5 * time.Millisecond, Refine: mover.Off, Compress: mover.Off}
}

// crossed is a link that c may make another one of.
type crossed struct {
	wire.Link
	c *crossing
}

func (l crossed) Why() string          { return "a test" }
func (l crossed) May(mover.Route) bool { return true }

// Control is the stream on which one who pulls says that it is to be drained. What
// it acknowledges comes after that.
func (l crossed) Control() wire.Stream { return drains{l.Link.Control(), l.c} }

type drains struct {
	wire.Stream
	c *crossing
}

func (s drains) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	if bytes.Equal(p, wire.AppendFrame(nil, &wire.Path{Op: wire.PathDrain})) {
		s.c.release()
	}
	return n, err
}

func (l crossed) Reroute(ctx context.Context, to mover.Route, _ string) (wire.Link, error) {
	l.c.mu.Lock()
	l.c.asked = append(l.c.asked, to)
	first := len(l.c.asked) == 1
	l.c.mu.Unlock()
	link, err := l.c.over(ctx, to)
	if err != nil {
		return nil, err
	}
	if first && l.c.spoil != nil {
		link = l.c.spoil(link)
	}
	return crossed{link, l.c}, nil
}

func (c *crossing) over(ctx context.Context, to mover.Route) (wire.Link, error) {
	if to.Transport == "tls" {
		return wire.DialTLS(ctx, c.tcp, c.near, c.far)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr, err := net.ResolveUDPAddr("udp", c.udp)
	if err != nil {
		return nil, err
	}
	return wire.DialQUIC(ctx, pc, addr, c.near, wire.DialConfig{Connections: to.Connections}, c.far)
}

// judge asks for tls when what is settled reaches the gate nearly.
func (c *crossing) judge(from mover.Route, n wire.Counters) (mover.Route, bool) {
	return overTLS, from.Transport == "quic" && n.Verified >= 2<<20 && len(c.asked) == 0
}

// run copies by push or pull; at 0 for retry no lost link is forgiven.
func (c *crossing) run(ctx context.Context, pull bool, retry time.Duration) (mover.Report, error) {
	e, err := mover.NewEngine(mover.WithJudge(c.config(), c.judge), memState{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer e.Close()
	p := &mover.Progress{Event: func(text string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.said = append(c.said, text)
		if strings.Contains(text, "goes on over") {
			c.second.Store(true)
			if !pull {
				c.release()
			}
		}
	}}
	remote := func(export string) mover.Endpoint {
		return mover.Endpoint{Name: export, Remote: &mover.Remote{Name: export, Export: export, Dial: func(ctx context.Context) (wire.Link, error) {
			c.made.Add(1)
			link, err := c.over(ctx, mover.Route{Transport: "quic"})
			if err != nil {
				return nil, err
			}
			return crossed{link, c}, nil
		}}}
	}
	job := mover.Job{Run: wire.RunID{1}, Mode: wire.ModeCopy, Retry: retry}
	if job.Source, job.Target = (mover.Endpoint{Name: "source", Open: c.opens(c.src)}), remote("target"); pull {
		job.Source, job.Target = remote("source"), mover.Endpoint{Name: "target", Open: c.opens(c.dst)}
	}
	return e.Run(ctx, job, p)
}

// proved checks a copy that came to its end over transport, with links made and
// asked for.
func (c *crossing) proved(rep *mover.Report, err error, transport string, links int32, asked int) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%v; said %q", err, c.said)
	}
	if !bytes.Equal(c.dst.Bytes(), c.want) || rep.State != wire.StateVerified || !rep.Equal {
		c.t.Errorf("the target is %v, equal %v", rep.State, bytes.Equal(c.dst.Bytes(), c.want))
	}
	if rep.Transport != transport || c.made.Load() != links || len(c.asked) != asked {
		c.t.Errorf("ended over %s with %d links dialed and %v asked for, want %s, %d, %d; said %q", rep.Transport, c.made.Load(), c.asked, transport, links, asked, c.said)
	}
	if n := rep.Counters.Sent; n < switchSize || n > switchSize+5<<20 { // a checkpoint and a window
		c.t.Errorf("%d bytes were sent of %d", n, switchSize)
	}
	if n := c.early.Load(); n > 0 {
		c.t.Errorf("%d bytes below what was settled were read again", n)
	}
	if rep.Counters.Reconnects != 0 {
		c.t.Errorf("%d reconnects, of none", rep.Counters.Reconnects)
	}
	c.site.Drain() // all sessions have ended
	well := 0
	for _, err := range c.sessions {
		if err == nil {
			well++
		}
	}
	if well != 1 {
		c.t.Errorf("%d sessions say that they are done, of %v", well, c.sessions)
	}
}

func pushAndPull(t *testing.T, f func(t *testing.T, pull bool)) {
	t.Run("push", func(t *testing.T) { f(t, false) })
	t.Run("pull", func(t *testing.T) { f(t, true) })
}

// TestSwitch: a copy goes on over another transport from where it was, and a
// change is no lost link.
func TestSwitch(t *testing.T) {
	pushAndPull(t, func(t *testing.T, pull bool) {
		c := newCrossing(t)
		rep, err := c.run(t.Context(), pull, 0)
		c.proved(&rep, err, "tls", 1, 1)
	})
}

// middlebox is a link that ends when its data are written, or at once.
type middlebox struct {
	wire.Link
	after int64 // bytes of data streams, either way
}

func (l *middlebox) OpenSend(ctx context.Context, id wire.StreamID) (wire.Stream, error) {
	s, err := l.Link.OpenSend(ctx, id)
	return &middleStream{s, l}, err
}

func (l *middlebox) OpenReceive(ctx context.Context, id wire.StreamID) (wire.Stream, error) {
	s, err := l.Link.OpenReceive(ctx, id)
	return &middleStream{s, l}, err
}

type middleStream struct {
	wire.Stream
	l *middlebox
}

func (s *middleStream) pass(n int) {
	if left := atomic.AddInt64(&s.l.after, -int64(n)); left < 0 {
		s.l.CloseWithError(wire.CodeTimeout, "a middlebox has cut it")
	}
}

func (s *middleStream) Write(p []byte) (int, error) {
	s.pass(len(p))
	return s.Stream.Write(p)
}

func (s *middleStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.pass(n)
	return n, err
}

// TestSwitchToNothing: where the new transport carries nothing, or little, the
// copy goes back to the old one, also when no lost link is forgiven.
func TestSwitchToNothing(t *testing.T) {
	for name, spoil := range map[string]func(wire.Link) wire.Link{
		"dead before it is used": func(l wire.Link) wire.Link {
			l.CloseWithError(wire.CodeUnreachable, "a middlebox has cut it")
			return l
		},
		"dead at the first byte": func(l wire.Link) wire.Link { return &middlebox{l, 0} },
		"dead after a MiB":       func(l wire.Link) wire.Link { return &middlebox{l, 1 << 20} },
	} {
		if testing.Short() && name != "dead at the first byte" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			pushAndPull(t, func(t *testing.T, pull bool) {
				c := newCrossing(t)
				c.spoil = spoil
				rep, err := c.run(t.Context(), pull, 0)
				c.proved(&rep, err, "quic", 1, 2)
				if all := strings.Join(c.said, "\n"); !strings.Contains(all, " again: tls was of no use") || !strings.Contains(all, "middlebox") {
					t.Errorf("the operator does not hear why: %q", c.said)
				}
			})
		})
	}
}

// TestSwitchCancelled: a run that is cancelled while it drains ends at once,
// resumable, and leaves no link behind; the next run goes on and proves the disk.
func TestSwitchCancelled(t *testing.T) {
	pushAndPull(t, func(t *testing.T, pull bool) {
		c := newCrossing(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var made wire.Link
		c.spoil = func(l wire.Link) wire.Link { // the gate stays closed: what is under way cannot become durable
			made = l
			c.open.Do(func() {})
			time.AfterFunc(20*time.Millisecond, func() { // while it drains
				cancel()
				close(c.gate)
			})
			return l
		}
		rep, err := c.run(ctx, pull, time.Minute)
		if err == nil || rep.State == wire.StateVerified {
			t.Fatalf("cancelled, and says %v", rep.State)
		}
		select {
		case <-made.Done():
		case <-time.After(5 * time.Second):
			t.Error("the link that was asked for is left open")
		}
		c.asked, c.spoil = []mover.Route{overTLS}, nil // and changes nothing any more
		c.second.Store(false)
		if rep, err = c.run(t.Context(), pull, 0); err != nil || rep.State != wire.StateVerified || !bytes.Equal(c.dst.Bytes(), c.want) {
			t.Errorf("the next run: %v, %v", rep.State, err)
		}
	})
}

// late is a link that its far end has given up because nobody said hello.
type late struct{ wire.Link }

func (late) Err() error { return &wire.Error{Code: wire.CodeTimeout, Text: "no frame", Remote: true} }

// TestSwitchLate: a link that was made, and ended because draining took long, is
// made again; nothing is wrong with its transport.
func TestSwitchLate(t *testing.T) {
	c := newCrossing(t)
	c.spoil = func(l wire.Link) wire.Link { return late{l} }
	rep, err := c.run(t.Context(), true, 0)
	c.proved(&rep, err, "tls", 1, 2)
	if all := strings.Join(c.said, "\n"); strings.Contains(all, "again") {
		t.Errorf("it says %q", c.said)
	}
}
