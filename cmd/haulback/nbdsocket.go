package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/vddk"
)

// listenUnix makes the socket at path, for this user only. What a dead server
// left there is replaced; a live one's is not. Of two that start at once the
// second waits, by a lock of the directory, until the first is alive.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, usage("--socket: %w", err)
	}
	defer dir.Close() // and its lock
	if err := lockDir(ctx, dir); err != nil {
		return nil, err
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	// The mode of a socket that is not bound yet is that of its file to be: no
	// moment at which others can open it.
	private := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	ln, err := private.Listen(ctx, "unix", path)
	if err != nil {
		return nil, usage("--socket: %w", err)
	}
	return ln, nil
}

const (
	// lockPatience is how long a server may hold the directory while it starts.
	// Ours do for a second at most, which is how long they ask an old socket.
	lockPatience = 10 * time.Second
	lockPause    = 20 * time.Millisecond
)

// lockDir locks the directory. Another program may hold it for ever, so nobody
// waits in the kernel.
func lockDir(ctx context.Context, dir *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("--socket: lock the directory %s: %w", dir.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("--socket: %w: %w", &vddk.LockedError{
				Path: dir.Name(), By: "another program holds a lock of the directory of the socket",
				Remedy: "stop it (`fuser -v " + dir.Name() + "` names it), or name a --socket in another directory",
			}, ctx.Err())
		case <-time.After(lockPause):
		}
	}
}

// clearSocket removes the socket of a dead server.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return usage("--socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return usage("--socket %s: there is something else than a socket; remove it or name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return &vddk.LockedError{Path: path, By: "another server listens on this socket", Remedy: "stop it (`fuser -v " + path + "` names it), or name another --socket"}
	}
	return os.Remove(path)
}
