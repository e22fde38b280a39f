package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/bench/workload"
)

// stage is the disks of a case, and how they are put back.
type stage struct {
	image   result.Image
	disks   []peers.Disk
	before  func(context.Context) error // makes the targets what a run begins with; may be nil
	after   func(context.Context) error // the same, when the run has made them equal to the sources; may be nil
	restart func(context.Context) error // the same, whatever is in them
	close   func()
}

func nothing() {}

// stage prepares a case.
func (b *bench) stage(ctx context.Context, c result.Case) (*stage, error) {
	switch c {
	case result.Hint:
		return b.hint(ctx)
	case result.HintSmall:
		return b.hintSparse(ctx, c, 1)
	case result.HintLarge:
		return b.hintSparse(ctx, c, 4)
	case result.Payload:
		return &stage{image: result.Image{Case: c, Bytes: b.Size, Text: "random bytes through an encrypted link; no disk"}, close: nothing}, nil
	case result.Huge:
		return b.huge(ctx)
	case result.ManyDisks:
		return b.many(ctx, c, 64)
	case result.OneDisk:
		return b.many(ctx, c, 1)
	}
	return b.plain(ctx, c)
}

// plain is a case of the workload's image.
func (b *bench) plain(ctx context.Context, c result.Case) (*stage, error) {
	image, err := b.image.Prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &stage{image: image, disks: []peers.Disk{{Source: b.image.Source(), Target: b.image.Target()}}, close: nothing}
	s.after = func(ctx context.Context) error { return b.image.Reset(ctx, c) }
	s.restart = func(ctx context.Context) error {
		_, err := b.image.Prepare(ctx, c)
		return err
	}
	if c == result.Empty {
		s.image.Text += "; full copy to a new sparse file"
		s.fresh(b.image.Fresh())
		if b.Place == result.InMemory { // nobody needs the other target any more, and its memory may be all there is
			return s, os.Remove(b.image.Target())
		}
	}
	return s, nil
}

// fresh makes the target of the only disk a new sparse file for each run.
func (s *stage) fresh(target string) {
	s.disks[0].Target = target
	s.before = func(context.Context) error { return workload.Sparse(target, s.image.Bytes) }
	s.after = nil
	s.restart = func(context.Context) error { return nil }
	s.close = func() { _ = os.Remove(target) }
}

// hint is the case of 1 % on the workload's image, with a qcow2 over the source
// whose dirty bitmap knows the places.
func (b *bench) hint(ctx context.Context) (*stage, error) {
	s, err := b.plain(ctx, result.OnePercent)
	if err != nil {
		return nil, err
	}
	s.image.Case, s.image.Text = result.Hint, s.image.Text+"; a dirty bitmap of 64 KiB names the changes"
	tracked := filepath.Join(b.image.Dir, "hint.qcow2")
	s.disks[0].Tracked = tracked
	s.close = func() { removeTracked(tracked) }
	err = b.track(ctx, tracked, s.disks[0].Source, b.image.Places(result.OnePercent))
	if err == nil {
		err = s.restart(ctx) // the tracking has overwritten the changes
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// hintSparse is a sparse disk of so many times the size of the image, with as
// many changes as 1 % of the image are, spread over all of it, and nothing else.
func (b *bench) hintSparse(ctx context.Context, c result.Case, times int64) (*stage, error) {
	size := b.Size * times
	s := &stage{disks: []peers.Disk{{
		Source: filepath.Join(b.scratch, "sparse.img"), Tracked: filepath.Join(b.scratch, "sparse.qcow2"),
	}}}
	s.image = result.Image{Case: c, Bytes: size, Text: "a sparse disk with as many changes as 1 % of the image are; a dirty bitmap of 64 KiB names them"}
	s.fresh(filepath.Join(b.scratch, "sparse-target.img"))
	s.close = func() {
		_ = os.Remove(s.disks[0].Source)
		_ = os.Remove(s.disks[0].Target)
		removeTracked(s.disks[0].Tracked)
	}
	if err := b.scatter(ctx, s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// hugeSize is a disk whose digests alone, 32 bytes for each 64 KiB, are half a
// GiB: who keeps them in memory is found out.
const hugeSize = 1 << 40

// huge is a sparse disk of 1 TiB with a little in it, and a sparse target.
func (b *bench) huge(ctx context.Context) (*stage, error) {
	s := &stage{disks: []peers.Disk{{Source: filepath.Join(b.scratch, "huge.img")}}}
	s.image = result.Image{Case: result.Huge, Bytes: hugeSize, Text: "a sparse disk of 1 TiB with as much in it, all over, as 1 % of the image is, and a sparse target"}
	s.fresh(filepath.Join(b.scratch, "huge-target.img"))
	s.close = func() {
		_ = os.Remove(s.disks[0].Source)
		_ = os.Remove(s.disks[0].Target)
	}
	if err := b.scatter(ctx, s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// scatter makes the source of a stage: sparse, with as many changes all over it
// as 1 % of the image are.
func (b *bench) scatter(ctx context.Context, s *stage) error {
	d := s.disks[0]
	places := workload.Scattered(b.Seed, s.image.Bytes, b.Size/100)
	s.image.Writes = len(places)
	for _, p := range places {
		s.image.Changed += p.Len
	}
	if err := workload.Sparse(d.Source, s.image.Bytes); err != nil {
		return err
	}
	if d.Tracked != "" {
		if err := b.track(ctx, d.Tracked, d.Source, places); err != nil {
			return err
		}
	}
	return workload.Scribble(d.Source, b.Seed, places)
}

// many is the bytes of the image on n disks, each four times as large as what is
// in it: 64 disks of 256 MiB for the image of 4 GiB, or one of 16 GiB.
func (b *bench) many(ctx context.Context, c result.Case, n int) (*stage, error) {
	if _, err := b.image.Prepare(ctx, result.Same); err != nil {
		return nil, err
	}
	const pieces = 64
	length := b.Size / pieces
	dir := filepath.Join(b.scratch, "many")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &stage{restart: func(context.Context) error { return nil }, close: func() { _ = os.RemoveAll(dir) }}
	s.image = result.Image{Case: c, Bytes: 4 * b.Size, Text: fmt.Sprintf("the image in 64 pieces, each with three times its length of holes behind it: full copy of %d disks at once to sparse targets", n)}
	for i := range n {
		s.disks = append(s.disks, peers.Disk{Source: filepath.Join(dir, fmt.Sprintf("s%02d.img", i)), Target: filepath.Join(dir, fmt.Sprintf("t%02d.img", i))})
	}
	s.before = func(context.Context) (err error) {
		for _, d := range s.disks {
			err = errors.Join(err, workload.Sparse(d.Target, s.image.Bytes/int64(n)))
		}
		return err
	}
	if err := cut(ctx, b.image.Source(), s.disks, length, pieces/n); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// cut spreads a file over disks: so many pieces of a length on each, with three
// lengths of holes after each piece.
func cut(ctx context.Context, from string, disks []peers.Disk, length int64, each int) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	for i, d := range disks {
		if err := workload.Sparse(d.Source, 4*length*int64(each)); err != nil {
			return err
		}
		out, err := os.OpenFile(d.Source, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		for k := range int64(each) {
			piece := io.NewSectionReader(in, (int64(i*each)+k)*length, length)
			if _, err := io.Copy(io.NewOffsetWriter(out, 4*length*k), piece); err != nil {
				out.Close()
				return err
			}
		}
		if err := errors.Join(out.Sync(), out.Close(), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}
