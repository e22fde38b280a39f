// Package estimate says, before a copy, what it would read, compare and send,
// from maps and hints, and with a sample of grains how much differs and how well
// it compresses. Nothing is written.
//
//	bounds      from the disks' maps and from change tracking: at most so much
//	differing   from a sample of grains spread over the disk, with the bounds of
//	            a confidence of 95 %
//	compressed  from the grains of the sample that would be sent
//
// Not promised: the bounds of a tracker that lies; anything of a disk that is
// being written to; the time, which is that of reading single grains.
package estimate

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/extents"
)

// Disk is what is asked and sampled.
type Disk interface {
	extents.Disk
	io.ReaderAt
}

// Request is what to estimate.
type Request struct {
	Source   Disk
	Target   Disk      // nil: not known, the whole of it may differ
	Hint     *cbt.Hint // nil: no change tracking is asked for
	HintErr  error     // why there is none, though it was asked for
	Sampling cbt.Sampling
	Sample   int64 // grains to read at most of each disk; 0: none
}

// Estimate is what a copy would do, in bytes unless the name says grains.
type Estimate struct {
	Total    int64  // size of the source
	Data     int64  // allocated on the source, in whole grains
	ReadMax  int64  // read of the source
	Compared int64  // compared with the target, holes of both sides included
	SendMax  int64  // sent, before compression
	Hinted   bool   // change tracking narrows it
	Reason   string // why, or why not

	Sampled    int64 // grains that were read
	Candidates int64 // grains that they stand for
	Unreadable int64 // grains of the sample that could not be read
	Differing  Bounds
	Ratio      float64 // compressed by uncompressed, of what would be sent; 1: not known
	Wire       Bounds  // of Differing, compressed; of SendMax, without a target
	ReadTime   time.Duration
	Rate       int64 // bytes per second of the sample, of the slower disk; 0: not measured
}

// Bounds are a likely value, and what it lies between with a confidence of 95 %.
type Bounds struct {
	Low, Likely, High int64
	Known             bool
}

// Make makes the estimate.
func Make(ctx context.Context, r Request) (Estimate, error) {
	size := r.Source.Size()
	e := Estimate{Total: size, Ratio: 1}
	if r.Target != nil && r.Target.Size() < size {
		return e, fmt.Errorf("the target has %d bytes, the source %d: make the target at least as large", r.Target.Size(), size)
	}
	data, err := allocated(ctx, r.Source, size)
	if err != nil {
		return e, fmt.Errorf("source: %w", err)
	}
	theirs := whole(size)
	if r.Target != nil {
		if theirs, err = allocated(ctx, r.Target, size); err != nil {
			return e, fmt.Errorf("target: %w", err)
		}
	}
	read := data.Union(theirs.Intersect(data.Complement(size))) // where either has data
	plan := cbt.PlanFull(size)
	differ := whole(size)
	if r.Hint != nil || r.HintErr != nil {
		plan = cbt.PlanHint(size, r.Hint, r.HintErr, r.Sampling)
		e.Hinted, e.Reason = plan.Mode == cbt.ModeHint, plan.Reason
		differ = plan.Read.Subtract(plan.Sampled)
	}
	e.Data, e.Compared = data.Len(), plan.Read.Len()
	e.ReadMax = data.Intersect(plan.Read).Len()
	e.SendMax = data.Intersect(differ).Len()
	candidates := read.Intersect(differ)
	if r.Target == nil {
		candidates = data.Intersect(differ)
	}
	s := sampler{Request: r, size: size, est: &e}
	if err := s.run(ctx, candidates); err != nil {
		return e, err
	}
	return e, nil
}

// coarse is the number of extents above which a map is kept in MiB: 16 MiB of
// memory, whatever the disk.
const coarse = 1 << 20

// allocated is the map of the grains with data.
func allocated(ctx context.Context, d Disk, size int64) (m cbt.Map, err error) {
	unit := int64(cbt.GrainSize)
	for x, err := range extents.Allocated(ctx, d, 0) {
		if err != nil {
			return m, err
		}
		if x.Kind != extents.Data || x.Off >= size {
			continue
		}
		lo, hi := x.Off/unit*unit, min(size, (x.End()+unit-1)/unit*unit)
		m.Add(cbt.Extent{Off: lo, Len: hi - lo})
		if m.Count() > coarse && unit < cbt.BatchSize {
			unit = cbt.BatchSize
		}
	}
	return m, nil
}

func whole(size int64) (m cbt.Map) {
	m.Add(cbt.Extent{Len: size})
	return m
}

