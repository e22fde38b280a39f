package vddk

import (
	"fmt"
	"sync"
)

// nbdHolds keeps two users of one export in this process apart, the only place
// where it can be done: the protocol has no lock, and a server has no inode to
// lock. It is the package's one variable that changes.
var nbdHolds holdTable

// holdTable counts readers by identity; a writer is -1.
type holdTable struct {
	mu   sync.Mutex
	held map[string]int
}

// take holds identity, alone for ReadWrite, until release is called; more calls
// of release do nothing.
func (t *holdTable) take(identity string, mode Mode) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := t.held[identity]
	if users < 0 || users > 0 && mode == ReadWrite {
		use := "for writing"
		if users > 0 {
			use = fmt.Sprintf("for reading (%d times)", users)
		}
		return nil, &LockedError{
			Path: identity, By: "this process has it open " + use,
			Remedy: "wait for the job that uses it; source and target must differ",
		}
	}
	change := 1
	if mode == ReadWrite {
		change = -1
	}
	if t.held == nil {
		t.held = make(map[string]int)
	}
	t.held[identity] += change
	return sync.OnceFunc(func() { t.free(identity, change) }), nil
}

func (t *holdTable) free(identity string, change int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[identity] -= change; t.held[identity] == 0 {
		delete(t.held, identity)
	}
}
