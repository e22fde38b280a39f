package mover

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/haulback/haulback/wire"
)

// Dated is the optional ability of a StateDir to say when a file was last
// written; without it Journals reads every journal each time.
type Dated interface {
	Modified(name string) (time.Time, error)
}

// Modified implements Dated.
func (d *StateRoot) Modified(name string) (time.Time, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// Journals counts the target disks that journals tell of. A journal has 4 MiB and
// more, so one that has not changed is not read again. Safe for concurrent use.
type Journals struct {
	Dir StateDir

	mu   sync.Mutex
	seen map[string]seenJournal
}

type seenJournal struct {
	at    time.Time
	state wire.State
}

// States is how many targets are in each state. A journal that is in use is what
// it was when it was last read, or Inconsistent. One that is read is held for a
// moment, as by a probe; who opens it meanwhile waits.
func (j *Journals) States() (map[wire.State]int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	names, err := j.Dir.List()
	if err != nil {
		return nil, err
	}
	n, next := make(map[wire.State]int), make(map[string]seenJournal)
	for _, name := range names {
		if !strings.HasSuffix(name, ".journal") {
			continue
		}
		var at time.Time
		d, dated := j.Dir.(Dated)
		if dated {
			if at, err = d.Modified(name); err != nil {
				continue // it has gone
			}
		}
		s, known := j.seen[name]
		if !known || !dated || !s.at.Equal(at) {
			state, err := stateOf(j.Dir, name)
			switch {
			case err == nil:
				s = seenJournal{at, state}
			case !errors.Is(err, ErrHeld):
				return nil, err
			case !known:
				s.state = wire.StateInconsistent
			}
		}
		next[name] = s
		n[s.state]++
	}
	j.seen = next
	return n, nil
}

// stateOf reads one journal.
func stateOf(dir StateDir, name string) (wire.State, error) {
	f, err := dir.Open(name)
	if err != nil {
		return 0, err
	}
	j := &journal{dir: dir, name: name, f: f}
	size, err := f.Size()
	if err == nil {
		err = j.replay(size)
	}
	return j.state.State, errors.Join(err, j.close())
}
