package failback_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/hostctl/store"
)

// memory is a store in memory: what the crash matrix needs a thousand of. Its
// cut says what a crash does.
type memory struct {
	mu      sync.Mutex
	at      uint64
	keys    map[string]store.Entry
	history []store.Change
	changed chan struct{}
	epochs  map[string]uint64
	held    map[string]bool
	cutOff  bool                              // nobody renews a lease
	hook    func(key string, done bool) error // in every change, before and after
}

func newMemory() *memory {
	return &memory{keys: map[string]store.Entry{}, changed: make(chan struct{}), epochs: map[string]uint64{}, held: map[string]bool{}}
}

func (m *memory) cut(key string, done bool) error {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(key, done)
}

func (m *memory) setHook(f func(key string, done bool) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = f
}

func (m *memory) Get(_ context.Context, key string) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.keys[key]
	if !ok {
		return e, store.ErrNotFound
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (m *memory) change(key string, value []byte, may func(store.Entry, bool) error) (uint64, error) {
	if err := errors.Join(store.CheckKey(key), m.cut(key, false)); err != nil {
		return 0, err
	}
	m.mu.Lock()
	old, ok := m.keys[key]
	if err := may(old, ok); err != nil {
		m.mu.Unlock()
		return 0, err
	}
	m.at++
	e := store.Entry{Key: key, Value: bytes.Clone(value), Revision: m.at}
	if m.keys[key] = e; value == nil {
		delete(m.keys, key)
	}
	m.history = append(m.history, store.Change{Entry: e, Deleted: value == nil}) // shares the value, which nobody changes
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
	return e.Revision, m.cut(key, true)
}

func (m *memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	return m.change(key, value, func(_ store.Entry, ok bool) error {
		if ok {
			return store.ErrExists
		}
		return nil
	})
}

func at(expected uint64) func(store.Entry, bool) error {
	return func(e store.Entry, ok bool) error {
		switch {
		case !ok:
			return store.ErrNotFound
		case e.Revision != expected:
			return store.ErrConflict
		}
		return nil
	}
}

func (m *memory) Update(_ context.Context, key string, value []byte, expected uint64) (uint64, error) {
	return m.change(key, value, at(expected))
}

func (m *memory) Delete(_ context.Context, key string, expected uint64) error {
	_, err := m.change(key, nil, at(expected))
	return err
}

func (m *memory) List(_ context.Context, prefix string) (list []store.Entry, at uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, e := range m.keys {
		if strings.HasPrefix(key, prefix) {
			e.Value = bytes.Clone(e.Value)
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b store.Entry) int { return strings.Compare(a.Key, b.Key) })
	return list, m.at, nil
}

func (m *memory) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for {
			m.mu.Lock()
			changed := m.changed
			list := m.history[min(int(after), len(m.history)):]
			m.mu.Unlock()
			for _, c := range list {
				after = c.Revision
				if strings.HasPrefix(c.Key, prefix) && !yield(c, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(store.Change{}, ctx.Err())
				return
			}
		}
	}
}

func (m *memory) Acquire(_ context.Context, name, _ string, _ time.Duration) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[name] {
		return 0, store.ErrHeld
	}
	m.held[name] = true
	m.epochs[name]++
	return m.epochs[name], nil
}

func (m *memory) Renew(_ context.Context, name string, epoch uint64, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.cutOff:
		return errors.New("no answer")
	case !m.held[name] || m.epochs[name] != epoch:
		return store.ErrFenced
	}
	return nil
}

func (m *memory) Release(ctx context.Context, name string, epoch uint64) error {
	if err := m.Renew(ctx, name, epoch, 0); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[name] = false
	return nil
}

// died is what the operating system does when a process dies.
func (m *memory) died() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.held)
}