// sampler reads grains of the candidates.
type sampler struct {
	Request
	size int64
	est  *Estimate

	differ       int64 // grains of the sample that differ
	bytes, wired int64 // of grains that would be sent
	took         time.Duration
	readBytes    int64
}

func (s *sampler) run(ctx context.Context, candidates cbt.Map) error {
	for e := range candidates.All() {
		s.est.Candidates += cbt.Grains(e.Len)
	}
	n := min(s.Sample, s.est.Candidates)
	if n > 0 {
		if err := s.read(ctx, candidates, n); err != nil {
			return err
		}
	}
	s.conclude(candidates.Len())
	return nil
}

// read takes one grain from each of n strides over the candidates, at a place in
// it that is drawn: no stretch of the disk goes unseen, and no pattern of equal
// distances fools it.
func (s *sampler) read(ctx context.Context, candidates cbt.Map, n int64) error {
	rng := rand.New(rand.NewPCG(uint64(s.size), uint64(s.est.Candidates)))
	a, b, packed := make([]byte, cbt.GrainSize), make([]byte, cbt.GrainSize), make([]byte, lz4.CompressBlockBound(cbt.GrainSize))
	var packer lz4.Compressor
	seen, k := int64(0), int64(0)
	edge := func(k int64) int64 { return k * s.est.Candidates / n } // the first grain of stride k
	next := rng.Int64N(edge(1))
	for e := range candidates.All() {
		first, grains := e.Off/cbt.GrainSize, cbt.Grains(e.Len)
		for ; k < n && next < seen+grains; k++ {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			s.grain(cbt.Grain(first+next-seen, s.size), a, b, packed, &packer)
			if k+1 < n {
				next = edge(k+1) + rng.Int64N(edge(k+2)-edge(k+1))
			}
		}
		seen += grains
	}
	return nil
}

func (s *sampler) grain(e cbt.Extent, a, b, packed []byte, packer *lz4.Compressor) {
	a, b = a[:e.Len], b[:e.Len]
	s.est.Sampled++
	began := time.Now()
	_, err := s.Source.ReadAt(a, e.Off)
	took := time.Since(began)
	if s.Target != nil && (err == nil || err == io.EOF) {
		began = time.Now()
		_, err = s.Target.ReadAt(b, e.Off)
		took = max(took, time.Since(began)) // a copy reads both at the same time
	}
	if err != nil && err != io.EOF {
		s.est.Unreadable++
		s.differ++ // as in a copy
		return
	}
	s.took += took
	s.readBytes += e.Len
	if s.Target != nil && string(a) == string(b) {
		return
	}
	s.differ++
	s.bytes += e.Len
	if cbt.IsZero(a) {
		return // a header only
	}
	n, err := packer.CompressBlock(a, packed)
	if err != nil || n == 0 || n > len(a) {
		n = len(a)
	}
	s.wired += int64(n)
}

// headBytes is more than what the wire adds to a grain that goes alone: a record
// of 68 bytes, and a frame's head of 32.
const headBytes = 100

// framed is the most that n bytes become on the wire.
func framed(n int64) int64 { return n + headBytes*cbt.Grains(n) }

// minMeasured is what has to be read before a rate means something.
const minMeasured = 4 << 20

func (s *sampler) conclude(bytes int64) {
	e := s.est
	if s.bytes > 0 {
		e.Ratio = float64(s.wired) / float64(s.bytes)
	}
	if s.readBytes >= minMeasured && s.took > 0 {
		e.Rate = int64(float64(s.readBytes) / s.took.Seconds())
		e.ReadTime = time.Duration(float64(e.Compared) / float64(e.Rate) * float64(time.Second)).Round(time.Second)
	}
	scale := func(share float64) int64 { return int64(share * float64(bytes)) }
	switch {
	case s.Target == nil:
		e.Wire = Bounds{Likely: int64(e.Ratio * float64(e.SendMax)), High: framed(e.SendMax), Known: s.bytes > 0}
		return
	case e.Candidates == 0:
		e.Differing, e.Wire = Bounds{Known: true}, Bounds{Known: true}
		return
	case e.Sampled == 0:
		e.Differing, e.Wire = Bounds{High: bytes}, Bounds{High: framed(bytes)}
		return
	}
	low, high := Interval(s.differ, e.Sampled, e.Candidates)
	e.Differing = Bounds{Low: scale(low), Likely: scale(float64(s.differ) / float64(e.Sampled)), High: scale(high), Known: true}
	e.Wire = Bounds{
		Low: int64(e.Ratio * float64(e.Differing.Low)), Likely: int64(e.Ratio * float64(e.Differing.Likely)), High: framed(e.Differing.High), Known: true,
	}
}
