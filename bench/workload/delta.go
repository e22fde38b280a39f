package workload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// delta is a set of changes: where they are, what was there, and what is.
type delta struct {
	Spans   []Place
	Writes  int
	Changed int64  // bytes in 4 KiB blocks that really differ
	Source  string // digest of the base with the changes
	dir     string
	name    string
}

func (d *delta) file(which string) string { return filepath.Join(d.dir, d.name+"."+which) }

// piece bounds what is held in memory while deltas are made and applied.
const piece = 1 << 20

// make writes the two files of d. Base is only read.
func (d *delta) make(base io.ReaderAt, all []write) error {
	d.Spans, d.Writes = spans(all), len(all)
	before, err := os.Create(d.file("old"))
	if err != nil {
		return err
	}
	defer before.Close()
	after, err := os.Create(d.file("new"))
	if err != nil {
		return err
	}
	defer after.Close()
	starts := make([]int64, len(d.Spans)) // of each span in the files
	var at int64
	for i, s := range d.Spans {
		starts[i] = at
		for _, f := range []*os.File{before, after} {
			if _, err := io.Copy(io.NewOffsetWriter(f, at), io.NewSectionReader(base, s.Off, s.Len)); err != nil {
				return err
			}
		}
		at += s.Len
	}
	buf := make([]byte, 64<<10)
	for _, w := range all {
		b := buf[:w.Len]
		if w.From < 0 {
			_, _ = source(w.Seed, "bytes").Read(b) // it cannot fail
		} else if _, err := base.ReadAt(b, w.From); err != nil {
			return err
		}
		i := sort.Search(len(d.Spans), func(i int) bool { return d.Spans[i].end() > w.Off })
		if _, err := after.WriteAt(b, starts[i]+w.Off-d.Spans[i].Off); err != nil {
			return err
		}
	}
	d.Changed, err = differing(before, after, at)
	return err
}

// differing counts the bytes of 4 KiB blocks in which two files of a size differ.
func differing(a, b io.ReaderAt, size int64) (n int64, err error) {
	x, y := make([]byte, block), make([]byte, block)
	for off := int64(0); off < size; off += block {
		if _, err := a.ReadAt(x, off); err != nil {
			return 0, err
		}
		if _, err := b.ReadAt(y, off); err != nil {
			return 0, err
		}
		if !bytes.Equal(x, y) {
			n += block
		}
	}
	return n, nil
}

// apply writes the bytes of one of d's files, "old" or "new", to their places
// in a disk, and waits until they are on the device: nobody's run pays for it.
func (d *delta) apply(ctx context.Context, which, disk string) error {
	from, err := os.Open(d.file(which))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	buf := make([]byte, piece)
	for _, s := range d.Spans {
		if err := ctx.Err(); err != nil {
			return err
		}
		for off := s.Off; off < s.end(); {
			b := buf[:min(piece, s.end()-off)]
			if _, err := io.ReadFull(from, b); err != nil {
				return fmt.Errorf("%s: %w", from.Name(), err)
			}
			if _, err := to.WriteAt(b, off); err != nil {
				return err
			}
			off += int64(len(b))
		}
	}
	return unix.Fdatasync(int(to.Fd()))
}
