package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/haulback/haulback/hostctl/store"
	"go.etcd.io/bbolt"
)

// maxValue is what a message system takes by default.
const maxValue = 1 << 20

// Get implements store.Store.
func (db *DB) Get(ctx context.Context, key string) (e store.Entry, err error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return e, err
	}
	err = db.view(func(tx *bbolt.Tx) error {
		e, err = entry(tx, key)
		e.Value = bytes.Clone(e.Value)
		return err
	})
	return e, err
}

// entry reads one key; its value is valid until tx ends.
func entry(tx *bbolt.Tx, key string) (store.Entry, error) {
	record, err := get(tx, dataBucket, []byte(key))
	switch {
	case err != nil:
		return store.Entry{}, err
	case record == nil:
		return store.Entry{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	return split(key, record)
}

func split(key string, record []byte) (store.Entry, error) {
	if len(record) < 8 {
		return store.Entry{}, &store.DamagedError{Key: key, Text: "has no revision"}
	}
	return store.Entry{Key: key, Revision: binary.BigEndian.Uint64(record), Value: record[8:]}, nil
}

// Create implements store.Store.
func (db *DB) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return db.change(ctx, key, notNil(value), func(_ store.Entry, err error) error {
		switch {
		case err == nil:
			return fmt.Errorf("%w: %s", store.ErrExists, key)
		case errors.Is(err, store.ErrNotFound):
			return nil
		}
		return err
	})
}

// Update implements store.Store.
func (db *DB) Update(ctx context.Context, key string, value []byte, expected uint64) (uint64, error) {
	return db.change(ctx, key, notNil(value), at(expected))
}

func notNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// Delete implements store.Store.
func (db *DB) Delete(ctx context.Context, key string, expected uint64) error {
	_, err := db.change(ctx, key, nil, at(expected))
	return err
}

func at(expected uint64) func(store.Entry, error) error {
	return func(e store.Entry, err error) error {
		if err == nil && e.Revision != expected {
			return fmt.Errorf("%w: %s is at revision %d, not %d", store.ErrConflict, e.Key, e.Revision, expected)
		}
		return err
	}
}

// change writes one value, or deletes the key when value is nil, with its
// history.
func (db *DB) change(ctx context.Context, key string, value []byte, may func(store.Entry, error) error) (revision uint64, err error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return 0, err
	}
	if len(value) > maxValue {
		return 0, fmt.Errorf("store: the value of %s has %d bytes; %d are allowed", key, len(value), maxValue)
	}
	err = db.update(func(tx *bbolt.Tx) error {
		e, err := entry(tx, key)
		if err := may(e, err); err != nil {
			return err
		}
		if revision, err = getNumber(tx, revisionKey); err != nil {
			return err
		}
		revision++
		if err := putNumber(tx, revisionKey, revision); err != nil {
			return err
		}
		if err := db.record(tx, revision, key, value); err != nil {
			return err
		}
		if value == nil {
			return remove(tx, dataBucket, []byte(key))
		}
		return put(tx, dataBucket, []byte(key), append(number(revision), value...))
	})
	if err != nil {
		return 0, err
	}
	db.tell()
	return revision, nil
}

