package bolt

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl/store"
	"go.etcd.io/bbolt"
)

// item is one entry of the queue; the first four fields are in the file.
type item struct {
	priority   int64
	sequence   uint64 // of Push: the age
	deliveries uint64
	dead       bool

	id    string
	free  time.Time // given out not before
	token uint64    // of the delivery that holds it; 0: nobody
}

// queue is an index in memory of the queue's bucket. The file is written first.
type queue struct {
	db *DB

	mu      sync.Mutex
	items   map[string]*item
	token   uint64
	changed chan struct{} // closed and made anew when Take should look again
}

func (q *queue) load(tx *bbolt.Tx) error {
	q.items, q.changed = map[string]*item{}, make(chan struct{})
	return tx.Bucket(queueBucket).ForEach(func(key, _ []byte) error {
		r, err := get(tx, queueBucket, key)
		if err == nil && len(r) != 25 {
			err = &store.DamagedError{Key: label(queueBucket, key), Text: "has a wrong length"}
		}
		if err != nil {
			return err
		}
		q.items[string(key)] = &item{
			id: string(key), priority: int64(binary.BigEndian.Uint64(r)), sequence: binary.BigEndian.Uint64(r[8:]),
			deliveries: binary.BigEndian.Uint64(r[16:]), dead: r[24] != 0,
		}
		return nil
	})
}

func (i *item) bytes() []byte {
	r := append(append(number(uint64(i.priority)), number(i.sequence)...), number(i.deliveries)...)
	if i.dead {
		return append(r, 1)
	}
	return append(r, 0)
}

func (q *queue) tellLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// saveLocked writes what i will be, and only then makes it so.
func (q *queue) saveLocked(i item) error {
	if err := q.db.update(func(tx *bbolt.Tx) error { return put(tx, queueBucket, []byte(i.id), i.bytes()) }); err != nil {
		return err
	}
	q.items[i.id] = &i
	return nil
}

func (q *queue) dropLocked(id string) error {
	if err := q.db.update(func(tx *bbolt.Tx) error { return remove(tx, queueBucket, []byte(id)) }); err != nil {
		return err
	}
	delete(q.items, id)
	return nil
}

// Push implements store.Queue.
func (db *DB) Push(ctx context.Context, id string, priority int) error {
	q := &db.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := store.CheckKey(id); err != nil {
		return err
	}
	if q.items[id] != nil {
		return nil
	}
	i := item{id: id, priority: int64(priority)}
	err := db.update(func(tx *bbolt.Tx) error {
		n, err := getNumber(tx, sequenceKey)
		if err != nil {
			return err
		}
		i.sequence = n + 1
		if err := putNumber(tx, sequenceKey, i.sequence); err != nil {
			return err
		}
		return put(tx, queueBucket, []byte(id), i.bytes())
	})
	if err != nil {
		return err
	}
	q.items[id] = &i
	q.tellLocked()
	return nil
}

// Take implements store.Queue.
func (db *DB) Take(ctx context.Context) (store.Delivery, error) {
	for {
		d, wake, wait, err := db.queue.next()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d != nil {
			return d, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-wake:
		case <-timer.C:
		case <-db.closed:
			err = fmt.Errorf("%s %s is closed", db.c.What, db.c.Path)
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// next takes what may be taken now, or tells when to look again.
func (q *queue) next() (store.Delivery, <-chan struct{}, time.Duration, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		now, wait := q.db.c.Now(), time.Hour
		var best *item
		for _, i := range q.items {
			if after := i.free.Sub(now); i.dead {
				continue
			} else if after > 0 {
				wait = min(wait, after)
			} else if best == nil || before(i, best) < 0 {
				best = i
			}
		}
		if best == nil {
			return nil, q.changed, wait, nil
		}
		i := *best
		if i.deliveries >= uint64(q.db.c.Deliveries) {
			i.dead, i.token = true, 0
			if err := q.saveLocked(i); err != nil {
				return nil, nil, 0, err
			}
			continue
		}
		q.token++
		i.deliveries, i.free, i.token = i.deliveries+1, now.Add(q.db.c.Visibility), q.token
		if err := q.saveLocked(i); err != nil {
			return nil, nil, 0, err
		}
		return &delivery{q: q, id: i.id, token: i.token, n: int(i.deliveries)}, nil, 0, nil
	}
}

func before(a, b *item) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.sequence, b.sequence))
}

// Dead implements store.Queue.
func (db *DB) Dead(ctx context.Context) (letters []store.Letter, err error) {
	q := &db.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range q.items {
		if i.dead {
			letters = append(letters, store.Letter{ID: i.id, Priority: int(i.priority), Deliveries: int(i.deliveries)})
		}
	}
	slices.SortFunc(letters, func(a, b store.Letter) int { return cmp.Compare(a.ID, b.ID) })
	return letters, ctx.Err()
}

// Forget implements store.Queue.
func (db *DB) Forget(ctx context.Context, id string) error {
	q := &db.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.items[id] == nil {
		return ctx.Err()
	}
	return q.dropLocked(id)
}

// delivery implements store.Delivery.
type delivery struct {
	q     *queue
	id    string
	token uint64
	n     int
}

func (d *delivery) ID() string      { return d.id }
func (d *delivery) Deliveries() int { return d.n }

// hold does f while the item is d's.
func (d *delivery) hold(ctx context.Context, f func(now time.Time, i item) error) error {
	d.q.mu.Lock()
	defer d.q.mu.Unlock()
	now := d.q.db.c.Now()
	i := d.q.items[d.id]
	if i == nil || i.token != d.token || !now.Before(i.free) {
		return fmt.Errorf("%w: %s", store.ErrLost, d.id)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f(now, *i)
}

func (d *delivery) InProgress(ctx context.Context) error {
	return d.hold(ctx, func(now time.Time, i item) error {
		i.free = now.Add(d.q.db.c.Visibility)
		d.q.items[d.id] = &i
		return nil
	})
}

func (d *delivery) Ack(ctx context.Context) error {
	return d.hold(ctx, func(time.Time, item) error { return d.q.dropLocked(d.id) })
}

func (d *delivery) Nak(ctx context.Context, delay time.Duration) error {
	return d.hold(ctx, func(now time.Time, i item) error {
		i.free, i.token = now.Add(delay), 0
		d.q.items[d.id] = &i
		d.q.tellLocked()
		return nil
	})
}
