package storetest_test

import (
	"bytes"
	"context"
	"iter"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store"
	"github.com/haulback/haulback/hostctl/store/storetest"
)

// double is the three interfaces in memory, and one fault.
type double struct {
	fault string

	mu       sync.Mutex
	now      time.Time
	revision uint64
	data     map[string]store.Entry
	history  []store.Change
	items    []*item
	sequence int
	leases   map[string]lease
	changed  chan struct{}
}

type item struct {
	id                        string
	priority, sequence, count int
	free                      time.Time
	token                     *delivery
	dead                      bool
}

type lease struct {
	epoch  uint64
	expiry time.Time
}

const (
	visibility = time.Minute
	deliveries = 3
	kept       = 50
)

// lock locks and, at the end, wakes all who wait.
func (d *double) lock() func() {
	d.mu.Lock()
	return func() {
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
	}
}

func (d *double) Get(ctx context.Context, key string) (store.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.data[key]
	if !ok {
		return e, store.ErrNotFound
	}
	if d.fault != "alias" {
		e.Value = bytes.Clone(e.Value)
	}
	return e, ctx.Err()
}

func (d *double) put(key string, value []byte, deleted bool) uint64 {
	if d.fault != "revision" || !deleted {
		d.revision++
	}
	e := store.Entry{Key: key, Value: bytes.Clone(value), Revision: d.revision}
	if d.data[key] = e; deleted {
		delete(d.data, key)
	}
	if d.fault != "gap" || d.revision%3 != 0 {
		d.history = append(d.history, store.Change{Entry: e, Deleted: deleted})
	}
	return d.revision
}

func (d *double) Create(_ context.Context, key string, value []byte) (uint64, error) {
	defer d.lock()()
	if err := store.CheckKey(key); err != nil && d.fault != "keys" {
		return 0, err
	}
	if _, ok := d.data[key]; ok && d.fault != "create" {
		return 0, store.ErrExists
	}
	return d.put(key, value, false), nil
}

func (d *double) expect(key string, revision uint64) error {
	if e, ok := d.data[key]; !ok {
		return store.ErrNotFound
	} else if e.Revision != revision && d.fault != "cas" {
		return store.ErrConflict
	}
	return nil
}

func (d *double) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	defer d.lock()()
	if err := d.expect(key, revision); err != nil {
		return 0, err
	}
	return d.put(key, value, false), nil
}

func (d *double) Delete(_ context.Context, key string, revision uint64) error {
	defer d.lock()()
	if err := d.expect(key, revision); err != nil {
		return err
	}
	d.put(key, nil, true)
	return nil
}

func (d *double) List(_ context.Context, prefix string) (list []store.Entry, at uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(d.data)) {
		if strings.HasPrefix(key, prefix) {
			list = append(list, d.data[key])
		}
	}
	return list, d.revision, store.CheckPrefix(prefix)
}

func (d *double) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for at := after; ; {
			d.mu.Lock()
			var batch []store.Change
			lost := d.fault != "compacted" && (at > d.revision || at+kept < d.revision)
			for _, c := range d.history {
				if c.Revision > at && strings.HasPrefix(c.Key, prefix) {
					batch = append(batch, c)
				}
			}
			at = max(at, d.revision)
			wake := d.changed
			d.mu.Unlock()
			if lost {
				yield(store.Change{}, store.ErrCompacted)
				return
			}
			for _, c := range batch {
				if !yield(c, nil) {
					return
				}
			}
			select {
			case <-wake:
			case <-ctx.Done():
				yield(store.Change{}, ctx.Err())
				return
			}
		}
	}
}

func (d *double) find(id string) int {
	return slices.IndexFunc(d.items, func(i *item) bool { return i.id == id })
}

func (d *double) Push(_ context.Context, id string, priority int) error {
	defer d.lock()()
	if d.find(id) >= 0 && d.fault != "twice" {
		return nil
	}
	d.sequence++
	d.items = append(d.items, &item{id: id, priority: priority, sequence: d.sequence})
	return nil
}

