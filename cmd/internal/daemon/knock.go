package daemon

import (
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/wire"
)

// knocks is who the listeners let in. Somebody whom this daemon does not know may
// have been paired a moment ago: before he is turned away the files are looked at
// that say so, if they have changed. A script that pairs and copies need not wait.
type knocks struct{ d *Daemon }

// Allowed implements wire.Peers.
func (k knocks) Allowed(id wire.ID) bool {
	if k.d.Allowed(id) {
		return true
	}
	k.d.watcher.fresh(&k.d.watcher.peers)
	return k.d.Allowed(id) // also where a round ended between the two looks
}

// watcher is what the loop of watch knows, and how it is asked to go round at once.
type watcher struct {
	peers, invitations seen
	asked              chan chan struct{} // closed after the round
}

// seen is a file and how it was when it was read last.
type seen struct {
	path string
	mark atomic.Pointer[mark]
}

// read calls do when the file is another than the one that was read, or must.
func (s *seen) read(must bool, do func()) {
	now := markOf(s.path) // before it is read: a change meanwhile is another
	if before := s.mark.Load(); before == nil || *before != now || must {
		do()
		s.mark.Store(&now)
	}
}

// knockTime bounds how long somebody unknown waits for a round.
const knockTime = time.Second

// fresh has f read when it has changed, and waits for it. What was read already
// costs one look at the file.
func (w *watcher) fresh(f *seen) {
	if before := f.mark.Load(); before == nil || *before == markOf(f.path) {
		return // nil: nobody goes round yet
	}
	late := time.NewTimer(knockTime)
	defer late.Stop()
	done := make(chan struct{})
	select {
	case w.asked <- done:
	case <-late.C:
		return
	}
	select {
	case <-done:
	case <-late.C:
	}
}
