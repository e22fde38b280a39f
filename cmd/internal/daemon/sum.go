package daemon

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"golang.org/x/time/rate"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/vddk"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// summer digests a disk, or ranges of it, a grain or less at a time.
type summer struct {
	disk     vddk.Disk
	ranges   []*controlv1.Range // what to read; whole: one of all
	whole    bool
	total    int64
	limit    *rate.Limiter // nil: none
	progress func(read, total int64)

	read, holes int64
	data        cbt.Extent // the last answer of the map; Len 0: none yet
	buf         []byte
}

func newSummer(disk vddk.Disk, req *controlv1.ChecksumRequest, progress func(read, total int64)) (*summer, error) {
	s := &summer{disk: disk, ranges: req.Ranges, progress: progress, buf: make([]byte, cbt.GrainSize)}
	if len(s.ranges) == 0 {
		s.whole, s.ranges = true, []*controlv1.Range{{SizeBytes: disk.Size()}}
	}
	for _, r := range s.ranges {
		if r.ByteOffset+r.SizeBytes > disk.Size() {
			return nil, &job.Failure{
				Reason: job.ReasonInvalid, Retry: job.RetryNever, Exit: 10,
				Text: fmt.Sprintf("ranges: %d bytes at %d end beyond the disk, which has %d bytes", r.SizeBytes, r.ByteOffset, disk.Size()),
			}
		}
		s.total += r.SizeBytes
	}
	if req.RateBytes > 0 {
		s.limit = rate.NewLimiter(rate.Limit(req.RateBytes), cbt.GrainSize)
	}
	return s, nil
}

func (s *summer) run(ctx context.Context) (*controlv1.ChecksumResult, error) {
	root, grain := cbt.NewRoot(s.disk.Size()), cbt.NewHasher()
	out := &controlv1.ChecksumResult{SizeBytes: s.disk.Size(), Identity: s.disk.Identity()}
	var d cbt.Digest
	for _, r := range s.ranges {
		sum := blake3.New()
		for at, end := r.ByteOffset, r.ByteOffset+r.SizeBytes; at < end; {
			p := s.buf[:min(end-at, int64(len(s.buf)))]
			if err := s.fill(ctx, p, at); err != nil {
				return nil, err
			}
			sum.Write(p) // never fails
			if s.whole {
				grain.Sum(p, &d)
				root.Add(&d)
			}
			at += int64(len(p))
			s.read += int64(len(p))
			s.progress(s.read, s.total)
		}
		if !s.whole {
			out.Digests = append(out.Digests, hex.EncodeToString(sum.Sum(nil)))
		}
	}
	out.ReadBytes, out.HoleBytes = s.read, s.holes
	if s.whole {
		d, err := root.Sum()
		if err != nil {
			return nil, err
		}
		out.Root = d.String()
	}
	return out, nil
}

// fill reads p at off, or does not: what is all hole reads as zeros.
func (s *summer) fill(ctx context.Context, p []byte, off int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if s.hole(off, int64(len(p))) {
		clear(p)
		s.holes += int64(len(p))
		return nil
	}
	if s.limit != nil {
		if err := s.limit.WaitN(ctx, len(p)); err != nil {
			return err
		}
	}
	if n, err := s.disk.ReadAt(p, off); err != nil && (err != io.EOF || n < len(p)) {
		return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// hole reports whether the map of the disk has nothing there. A map that fails
// has something everywhere.
func (s *summer) hole(off, n int64) bool {
	if !s.disk.Describe().CanMap {
		return false
	}
	if s.data.Len == 0 || s.data.End() <= off {
		e, err := s.disk.NextData(off)
		switch {
		case err == io.EOF:
			e = cbt.Extent{Off: s.disk.Size(), Len: 1}
		case err != nil || e.Len <= 0 || e.End() <= off:
			e = cbt.Extent{Off: off, Len: n}
		}
		s.data = e
	}
	return s.data.Off >= off+n
}
