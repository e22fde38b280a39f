package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner and the group in; peers are checked all the same.
const socketMode = 0o660

// maxSocketPath is sun_path without the zero at its end.
const maxSocketPath = 107

// socket is a unix socket in the file system. The lock beside it says that its
// daemon lives, and is given up by the kernel when it dies.
type socket struct {
	*net.UnixListener
	lock *os.File
}

// listenSocket makes the socket at path. One that a dead daemon left is
// replaced; that of a live one is refused.
func listenSocket(ctx context.Context, path string, gid int) (s *socket, err error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("control: socket %s: the path has %d bytes, the kernel takes %d at most; choose a shorter one", path, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control: directory of the socket: %w", err)
	}
	lock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := clearSocket(ctx, path); err != nil {
		return nil, err
	}
	// Linux takes the mode of the file from the socket: there is no moment in
	// which somebody else can connect, whatever the umask.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control: socket: %w", err)
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return nil, fmt.Errorf("control: group of the socket: %w; run the daemon as root or as a member of the group", err)
		}
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, fmt.Errorf("control: mode of the socket: %w", err)
	}
	return &socket{UnixListener: l.(*net.UnixListener), lock: lock}, nil
}

// lockSocket takes the lock beside the socket. It is left there: to remove it is
// to race with the next daemon.
func lockSocket(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control: lock of the socket: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("control: socket %s: another daemon serves it; stop that one, or configure another socket", path)
		}
		return nil, fmt.Errorf("control: lock of the socket %s: %w", path, err)
	}
	return f, nil
}

// clearSocket removes a socket that nobody listens on.
func clearSocket(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control: socket: %w", err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control: %s is not a socket; move it away, or configure another path", path)
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("control: socket %s: another program serves it; stop that one, or configure another socket", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control: socket %s: cannot tell whether it is in use: %w", path, err)
	}
	return os.Remove(path)
}

// Close removes the socket.
func (s *socket) Close() error { return errors.Join(s.UnixListener.Close(), s.lock.Close()) }

// bounded is a listener with a bound on open connections; further ones wait in
// the kernel's queue, which has a bound of its own. Of one user of a unix socket
// further ones are closed at once: a program that forgets to close its own must
// not keep the others waiting.
type bounded struct {
	net.Listener
	slots  chan struct{}
	done   chan struct{}
	once   sync.Once
	caller int // open at once, of one user

	mu sync.Mutex
	by map[int]int // open, by uid
}

func bound(l net.Listener, n, caller int) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{}), caller: caller, by: make(map[int]int)}
}

// Accept implements net.Listener. Of a peer on a unix socket it notes who it is.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			<-b.slots
			return nil, err
		}
		u, ok := c.(*net.UnixConn)
		if !ok {
			return &conn{Conn: c, release: b.release}, nil
		}
		p, err := peerOf(u)
		if b.take(p.uid, err) {
			return &conn{Conn: c, peer: &p, strange: err, release: func() { b.give(p.uid, err) }}, nil
		}
		c.Close()
	}
}

// take counts a connection of uid; err says that the kernel does not know him.
func (b *bounded) take(uid int, err error) bool {
	if err != nil {
		uid = -1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[uid] >= b.caller {
		return false
	}
	b.by[uid]++
	return true
}

func (b *bounded) give(uid int, err error) {
	if err != nil {
		uid = -1
	}
	b.mu.Lock()
	if b.by[uid]--; b.by[uid] == 0 {
		delete(b.by, uid)
	}
	b.mu.Unlock()
	b.release()
}

func (b *bounded) release() { <-b.slots }

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

// conn is a connection that counts.
type conn struct {
	net.Conn
	peer    *peer // nil: TCP
	strange error // why the kernel does not say who it is
	release func()
	once    sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}
