package wire

import (
	"encoding/binary"
	"time"

	"github.com/haulback/haulback/cbt"
)

// Pace is what the end that dialed wants the other end to keep to from now on,
// on top of its own limits.
type Pace struct {
	Wire     int64         // bytes per second of Data frames; 0: no limit
	Read     int64         // bytes per second read from the disk; 0: no limit
	Latency  time.Duration // for 256 KiB, before the disk is spared; whole microseconds, 0: no target
	Priority int8          // -1, 0 or 1
}

// LeastRate is the lowest rate of a Pace, a grain per second: with less a
// session would look dead.
const LeastRate = cbt.GrainSize

const (
	paceLen     = 24
	leastMicros = 100 // lowest latency of a Pace
)

// Type implements Frame.
func (*Pace) Type() Type { return TypePace }

func (p *Pace) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.Wire))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Read))
	b = binary.BigEndian.AppendUint32(b, uint32(p.Latency/time.Microsecond))
	return append(b, uint8(p.Priority+2), 0, 0, 0)
}

func (p *Pace) parseBody(b []byte) error {
	f := fields{b: b}
	p.Wire, p.Read = f.pace(), f.pace()
	micros, priority := f.u32(), f.u8()
	f.zero(3)
	if micros > 0 && micros < leastMicros || priority < 1 || priority > 3 {
		f.bad = true
	}
	p.Latency, p.Priority = time.Duration(micros)*time.Microsecond, int8(priority)-2
	return f.done(TypePace)
}

// pace is a rate: none, or not below the least.
func (f *fields) pace() int64 {
	v := f.i64()
	f.bad = f.bad || v > 0 && v < LeastRate
	return v
}
