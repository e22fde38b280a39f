package mover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

// The pipeline of a dump, in the order in which a batch takes it:
//
//	1 plan    one goroutine: batches of the map in disk order; waits for a job
//	2 read    one goroutine per worker: read, hash, find zeros, compress
//	3 write   one goroutine: records in disk order to the stream
//
// A job owns one block. There are a few more jobs than workers, and no other
// memory that grows.

// DumpOptions says what a dump is to be.
type DumpOptions struct {
	Run      wire.RunID         // names the stream
	Track    wire.Tracking      // whether change tracking may narrow it
	Tracking string             // how changes are tracked, for the header
	Base     archive.Base       // what the changes are of; of no use with TrackingOff
	Labels   []archive.Label    // come back in the header
	Raw      bool               // never compress
	Throttle *throttle.Throttle // limits how fast it reads; nil: the engine's limits alone
}

// DumpReport is what a dump came to. Its Totals are of use without an error
// only.
type DumpReport struct {
	Header archive.Header
	Totals archive.Totals
	Bytes  int64 // of the stream
	Hinted bool  // change tracking narrowed it
}

// Dump writes the disk of source to w as a stream that package archive
// describes, and ends it with its trailer when all was read. After an error the
// stream has no trailer, and nobody takes it for whole.
func (e *Engine) Dump(ctx context.Context, source Endpoint, w io.Writer, o DumpOptions, p *Progress) (rep DumpReport, err error) {
	disk, err := source.Open.patiently(ctx, ReadOnly)
	if err != nil {
		return rep, diskError(wire.CodeOpen, "source", "open", cbt.Extent{}, err)
	}
	defer disk.Close() // a source: nothing can be lost
	spec := passSpec{run: o.Run, pass: 1, mode: wire.ModeCopy}
	if err := e.fit(disk, spec, false); err != nil {
		return rep, err
	}
	s := newSource(&e.cfg, e.pool, disk, spec, p)
	job := Job{Throttle: o.Throttle}
	if err := job.limit(); err != nil {
		return rep, err
	}
	s.gate = e.gateFor(terms{job: job.Throttle}, disk.Identity(), p)
	defer s.gate.Disk.Release()
	if err := s.narrow(ctx, o.Track, source.Hint); err != nil {
		return rep, err
	}
	if rep.Header, err = s.header(&o); err != nil {
		return rep, err
	}
	rep.Hinted = rep.Header.Kind == archive.Changed
	out, err := archive.NewWriter(w, &rep.Header)
	if err == nil {
		err = s.dump(ctx, out, rep.Header.Map, o.Raw)
	}
	if err == nil {
		err = s.changed()
	}
	if err == nil {
		rep.Totals, err = out.Finish()
	}
	if out != nil {
		rep.Bytes = out.Written()
	}
	p.wired.Store(rep.Bytes)
	return rep, err
}

// header decides what the stream is, before its first byte.
func (s *source) header(o *DumpOptions) (archive.Header, error) {
	h := archive.Header{
		Kind: archive.Full, Size: s.size, Created: time.Now(), Run: o.Run, Identity: printed(s.disk.Identity()), Tracking: o.Tracking,
		Agent: s.cfg.Agent, Labels: o.Labels,
	}
	if s.hinted() && (o.Base.IsZero() || s.plan.Read.Count() > archive.MaxExtents) {
		why := "no base was named"
		if !o.Base.IsZero() {
			why = fmt.Sprintf("more than %d areas changed", archive.MaxExtents)
		}
		s.plan = cbt.PlanFull(s.size)
		s.plan.Reason = why
		if err := s.unhinted("change tracking cannot be used", &s.cfg.tally.unhinted); err != nil {
			return h, err
		}
	}
	h.Reason = printed(s.plan.Reason)
	if s.hinted() {
		h.Kind, h.Base, h.Map, h.Sampled = archive.Changed, o.Base, s.plan.Read, s.plan.Sampled
		s.prog.skipped.Store(s.size - h.Map.Len())
		s.prog.sampled.Store(h.Sampled.Len())
		return h, nil
	}
	h.Map = allocated(s.disk)
	s.prog.holes.Store(s.size - h.Map.Len())
	return h, nil
}

// printed keeps a text to what a header takes: the word of a host or a server
// may have anything in it.
func printed(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), 1000)], "")
}

