package mover_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

const ticketSize = 4 << 20

// desk is a controller.
type desk struct{ key, stranger *wire.Key }

func newDesk(t *testing.T) *desk { return &desk{wiretest.Key(t), wiretest.Key(t)} }

// export is one that wants tickets of the desk, with the name "disk".
func (d *desk) export(role mover.Role, m *movertest.Memory) mover.Export {
	return mover.Export{
		Name: "disk", Role: role, Open: endpoint("disk", m).Open, Operators: []wire.ID{{1}},
		Tickets: &mover.TicketPolicy{Self: []wire.ID{{2}}, Controllers: []wire.ID{d.key.ID()}},
	}
}

// good is a ticket for a push of peer 1 to daemon 2 in run 7.
func (d *desk) good(m *movertest.Memory) wire.Ticket {
	return wire.Ticket{
		Op: wire.TicketWrite, Run: wire.RunID{7}, Source: wire.ID{1}, Target: wire.ID{2}, Epoch: 3, Life: 5 * time.Minute,
		Size: ticketSize, Export: "disk", Identity: m.Identity(),
	}
}

func (d *desk) sign(t testing.TB, k wire.Ticket) []byte {
	t.Helper()
	b, err := k.Sign(d.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inBubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
		defer cancel()
		f(t, ctx)
	})
}

// TestTicketHasToFit changes one thing of a ticket at a time.
func TestTicketHasToFit(t *testing.T) {
	d := newDesk(t)
	content := image(rand.New(rand.NewPCG(1, 1)), ticketSize)
	for _, c := range []struct {
		name string
		edit func(*wire.Ticket)
		say  func(h *wire.Hello)
		want wire.Code // CodeOK: it opens
	}{
		{"as it should be", func(*wire.Ticket) {}, nil, wire.CodeOK},
		{"for this pass", func(k *wire.Ticket) { k.Pass = 1 }, nil, wire.CodeOK},
		{"for another pass", func(k *wire.Ticket) { k.Pass = 2 }, nil, wire.CodeTicket},
		{"for another run", func(k *wire.Ticket) { k.Run[0]++ }, nil, wire.CodeTicket},
		{"of another peer", func(k *wire.Ticket) { k.Source[0]++ }, nil, wire.CodeTicket},
		{"for another daemon", func(k *wire.Ticket) { k.Target[0]++ }, nil, wire.CodeTicket},
		{"both the other way round", func(k *wire.Ticket) { k.Source, k.Target = k.Target, k.Source }, nil, wire.CodeTicket},
		{"to read", func(k *wire.Ticket) { k.Op = wire.TicketRead }, nil, wire.CodeTicket},
		{"to compare", func(k *wire.Ticket) { k.Op = wire.TicketVerify }, nil, wire.CodeTicket},
		{"for another export", func(k *wire.Ticket) { k.Export = "other" }, nil, wire.CodeTicket},
		{"for another disk", func(k *wire.Ticket) { k.Identity += "x" }, nil, wire.CodeTicket},
		{"for another size", func(k *wire.Ticket) { k.Size++ }, nil, wire.CodeTicket},
		{"none", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Ticket = nil }, wire.CodeTicket},
		{"one bit changed", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Ticket[40] ^= 1 }, wire.CodeTicket},
		{"garbage", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Ticket = make([]byte, wire.MaxTicket) }, wire.CodeTicket},
		{"a copy by a ticket to compare", func(k *wire.Ticket) { k.Op = wire.TicketVerify }, func(h *wire.Hello) { h.Mode = wire.ModeCopy }, wire.CodeTicket},
		{"a comparison by a ticket to write", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Mode = wire.ModeVerify }, wire.CodeTicket},
		{"a pull by a ticket to push", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Op, h.Mode = wire.OpPull, wire.ModeVerify }, wire.CodeTicket},
		{"a probe needs none", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Op, h.Ticket = wire.OpProbe, nil }, wire.CodeOK},
		{"not listed, with a ticket", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Export = "unlisted" }, wire.CodeExport},
		{"not there, with a ticket", func(*wire.Ticket) {}, func(h *wire.Hello) { h.Export = "nothing" }, wire.CodeExport},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := disk(content)
			inBubble(t, func(t *testing.T, ctx context.Context) {
				hidden := d.export(mover.RoleTarget, m)
				s, err := newSite(ctx, mover.Config{Memory: 64 << 20}, memState{}, d.export(mover.RoleTarget, m))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { s.server.Drain(); _ = s.engine.Close() }()
				listed := d.export(mover.RoleTarget, m)
				listed.Peers = []wire.ID{{1}}
				hidden.Name, hidden.Peers, hidden.Operators = "unlisted", []wire.ID{{9}}, nil
				s.server.SetExports([]mover.Export{listed, hidden})
				link, err := s.dial(ctx)
				if err != nil {
					t.Fatal(err)
				}
				k := d.good(m)
				c.edit(&k)
				h := hello(wire.OpPush, wire.ModeCopy, "disk")
				h.Ticket = d.sign(t, k)
				if c.say != nil {
					c.say(h)
				}
				e := &evil{t: t, ctx: ctx, link: link, in: wire.NewReader(link.Control(), wire.MaxControlBody)}
				e.send(h)
				if h.Op == wire.OpPush {
					o := openFrame(ticketSize)
					o.Mode = h.Mode
					e.send(o)
				}
				err = e.in.Expect(new(wire.Welcome))
				if err == nil && h.Op == wire.OpPush {
					err = e.in.Expect(&e.open)
				}
				if got := codeOf(err); got != c.want {
					t.Errorf("got %v, want code %v", err, c.want)
				}
				if c.want == wire.CodeExport && strings.Contains(err.Error(), "ticket") {
					t.Errorf("an unlisted peer hears %v", err)
				}
				link.CloseWithError(wire.CodeOK, "")
				<-link.Done()
			})
			if !bytes.Equal(m.Bytes(), content) {
				t.Error("something was written")
			}
		})
	}
}

