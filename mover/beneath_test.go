package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// hosted is the daemon 2 with an export of RoleHost, for the controller 1. Peer 3
// is paired and listed, and no controller.
type hosted struct {
	*site
	*desk
	disks map[string]*movertest.Memory
	asked []string
}

func newHosted(ctx context.Context, d *desk, disks map[string]*movertest.Memory) (*hosted, error) {
	e, err := mover.NewEngine(few, memState{})
	if err != nil {
		return nil, err
	}
	h := &hosted{site: &site{engine: e, server: mover.NewServer(e, nil), listen: newPipeListener()}, desk: d, disks: disks}
	h.server.Self = wire.ID{2}
	h.server.SetExports([]mover.Export{{
		Name: "dr", Role: mover.RoleHost, Peers: []wire.ID{{1}, {3}, d.key.ID()}, Operators: []wire.ID{{1}}, Beneath: h.find,
		Tickets: &mover.TicketPolicy{Self: []wire.ID{{2}}, Controllers: []wire.ID{d.key.ID()}},
	}})
	go func() { _ = h.server.Serve(ctx, h.listen) }()
	return h, nil
}

func (h *hosted) find(rest string) (mover.Leaf, error) {
	h.asked = append(h.asked, rest)
	m := h.disks[rest]
	if m == nil {
		return mover.Leaf{}, errors.New("no such disk")
	}
	return mover.Leaf{Unit: rest, Kind: "memory", Frozen: strings.HasPrefix(rest, "snap"), Open: endpoint(rest, m).Open}, nil
}

// as is a Remote for a disk of the host, dialled by peer, with a ticket.
func (h *hosted) as(peer wire.ID, rest string, ticket func() wire.Ticket) *mover.Remote {
	r := &mover.Remote{Name: rest, Export: "dr/" + rest, Dial: func(ctx context.Context) (wire.Link, error) {
		a, b := wire.Pipe(peer, wire.ID{2})
		return a, h.listen.offer(ctx, b)
	}}
	if ticket != nil {
		r.Ticket = func(context.Context) ([]byte, error) {
			k := ticket()
			return k.Sign(h.key, time.Now())
		}
	}
	return r
}

// ticket is a good one of run 7 for the disk called rest.
func (h *hosted) ticket(op wire.TicketOp, source, target wire.ID, rest string) func() wire.Ticket {
	return func() wire.Ticket {
		m := h.disks[rest]
		return wire.Ticket{
			Op: op, Run: wire.RunID{7}, Source: source, Target: target, Epoch: 3, Life: 5 * time.Minute, Size: m.Size(), Export: "dr/" + rest, Identity: m.Identity(),
		}
	}
}

func (h *hosted) close() error {
	h.server.Drain()
	return h.engine.Close()
}

const hostedSize = 3 << 20

func hostedDisks() map[string]*movertest.Memory {
	rng := rand.New(rand.NewPCG(31, 31))
	return map[string]*movertest.Memory{
		"leaf": disk(image(rng, hostedSize)), "snap": disk(image(rng, hostedSize)), "other": disk(image(rng, hostedSize)),
	}
}

