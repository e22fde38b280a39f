package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Conditions that a caller branches on.
var (
	ErrNotFound  = errors.New("store: no such key")
	ErrExists    = errors.New("store: the key exists")
	ErrConflict  = errors.New("store: changed meanwhile")                             // not at the expected revision
	ErrCompacted = errors.New("store: the history does not hold this revision")       // list anew
	ErrHeld      = errors.New("store: the lease is held by another")                  // Acquire
	ErrFenced    = errors.New("store: the lease was lost: expired or held by others") // Renew, Release
	ErrLost      = errors.New("store: the delivery is not ours any more")             // it was given to another taker
	ErrBroken    = errors.New("store: takes no more changes until it is opened again")
)

// DamagedError says that a stored value is not what was written.
type DamagedError struct {
	Key  string
	Text string // what is wrong, and what to do where that is known
}

// Error implements error.
func (e *DamagedError) Error() string { return fmt.Sprintf("store: value of %s: %s", e.Key, e.Text) }

// Entry is one key with its value. The value belongs to the caller.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // of its last change
}

// Change is one change of one key.
type Change struct {
	Entry
	Deleted bool // then there is no Value, and Revision is that of the deletion
}

// Store keeps values under keys. Safe for concurrent use. It has six methods
// where the house has five at most: Create is an Update of a key that is not
// there, but two names keep a forgotten revision from being one.
type Store interface {
	// Get answers ErrNotFound for a key that is not there.
	Get(ctx context.Context, key string) (Entry, error)
	// Create answers ErrExists when the key is there.
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Update answers ErrConflict unless the key's revision is the expected one,
	// and ErrNotFound when the key is not there.
	Update(ctx context.Context, key string, value []byte, expected uint64) (revision uint64, err error)
	// Delete is like Update. The key may be created again later.
	Delete(ctx context.Context, key string, expected uint64) error
	// List answers the entries below prefix by key, and the revision of the store
	// at that moment: a watch from there on has no gap.
	List(ctx context.Context, prefix string) (entries []Entry, at uint64, err error)
	// Watch yields each change below prefix that is later than after, in the
	// order of revisions, and then waits for more until ctx is done, whose error
	// it yields last. It answers ErrCompacted, at once or later, when changes
	// have gone that it would have to yield, and for a revision that the store
	// has not reached. Nothing is kept in memory for a slow reader.
	Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[Change, error]
}

// Queue hands out work: names of what is to be done, the rest is in a Store.
// Safe for concurrent use.
type Queue interface {
	// Push adds an item. An item with this ID that is there, waiting, delivered
	// or on the dead letter list, stays as it is.
	Push(ctx context.Context, id string, priority int) error
	// Take waits for the item with the highest priority, and of these the oldest.
	// The item is not given to others until the visibility timeout has passed
	// since Take or the last InProgress. An item that was delivered too often
	// goes to the dead letter list instead.
	Take(ctx context.Context) (Delivery, error)
	// Dead is the dead letter list.
	Dead(ctx context.Context) ([]Letter, error)
	// Forget drops an item wherever it is; none is no error. A dead one that is
	// forgotten and pushed has a fresh count.
	Forget(ctx context.Context, id string) error
}

// Delivery is one item in the hands of a taker. Its methods answer ErrLost when
// the visibility timeout has passed and the item is somebody else's, or has
// gone.
type Delivery interface {
	ID() string
	Deliveries() int // this one included
	InProgress(ctx context.Context) error
	Ack(ctx context.Context) error // done, drop it
	// Nak gives it back; others get it after the delay.
	Nak(ctx context.Context, delay time.Duration) error
}

// Letter is an item that was delivered too often.
type Letter struct {
	ID         string
	Priority   int
	Deliveries int
}

// Lease gives one holder at a time the right to a name. Safe for concurrent
// use.
type Lease interface {
	// Acquire answers ErrHeld while the name is held, even by the same holder.
	// The epoch is larger than all before it under this name.
	Acquire(ctx context.Context, name, holder string, ttl time.Duration) (epoch uint64, err error)
	// Renew keeps it for ttl from now; ErrFenced when the epoch is not the
	// current one or has expired.
	Renew(ctx context.Context, name string, epoch uint64, ttl time.Duration) error
	// Release gives it back at once; ErrFenced as Renew.
	Release(ctx context.Context, name string, epoch uint64) error
}
