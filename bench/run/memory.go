package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

const (
	// besides is what a run writes besides both disks: journals, logs, keys.
	besides = 64 << 20
	// programs is what the machine needs while the tmpfs is full. The peers of a
	// run take less than half of it.
	programs = 1 << 30
)

// inMemory runs the cases of a part on a copy of the image that is on a tmpfs of
// its own, where the runs write everything else too. Without the memory, or the
// right to mount, the part is left out, loudly, and that is no failure.
func (b *bench) inMemory(ctx context.Context) (err error) {
	dir, size := filepath.Join(b.scratch, "memory"), 2*b.Size+besides
	why := lacks(size + programs)
	if why == "" {
		why = mount(dir, size)
	}
	if why != "" {
		b.tell("\nLEFT OUT: EVERYTHING IN MEMORY: %s", why)
		return b.line(result.Line{LeftOut: &result.LeftOut{Place: result.InMemory, Why: why}})
	}
	disk, scratch := b.image, b.scratch
	defer func() {
		b.image, b.scratch = disk, scratch
		err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	}()
	b.tell("\ncopying the image into memory, %d MiB", 2*b.Size>>20)
	if b.image, err = disk.Copy(ctx, dir); err != nil {
		return fmt.Errorf("copying the image into memory: %w", err)
	}
	b.scratch = dir
	return b.runCases(ctx)
}

// lacks says why so much memory is not there, or nothing.
func lacks(need int64) string {
	free, err := measure.Available()
	if err != nil {
		return err.Error()
	}
	if free < need {
		return fmt.Sprintf("%.1f GiB of memory are needed, and %.1f are available", float64(need)/(1<<30), float64(free)/(1<<30))
	}
	return ""
}

// mount makes a directory a tmpfs of a size, or says why not. Memory is taken
// as files grow.
func mount(dir string, size int64) string {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err.Error()
	}
	err := unix.Mount("haulbench", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=700", size))
	if errors.Is(err, unix.EPERM) {
		return "only root can mount a tmpfs"
	}
	if err != nil {
		return fmt.Sprintf("mounting a tmpfs: %v", err)
	}
	return ""
}