// TestHostOpensByTicketOnly: of a host's disks a ticket opens the one that it
// names for what it says, a frozen one is never written, and who is no controller
// does not even learn what there is.
func TestHostOpensByTicketOnly(t *testing.T) {
	one, two, three := wire.ID{1}, wire.ID{2}, wire.ID{3}
	desk := newDesk(t)
	type ask struct {
		peer  wire.ID
		op    string // "push", "pull", "verify"
		rest  string
		edit  func(*wire.Ticket)
		none  bool // no ticket
		want  wire.Code
		asked bool // the disk may have been looked up
	}
	for name, a := range map[string]ask{
		"write the leaf":               {peer: one, op: "push", rest: "leaf", asked: true},
		"write, by a peer":             {peer: three, op: "push", rest: "leaf", asked: true},
		"read the snapshot":            {peer: one, op: "pull", rest: "snap", asked: true},
		"compare the snapshot":         {peer: one, op: "verify", rest: "snap", want: wire.CodeVerify, asked: true},
		"write the snapshot":           {peer: one, op: "push", rest: "snap", want: wire.CodeRole, asked: true},
		"no ticket":                    {peer: one, op: "push", rest: "leaf", none: true, want: wire.CodeTicket},
		"no ticket, no disk":           {peer: one, op: "push", rest: "nothing", none: true, want: wire.CodeTicket},
		"an unknown peer":              {peer: wire.ID{9}, op: "push", rest: "leaf", want: wire.CodeExport},
		"a ticket for another peer":    {peer: three, op: "push", rest: "leaf", edit: func(k *wire.Ticket) { k.Source = one }, want: wire.CodeTicket},
		"a ticket for another disk":    {peer: one, op: "push", rest: "leaf", edit: func(k *wire.Ticket) { k.Export = "dr/other" }, want: wire.CodeTicket},
		"another disk by its name":     {peer: one, op: "push", rest: "leaf", edit: func(k *wire.Ticket) { k.Identity = "memory:0" }, want: wire.CodeTicket, asked: true},
		"to read, with which to write": {peer: one, op: "push", rest: "leaf", edit: func(k *wire.Ticket) { k.Op = wire.TicketRead }, want: wire.CodeTicket},
		"a ticket that is over":        {peer: one, op: "push", rest: "leaf", edit: func(k *wire.Ticket) { k.Life = 0 }, want: wire.CodeTicket},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				h, err := newHosted(ctx, desk, hostedDisks())
				if err != nil {
					t.Fatal(err)
				}
				before := map[string][]byte{}
				for rest, m := range h.disks {
					before[rest] = m.Bytes()
				}
				own := disk(image(rand.New(rand.NewPCG(5, 5)), hostedSize))
				far := h.as(a.peer, a.rest, nil)
				if !a.none {
					op := map[string]wire.TicketOp{"push": wire.TicketWrite, "pull": wire.TicketRead, "verify": wire.TicketVerify}[a.op]
					source, target := a.peer, two
					if a.op == "pull" {
						source, target = two, a.peer
					}
					k := h.ticket(op, source, target, a.rest)()
					if a.edit != nil {
						a.edit(&k)
					}
					late := k.Life == 0
					if late {
						k.Life = time.Minute
					}
					b, err := k.Sign(h.key, time.Now())
					if err != nil {
						t.Fatal(err)
					}
					if late {
						time.Sleep(3 * time.Minute) // of the bubble
					}
					far.Ticket = func(context.Context) ([]byte, error) { return b, nil }
				}
				job := mover.Job{Run: wire.RunID{7}, Mode: wire.ModeCopy, Source: endpoint("own", own), Target: mover.Endpoint{Name: "far", Remote: far}}
				switch a.op {
				case "pull":
					job.Source, job.Target = job.Target, job.Source
				case "verify":
					job.Mode = wire.ModeVerify
				}
				e, err := mover.NewEngine(few, memState{})
				if err != nil {
					t.Fatal(err)
				}
				_, err = e.Run(ctx, job, new(mover.Progress))
				if err := errors.Join(e.Close(), h.close()); err != nil {
					t.Fatal(err)
				}
				if codeOf(err) != a.want {
					t.Errorf("got %v, want code %v", err, a.want)
				}
				if asked := len(h.asked) > 0; asked != a.asked {
					t.Errorf("looked up %q", h.asked)
				}
				for rest, m := range h.disks {
					if same := bytes.Equal(m.Bytes(), before[rest]); same == (a.op == "push" && a.want == 0 && rest == a.rest) {
						t.Errorf("%s is as it was: %t", rest, same)
					}
				}
				if a.op == "pull" && a.want == 0 && !bytes.Equal(own.Bytes(), before[a.rest]) {
					t.Error("what was pulled differs")
				}
			})
		})
	}
}

