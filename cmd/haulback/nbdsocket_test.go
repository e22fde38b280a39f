package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/vddk"
)

// TestListenUnixLockedDirectory: whoever holds the directory does not hold us
// beyond the end of the context.
func TestListenUnixLockedDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = listenUnix(ctx, path)
	if _, locked := errors.AsType[*vddk.LockedError](err); !locked || !errors.Is(err, context.Canceled) {
		t.Errorf("a locked directory: %v", err)
	}
}