func TestTicketOfAStranger(t *testing.T) {
	d := newDesk(t)
	other := &desk{key: d.stranger}
	m := disk(make([]byte, ticketSize))
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20}, memState{}, d.export(mover.RoleTarget, m))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		ticket := other.sign(t, other.good(m))
		_, err = pushWith(ctx, s, image(rand.New(rand.NewPCG(2, 2)), ticketSize), wire.RunID{7}, 0, func(context.Context) ([]byte, error) { return ticket, nil })
		if codeOf(err) != wire.CodeTicket {
			t.Errorf("got %v", err)
		}
	})
	if !bytes.Equal(m.Bytes(), make([]byte, ticketSize)) {
		t.Error("something was written")
	}
}

// pushWith pushes content to the site with tickets.
func pushWith(ctx context.Context, s *site, content []byte, run wire.RunID, retry time.Duration, tickets mover.TicketFunc) (mover.Report, error) {
	cfg := mover.Config{Memory: 64 << 20, Workers: 1}
	source, err := mover.NewEngine(cfg, nil)
	if err != nil {
		return mover.Report{}, err
	}
	defer source.Close() // holds nothing
	to := s.remote("disk")
	to.Remote.Ticket = tickets
	return source.Run(ctx, mover.Job{
		Run: run, Mode: wire.ModeCopy, Retry: retry, Source: endpoint("source", disk(content)), Target: to,
	}, new(mover.Progress))
}

// TestTicketExpires copies slowly, with tickets that are soon over: the session
// ends in order, and goes on where it was with the next ticket, if there is one.
func TestTicketExpires(t *testing.T) {
	d := newDesk(t)
	content := image(rand.New(rand.NewPCG(3, 3)), ticketSize)
	for _, renew := range []bool{true, false} {
		m := disk(make([]byte, ticketSize))
		inBubble(t, func(t *testing.T, ctx context.Context) {
			s, err := newSite(ctx, mover.Config{Memory: 64 << 20, Workers: 1}, memState{}, d.export(mover.RoleTarget, m))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { s.server.Drain(); _ = s.engine.Close() }()
			s.wrap = func(l wire.Link) wire.Link { return slowWrites{l, 4 * time.Second} }
			var last atomic.Pointer[[]byte]
			issued := 0
			rep, err := pushWith(ctx, s, content, wire.RunID{7}, 0, func(context.Context) ([]byte, error) {
				if b := last.Load(); b != nil && !renew {
					return *b, nil
				}
				issued++
				k := d.good(m)
				k.Life = 10 * time.Second
				b, err := k.Sign(d.key, time.Now())
				last.Store(&b)
				return b, err
			})
			if renew && (err != nil || rep.State != wire.StateVerified || issued < 2) {
				t.Errorf("with new tickets: %v, %v, %d issued", err, rep.State, issued)
			}
			if _, ok := errors.AsType[*mover.IncompleteError](err); !renew && (!ok || codeOf(err) != wire.CodeTicket) {
				t.Errorf("with one ticket: %v", err)
			}
		})
		if renew != bytes.Equal(m.Bytes(), content) {
			t.Errorf("renewed %v: equal is not", renew)
		}
	}
}

