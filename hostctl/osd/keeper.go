package osd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/hostctl"
)

// Keeper holds volumes for this process: attachments, and the clones through which
// snapshots are read. It is safe for concurrent use; several, also of several
// processes, may share a directory.
//
//	Open     look -> row -> [clone, note] -> attach, note -> verify
//	Release  (the caller has closed) -> detach -> [delete the clone] -> row away
//
// A row is there before anything is asked for, so whatever a process leaves when it
// is killed between any two lines is found by Sweep.
type Keeper struct {
	l    ledger
	log  *slog.Logger
	wait keeperWaits

	mu   sync.Mutex
	held map[string]*held
}

// keeperWaits are a Keeper's numbers that a test wants small.
type keeperWaits struct {
	// settle is how long a call that nobody waits for may still take effect. The
	// drivers that are known show a clone before they copy, and attach within
	// seconds.
	settle  time.Duration
	busy    time.Duration // for the row of another owner, who may be sweeping
	idle    time.Duration // for those that look at each new device, udev among them
	poll    time.Duration
	release time.Duration // of all calls that undo
}

var defaultKeeperWaits = keeperWaits{
	settle: time.Minute, busy: 2 * time.Second, idle: 2 * time.Second, poll: 100 * time.Millisecond, release: 2 * time.Minute,
}

// held is one volume or clone that is attached for this process.
type held struct {
	key   string
	write bool

	// Set by the one who opens, read by those who come after it.
	c   *Client
	vol Volume
	dev *device
	row *row

	// Under Keeper.mu.
	refs int
	busy chan struct{} // not nil while it is opened or released; closed at the end
}

// NewKeeper keeps its rows in dir, which is made when it is needed.
func NewKeeper(dir string, log *slog.Logger) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{l: ledger{dir}, log: log, wait: defaultKeeperWaits, held: map[string]*held{}}
}

// Open attaches the volume, or a clone of its snapshot, and verifies the device. A
// volume that somebody has attached to this node is read and stays so, and written
// only with WriteAttached; one that is attached to another is refused. Readers of one process share; a writer is alone, and
// nothing of a snapshot is written, nor of a volume that is attached and in use. c
// stays open until Release.
func (k *Keeper) Open(ctx context.Context, c *Client, volume, snapshot string, write bool) (*Attachment, error) {
	v, err := c.Look(ctx, volume, snapshot)
	if err != nil {
		return nil, err
	}
	frozen := snapshot != "" || v.frozen()
	switch {
	case write && frozen:
		return nil, c.refuse("Attach", v.ID, "it is a snapshot, and no snapshot is written to")
	case write && v.ReadOnly:
		return nil, c.refuse("Attach", v.ID, "it is read-only")
	}
	if err := c.Here(ctx); err != nil {
		return nil, err
	}
	key := c.Identity(v)
	if frozen {
		key += "@"
	}
	h, first, err := k.take(ctx, c, key, v.ID, write)
	if err != nil {
		return nil, err
	}
	switch {
	case !first:
		err = c.same(ctx, &h.vol)
	case frozen:
		err = k.openClone(ctx, h, v)
	default:
		err = k.openVolume(ctx, h, v)
	}
	fd := -1
	if err == nil {
		if fd, err = unix.FcntlInt(uintptr(h.dev.fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			err = c.refuse("Attach", v.ID, "%v", err)
		}
	}
	if first && h.row != nil && h.dev != nil {
		k.settle(h)
	}
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok && first && h.row != nil {
			h.row.sure = !e.open()
		}
		if left := k.release(ctx, c, h); left != nil {
			k.log.Warn("left for the sweeper", "volume", v.ID, "err", left)
		}
		return nil, err
	}
	return &Attachment{k: k, c: c, h: h, fd: fd}, nil
}

