package osd

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"
)

// Attachment is one use of a volume that is attached and was verified.
type Attachment struct {
	k *Keeper
	c *Client // of who opened this one
	h *held

	mu sync.Mutex
	fd int // -1 after Release
}

// Path is that of the device, for messages: open FD.
func (a *Attachment) Path() string { return a.h.dev.path }

// FD is the verified device as an O_PATH file descriptor, until Release. It is
// opened as /proc/self/fd/FD: with O_EXCL for writing, so that nobody else has it.
func (a *Attachment) FD() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fd
}

// Volume is what is attached: the volume, or the clone of the snapshot.
func (a *Attachment) Volume() Volume { return a.h.vol }

// Size is that of the device and of the volume, in bytes.
func (a *Attachment) Size() int64 { return a.h.dev.size }

// Check asks the server whether the volume still is attached here as the same
// device: for a caller who has opened it and has not written yet.
func (a *Attachment) Check(ctx context.Context) error { return a.c.same(ctx, &a.h.vol) }

// Release ends the use; the caller has flushed and closed what it opened. With the
// last one what this process attached is detached, and its clone deleted, also when
// ctx has ended. It is idempotent; what an error leaves is Sweep's.
func (a *Attachment) Release(ctx context.Context) error {
	a.mu.Lock()
	fd := a.fd
	a.fd = -1
	a.mu.Unlock()
	if fd < 0 {
		return nil
	}
	_ = unix.Close(fd) // O_PATH: there is nothing to flush
	return a.k.release(ctx, a.c, a.h)
}
