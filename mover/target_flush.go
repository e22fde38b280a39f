package mover

import (
	"errors"
	"sync"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// flushFails counts, per disk, the failed flushes without a good one between
// them, across sessions.
type flushFails struct {
	mu sync.Mutex
	n  map[string]int
}

func (f *flushFails) failed(identity string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == nil {
		f.n = make(map[string]int)
	}
	f.n[identity]++
	return f.n[identity]
}

func (f *flushFails) good(identity string) {
	f.mu.Lock()
	delete(f.n, identity)
	f.mu.Unlock()
}

// flush makes everything written so far durable, or ends the session: after a
// failed flush nothing since the last good one counts, and only a disk that is
// opened anew tells the truth. The second failure in a row poisons the disk.
func (t *target) flush() error {
	if c, ok := t.disk.(Checker); ok {
		if err := c.Check(); err != nil {
			return diskError(wire.CodeDiskChanged, "target", "check", cbt.Extent{}, err)
		}
	}
	d, ok := t.disk.(WritableDisk)
	if !ok || t.mode == wire.ModeVerify {
		return nil // opened for reading
	}
	err := d.Flush()
	if err != nil && t.cfg.bug == bugRetryFlush {
		err = d.Flush()
	}
	if err == nil || t.cfg.bug == bugIgnoreFlushError {
		t.fails.good(t.disk.Identity())
		return nil
	}
	if isNoSpace(err) || retryable(err) || t.fails.failed(t.disk.Identity()) < 2 {
		t.journalMu.Lock()
		defer t.journalMu.Unlock()
		if jerr := t.journal.suspect(); jerr != nil {
			return jerr
		}
		return diskError(wire.CodeFlush, "target", "flush", cbt.Extent{}, err)
	}
	return t.poison("flush failed twice in a row: " + err.Error())
}

// end asks the disk whether what was written went to it. After Verified is said
// nobody hears of an error any more: Close is too late.
func (t *target) end() error {
	d, ok := t.disk.(Ender)
	if !ok || t.mode == wire.ModeVerify {
		return nil
	}
	if err := d.End(); err != nil {
		return diskError(wire.CodeDiskChanged, "target", "end", cbt.Extent{}, err)
	}
	return nil
}

// poison gives the disk up and records why.
func (t *target) poison(reason string) error {
	err := error(wire.Errorf(wire.CodePoisoned, "target disk is poisoned: %s; check the device, then start a new copy", reason))
	t.journalMu.Lock()
	defer t.journalMu.Unlock()
	if t.journal != nil {
		err = errors.Join(err, t.journal.poison(reason))
	}
	return err
}
