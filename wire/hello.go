package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/haulback/haulback/cbt"
)

// RunID names a run: one attempt of an operator to bring disks from a source
// to a target, over all its reconnects and restarts. It is a UUID.
type RunID [16]byte

// String is the run's ID as UUIDs are written, the same in all outputs and logs.
func (r RunID) String() string {
	h := hex.EncodeToString(r[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Op is what the dialer of a link asks for.
type Op uint8

// The operations of protocol 1; append only.
const (
	OpPush  Op = 1 // the dialer is the source half, the export is the target
	OpPull  Op = 2 // the dialer is the target half, the export is the source
	OpProbe Op = 3 // tell about the export
	OpOrder Op = 4 // push the export to another peer and tell how it goes
)

// String is the operation's word in logs.
func (o Op) String() string {
	switch o {
	case OpPush:
		return "push"
	case OpPull:
		return "pull"
	case OpProbe:
		return "probe"
	case OpOrder:
		return "order"
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// Mode says whether a pass may write.
type Mode uint8

// The modes of protocol 1; append only.
const (
	ModeCopy   Mode = 1 // make the target equal to the source, and prove it
	ModeVerify Mode = 2 // only read both and say where they differ
)

// Tracking says whether change tracking may narrow what a pass reads.
type Tracking uint8

// The words of protocol 1; append only.
const (
	TrackingOff    Tracking = 0 // read everything
	TrackingUse    Tracking = 1 // use what the source's disk has, else read everything
	TrackingStrict Tracking = 2 // use it, and fail with CodeHint where it cannot be used
	// The dialer says itself where the disk changed, in a Hint that follows
	// Welcome; what the listener's disk has is not asked. In ModeVerify it says how
	// many grains are compared.
	TrackingTold       Tracking = 3 // as TrackingUse
	TrackingToldStrict Tracking = 4 // as TrackingStrict
)

// Told reports whether a Hint follows, and the word without that.
func (t Tracking) Told() (Tracking, bool) {
	if t == TrackingTold || t == TrackingToldStrict {
		return t - TrackingTold + TrackingUse, true
	}
	return t, false
}

// Tell is the word for which a Hint follows.
func (t Tracking) Tell() Tracking {
	if t == TrackingStrict {
		return TrackingToldStrict
	}
	return TrackingTold
}

// String is the word in reports.
func (t Tracking) String() string {
	switch t {
	case TrackingOff:
		return "full"
	case TrackingUse:
		return "hint"
	case TrackingStrict:
		return "hint, strictly"
	case TrackingTold:
		return "hint of the peer"
	case TrackingToldStrict:
		return "hint of the peer, strictly"
	}
	return fmt.Sprintf("Tracking(%d)", uint8(t))
}

// Hello is the first frame of a link, from the dialer.
type Hello struct {
	Op     Op
	Mode   Mode
	Run    RunID
	Pass   uint32   // 1 is the first
	Rate   int64    // OpPull: bytes per second that the listener may send, until the first Pace; 0: no limit
	Track  Tracking // OpPull, OpOrder: of the listener's disk
	Full   bool     // OpPull: read holes as well
	Export string   // the name of an export at the listener, never a path
	Agent  string   // the dialer's program and version, for logs
	Ticket []byte   // a controller's, for exports that want one; else empty
}

// Type implements Frame.
func (*Hello) Type() Type { return TypeHello }

func (h *Hello) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, Version)
	b = append(b, byte(h.Op), byte(h.Mode))
	b = append(b, h.Run[:]...)
	b = binary.BigEndian.AppendUint32(b, h.Pass)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Rate))
	b = append(b, byte(h.Track), flag(h.Full))
	return appendBytes(appendText(appendText(b, h.Export), h.Agent), h.Ticket)
}

func (h *Hello) parseBody(b []byte) error {
	f := fields{b: b}
	version := f.u16()
	if !f.bad && version != Version {
		return fmt.Errorf("%w: the peer speaks %d, this daemon %d", ErrVersion, version, Version)
	}
	h.Op, h.Mode = Op(f.u8()), Mode(f.u8())
	f.copy(h.Run[:])
	h.Pass, h.Rate = f.u32(), f.i64()
	h.Track, h.Full = Tracking(f.u8()), f.flag()
	h.Export, h.Agent = f.text(), f.text()
	h.Ticket = f.bytes(MaxTicket)
	f.bad = f.bad || h.Op < OpPush || h.Op > OpOrder || h.Mode < ModeCopy || h.Mode > ModeVerify || h.Track > TrackingToldStrict
	return f.done(TypeHello)
}

// Welcome answers a Hello that is granted.
type Welcome struct {
	Agent string // the listener's program and version
}

// Type implements Frame.
func (*Welcome) Type() Type { return TypeWelcome }

func (w *Welcome) appendBody(b []byte) []byte {
	return appendText(binary.BigEndian.AppendUint16(b, Version), w.Agent)
}

func (w *Welcome) parseBody(b []byte) error {
	f := fields{b: b}
	if v := f.u16(); !f.bad && v != Version {
		return fmt.Errorf("%w: the peer speaks %d, this daemon %d", ErrVersion, v, Version)
	}
	w.Agent = f.text()
	return f.done(TypeWelcome)
}

// State is the durable state of a target disk. Append only.
type State uint8

// The states of a target disk (DESIGN.md section 5).
const (
	StateClean        State = 0 // haulback never wrote to it
	StateInconsistent State = 1 // a run began to overwrite it and has not proved it yet
	StateCopied       State = 2 // all was written; not proved
	StateVerified     State = 3 // equal to its source, proved by reading
	StatePoisoned     State = 4 // flushes failed twice or read-back kept differing
)

var stateNames = [...]string{"Clean", "Inconsistent", "Copied", "Verified", "Poisoned"}

// String is the state's word in messages.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// state refuses what this version has no word for: nobody may act on a state
// that it does not know.
func (f *fields) state() State {
	s := State(f.u8())
	f.bad = f.bad || s > StatePoisoned
	return s
}

// Probed answers a Hello with OpProbe.
type Probed struct {
	Size     int64 // bytes
	Target   bool  // the export may be written
	State    State // what the journal of the disk says
	Run      RunID // the run of that state
	Pass     uint32
	Epoch    uint64
	Durable  int64      // bytes that Run wrote durably
	Root     cbt.Digest // of the state Verified or Copied
	Skipped  int64      // grains that the proof of that state left out, because a hint called them unchanged
	Sampled  int64      // grains that the hint called unchanged and that were compared all the same
	Identity string
	Kind     string // "file", "block device", ...
	Cold     string // how past-the-cache reads are made
	Use      string // who has the disk, in words; empty: nobody
}

// Type implements Frame.
func (*Probed) Type() Type { return TypeProbed }

func (p *Probed) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.Size))
	b = append(b, flag(p.Target), byte(p.State))
	b = append(b, p.Run[:]...)
	b = binary.BigEndian.AppendUint32(b, p.Pass)
	b = binary.BigEndian.AppendUint64(b, p.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Durable))
	b = append(b, p.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Skipped))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Sampled))
	return appendText(appendText(appendText(appendText(b, p.Identity), p.Kind), p.Cold), p.Use)
}

func (p *Probed) parseBody(b []byte) error {
	f := fields{b: b}
	p.Size = f.i64()
	p.Target = f.flag()
	p.State = f.state()
	f.copy(p.Run[:])
	p.Pass, p.Epoch, p.Durable = f.u32(), f.u64(), f.i64()
	f.copy(p.Root[:])
	p.Skipped, p.Sampled = f.i64(), f.i64()
	p.Identity, p.Kind, p.Cold, p.Use = f.text(), f.text(), f.text(), f.text()
	return f.done(TypeProbed)
}
