package wire

import (
	"encoding/binary"

	"github.com/haulback/haulback/cbt"
)

// Order follows a granted Hello with OpOrder: what the listener shall push its
// export to.
type Order struct {
	Address   string // HOST:PORT of the target's daemon
	Peer      ID     // its identity; it has to be paired with the listener
	Export    string // the target's export there
	Transport string // "auto", "quic" or "tls"
	Rate      int64  // bytes per second on the wire, until the first Pace; 0: no limit
	Retry     uint32 // seconds to go on trying after the peer was lost
	Full      bool   // re-read everything at the end
	Ticket    []byte // to show at the target's daemon, if its export wants one
}

// Type implements Frame.
func (*Order) Type() Type { return TypeOrder }

func (o *Order) appendBody(b []byte) []byte {
	b = append(b, o.Peer[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Rate))
	b = binary.BigEndian.AppendUint32(b, o.Retry)
	b = append(b, flag(o.Full))
	return appendBytes(appendText(appendText(appendText(b, o.Address), o.Export), o.Transport), o.Ticket)
}

func (o *Order) parseBody(b []byte) error {
	f := fields{b: b}
	f.copy(o.Peer[:])
	o.Rate, o.Retry = f.i64(), f.u32()
	o.Full = f.flag()
	o.Address, o.Export, o.Transport = f.text(), f.text(), f.text()
	o.Ticket = f.bytes(MaxTicket)
	return f.done(TypeOrder)
}

// Renew gives new tickets to an order that runs, before those that it has are
// over. Empty leaves the one that was.
type Renew struct {
	Source, Target []byte
}

// Type implements Frame.
func (*Renew) Type() Type { return TypeRenew }

func (r *Renew) appendBody(b []byte) []byte {
	return appendBytes(appendBytes(b, r.Source), r.Target)
}

func (r *Renew) parseBody(b []byte) error {
	f := fields{b: b}
	r.Source, r.Target = f.bytes(MaxTicket), f.bytes(MaxTicket)
	return f.done(TypeRenew)
}

// Counters are the numbers of a run, all but the last few in bytes. On the
// wire they are a list to which later versions append.
type Counters struct {
	Total      int64 // size of the source disk
	Scanned    int64 // compared so far, holes included
	Holes      int64 // holes on both sides, neither read nor hashed
	Same       int64 // read and found equal
	Zero       int64 // of what differed: zeros and holes, sent as headers only
	Differing  int64 // grains that differed
	Sent       int64 // sent, by raw length, repeats included
	Wire       int64 // sent, as it crossed the wire
	Durable    int64 // of Sent: durable on the target
	Verified   int64 // settled as equal on both sides
	ReadBack   int64 // read back on the target after a write
	Had        int64 // durable at the target from before, by its journal
	Bad        int64 // grains, not bytes, that stay different or unreadable
	Redone     int64 // grains, not bytes, sent again after a read-back
	Lost       int64 // grains, not bytes, lost although the journal had them
	Reconnects int64 // times the session was picked up again
	Skipped    int64 // left out of the plan: only a hint calls it unchanged
	Sampled    int64 // of what was compared: the hint calls it unchanged as well
	Refined    int64 // of grains that were sent: pieces left out, because the target had them
}

func (c *Counters) list() [19]*int64 {
	return [...]*int64{
		&c.Total, &c.Scanned, &c.Holes, &c.Same, &c.Zero, &c.Differing, &c.Sent, &c.Wire, &c.Durable,
		&c.Verified, &c.ReadBack, &c.Had, &c.Bad, &c.Redone, &c.Lost, &c.Reconnects, &c.Skipped, &c.Sampled, &c.Refined,
	}
}

// Status tells the one who gave an Order how it goes.
type Status struct {
	Counters Counters
	Text     string // an event in words, or empty
}

// Type implements Frame.
func (*Status) Type() Type { return TypeStatus }

func (s *Status) appendBody(b []byte) []byte {
	return appendText(appendCounters(b, &s.Counters), s.Text)
}

func (s *Status) parseBody(b []byte) error {
	f := fields{b: b}
	f.counters(&s.Counters)
	s.Text = f.text()
	return f.done(TypeStatus)
}

func appendCounters(b []byte, c *Counters) []byte {
	list := c.list()
	b = append(b, byte(len(list)))
	for _, p := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(*p))
	}
	return b
}

// counters reads what it knows of the list and skips what a later version
// added; what an earlier one did not have yet is 0.
func (f *fields) counters(c *Counters) {
	*c = Counters{}
	list := c.list()
	for i := range int(f.u8()) {
		v := f.i64()
		if i < len(list) {
			*list[i] = v
		}
	}
}

// Bad is a range of bytes that stays different.
type Bad struct {
	Off, Len   int64
	Unreadable bool // the source, or in ModeVerify either disk, could not be read there
}

// MaxReportBad bounds Report.Bad; Counters.Bad has the true number.
const MaxReportBad = 64

// Report is the last word on an Order.
type Report struct {
	Code      Code  // CodeOK: the target is in State
	State     State // of the target disk
	Epoch     uint64
	Root      cbt.Digest
	Larger    int64 // bytes by which the target is longer than the source
	Counters  Counters
	Text      string // what went wrong, or empty
	Cold      string
	Transport string // of the link between the two daemons
	Source    string // identities of the disks
	Target    string
	Hinted    bool   // the plan was made from a hint
	Reason    string // why the plan was what it was
	Why       string // why Transport was used
	Control   string // congestion control of the end that sent
	Conns     int    // connections of that link, 0 to 255; 0: not known
	Bad       []Bad  // the first ranges that differ or are unreadable
}

// Type implements Frame.
func (*Report) Type() Type { return TypeReport }

func (r *Report) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(r.Code))
	b = append(b, byte(r.State))
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	b = append(b, r.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Larger))
	b = appendCounters(b, &r.Counters)
	b = append(b, flag(r.Hinted))
	for _, text := range []string{r.Text, r.Cold, r.Transport, r.Source, r.Target, r.Reason, r.Why, r.Control} {
		b = appendText(b, text)
	}
	b = append(b, byte(min(r.Conns, 255)))
	bad := r.Bad[:min(len(r.Bad), MaxReportBad)]
	b = append(b, byte(len(bad)))
	for _, x := range bad {
		b = binary.BigEndian.AppendUint64(b, uint64(x.Off))
		b = binary.BigEndian.AppendUint64(b, uint64(x.Len))
		b = append(b, flag(x.Unreadable))
	}
	return b
}

func (r *Report) parseBody(b []byte) error {
	f := fields{b: b}
	r.Code, r.State, r.Epoch = Code(f.u16()), f.state(), f.u64()
	f.copy(r.Root[:])
	r.Larger = f.i64()
	f.counters(&r.Counters)
	r.Hinted = f.flag()
	for _, text := range []*string{&r.Text, &r.Cold, &r.Transport, &r.Source, &r.Target, &r.Reason, &r.Why, &r.Control} {
		*text = f.text()
	}
	r.Conns = int(f.u8())
	n := int(f.u8())
	f.bad = f.bad || n > MaxReportBad
	r.Bad = nil
	for range n {
		if f.bad {
			break
		}
		r.Bad = append(r.Bad, Bad{Off: f.i64(), Len: f.i64(), Unreadable: f.flag()})
	}
	return f.done(TypeReport)
}
