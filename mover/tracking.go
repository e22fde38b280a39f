package mover

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// Tracker is the optional ability of a source disk to say what may have changed
// on it. Without it the whole disk is compared.
type Tracker interface {
	// Changed asks the tracker. An error, as well as a Hint that is not to be
	// believed, makes the pass a full one: the answer narrows what is read and
	// never decides what is equal.
	Changed(ctx context.Context) (cbt.Hint, error)
}

// HintFunc asks for the changes of disk where the disk cannot say itself: a
// host's change tracking, for one.
type HintFunc func(ctx context.Context, disk Disk) (cbt.Hint, error)

// hint asks what tracks the changes of disk; nil without an error means that
// nothing does.
func (f HintFunc) hint(ctx context.Context, disk Disk) (*cbt.Hint, error) {
	if f == nil {
		t, ok := disk.(Tracker)
		if !ok {
			return nil, nil
		}
		f = func(ctx context.Context, _ Disk) (cbt.Hint, error) { return t.Changed(ctx) }
	}
	h, err := f(ctx, disk)
	if err != nil {
		return nil, err
	}
	return &h, nil
}

// narrow makes the plan of the pass, before its first link.
func (s *source) narrow(ctx context.Context, track wire.Tracking, ask HintFunc) error {
	s.track = track
	if s.mode == wire.ModeVerify && s.every > 1 && !s.full {
		s.usePlan(cbt.PlanSample(s.size, cbt.Sampling{Every: s.every, Seed: s.seed()}))
		return nil
	}
	if track == wire.TrackingOff || s.mode != wire.ModeCopy || s.full {
		return nil
	}
	hint, err := ask.hint(ctx, s.disk)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	sampling := s.cfg.Sampling
	sampling.Seed = s.seed()
	s.usePlan(cbt.PlanHint(s.size, hint, err, sampling))
	if s.plan.Mode == cbt.ModeHint {
		s.cfg.Log.Info("plan made from change tracking", "run", s.run, "reason", s.plan.Reason, "bytes", s.plan.Read.Len())
		return nil
	}
	return s.unhinted("change tracking cannot be used", &s.cfg.tally.unhinted)
}

// seed draws another sample in each pass.
func (s *source) seed() uint64 { return binary.BigEndian.Uint64(s.run[:]) + uint64(s.pass) }

// distrust drops the hint of the pass, which was caught in a lie or has nothing
// to stand on: all is compared, from the start.
func (s *source) distrust(cause error) error {
	hint := s.plan.Reason
	p := cbt.PlanFull(s.size)
	p.Reason = fmt.Sprintf("distrusted: %s (%s)", oneLine(cause), hint)
	s.usePlan(p)
	s.forget()
	return s.unhinted("change tracking is dropped", &s.cfg.tally.dropped)
}

// retrack takes over what a later link of the run asks for, which may be less:
// nobody gets a narrowed copy who asks for a full one, nor one that trusts the
// maps of holes who asks for none.
func (s *source) retrack(track wire.Tracking, full bool) error {
	if full && !s.full {
		s.full = true
		s.usePlan(cbt.PlanFull(s.size))
		s.forget()
	}
	before := s.track
	if s.track = track; track == before {
		return nil
	}
	if track == wire.TrackingOff && s.hinted() {
		s.usePlan(cbt.PlanFull(s.size))
		s.forget()
	}
	if track == wire.TrackingStrict && !s.hinted() && !s.full {
		return s.unhinted("change tracking was not used so far", &s.cfg.tally.unhinted)
	}
	return nil
}

// withoutStrict is the advice to who has asked for TrackingStrict.
const withoutStrict = "; without --strict everything is compared"

// unhinted says that all is read although a hint was asked for, and counts it, or
// refuses that.
func (s *source) unhinted(what string, count *atomic.Uint64) error {
	if s.track == wire.TrackingStrict {
		return wire.Errorf(wire.CodeHint, "%s: %s%s", what, s.plan.Reason, withoutStrict)
	}
	s.cfg.Log.Warn(what+", comparing everything", "run", s.run, "reason", s.plan.Reason)
	count.Add(1)
	s.prog.event(what + ", everything is compared: " + s.plan.Reason)
	return nil
}

// usePlan also binds what a hint counts from to the digest: a plan that a target
// has let begin on one base does not go on as one of another.
func (s *source) usePlan(p cbt.Plan) {
	s.plan, s.planSum = p, p.Digest()
	if s.base > 0 && s.hinted() {
		cbt.NewHasher().Sum(binary.BigEndian.AppendUint32(s.planSum[:], s.base), &s.planSum)
	}
}

// retold drops the plan of a hint that is not the one of the link before: what was
// settled by it is not what is asked for now, and the new one is no better.
func (s *source) retold(t *told) {
	if t.sum() == s.told {
		return
	}
	s.told = t.sum()
	if !s.hinted() {
		return
	}
	p := cbt.PlanFull(s.size)
	p.Reason = "the peer's hint is another than on the link before"
	s.usePlan(p)
	s.forget()
}

// tell takes over what the peer says that it knows.
func (s *source) tell(t *told) {
	s.told = t.sum()
	if t == nil {
		return
	}
	if s.base = t.base; s.mode == wire.ModeVerify {
		s.every = t.every
	}
	cfg := *s.cfg
	cfg.Sampling = t.sampling(cfg.Sampling)
	s.cfg = &cfg
}

// hinted reports whether grains are left out.
func (s *source) hinted() bool { return s.plan.Mode == cbt.ModeHint }

// lied looks for a grain that the hint calls unchanged and that differs. One
// that cannot be read proves nothing.
func lied(sampled wire.Mask, own *answer, target *leaves) wire.Mask {
	return own.diff & sampled &^ (own.unread | target.unread)
}

// tellPlan streams what is read from batch start on.
func (ss *sourceSession) tellPlan(ctx context.Context, start int64) error {
	st, err := ss.l.link.OpenSend(ctx, wire.StreamID{Kind: wire.StreamPlan})
	if err != nil {
		return onLink(err)
	}
	r := newRoute(&ss.source.plan, start)
	var p wire.Plan
	var out []byte
	for {
		p.Steps = p.Steps[:0]
		for len(p.Steps) < wire.MaxPlanSteps {
			s, ok := r.next()
			if !ok {
				break
			}
			p.Steps = append(p.Steps, s)
		}
		if len(p.Steps) == 0 {
			return onLink(st.CloseWrite())
		}
		out = wire.AppendFrame(out[:0], &p)
		if _, err := st.Write(out); err != nil {
			return onLink(err)
		}
		ss.pulse.beat()
	}
}