// TestTicketEpoch is the controller's fence: durable, and in force at once.
func TestTicketEpoch(t *testing.T) {
	d := newDesk(t)
	old, fresh := image(rand.New(rand.NewPCG(4, 4)), ticketSize), image(rand.New(rand.NewPCG(5, 5)), ticketSize)
	m := disk(make([]byte, ticketSize))
	power := movertest.NewPower()
	state := movertest.NewCrashableState(power)
	ticket := func(t *testing.T, run byte, epoch uint64) mover.TicketFunc {
		return func(context.Context) ([]byte, error) {
			k := d.good(m)
			k.Run, k.Epoch = wire.RunID{run}, epoch
			return d.sign(t, k), nil
		}
	}
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20, Workers: 1}, state.Mount(), d.export(mover.RoleTarget, m))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		s.wrap = func(l wire.Link) wire.Link { return slowWrites{l, time.Second} }
		first := make(chan error, 1)
		go func() {
			_, err := pushWith(ctx, s, old, wire.RunID{1}, time.Hour, ticket(t, 1, 3))
			first <- err
		}()
		time.Sleep(1500 * time.Millisecond)
		// Alive, and yet it has to give way to a later epoch; an equal one waits.
		if _, err := pushWith(ctx, s, fresh, wire.RunID{2}, 0, ticket(t, 2, 3)); codeOf(err) != wire.CodeBusy {
			t.Errorf("another run of the same epoch: %v", err)
		}
		if _, err := pushWith(ctx, s, fresh, wire.RunID{2}, 0, ticket(t, 2, 2)); codeOf(err) != wire.CodeFenced {
			t.Errorf("an earlier epoch: %v", err)
		}
		if _, err := pushWith(ctx, s, fresh, wire.RunID{2}, 0, ticket(t, 2, 4)); err != nil {
			t.Errorf("a later epoch: %v", err)
		}
		if err := <-first; codeOf(err) != wire.CodeFenced {
			t.Errorf("the one before ended with %v", err)
		}
	})
	if !bytes.Equal(m.Bytes(), fresh) {
		t.Error("the earlier epoch wrote after the later one began")
	}
	power.Crash(rand.New(rand.NewPCG(1, 1)), 0)
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20}, state.Mount(), d.export(mover.RoleTarget, m))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		if _, err := pushWith(ctx, s, old, wire.RunID{1}, 0, ticket(t, 1, 3)); codeOf(err) != wire.CodeFenced {
			t.Errorf("after a restart: %v", err)
		}
		if _, err := pushWith(ctx, s, fresh, wire.RunID{1}, 0, ticket(t, 1, 4)); err != nil {
			t.Errorf("the epoch itself, after a restart: %v", err)
		}
	})
	if !bytes.Equal(m.Bytes(), fresh) {
		t.Error("an epoch that is over wrote after a restart")
	}
}