// List implements store.Store.
func (db *DB) List(ctx context.Context, prefix string) (entries []store.Entry, at uint64, err error) {
	if err := errors.Join(ctx.Err(), store.CheckPrefix(prefix)); err != nil {
		return nil, 0, err
	}
	err = db.view(func(tx *bbolt.Tx) error {
		if at, err = getNumber(tx, revisionKey); err != nil {
			return err
		}
		c := tx.Bucket(dataBucket).Cursor()
		for key, sealed := c.Seek([]byte(prefix)); key != nil && bytes.HasPrefix(key, []byte(prefix)); key, sealed = c.Next() {
			record, err := store.Unseal(string(key), sealed)
			if err != nil {
				return err
			}
			e, err := split(string(key), record)
			if err != nil {
				return err
			}
			e.Value = bytes.Clone(e.Value)
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return entries, at, nil
}

// Copy writes the file as it is at one moment, while it is in use: a backup
// that Open takes.
func (db *DB) Copy(w io.Writer) error {
	return db.view(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
}

// record appends a change to the history and drops what is beyond its bounds.
func (db *DB) record(tx *bbolt.Tx, revision uint64, key string, value []byte) error {
	deleted := byte(0)
	if value == nil {
		deleted = 1
	}
	r := binary.BigEndian.AppendUint16([]byte{deleted}, uint16(len(key)))
	r = append(append(r, key...), value...)
	if err := put(tx, historyBucket, number(revision), r); err != nil {
		return err
	}
	for {
		s, err := readSum(tx, historyBucket)
		if err != nil {
			return err
		}
		if s.count <= 1 || s.count <= uint64(db.c.History) && s.size <= uint64(db.c.HistorySize) {
			return nil
		}
		oldest, _ := tx.Bucket(historyBucket).Cursor().First()
		oldest = bytes.Clone(oldest)
		if err := remove(tx, historyBucket, oldest); err != nil {
			return err
		}
		if err := putNumber(tx, floorKey, binary.BigEndian.Uint64(oldest)); err != nil {
			return err
		}
	}
}

// watchBytes is how much one look into the history reads at most, so that a
// slow reader holds little and no transaction.
const watchBytes = 1 << 20

// Watch implements store.Store. It reads the history from the file, a batch at
// a time; between two batches it holds nothing but its place.
func (db *DB) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		if err := store.CheckPrefix(prefix); err != nil {
			yield(store.Change{}, err)
			return
		}
		for {
			wake := db.wake() // before the look, so that no change falls between
			batch, place, err := db.since(prefix, after)
			if err == nil {
				err = ctx.Err()
			}
			for _, c := range batch {
				if err == nil && !yield(c, nil) {
					return
				}
			}
			if err != nil {
				yield(store.Change{}, err)
				return
			}
			if place != after {
				after = place
				continue
			}
			select {
			case <-wake:
			case <-db.closed:
				yield(store.Change{}, fmt.Errorf("%s %s is closed", db.c.What, db.c.Path))
				return
			case <-ctx.Done():
			}
		}
	}
}

// since reads a batch of changes later than after, and how far it looked.
func (db *DB) since(prefix string, after uint64) (batch []store.Change, place uint64, err error) {
	place = after
	err = db.view(func(tx *bbolt.Tx) error {
		floor, err := getNumber(tx, floorKey)
		if err != nil {
			return err
		}
		current, err := getNumber(tx, revisionKey)
		if err != nil {
			return err
		}
		if after < floor || after > current {
			return fmt.Errorf("%w: %d, it has those after %d up to %d", store.ErrCompacted, after, floor, current)
		}
		cursor, size := tx.Bucket(historyBucket).Cursor(), 0
		for k, sealed := cursor.Seek(number(after + 1)); k != nil && size < watchBytes; k, sealed = cursor.Next() {
			c, err := change(k, sealed)
			if err != nil {
				return err
			}
			place, size = c.Revision, size+len(sealed)
			if len(prefix) <= len(c.Key) && c.Key[:len(prefix)] == prefix {
				batch = append(batch, c)
			}
		}
		return nil
	})
	return batch, place, err
}

// change decodes a record of the history.
func change(key, sealed []byte) (c store.Change, err error) {
	name := label(historyBucket, key)
	r, err := store.Unseal(name, sealed)
	if err != nil {
		return c, err
	}
	if len(key) != 8 || len(r) < 3 || len(r) < 3+int(binary.BigEndian.Uint16(r[1:])) {
		return c, &store.DamagedError{Key: name, Text: "is too short"}
	}
	n := 3 + int(binary.BigEndian.Uint16(r[1:]))
	c.Revision, c.Key, c.Deleted = binary.BigEndian.Uint64(key), string(r[3:n]), r[0] != 0
	if !c.Deleted {
		c.Value = append([]byte{}, r[n:]...)
	}
	return c, nil
}

func (db *DB) wake() <-chan struct{} {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.changed
}

func (db *DB) tell() {
	db.mu.Lock()
	defer db.mu.Unlock()
	close(db.changed)
	db.changed = make(chan struct{})
}
