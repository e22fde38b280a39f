package main

import (
	"errors"
	"io"
	"maps"
)

// known are the things of one kind that a daemon has told of, by ID. It has no lock
// of its own.
type known[T any] struct {
	all      map[string]T
	revision func(T) uint64
	// told is what a watch has named since it began, until it has told all that there
	// is; nil then. The rest is gone. Each watch begins anew: only so it is known when
	// what is shown is of now, and the daemon that comes back may be another one, or an
	// older state.
	told map[string]bool
}

// begin is called when a watch begins to tell all that there is.
func (k *known[T]) begin() { k.told = map[string]bool{} }

// end is called when it has: what it did not name is taken away.
func (k *known[T]) end() {
	if k.told != nil {
		maps.DeleteFunc(k.all, func(id string, _ T) bool { return !k.told[id] })
	}
	k.told = nil
}

// hear notes that a watch tells of id. What is told of all that there is counts,
// also where it is older than what was known.
func (k *known[T]) hear(id string, revision uint64) {
	if k.told == nil || k.told[id] {
		return
	}
	k.told[id] = true
	if k.newer(id, revision) {
		delete(k.all, id)
	}
}

// newer reports whether what is known of id is of a later revision.
func (k *known[T]) newer(id string, revision uint64) bool {
	old, ok := k.all[id]
	return ok && k.revision(old) > revision
}

// errStreamEnded is a watch that ended without an error: the daemon stops.
var errStreamEnded = errors.New("the daemon ended the watch")

// follow calls each for all that a watch tells, until it ends or each fails.
func follow[M any](stream interface{ Receive() (M, error) }, each func(M) error) error {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return errStreamEnded
		}
		if err == nil {
			err = each(m)
		}
		if err != nil {
			return err
		}
	}
}