// TestFenceIsCompacted keeps the epoch when the journal is written anew.
func TestFenceIsCompacted(t *testing.T) {
	state := memState{}
	j, err := mover.OpenJournal(state, "d", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Fence(9); err != nil {
		t.Fatal(err)
	}
	for j.End() < mover.JournalLen-8192 {
		if err := j.Mark(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if err := j.Mark(); err != nil {
			t.Fatal(err)
		}
	}
	if end := j.End(); end > mover.JournalLen/2 {
		t.Fatalf("it was not compacted: %d", end)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := mover.ReadJournal(state, "d"); err != nil || st.Fence != 9 {
		t.Fatalf("%+v, %v", st.Fence, err)
	}
}

// TestOrderIsRenewed orders a push that lasts longer than any of its tickets:
// it goes on under new ones, and without them it ends, incomplete.
func TestOrderIsRenewed(t *testing.T) {
	d := newDesk(t)
	content := image(rand.New(rand.NewPCG(6, 6)), 8<<20)
	for _, renew := range []bool{true, false} {
		from, to := disk(content), disk(make([]byte, len(content)))
		inBubble(t, func(t *testing.T, ctx context.Context) {
			cfg := mover.Config{Memory: 64 << 20, Workers: 1}
			target := d.export(mover.RoleTarget, to)
			third, err := newSite(ctx, cfg, memState{}, target)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { third.server.Drain(); _ = third.engine.Close() }()
			third.wrap = func(l wire.Link) wire.Link { return slowWrites{l, 20 * time.Second} }
			e, err := mover.NewEngine(cfg, memState{})
			if err != nil {
				t.Fatal(err)
			}
			near := &site{engine: e, listen: newPipeListener(), server: mover.NewServer(e, func(ctx context.Context, _ *wire.Order) (wire.Link, error) {
				return third.dial(ctx)
			})}
			defer func() { near.server.Drain(); _ = near.engine.Close() }()
			source := d.export(mover.RoleSource, from)
			source.Peers = []wire.ID{{1}}
			near.server.SetExports([]mover.Export{source})
			go func() { _ = near.server.Serve(ctx, near.listen) }()
			issued, orders := 0, 0
			near.wrap = func(l wire.Link) wire.Link {
				orders++
				return l
			}
			tickets := func(op wire.TicketOp, src, dst wire.ID, m *movertest.Memory) mover.TicketFunc {
				var last []byte
				var at time.Time
				return func(context.Context) ([]byte, error) {
					if last != nil && (!renew || time.Since(at) < 20*time.Second) {
						return last, nil
					}
					k := d.good(m)
					k.Op, k.Source, k.Target, k.Size, k.Life = op, src, dst, int64(len(content)), 50*time.Second
					b, err := k.Sign(d.key, time.Now())
					issued++
					last, at = b, time.Now()
					return b, err
				}
			}
			there := near.remote("disk")
			there.Remote.Ticket = tickets(wire.TicketRead, wire.ID{2}, wire.ID{2}, from)
			job := mover.Job{
				Run: wire.RunID{7}, Mode: wire.ModeCopy, Retry: time.Hour, Source: there,
				Target: mover.Endpoint{Remote: &mover.Remote{Ticket: tickets(wire.TicketWrite, wire.ID{1}, wire.ID{2}, to)}},
			}
			rep, err := near.engine.Order(ctx, there.Remote, job, wire.Order{Address: "third:1", Peer: wire.ID{2}, Export: "disk", Retry: 3600}, new(mover.Progress))
			if renew && (err != nil || rep.State != wire.StateVerified || issued < 6 || orders != 1) {
				t.Errorf("with new tickets: %v, %v, %d issued, %d orders", err, rep.State, issued, orders)
			}
			if _, ok := errors.AsType[*mover.IncompleteError](err); !renew && (!ok || codeOf(err) != wire.CodeTicket) {
				t.Errorf("with one ticket: %v", err)
			}
		})
		if renew != bytes.Equal(to.Bytes(), content) {
			t.Errorf("renewed %v: equal is not", renew)
		}
	}
}

// TestRevokedBeforeItBegins is a link whose handshake was done a moment before its
// peer was removed.
func TestRevokedBeforeItBegins(t *testing.T) {
	m := disk(make([]byte, ticketSize))
	inBubble(t, func(t *testing.T, ctx context.Context) {
		s, err := newSite(ctx, mover.Config{Memory: 64 << 20}, memState{}, mover.Export{Name: "disk", Role: mover.RoleTarget, Open: endpoint("disk", m).Open})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.server.Drain(); _ = s.engine.Close() }()
		in := false
		s.server.Revoke(func(wire.ID) bool { return in })
		content := image(rand.New(rand.NewPCG(7, 7)), ticketSize)
		if _, err := pushWith(ctx, s, content, wire.RunID{1}, 0, nil); codeOf(err) != wire.CodeUnauthorized {
			t.Errorf("removed: %v", err)
		}
		in = true
		if _, err := pushWith(ctx, s, content, wire.RunID{1}, 0, nil); err != nil {
			t.Errorf("paired again: %v", err)
		}
	})
}