// take counts the caller among the holders of key. The first one has to open it.
func (k *Keeper) take(ctx context.Context, c *Client, key, id string, write bool) (h *held, first bool, err error) {
	for {
		k.mu.Lock()
		h := k.held[key]
		switch {
		case h == nil:
			h = &held{key: key, write: write, c: c, refs: 1, busy: make(chan struct{})}
			k.held[key] = h
			k.mu.Unlock()
			return h, true, nil
		case h.busy == nil && (write || h.write):
			k.mu.Unlock()
			return nil, false, c.later("Attach", id, "this process has it open; a writer is alone")
		case h.busy == nil:
			h.refs++
			k.mu.Unlock()
			return h, false, nil
		}
		busy := h.busy
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// settle lets others at what has been opened.
func (k *Keeper) settle(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(h.busy)
	h.busy = nil
}

// release ends one use. The last one undoes, by its own client: that of who came
// first may be closed. What fails is left for Sweep.
func (k *Keeper) release(ctx context.Context, c *Client, h *held) error {
	k.mu.Lock()
	if h.refs--; h.refs > 0 {
		k.mu.Unlock()
		return nil
	}
	if h.busy == nil {
		h.busy = make(chan struct{})
	}
	k.mu.Unlock()
	var err error
	if h.row != nil {
		err = k.undo(ctx, c, h.row, h.dev)
	}
	h.dev.close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, h.key)
	close(h.busy)
	return err
}

// claim takes the row of a file. Another owner may be one that sweeps.
func (k *Keeper) claim(ctx context.Context, c *Client, file string, e entry) (r *row, adopted bool, err error) {
	for end := time.Now().Add(k.wait.busy); ; {
		r, adopted, err = k.l.claim(file, e)
		h, ok := errors.AsType[*heldError](err)
		if !ok {
			return r, adopted, err
		}
		if time.Now().After(end) {
			return nil, false, c.later("Attach", e.Volume, "%v", h)
		}
		if err := sleep(ctx, k.wait.poll); err != nil {
			return nil, false, err
		}
	}
}

// openVolume attaches a live volume.
func (k *Keeper) openVolume(ctx context.Context, h *held, v Volume) error {
	c, identity := h.c, h.c.Identity(v)
	r, adopted, err := k.claim(ctx, c, volumeFile(identity), entry{
		Profile: c.Name(), Endpoint: c.cfg.Endpoint, Identity: identity, Volume: v.ID, Phase: phaseHeld,
	})
	if err != nil {
		return err
	}
	h.row = r
	// From here on no other process of ours changes anything of the volume.
	if v, err = c.Inspect(ctx, v.ID); err != nil {
		if adopted {
			r.leave()
			h.row = nil
		}
		return err
	}
	mine := adopted && r.Phase != phaseHeld && (r.Path == "" || r.Path == v.Path)
	r.Profile, r.Endpoint, r.PID = c.Name(), c.cfg.Endpoint, os.Getpid()
	switch {
	case !v.Attached:
		return k.attach(ctx, h, v)
	case !v.here:
		r.Phase = phaseHeld
		return c.elsewhere(v.ID, v.AttachedOn)
	case h.write && !mine && !c.cfg.WriteAttached:
		// Whose device that is, only the server says: what was attached before can be
		// compared with nothing.
		r.Phase = phaseHeld
		return c.refuse("Attach", v.ID, "it is attached here, and not by haulback: power off what uses it, or detach it; write_attached = true in the profile lets it be written all the same")
	}
	if h.dev, err = c.verify(ctx, &v, nil); err != nil {
		if mine { // nothing tells whether somebody uses it
			r.leave()
			h.row = nil
		}
		return err
	}
	h.vol, r.Path = v, v.Path
	r.Phase = phaseHeld
	if !mine && !h.write {
		return r.note()
	}
	by := k.busy(ctx, h.dev)
	switch {
	case by != "" && h.write: // O_EXCL does not keep off who has it open without
		return c.later("Attach", v.ID, "it is attached, and %s: stop what uses it", by)
	case by != "":
		k.log.Info("attachment of a process that has ended is left to its user", "volume", v.ID, "user", by)
	case mine: // a dead owner's, and nobody has come to use it since
		r.Phase = phaseAttached
	}
	return r.note()
}

// busy says who uses a device, after those that only look at it have gone.
func (k *Keeper) busy(ctx context.Context, d *device) string {
	for end := time.Now().Add(k.wait.idle); ; {
		by := d.inUse()
		if by == "" || time.Now().After(end) || sleep(ctx, k.wait.poll) != nil {
			return by
		}
	}
}

// attach attaches what is not attached, and verifies it.
func (k *Keeper) attach(ctx context.Context, h *held, v Volume) error {
	before := present(blocks)
	h.row.Phase, h.row.Path = phaseAttaching, ""
	if err := h.row.note(); err != nil {
		return err
	}
	v, err := h.c.Attach(ctx, v.ID)
	if err != nil {
		return err
	}
	h.row.Phase, h.row.Path = phaseAttached, v.Path
	if err := h.row.note(); err != nil {
		return err
	}
	h.vol = v
	h.dev, err = h.c.verify(ctx, &v, before)
	return err
}

// openClone makes a clone of a snapshot and attaches that: nobody knows its name,
// and what writes to it harms nothing.
func (k *Keeper) openClone(ctx context.Context, h *held, s Volume) error {
	c, identity := h.c, h.c.Identity(s)
	k.sweepSnapshot(ctx, c, identity)
	id := random()
	r, _, err := k.claim(ctx, c, "clone-"+id+".json", entry{
		Profile: c.Name(), Endpoint: c.cfg.Endpoint, Identity: identity, Volume: s.ID,
		Clone: hostctl.SnapshotPrefix + "read-" + s.ID + "-" + id,
	})
	if err != nil {
		return err
	}
	h.row = r
	v, err := c.Clone(ctx, r.Clone, s.ID)
	if err != nil {
		return err
	}
	r.CloneID = v.ID
	if err := r.note(); err != nil {
		return err
	}
	return k.attach(ctx, h, v)
}
