package workload

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/result"
)

// version changes when the same seed gives another image.
const version = 1

// Spec says which image is wanted.
type Spec struct {
	Size  int64    // bytes; a multiple of 1 MiB, at least MinSize
	Seed  uint64   //
	Roots []string // where real files are taken from; nil: /usr and /opt
}

// MinSize is the smallest image that has a file system with room for anything.
const MinSize = 8 << 20

// ErrInUse is returned while another benchmark has the image.
var ErrInUse = errors.New("another benchmark works in this directory")

// Image is a pair of disks in a directory, which belongs to one process at a time.
type Image struct {
	Size int64
	Dir  string
	Zero float64 // share of the 64 KiB extents of the base that are zeros
	Base string  // digest of the base

	deltas map[result.Case]*delta
	lock   *os.File
}

// Source is the path of the disk that is read.
func (m *Image) Source() string { return filepath.Join(m.Dir, "source.img") }

// Target is the path of the disk that is overwritten; in the case Empty there
// is none, and whoever makes one uses this path's neighbour Fresh.
func (m *Image) Target() string { return filepath.Join(m.Dir, "target.img") }

// Fresh is the path of the target of the case Empty.
func (m *Image) Fresh() string { return filepath.Join(m.Dir, "fresh.img") }

// shares are the cases that have changes.
var shares = map[result.Case]float64{result.OnePercent: 0.01, result.TenPercent: 0.1}

// stored is image.json.
type stored struct {
	Version int
	Size    int64
	Seed    uint64
	Base    string
	Zero    float64
	Deltas  map[result.Case]*delta
}

// Open gives the image of a spec in a directory below dir: the one that is
// there, when its digests are right, or a new one. A new one of 4 GiB takes a
// minute and 13 GiB; 9 GiB stay. Say is told what takes long.
func Open(ctx context.Context, dir string, spec Spec, say func(string)) (*Image, error) {
	if spec.Size < MinSize || spec.Size%(1<<20) != 0 {
		return nil, fmt.Errorf("image of %d bytes: the size has to be a multiple of 1 MiB, and at least %d MiB", spec.Size, MinSize>>20)
	}
	if spec.Roots == nil {
		spec.Roots = []string{"/usr", "/opt"}
	}
	m := &Image{Size: spec.Size, Dir: filepath.Join(dir, fmt.Sprintf("image-v%d-%dMiB-seed%d", version, spec.Size>>20, spec.Seed))}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(m.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w", m.Dir, ErrInUse)
	}
	m.lock = lock
	if err := m.load(ctx, spec); err == nil {
		say(fmt.Sprintf("image of %d MiB in %s: checked", spec.Size>>20, m.Dir))
		return m, nil
	} else if ctx.Err() != nil {
		m.Close()
		return nil, ctx.Err()
	} else if !errors.Is(err, os.ErrNotExist) {
		say(fmt.Sprintf("image in %s cannot be used and is made again: %v", m.Dir, err))
	}
	if err := m.build(ctx, spec, say); err != nil {
		m.Close()
		return nil, fmt.Errorf("making the image in %s: %w", m.Dir, err)
	}
	return m, nil
}

// Copy copies both disks, as the base, into another directory, for cases of
// which the last may remove the copy's target. The changes are read from where m
// has them. The copy ends with m, and needs no Close.
func (m *Image) Copy(ctx context.Context, dir string) (*Image, error) {
	if _, err := m.Prepare(ctx, result.Same); err != nil {
		return nil, err
	}
	c := *m
	c.Dir = dir
	if err := allocate(ctx, c.Source(), m.Source()); err != nil {
		return nil, err
	}
	return &c, allocate(ctx, c.Target(), c.Source())
}

// Close lets another benchmark have the image. The disks stay.
func (m *Image) Close() { m.lock.Close() }

