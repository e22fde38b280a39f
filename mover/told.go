package mover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// told is a hint that one daemon hands to another, whose disk it is about: what
// tracks the changes is known to the one that asks for the copy.
type told struct {
	hint  cbt.Hint
	base  uint32 // the pass of the run that the hint counts from; 0: not said
	every int64  // compare one grain in so many; 0: not said
}

// tells is what the job has to say to the daemon of its source, or nil.
func (j *Job) tells() *told {
	from := j.Source.Remote
	switch {
	case j.Mode == wire.ModeVerify && j.Sample > 1 && !j.Full:
		return &told{every: j.Sample}
	case j.Mode != wire.ModeCopy || j.Full || j.Track == wire.TrackingOff || from == nil || from.Hint == nil:
		return nil
	}
	return &told{hint: sendable(from.Hint), base: j.Base, every: j.Sample}
}

// sendable is h in the order and the bounds of the wire. A hint that points to
// nowhere is sent as one that is not to be trusted: the peer has to say why it
// compares everything.
func sendable(h *cbt.Hint) cbt.Hint {
	out := *h
	out.Areas = nil
	if h.Trust == cbt.Distrusted {
		return out
	}
	m, remark, err := h.Changed(h.Size)
	if err != nil {
		out.Trust, out.Remark = cbt.Distrusted, err.Error()
		return out
	}
	if n := m.Count(); n > wire.MaxHintAreas {
		m, remark = m.AtMost(wire.MaxHintAreas, h.Size), joinText(remark, fmt.Sprintf("%d areas were widened for the wire", n))
	}
	out.Areas, out.Remark = slices.Collect(m.All()), joinText(remark, h.Remark)
	return out
}

func joinText(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// head is the frame that begins t.
func (t *told) head() *wire.Hint {
	h := &t.hint
	return &wire.Hint{
		Size: h.Size, Granularity: h.Granularity, Areas: uint32(len(h.Areas)), Base: t.base, Sample: t.every, Trust: h.Trust,
		Provider: h.Provider, Since: h.Since, Remark: h.Remark,
	}
}

// tell sends t.
func (l *lane) tell(t *told) error {
	if err := l.send(t.head()); err != nil {
		return err
	}
	for part := range slices.Chunk(t.hint.Areas, wire.MaxAreas) {
		if err := l.send(&wire.Areas{Areas: part}); err != nil {
			return err
		}
	}
	return nil
}

// listen receives what tell sends. No more is kept than wire.MaxHintAreas areas,
// and nothing for those that did not come yet.
func (l *lane) listen() (*told, error) {
	until := time.Now().Add(openWait)
	var h wire.Hint
	if err := l.expect(&h); err != nil {
		return nil, err
	}
	t := &told{base: h.Base, every: h.Sample, hint: cbt.Hint{
		Provider: h.Provider, Since: h.Since, Size: h.Size, Granularity: h.Granularity, Trust: h.Trust, Remark: h.Remark,
	}}
	end := int64(-1)
	var part wire.Areas
	for left := int(h.Areas); left > 0; left -= len(part.Areas) {
		if time.Now().After(until) {
			return nil, wire.Errorf(wire.CodeTimeout, "no whole hint within %v", openWait)
		}
		if err := l.expect(&part); err != nil {
			return nil, err
		}
		last := part.Areas[len(part.Areas)-1].End()
		if len(part.Areas) > left || part.Areas[0].Off <= end || last > h.Size {
			return nil, wire.Errorf(wire.CodeExtent, "areas of a hint from %d to %d, after %d, on a disk of %d bytes, %d more were to come",
				part.Areas[0].Off, last, end, h.Size, left)
		}
		end = last
		t.hint.Areas = append(t.hint.Areas, part.Areas...)
	}
	return t, nil
}

// ask is the HintFunc of t.
func (t *told) ask(context.Context, Disk) (cbt.Hint, error) { return t.hint, nil }

// sum tells one hint from another.
func (t *told) sum() (d cbt.Digest) {
	if t == nil {
		return d
	}
	b := wire.AppendFrame(nil, t.head())
	for _, e := range t.hint.Areas {
		b = fmt.Appendf(b, " %d %d", e.Off, e.Len)
	}
	cbt.NewHasher().Sum(b, &d)
	return d
}

// hear takes the hint that a Hello has announced: exp as this session sees it,
// and the Hello without the announcement.
func (l *lane) hear(exp *Export, h *wire.Hello) (*Export, error) {
	track, comes := h.Track.Told()
	if !comes {
		return exp, nil
	}
	if h.Op != wire.OpPull && h.Op != wire.OpOrder {
		return nil, wire.Errorf(wire.CodeFrame, "a hint for op %v, which reads no disk here", h.Op)
	}
	t, err := l.listen()
	if err != nil {
		return nil, err
	}
	if h.Mode == wire.ModeVerify && len(t.hint.Areas) > 0 {
		return nil, wire.Errorf(wire.CodeFrame, "a comparison has a sample and no areas")
	}
	h.Track = track
	heard := *exp
	heard.told, heard.Hint = t, t.ask
	return &heard, nil
}

// sampling says how much of what a hint calls unchanged is compared: a peer may
// ask for more than this daemon would, and not for less.
func (t *told) sampling(own cbt.Sampling) cbt.Sampling {
	usual := own.Every
	if usual == 0 {
		usual = usualEvery
	}
	if t != nil && t.every > 0 {
		own.Every = min(t.every, usual)
	}
	return own
}

// usualEvery is what cbt's zero Sampling means.
const usualEvery = 256

// from is the pass that the hint counts from.
func (t *told) from() uint32 {
	if t == nil {
		return 0
	}
	return t.base
}

// sampleOf is what Job.Sample of an order is.
func (e *Engine) sampleOf(t *told, mode wire.Mode) int64 {
	switch {
	case t == nil:
		return 0
	case mode == wire.ModeVerify:
		return t.every
	}
	return t.sampling(e.cfg.Sampling).Every
}
