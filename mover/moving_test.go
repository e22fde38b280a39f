package mover

import (
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
)

// TestHeldAsksLocks: what a watchdog asks does not come back from an engine that
// has locked itself up.
func TestHeldAsksLocks(t *testing.T) {
	e := &Engine{targets: &holds{m: map[string]*hold{"a": {}}}, sources: &holds{m: map[string]*hold{"b": {}}}}
	if n := e.Held(); n != 2 {
		t.Errorf("%d disks, want 2", n)
	}
	for _, h := range []*holds{e.targets, e.sources} {
		h.mu.Lock()
		back := make(chan int, 1)
		go func() { back <- e.Held() }()
		select {
		case <-back:
			t.Error("it came back although a lock is held")
		case <-time.After(50 * time.Millisecond):
		}
		h.mu.Unlock()
		<-back
	}
}

// TestServerProgress adds up what peers do, and leaves out halves of own jobs.
func TestServerProgress(t *testing.T) {
	own, a, b := &served{}, &served{peer: wire.ID{1}}, &served{peer: wire.ID{2}}
	for i, v := range []*served{own, a, b} {
		v.progress.total.Store(int64(100 * (i + 1)))
		v.progress.scanned.Store(int64(i + 1))
	}
	s := &Server{links: map[*served]struct{}{own: {}, a: {}, b: {}}}
	if c := s.Progress(); c.Total != 500 || c.Scanned != 5 {
		t.Errorf("total %d, scanned %d, want 500 and 5", c.Total, c.Scanned)
	}
}
