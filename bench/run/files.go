package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/result"
)

// area is a range of a file that is not a hole.
type area struct{ off, end int64 }

// areas are what of a file is allocated, in order.
func areas(f *os.File) (all []area, err error) {
	for at := int64(0); ; {
		off, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: SEEK_DATA: %w", f.Name(), err)
		}
		end, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("%s: SEEK_HOLE: %w", f.Name(), err)
		}
		all = append(all, area{off, end})
		at = end
	}
}

// cache reads a disk into the page cache, or takes it out in a part that is cold.
// In memory there is nothing to read.
func (b *bench) cache(ctx context.Context, disk string) error {
	if b.Place == result.InMemory {
		return nil
	}
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	if b.Place == result.Cold {
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	all, err := areas(f)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for _, a := range all {
		for at := a.off; at < a.end; at += int64(len(buf)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := f.ReadAt(buf[:min(int64(len(buf)), a.end-at)], at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
	}
	return nil
}

// sparse is the size from which files are compared where they are allocated
// only: cmp takes a second for two GiB, holes or not.
const sparse = 8 << 30

// same lets cmp(1) compare two files of a size: two of it, for half of them
// each, which takes half as long. Of large sparse files it compares all that is
// allocated in either.
func (b *bench) same(ctx context.Context, x, y string) (bool, error) {
	f, err := os.Open(x)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(y)
	if err != nil {
		return false, err
	}
	defer g.Close()
	i, err1 := f.Stat()
	k, err2 := g.Stat()
	if err1 != nil || err2 != nil || i.Size() != k.Size() {
		return false, errors.Join(err1, err2)
	}
	size := i.Size()
	ctx, cancel := context.WithTimeout(ctx, limit(min(size, sparse)))
	defer cancel()
	parts := []area{{0, size / 2}, {size / 2, size}}
	if size > sparse {
		a, err1 := areas(f)
		b, err2 := areas(g)
		if err := errors.Join(err1, err2); err != nil {
			return false, err
		}
		parts = append(a, b...)
	}
	return compare(ctx, x, y, parts)
}

// compare runs cmp on parts of two files, two at a time.
func compare(ctx context.Context, x, y string, parts []area) (bool, error) {
	differ := make([]bool, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i, a := range parts {
		g.Go(func() error {
			out, err := exec.CommandContext(ctx, "cmp", "-i", fmt.Sprint(a.off), "-n", fmt.Sprint(a.end-a.off), x, y).CombinedOutput()
			if failed, ok := errors.AsType[*exec.ExitError](err); ok && failed.ExitCode() == 1 {
				differ[i] = true
				return nil
			}
			if err != nil {
				return fmt.Errorf("cmp: %w: %s", err, out)
			}
			return nil
		})
	}
	err := g.Wait()
	for _, d := range differ {
		if d {
			return false, err
		}
	}
	return true, err
}
