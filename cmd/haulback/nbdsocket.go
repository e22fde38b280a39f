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
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("--socket %s: lock its directory: %w", path, err)
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
