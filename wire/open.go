package wire

import (
	"encoding/binary"

	"github.com/haulback/haulback/cbt"
)

// Open begins a session; the source half sends it as soon as it is welcome
// (or has welcomed).
type Open struct {
	Mode     Mode
	Full     bool     // read holes as well: nothing is taken from a map
	Streams  uint8    // data streams the source will open, 1 to MaxDataStreams
	Owner    [16]byte // random per process and run of the source half
	Held     uint64   // the epoch this owner was given last; 0: none yet
	Start    int64    // first batch the source cannot skip; 0: all of the disk
	Size     int64    // of the source disk, bytes
	Window   uint32   // batches that may be unsettled at once
	Plan     cbt.Digest
	Hinted   bool   // the plan comes on a stream of its own; else all of the disk is read
	Fresh    bool   // the source has forgotten all verdicts: Opened.Start has to be 0
	Refine   bool   // the source may ask for pieces
	Identity string // of the source disk
	Reason   string // why the plan is what it is, for the report
}

// maxHeld bounds Open.Held, so that no peer can use up the epochs of a disk.
const maxHeld = 1 << 62

// MaxDataStreams bounds Open.Streams.
const MaxDataStreams = 8

// Type implements Frame.
func (*Open) Type() Type { return TypeOpen }

func (o *Open) appendBody(b []byte) []byte {
	b = append(b, byte(o.Mode), flag(o.Full), o.Streams, flag(o.Hinted)|flag(o.Fresh)<<1|flag(o.Refine)<<2)
	b = append(b, o.Owner[:]...)
	b = binary.BigEndian.AppendUint64(b, o.Held)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Start))
	b = binary.BigEndian.AppendUint64(b, uint64(o.Size))
	b = binary.BigEndian.AppendUint32(b, cbt.GrainSize)
	b = binary.BigEndian.AppendUint32(b, cbt.BatchGrains)
	b = binary.BigEndian.AppendUint32(b, o.Window)
	b = append(b, o.Plan[:]...)
	return appendText(appendText(b, o.Identity), o.Reason)
}

func (o *Open) parseBody(b []byte) error {
	f := fields{b: b}
	o.Mode = Mode(f.u8())
	o.Full = f.flag()
	o.Streams = f.u8()
	flags := f.u8()
	o.Hinted, o.Fresh, o.Refine = flags&1 != 0, flags&2 != 0, flags&4 != 0
	f.copy(o.Owner[:])
	o.Held, o.Start, o.Size = f.u64(), f.i64(), f.i64()
	grain, batch := f.u32(), f.u32()
	o.Window = f.u32()
	f.copy(o.Plan[:])
	o.Identity, o.Reason = f.text(), f.text()
	f.bad = f.bad || flags > 7 || o.Fresh && o.Start != 0 || o.Refine && o.Mode != ModeCopy || o.Hinted && o.Full || o.Mode < ModeCopy || o.Mode > ModeVerify || o.Streams < 1 || o.Streams > MaxDataStreams ||
		o.Held > maxHeld || grain != cbt.GrainSize || batch != cbt.BatchGrains || o.Window == 0
	return f.done(TypeOpen)
}

// Opened answers Open: the target disk is held, its journal is open and this
// session's epoch is durable.
type Opened struct {
	Epoch    uint64
	Start    int64    // first batch to be compared; all before are settled
	Size     int64    // of the target disk, bytes; at least the source's
	Tag      [16]byte // stands for the target disk in bindings
	Had      int64    // bytes this run had written durably before, by the journal
	State    State    // the disk's state before this session
	Refine   bool     // it tells pieces, if it is asked; only where Open has it too
	Cold     string   // how the target reads past its cache
	Identity string   // of the target disk
}

// Type implements Frame.
func (*Opened) Type() Type { return TypeOpened }

func (o *Opened) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, o.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Start))
	b = binary.BigEndian.AppendUint64(b, uint64(o.Size))
	b = append(b, o.Tag[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Had))
	b = append(b, byte(o.State), flag(o.Refine))
	return appendText(appendText(b, o.Cold), o.Identity)
}

func (o *Opened) parseBody(b []byte) error {
	f := fields{b: b}
	o.Epoch, o.Start, o.Size = f.u64(), f.i64(), f.i64()
	f.copy(o.Tag[:])
	o.Had, o.State, o.Refine = f.i64(), f.state(), f.flag()
	o.Cold, o.Identity = f.text(), f.text()
	return f.done(TypeOpened)
}

// Finish says that the source has compared every grain and that the target
// has settled every batch. Root is the source's.
type Finish struct {
	Root     cbt.Digest
	Compared int64 // grains compared by digest, holes on both sides not counted
	Bad      int64 // grains that differ (ModeVerify) or are unreadable (ModeCopy)
}

// Type implements Frame.
func (*Finish) Type() Type { return TypeFinish }

func (p *Finish) appendBody(b []byte) []byte {
	b = append(b, p.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Compared))
	return binary.BigEndian.AppendUint64(b, uint64(p.Bad))
}

func (p *Finish) parseBody(b []byte) error {
	f := fields{b: b}
	f.copy(p.Root[:])
	p.Compared, p.Bad = f.i64(), f.i64()
	return f.done(TypeFinish)
}

// Verified is the target's last word. With State StateVerified the record is
// durable in its journal; any other state is not a proof.
type Verified struct {
	State    State
	Epoch    uint64
	Root     cbt.Digest // the target's
	Compared int64      // grains the target read cold in this run
	ReadBack int64      // of these, grains read back after a write
	Lost     int64      // grains the journal called durable that had to be sent again
	Skipped  int64      // grains that the plan left out: only a hint calls them unchanged
	Sampled  int64      // grains of Compared that the hint called unchanged too
}

// Type implements Frame.
func (*Verified) Type() Type { return TypeVerified }

func (v *Verified) appendBody(b []byte) []byte {
	b = append(b, byte(v.State))
	b = binary.BigEndian.AppendUint64(b, v.Epoch)
	b = append(b, v.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(v.Compared))
	b = binary.BigEndian.AppendUint64(b, uint64(v.ReadBack))
	b = binary.BigEndian.AppendUint64(b, uint64(v.Lost))
	b = binary.BigEndian.AppendUint64(b, uint64(v.Skipped))
	return binary.BigEndian.AppendUint64(b, uint64(v.Sampled))
}

func (v *Verified) parseBody(b []byte) error {
	f := fields{b: b}
	v.State, v.Epoch = f.state(), f.u64()
	f.copy(v.Root[:])
	v.Compared, v.ReadBack, v.Lost = f.i64(), f.i64(), f.i64()
	v.Skipped, v.Sampled = f.i64(), f.i64()
	return f.done(TypeVerified)
}