// load takes what is in the directory, undoes what an earlier run left, and
// checks the digests of both disks.
func (m *Image) load(ctx context.Context, spec Spec) error {
	b, err := os.ReadFile(filepath.Join(m.Dir, "image.json"))
	if err != nil {
		return err
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s.Version != version || s.Size != spec.Size || s.Seed != spec.Seed || len(s.Deltas) != len(shares) {
		return errors.New("image.json belongs to another image")
	}
	m.take(s)
	_ = os.Remove(m.Fresh()) // an earlier run may have left none
	for _, disk := range []string{m.Source(), m.Target()} {
		if err := m.undo(ctx, disk); err != nil {
			return err
		}
	}
	return m.check(ctx, m.Base)
}

func (m *Image) take(s stored) {
	m.Base, m.Zero, m.deltas = s.Base, s.Zero, s.Deltas
	for c, d := range m.deltas {
		d.dir, d.name = m.Dir, string(c)
	}
}

// undo makes a disk the base again, whichever deltas it had.
func (m *Image) undo(ctx context.Context, disk string) error {
	for _, d := range m.deltas {
		if err := d.apply(ctx, "old", disk); err != nil {
			return err
		}
	}
	return nil
}

// check compares the digests of both disks: of the source with one that is
// given, of the target with the base's.
func (m *Image) check(ctx context.Context, source string) error {
	g, ctx := errgroup.WithContext(ctx)
	for disk, want := range map[string]string{m.Source(): source, m.Target(): m.Base} {
		g.Go(func() error {
			got, _, err := digest(ctx, disk, m.Size)
			if err == nil && got != want {
				err = fmt.Errorf("%s has the digest %s and should have %s", disk, got, want)
			}
			return err
		})
	}
	return g.Wait()
}

// Prepare makes both disks what a case begins with, checks them, and describes them.
func (m *Image) Prepare(ctx context.Context, c result.Case) (result.Image, error) {
	d := m.deltas[c]
	text := fmt.Sprintf("ext4 with files of this machine and incompressible ones, fully allocated, %.1f %% of the 64 KiB extents zero", m.Zero*100)
	i := result.Image{Case: c, Bytes: m.Size, Zero: m.Zero, Digest: m.Base, Text: text}
	if err := m.undo(ctx, m.Source()); err != nil {
		return i, err
	}
	if err := m.undo(ctx, m.Target()); err != nil {
		return i, err
	}
	if d != nil {
		if err := d.apply(ctx, "new", m.Source()); err != nil {
			return i, err
		}
		i.Writes, i.Changed, i.Extents, i.Digest = d.Writes, d.Changed, covered(d.Spans, 64<<10, m.Size), d.Source
	}
	return i, m.check(ctx, i.Digest)
}

// Places are where the source of a case differs from the base.
func (m *Image) Places(c result.Case) []Place {
	if d := m.deltas[c]; d != nil {
		return d.Spans
	}
	return nil
}

// Reset makes the target what the case began with, after a run that made it
// equal to the source.
func (m *Image) Reset(ctx context.Context, c result.Case) error {
	if d := m.deltas[c]; d != nil {
		return d.apply(ctx, "old", m.Target())
	}
	return nil
}

// Sparse makes a file of a size without any data, a new one.
func Sparse(path string, size int64) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// build makes everything new.
func (m *Image) build(ctx context.Context, spec Spec, say func(string)) error {
	tree, base := filepath.Join(m.Dir, "tree"), filepath.Join(m.Dir, "base.img")
	defer os.RemoveAll(tree)
	defer os.Remove(base)
	for _, name := range []string{tree, base, m.Source(), m.Target(), m.Fresh(), filepath.Join(m.Dir, "image.json")} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := room(m.Dir, spec.Size*13/4); err != nil {
		return err
	}
	say(fmt.Sprintf("making an image of %d MiB in %s: files", spec.Size>>20, m.Dir))
	if err := fill(ctx, tree, spec); err != nil {
		return err
	}
	say("   ext4")
	if err := format(ctx, base, tree, spec.Size); err != nil {
		return err
	}
	say("   two copies without holes, and the changes")
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	s, err := m.derive(ctx, spec, base)
	if err != nil {
		return err
	}
	m.take(s)
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.Dir, "image.json"), b, 0o600)
}

// room makes sure that so many bytes fit.
func room(dir string, need int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err
	}
	if free := int64(s.Bavail) * s.Bsize; free < need {
		return fmt.Errorf("%d MiB are free and %d are needed; HAULBACK_BENCH_DIR or --dir names another place", free>>20, need>>20)
	}
	return nil
}

// derive makes both disks and the deltas of a base.
func (m *Image) derive(ctx context.Context, spec Spec, base string) (stored, error) {
	s := stored{Version: version, Size: spec.Size, Seed: spec.Seed, Deltas: map[result.Case]*delta{}}
	g, gctx := errgroup.WithContext(ctx)
	for _, disk := range []string{m.Source(), m.Target()} {
		g.Go(func() error { return allocate(gctx, disk, base) })
	}
	if err := g.Wait(); err != nil {
		return s, err
	}
	var err error
	if s.Base, s.Zero, err = digest(ctx, base, spec.Size); err != nil {
		return s, err
	}
	f, err := os.Open(base)
	if err != nil {
		return s, err
	}
	defer f.Close()
	for c, share := range shares {
		d := &delta{dir: m.Dir, name: string(c)}
		if err := d.make(f, writes(spec.Seed, spec.Size, share)); err != nil {
			return s, err
		}
		if err := d.apply(ctx, "new", m.Source()); err != nil {
			return s, err
		}
		if d.Source, _, err = digest(ctx, m.Source(), spec.Size); err != nil {
			return s, err
		}
		if err := d.apply(ctx, "old", m.Source()); err != nil {
			return s, err
		}
		s.Deltas[c] = d
	}
	return s, nil
}

// allocate copies a file so that no hole is left, and waits for the device.
func allocate(ctx context.Context, to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, piece)
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(in, buf)
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out.Sync()
		}
		if err != nil {
			return err
		}
		// Written back as it goes: one flush at the end of it all takes several times as long.
		if at += int64(n); at%(16*piece) == 0 {
			_ = unix.SyncFileRange(int(out.Fd()), at-16*piece, 16*piece, unix.SYNC_FILE_RANGE_WRITE)
		}
	}
}

// digest is the BLAKE3 of a disk, and the share of its 64 KiB extents that are zeros.
func digest(ctx context.Context, path string, size int64) (sum string, zero float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	if i, err := f.Stat(); err != nil || i.Size() != size {
		return "", 0, errors.Join(err, fmt.Errorf("%s is not of %d bytes", path, size))
	}
	h := blake3.New()
	buf, zeros := make([]byte, 256<<10), int64(0)
	for {
		n, err := io.ReadFull(f, buf)
		_, _ = h.Write(buf[:n]) // a hash takes everything
		for e := 0; e < n; e += 64 << 10 {
			if x := buf[e:min(e+64<<10, n)]; x[0] == 0 && bytes.Equal(x[1:], x[:len(x)-1]) {
				zeros += int64(len(x))
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return hex.EncodeToString(h.Sum(nil)), float64(zeros) / float64(size), nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return "", 0, err
		}
	}
}
