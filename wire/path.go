package wire

import "encoding/binary"

// pathLen is a Path without its text.
const pathLen = 48

// PathOp is what a Path is for.
type PathOp uint8

// The ops of a Path; append only, never renumber.
const (
	PathSeen  PathOp = 1 // source to dialer: what the source has seen of the link
	PathDrain PathOp = 2 // dialer to source: send nothing new, and end the link when all that was sent is durable
)

// Path is how the end that dialed, which alone can choose another transport,
// learns what the end that sends sees. All but RTT count from the begin of the
// session on this link. Of PathDrain all is zero.
type Path struct {
	Op      PathOp
	BBR     bool   // the source's kernel offers it
	RTT     uint32 // microseconds
	At      int64  // microseconds
	Waited  int64  // microseconds that a data stream, on the average, has kept its writer waiting
	Bytes   int64  // sent on data streams, as the link carries them
	Packets int64  // sent
	Lost    int64  // of them
	Control string // congestion control of the source
}

// Type implements Frame.
func (*Path) Type() Type { return TypePath }

func (p *Path) appendBody(b []byte) []byte {
	b = append(b, byte(p.Op), flag(p.BBR), 0, 0)
	b = binary.BigEndian.AppendUint32(b, p.RTT)
	for _, n := range []int64{p.At, p.Waited, p.Bytes, p.Packets, p.Lost} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return appendText(b, p.Control)
}

func (p *Path) parseBody(b []byte) error {
	f := fields{b: b}
	p.Op, p.BBR = PathOp(f.u8()), f.flag()
	f.zero(2)
	p.RTT = f.u32()
	p.At, p.Waited, p.Bytes, p.Packets, p.Lost = f.i64(), f.i64(), f.i64(), f.i64(), f.i64()
	p.Control = f.text()
	f.bad = f.bad || p.Op != PathSeen && p.Op != PathDrain || p.Op == PathDrain && *p != Path{Op: PathDrain}
	return f.done(TypePath)
}
