package wire

import (
	"encoding/binary"
	"slices"

	"github.com/haulback/haulback/cbt"
)

// Limits of a hint on the wire: 1 MiB of areas, in 128 frames. Who knows more
// areas widens them (cbt.Map.AtMost): a hint may say too much.
const (
	// MaxHintAreas bounds Hint.Areas.
	MaxHintAreas = 1 << 16
	// MaxAreas bounds the areas of one frame.
	MaxAreas = maxAreas

	maxAreas = 512
	areaLen  = 16
)

// Hint says where the listener's disk may have changed, as the dialer knows from
// elsewhere. It narrows what the listener reads for the dialer and nobody else.
// The Areas follow.
type Hint struct {
	Size        int64     // bytes of the disk that was tracked
	Granularity int64     // bytes of the tracker's blocks; 0: not known
	Areas       uint32    // how many there are, at most MaxHintAreas
	Base        uint32    // the pass of this run that made the target what the hint counts from; 0: not said
	Sample      int64     // compare one grain in so many of the others, if that is more than the listener would; in ModeVerify: of all; 0: the listener's choice
	Trust       cbt.Trust // how far the tracker stands behind it
	Provider    string    // cbt.Hint has more of these
	Since       string
	Remark      string
}

// Type implements Frame.
func (*Hint) Type() Type { return TypeHint }

func (h *Hint) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Granularity))
	b = binary.BigEndian.AppendUint32(b, h.Areas)
	b = binary.BigEndian.AppendUint32(b, h.Base)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Sample))
	b = append(b, byte(h.Trust))
	return appendText(appendText(appendText(b, h.Provider), h.Since), h.Remark)
}

func (h *Hint) parseBody(b []byte) error {
	f := fields{b: b}
	h.Size, h.Granularity = f.i64(), f.i64()
	h.Areas, h.Base = f.u32(), f.u32()
	h.Sample, h.Trust = f.i64(), cbt.Trust(f.u8())
	h.Provider, h.Since, h.Remark = f.text(), f.text(), f.text()
	f.bad = f.bad || h.Areas > MaxHintAreas || h.Trust > cbt.Exact
	return f.done(TypeHint)
}

// Areas is a part of a hint's areas: in disk order, apart from each other.
type Areas struct{ Areas []cbt.Extent } // 1 to MaxAreas

// Type implements Frame.
func (*Areas) Type() Type { return TypeAreas }

func (a *Areas) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.Areas)))
	for _, e := range a.Areas {
		b = binary.BigEndian.AppendUint64(b, uint64(e.Off))
		b = binary.BigEndian.AppendUint64(b, uint64(e.Len))
	}
	return b
}

func (a *Areas) parseBody(b []byte) error {
	f := fields{b: b}
	n := int(f.u16())
	a.Areas = a.Areas[:0]
	if n < 1 || n > maxAreas || len(f.b) != n*areaLen {
		f.bad = true
		return f.done(TypeAreas)
	}
	a.Areas = slices.Grow(a.Areas, n)
	end := int64(-1) // of the one before; they would have been one if they touched
	for range n {
		e := cbt.Extent{Off: f.i64(), Len: f.i64()}
		if e.Off <= end || e.Len == 0 || e.Off+e.Len < 0 {
			f.bad = true
			break
		}
		end = e.Off + e.Len
		a.Areas = append(a.Areas, e)
	}
	return f.done(TypeAreas)
}

// Base comes before Open from a source whose hint counts from the end of an
// earlier pass of the run.
type Base struct{ Pass uint32 } // not 0

// Type implements Frame.
func (*Base) Type() Type { return TypeBase }

func (p *Base) appendBody(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, p.Pass), 0, 0, 0, 0)
}

func (p *Base) parseBody(b []byte) error {
	f := fields{b: b}
	p.Pass = f.u32()
	f.zero(4)
	f.bad = f.bad || p.Pass == 0
	return f.done(TypeBase)
}