func (d *double) Take(ctx context.Context) (store.Delivery, error) {
	for {
		d.mu.Lock()
		var best *item
		for _, i := range d.items {
			if !i.dead && i.count >= deliveries && !i.free.After(d.now) && d.fault != "endless" {
				i.dead = true
			}
			first := best == nil || i.priority > best.priority || i.priority == best.priority && i.sequence < best.sequence
			if !i.dead && !i.free.After(d.now) && (first || d.fault == "order") {
				best = i
			}
		}
		if best != nil {
			best.count++
			best.free, best.token = d.now.Add(visibility), &delivery{d: d, item: best, n: best.count}
			d.mu.Unlock()
			return best.token, nil
		}
		wake := d.changed
		d.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (d *double) Dead(context.Context) (letters []store.Letter, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.items {
		if i.dead {
			letters = append(letters, store.Letter{ID: i.id, Priority: i.priority, Deliveries: i.count})
		}
	}
	return letters, nil
}

func (d *double) Forget(_ context.Context, id string) error {
	defer d.lock()()
	d.items = slices.DeleteFunc(d.items, func(i *item) bool { return i.id == id })
	return nil
}

type delivery struct {
	d    *double
	item *item
	n    int
}

func (x *delivery) ID() string      { return x.item.id }
func (x *delivery) Deliveries() int { return x.n }

func (x *delivery) held() error {
	if x.d.fault != "zombie" && (x.item.token != x || !x.item.free.After(x.d.now) || x.d.find(x.item.id) < 0) {
		return store.ErrLost
	}
	return nil
}

func (x *delivery) InProgress(context.Context) error {
	defer x.d.lock()()
	if err := x.held(); err != nil || x.d.fault == "progress" {
		return err
	}
	x.item.free = x.d.now.Add(visibility)
	return nil
}

func (x *delivery) Ack(context.Context) error {
	defer x.d.lock()()
	err := x.held()
	if err == nil {
		x.d.items = slices.DeleteFunc(x.d.items, func(i *item) bool { return i == x.item })
	}
	return err
}

func (x *delivery) Nak(_ context.Context, delay time.Duration) error {
	defer x.d.lock()()
	err := x.held()
	if err == nil && x.d.fault != "nak" {
		x.item.free, x.item.token = x.d.now.Add(delay), nil
	}
	return err
}

func (d *double) Acquire(_ context.Context, name, _ string, ttl time.Duration) (uint64, error) {
	defer d.lock()()
	l := d.leases[name]
	if l.expiry.After(d.now) && d.fault != "steal" {
		return 0, store.ErrHeld
	}
	if l.epoch == 0 || d.fault != "epoch" {
		l.epoch++
	}
	l.expiry = d.now.Add(ttl)
	d.leases[name] = l
	return l.epoch, nil
}

func (d *double) hold(name string, epoch uint64, ttl time.Duration) error {
	defer d.lock()()
	l := d.leases[name]
	if (l.epoch != epoch || !l.expiry.After(d.now)) && d.fault != "fence" {
		return store.ErrFenced
	}
	if l.expiry = d.now.Add(ttl); d.fault == "ttl" && ttl > 0 { // a store that drops the time when it renews
		l.expiry = d.now.Add(1000 * ttl)
	}
	d.leases[name] = l
	return nil
}

func (d *double) Renew(_ context.Context, name string, epoch uint64, ttl time.Duration) error {
	return d.hold(name, epoch, ttl)
}

func (d *double) Release(_ context.Context, name string, epoch uint64) error {
	return d.hold(name, epoch, 0)
}

const faultVar = "HAULBACK_STORETEST_FAULT"

func TestDouble(t *testing.T) {
	storetest.Test(t, func(testing.TB) storetest.Kit {
		d := &double{fault: os.Getenv(faultVar), now: time.Unix(1, 0), data: map[string]store.Entry{}, leases: map[string]lease{}, changed: make(chan struct{})}
		pass := func(p time.Duration) {
			defer d.lock()()
			d.now = d.now.Add(p)
		}
		return storetest.Kit{Store: d, Queue: d, Lease: d, Pass: pass, Visibility: visibility, Deliveries: deliveries, History: kept}
	})
}

// TestSuiteFails runs the suite over doubles with one fault each: it has to be
// red, at the test that is for it.
func TestSuiteFails(t *testing.T) {
	for fault, test := range map[string]string{
		"alias": "Values", "keys": "Keys", "create": "CompareAndSwap", "cas": "CompareAndSwap", "revision": "Revision",
		"gap": "WatchNoGap", "compacted": "WatchCompacted",
		"order": "QueueOrder", "twice": "QueueOrder", "progress": "QueueRedelivery", "zombie": "QueueRedelivery",
		"endless": "QueueDead", "nak": "QueueNak",
		"steal": "Lease", "epoch": "Lease", "ttl": "Lease", "fence": "Lease",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestDouble$/^"+test+"$", "-test.timeout", "60s")
			cmd.Env = append(os.Environ(), faultVar+"="+fault)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestDouble/"+test) {
				t.Errorf("the suite does not see the fault (%v):\n%s", err, out)
			}
		})
	}
}
