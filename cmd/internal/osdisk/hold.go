package osdisk

import (
	"sync"

	"github.com/haulback/haulback/vddk"
)

// holds keep uses of one volume by this process apart before anything is attached:
// many readers or one writer, as locks do with files. Those of other processes are
// the ledger's.
type holds struct {
	mu   sync.Mutex
	uses map[string]int // by identity: readers, or -1 for a writer
}

// take waits for nobody. What it gives ends the hold, once.
func (h *holds) take(text, identity string, mode vddk.Mode) (func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.uses == nil {
		h.uses = map[string]int{}
	}
	n := h.uses[identity]
	switch {
	case n < 0:
		return nil, &vddk.LockedError{Path: text, By: "this process writes to the volume", Remedy: "wait for that run, or stop it"}
	case n > 0 && mode == vddk.ReadWrite:
		return nil, &vddk.LockedError{Path: text, By: "this process reads the volume", Remedy: "wait for that run, or stop it"}
	case mode == vddk.ReadWrite:
		h.uses[identity] = -1
	default:
		h.uses[identity]++
	}
	return sync.OnceFunc(func() { h.drop(identity) }), nil
}

func (h *holds) drop(identity string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.uses[identity]--; h.uses[identity] <= 0 { // a writer's -1 too
		delete(h.uses, identity)
	}
}
