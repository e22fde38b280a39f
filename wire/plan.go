package wire

import "encoding/binary"

// MaxPlanSteps bounds the steps of one Plan frame.
const MaxPlanSteps = maxPlanSteps

const (
	maxPlanSteps = 256
	planStepLen  = 20
)

// Step is a run of batches of which the same grains are read.
type Step struct {
	Run     Run
	Read    Mask // grains to read; not 0
	Sampled Mask // of these: the grains that the hint calls unchanged
}

// Plan is a part of what a hinted pass reads, in disk order. What no step names
// is left out of the pass on both sides.
type Plan struct{ Steps []Step } // 1 to MaxPlanSteps

// Type implements Frame.
func (*Plan) Type() Type { return TypePlan }

func (p *Plan) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Steps)))
	for _, s := range p.Steps {
		b = appendRun(b, s.Run)
		b = binary.BigEndian.AppendUint16(b, uint16(s.Read))
		b = binary.BigEndian.AppendUint16(b, uint16(s.Sampled))
	}
	return b
}

func (p *Plan) parseBody(b []byte) error {
	f := fields{b: b}
	n := int(f.u16())
	p.Steps = p.Steps[:0]
	if n < 1 || n > maxPlanSteps || len(f.b) != n*planStepLen {
		f.bad = true
		return f.done(TypePlan)
	}
	at := int64(0)
	for range n {
		s := Step{Run: f.run(), Read: Mask(f.u16()), Sampled: Mask(f.u16())}
		if s.Run.First < at || s.Read == 0 || s.Sampled&^s.Read != 0 {
			f.bad = true
			break
		}
		at = s.Run.End()
		p.Steps = append(p.Steps, s)
	}
	return f.done(TypePlan)
}