// TestHostProbe: a controller learns what a ticket has to name, without one; a
// peer that is none learns nothing, whatever there is.
func TestHostProbe(t *testing.T) {
	desk := newDesk(t)
	inBubble(t, func(t *testing.T, ctx context.Context) {
		h, err := newHosted(ctx, desk, hostedDisks())
		if err != nil {
			t.Fatal(err)
		}
		p, err := h.engine.Probe(ctx, h.as(desk.key.ID(), "leaf", nil))
		if err != nil || p.Identity != h.disks["leaf"].Identity() || p.Size != hostedSize || !p.Target || p.State != wire.StateClean {
			t.Errorf("the leaf: %+v, %v", p, err)
		}
		if p, err = h.engine.Probe(ctx, h.as(desk.key.ID(), "snap", nil)); err != nil || p.Target {
			t.Errorf("the snapshot: %+v, %v", p, err)
		}
		h.asked = nil
		for _, rest := range []string{"leaf", "nothing"} {
			_, err := h.engine.Probe(ctx, h.as(wire.ID{3}, rest, nil))
			if codeOf(err) != wire.CodeExport || !strings.Contains(err.Error(), "for this peer") || len(h.asked) > 0 {
				t.Errorf("%s by no controller: %v, looked up %q", rest, err, h.asked)
			}
		}
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestOrderWithinADaemon: a daemon that is told to push to an export of its own
// does it in itself, with the rights of who told it, and with both tickets.
func TestOrderWithinADaemon(t *testing.T) {
	self, peer := wire.ID{2}, wire.ID{1}
	desk := newDesk(t)
	for name, tt := range map[string]struct {
		mode   wire.Mode
		source wire.ID // of the target's ticket
		epoch  uint64
		want   wire.Code
	}{
		"copy":                         {wire.ModeCopy, self, 3, wire.CodeOK},
		"compare":                      {wire.ModeVerify, self, 3, wire.CodeVerify},
		"a ticket to write from afar":  {wire.ModeCopy, peer, 3, wire.CodeTicket},
		"a lower epoch than there was": {wire.ModeCopy, self, 2, wire.CodeFenced},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				h, err := newHosted(ctx, desk, hostedDisks())
				if err != nil {
					t.Fatal(err)
				}
				run := func(mode wire.Mode, source wire.ID, epoch uint64) error {
					read, write := wire.TicketRead, wire.TicketWrite
					if mode == wire.ModeVerify {
						read, write = wire.TicketVerify, wire.TicketVerify
					}
					with := func(k func() wire.Ticket) func() wire.Ticket {
						return func() wire.Ticket { t := k(); t.Epoch = epoch; return t }
					}
					e, err := mover.NewEngine(few, memState{})
					if err != nil {
						return err
					}
					defer e.Close()
					job := mover.Job{Run: wire.RunID{7}, Mode: mode, Source: mover.Endpoint{Name: "snap", Remote: h.as(peer, "snap", with(h.ticket(read, self, self, "snap")))}}
					job.Target.Remote = h.as(peer, "leaf", with(h.ticket(write, source, self, "leaf")))
					_, err = e.Order(ctx, job.Source.Remote, job, wire.Order{Address: "self:1", Peer: self, Export: "dr/leaf"}, new(mover.Progress))
					return err
				}
				if tt.epoch < 3 {
					if err := run(wire.ModeCopy, self, 3); err != nil {
						t.Error(err)
					}
					synctest.Wait() // the daemon has let go of it
					w, err := h.disks["leaf"].Reopen(movertest.ReadWrite)
					if err == nil {
						_, err = w.WriteAt([]byte("since"), 5)
						err = errors.Join(err, w.Close())
					}
					if err != nil {
						t.Error(err)
					}
				}
				err = run(tt.mode, tt.source, tt.epoch)
				if cerr := h.close(); cerr != nil {
					t.Error(cerr)
				}
				if codeOf(err) != tt.want {
					t.Errorf("got %v, want code %v", err, tt.want)
				}
				if same := bytes.Equal(h.disks["leaf"].Bytes(), h.disks["snap"].Bytes()); same != (tt.want == wire.CodeOK) {
					t.Errorf("equal: %t", same)
				}
			})
		})
	}
}

// TestSampledComparison: one grain in so many is compared, at any distance, and
// what differs among them is counted; nothing is written and nothing is called
// equal that was not compared.
func TestSampledComparison(t *testing.T) {
	for _, way := range hintWays {
		for _, differ := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/differ=%t", way, differ), func(t *testing.T) {
				err := bubble(t, func(ctx context.Context) error {
					l, m := newLineage(), &moves{way: way, state: memState{}}
					l.dst.Memory = disk(l.at[0])
					if differ {
						l.dst.Memory = disk(image(rand.New(rand.NewPCG(77, 77)), lineageSize))
					}
					job := l.job(wire.RunID{1}, 1, 0, nil, 0)
					job.Mode, job.Sample, job.Track = wire.ModeVerify, 2, wire.TrackingOff
					rep, err := m.run(ctx, job)
					c := rep.Counters
					if grains := c.Scanned >> 16; c.Total != lineageSize || c.Skipped+c.Scanned != c.Total || grains < 72 || grains > 80 || !l.dst.wrote.Empty() || rep.Equal {
						return fmt.Errorf("%w (%+v)", err, rep)
					}
					if differ && (codeOf(err) != wire.CodeVerify || c.Bad<<16 < c.Scanned/2) || !differ && (err != nil || c.Bad != 0) {
						return fmt.Errorf("%w (%+v)", err, rep)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}
