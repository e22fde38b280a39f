package bolt

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl/store"
	"go.etcd.io/bbolt"
)

// leases has in memory which epochs were given out since Open: only those can
// hold, the others' process has gone with the file's lock.
type leases struct {
	db *DB

	mu  sync.Mutex
	now map[string]uint64
}

// Acquire implements store.Lease.
func (db *DB) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (epoch uint64, err error) {
	l := &db.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := store.CheckKey(name); err != nil {
		return 0, err
	}
	err = db.update(func(tx *bbolt.Tx) error {
		old, expiry, by, err := readLease(tx, name)
		if err != nil {
			return err
		}
		if mine, ours := l.now[name]; ours && mine == old && db.c.Now().Before(expiry) {
			return fmt.Errorf("%w: %s, by %s until %v", store.ErrHeld, name, by, expiry)
		}
		epoch = old + 1
		return writeLease(tx, name, epoch, db.c.Now().Add(ttl), holder)
	})
	if err != nil {
		return 0, err
	}
	if l.now == nil {
		l.now = map[string]uint64{}
	}
	l.now[name] = epoch
	return epoch, nil
}

// Renew implements store.Lease.
func (db *DB) Renew(ctx context.Context, name string, epoch uint64, ttl time.Duration) error {
	return db.lease.hold(ctx, name, epoch, func(tx *bbolt.Tx, holder string) error {
		return writeLease(tx, name, epoch, db.c.Now().Add(ttl), holder)
	})
}

// Release implements store.Lease.
func (db *DB) Release(ctx context.Context, name string, epoch uint64) error {
	return db.lease.hold(ctx, name, epoch, func(tx *bbolt.Tx, holder string) error {
		return writeLease(tx, name, epoch, time.Unix(0, 0), holder)
	})
}

// hold does f when the epoch holds the name now.
func (l *leases) hold(ctx context.Context, name string, epoch uint64, f func(tx *bbolt.Tx, holder string) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.db.update(func(tx *bbolt.Tx) error {
		current, expiry, holder, err := readLease(tx, name)
		switch {
		case err != nil:
			return err
		case current != epoch || l.now[name] != epoch:
			return fmt.Errorf("%w: %s is at epoch %d, not %d", store.ErrFenced, name, current, epoch)
		case !l.db.c.Now().Before(expiry):
			return fmt.Errorf("%w: %s expired at %v", store.ErrFenced, name, expiry)
		}
		return f(tx, holder)
	})
}

func readLease(tx *bbolt.Tx, name string) (epoch uint64, expiry time.Time, holder string, err error) {
	r, err := get(tx, leaseBucket, []byte(name))
	switch {
	case err != nil || r == nil:
		return 0, time.Time{}, "", err
	case len(r) < 16:
		return 0, time.Time{}, "", &store.DamagedError{Key: label(leaseBucket, []byte(name)), Text: "is too short"}
	}
	return binary.BigEndian.Uint64(r), time.Unix(0, int64(binary.BigEndian.Uint64(r[8:]))), string(r[16:]), nil
}

func writeLease(tx *bbolt.Tx, name string, epoch uint64, expiry time.Time, holder string) error {
	r := binary.BigEndian.AppendUint64(number(epoch), uint64(expiry.UnixNano()))
	return put(tx, leaseBucket, []byte(name), append(r, holder...))
}
