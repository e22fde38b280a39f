package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Shares of the image: 2.14 GiB of real files, 0.5 GiB of media, 80 MiB of
// random bytes in 4 GiB. What is left was never written: about 30 %.
const (
	filesShare  = 0.535
	mediaShare  = 0.125
	randomShare = 0.02
)

// largest is the largest file that is taken: one of 100 MiB would be most of a small image.
const largest = 32 << 20

// candidate is a file of this machine.
type candidate struct {
	path string
	size int64
}

// candidates are the regular files below roots, sorted by path; what cannot be
// looked at is left out.
func candidates(ctx context.Context, roots []string) (all []candidate, err error) {
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if i, err := d.Info(); err == nil && i.Size() > 0 && i.Size() <= largest {
				all = append(all, candidate{path, i.Size()})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.path < b.path {
			return -1
		}
		return 1
	})
	return all, nil
}

// fill makes a tree for an image of a size: real files by a seeded shuffle, as
// far as the machine has enough, then text made up; and incompressible files.
func fill(ctx context.Context, tree string, spec Spec) error {
	all, err := candidates(ctx, spec.Roots)
	if err != nil {
		return err
	}
	r := rand.New(source(spec.Seed, "files"))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	left := int64(filesShare * float64(spec.Size))
	for i, c := range all {
		need := (c.size + block - 1) / block * block
		if need > left {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// 500 files in a directory: as many as a user's directories have, and short names.
		n, err := put(filepath.Join(tree, fmt.Sprintf("d%03d", i/500), fmt.Sprintf("%03d-%s", i%500, shorten(filepath.Base(c.path)))), c.path)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			continue // not ours to read, or gone since
		}
		if err != nil {
			return err
		}
		if left -= (n + block - 1) / block * block; left < block {
			break
		}
	}
	for i := 0; left >= block; i++ {
		n := min(left, 8<<20)
		if err := generate(filepath.Join(tree, "text", fmt.Sprintf("text-%03d", i)), n, &prose{r: rand.New(source(spec.Seed+uint64(i), "text"))}); err != nil {
			return err
		}
		left -= n
	}
	for name, share := range map[string]float64{"media": mediaShare, "random": randomShare} {
		stream := source(spec.Seed, name)
		left := int64(share*float64(spec.Size)) / block * block
		for i := 0; left > 0; i++ {
			n := min(left, 16<<20)
			if err := generate(filepath.Join(tree, name, fmt.Sprintf("%s-%03d", name, i)), n, stream); err != nil {
				return err
			}
			left -= n
		}
	}
	return ctx.Err()
}

func shorten(name string) string { return name[:min(len(name), 60)] }

// put copies one file.
func put(to, from string) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, largest))
	return n, errors.Join(err, out.Close())
}

// generate writes n bytes of a stream into a file.
func generate(to string, n int64, stream io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, stream, n)
	return errors.Join(err, out.Close())
}

// prose is a stream that compresses about as well as programs do: words of a
// small vocabulary with a number now and then.
type prose struct {
	r *rand.Rand
}

func (p *prose) Read(b []byte) (int, error) {
	const letters = "etaoinshrdlucmfw"
	for i := range b {
		switch n := p.r.IntN(64); {
		case i >= 64 && n >= 14: // goes on with what was 64 or 48 bytes ago
			b[i] = b[i-64+16*(i>>5&1)]
		case n < 4:
			b[i] = ' '
		default:
			b[i] = letters[n%16]
		}
	}
	return len(b), nil
}

// entries is how many inodes a tree needs, and some more: tables of the usual
// size would be larger than what is left of a small image.
func entries(tree string) (n int, err error) {
	err = filepath.WalkDir(tree, func(string, fs.DirEntry, error) error {
		n++
		return nil
	})
	return n + n/16 + 64, err
}

// format makes a sparse image of a size with an ext4 that holds tree.
func format(ctx context.Context, image, tree string, size int64) error {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	inodes, err := entries(tree)
	if err != nil {
		return err
	}
	journal := "has_journal"
	if size < 64<<20 {
		journal = "^has_journal" // it would be half of a small image
	}
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-O", journal, "-d", tree, "-m", "0", "-b", "4096",
		"-U", "6861756c-6261-636b-0000-62656e636800", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed=6861756c-6261-636b-0000-62656e636800",
		"-N", fmt.Sprint(inodes), image)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000", "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if cmd.Path, err = lookSbin("mke2fs"); err != nil {
		return fmt.Errorf("mke2fs: %w; it is in e2fsprogs", err)
	}
	cmd.Err = nil
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs of %d bytes: %w: %s", size, err, out)
	}
	return nil
}

// lookSbin finds programs that are not in every user's PATH.
func lookSbin(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}
