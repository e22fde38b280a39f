package mover

import (
	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// route walks a plan batch by batch. It is for one goroutine.
type route struct {
	layout
	read, sampled cbt.Map
	at            int64 // the first batch not walked yet
}

func newRoute(p *cbt.Plan, from int64) *route {
	return &route{layout: layout{p.Size}, read: p.Read, sampled: p.Sampled, at: from}
}

// next is the next run of batches with equal masks; ok is false at the end.
func (r *route) next() (s wire.Step, ok bool) {
	if r.at >= r.batches() {
		return s, false
	}
	e, ok := r.read.Next(r.at * cbt.BatchSize)
	if !ok {
		r.at = r.batches()
		return s, false
	}
	b := e.Off / cbt.BatchSize
	s = wire.Step{Run: wire.Run{First: b, Count: 1}, Read: r.mask(r.read, b), Sampled: r.mask(r.sampled, b)}
	if s.Read == wire.FullMask(cbt.BatchGrains) && s.Sampled == 0 {
		s.Run.Count = max(1, r.plain(e)-b)
	}
	r.at = s.Run.End()
	return s, true
}

// plain is the first batch after the start of e that e does not cover, or that
// is sampled.
func (r *route) plain(e cbt.Extent) int64 {
	end := e.End() / cbt.BatchSize
	if s, ok := r.sampled.Next(e.Off); ok {
		end = min(end, s.Off/cbt.BatchSize)
	}
	return end
}

// mask is the grains of batch b that m touches.
func (r *route) mask(m cbt.Map, b int64) (mask wire.Mask) {
	whole := r.layout.batch(b)
	for off := whole.Off; off < whole.End(); {
		e, ok := m.Next(off)
		if !ok || e.Off >= whole.End() {
			break
		}
		lo := (e.Off - whole.Off) / cbt.GrainSize
		hi := (min(e.End(), whole.End()) - whole.Off + cbt.GrainSize - 1) / cbt.GrainSize
		mask |= wire.FullMask(int(hi)) &^ wire.FullMask(int(lo))
		off = e.End()
	}
	return mask
}
