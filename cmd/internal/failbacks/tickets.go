package failbacks

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// ticketLife is how long a ticket is good for. A controller that is gone keeps
// nobody's access longer.
const ticketLife = 10 * time.Minute

// tickets signs the tickets of one disk, a new one when the last is half over.
// Safe for concurrent use.
type tickets struct {
	key  *wire.Key
	want wire.Ticket
	life time.Duration
	now  func() time.Time

	mu     sync.Mutex
	last   []byte
	issued time.Time
}

// ticket is a mover.TicketFunc.
func (t *tickets) ticket(context.Context) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if age := now.Sub(t.issued); t.last != nil && age >= 0 && age < t.life/2 {
		return t.last, nil
	}
	k := t.want
	k.Life = t.life
	b, err := k.Sign(t.key, now)
	if err != nil {
		return nil, err
	}
	t.last, t.issued = b, now
	return b, nil
}

// ask is what a pass wants to do with its two disks.
type ask struct {
	run    wire.RunID
	pass   uint32
	epoch  uint64
	mode   wire.Mode
	source wire.ID // the daemon of each disk
	target wire.ID
}

// ticketsFor are those for e, a disk elsewhere, whose identity it asks for; nil
// for one here.
func (m *Mover) ticketsFor(ctx context.Context, e *end, op wire.TicketOp, a *ask) (mover.TicketFunc, error) {
	if e.here {
		return nil, nil
	}
	p, err := transfer.ProbePlace(ctx, m.Engine, m.Reach, e.Place, m.transport())
	if err != nil {
		return nil, err
	}
	if p.Identity == "" || p.Size == 0 {
		return nil, fmt.Errorf("%s: the daemon there does not say which disk it is", e.Text)
	}
	if a.mode == wire.ModeVerify {
		op = wire.TicketVerify
	}
	t := &tickets{key: m.Key, life: ticketLife, now: time.Now, want: wire.Ticket{
		Op: op, Run: a.run, Source: a.source, Target: a.target, Pass: a.pass, Epoch: a.epoch, Size: p.Size, Export: e.Export, Identity: p.Identity,
	}}
	return t.ticket, nil
}