// allocated is the map of whole grains in which the disk has data: all of it
// where it cannot say. A disk in more pieces than a stream takes is all data
// from the last of them on.
func allocated(disk Disk) (m cbt.Map) {
	size := disk.Size()
	mapper, ok := disk.(Mapper)
	for off := int64(0); off < size; {
		next := cbt.Extent{Off: off, Len: size - off}
		if ok && m.Count() < archive.MaxExtents-1 {
			e, err := mapper.NextData(off)
			if err == io.EOF {
				break
			}
			if err == nil {
				next = e
			}
		}
		m.Add(next)
		off = next.End()
	}
	return m.AlignGrains(size)
}

// dumpJob is one batch on its way.
type dumpJob struct {
	block *block
	batch int64
	want  wire.Mask
	v     leaves
	recs  [cbt.BatchGrains]archive.Record
	n     int        // of recs
	ready chan error // 1: stage 2 leaves its result there
}

// dump runs the pipeline.
func (s *source) dump(ctx context.Context, out *archive.Writer, m cbt.Map, raw bool) error {
	n := 2*s.cfg.Workers + 1 // so that readers seldom wait for the writer
	blocks, err := s.pool.take(ctx, n)
	if err != nil {
		return err
	}
	defer s.pool.put(blocks)
	free, jobs, order := make(chan *dumpJob, n), make(chan *dumpJob, n), make(chan *dumpJob, n)
	for _, b := range blocks {
		free <- &dumpJob{block: b, ready: make(chan error, 1)}
	}
	parent := ctx
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.dumpPlan(ctx, m, free, jobs, order) })
	for range s.cfg.Workers {
		g.Go(func() error { return s.dumpRead(ctx, raw, jobs) })
	}
	g.Go(func() error { return s.dumpWrite(ctx, out, order, free) })
	err = g.Wait()
	if cause := context.Cause(parent); cause != nil {
		return cause
	}
	return err
}

// dumpPlan is stage 1.
func (s *source) dumpPlan(ctx context.Context, m cbt.Map, free, jobs, order chan *dumpJob) error {
	defer close(jobs)
	defer close(order)
	way := newRoute(&cbt.Plan{Size: s.size, Read: m}, 0)
	for step, ok := way.next(); ok; step, ok = way.next() {
		for b := step.Run.First; b < step.Run.End(); b++ {
			select {
			case j := <-free:
				j.batch, j.want = b, step.Read
				order <- j // has room: there are no more jobs than that
				jobs <- j
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// dumpRead is stage 2.
func (s *source) dumpRead(ctx context.Context, raw bool, jobs chan *dumpJob) error {
	pulse := newPulse()
	rd := &reader{
		layout: s.layout, read: s.disk.ReadAt, holes: &holes{}, hash: cbt.NewHasher(), pulse: pulse, pace: &pacer{s.gate, pulse, &s.prog.times}, retry: readRetries,
	}
	enc := archive.Encoder{Raw: raw}
	for j := range jobs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rd.buf = j.block.raw
		err := rd.batch(ctx, j.batch, j.want, &j.v)
		if err != nil {
			err = errors.Join(s.changed(), diskError(wire.CodeRead, "source", "read", s.layout.batch(j.batch), err))
		} else {
			j.encode(s.layout, &enc)
		}
		j.ready <- err
	}
	return nil
}

// encode cuts the batch into records, in disk order.
func (j *dumpJob) encode(l layout, enc *archive.Encoder) {
	j.n = 0
	room := j.block.frame // LZ4 blocks that gain are shorter together than the batch
	for at, end := range spans(j.want) {
		for at < end {
			lo, zero := at, j.v.zero.Has(at)
			for at < end && j.v.zero.Has(at) == zero {
				at++
			}
			r := &j.recs[j.n]
			j.n++
			r.Extent, r.Zero = l.span(j.batch, lo, at), zero
			if zero {
				continue
			}
			copy(r.Grains[:], j.v.digests[lo:at])
			off := r.Extent.Off % cbt.BatchSize
			room = room[enc.Encode(r, j.block.raw[off:off+r.Extent.Len], room):]
		}
	}
}

// dumpWrite is stage 3.
func (s *source) dumpWrite(ctx context.Context, out *archive.Writer, order, free chan *dumpJob) error {
	for j := range order {
		select {
		case err := <-j.ready:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		for i := range j.n {
			r := &j.recs[i]
			if err := out.Append(r); err != nil {
				return err
			}
			s.prog.scanned.Add(r.Extent.Len)
			if r.Zero {
				s.prog.zero.Add(r.Extent.Len)
			} else {
				s.prog.sent.Add(r.Extent.Len)
			}
		}
		s.prog.wired.Store(out.Written())
		free <- j
	}
	return nil
}
