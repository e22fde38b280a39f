package daemon

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// peersPoll is how often the files of who may come in are looked at: one stat
// each. A peer that was removed has to be out within a second.
const peersPoll = 250 * time.Millisecond

// mark tells one state of a file from another. Files are replaced whole, so the
// inode changes even where the clock does not.
type mark struct {
	inode, size   uint64
	mtime, ctime  syscall.Timespec
	there, broken bool
}

func markOf(path string) mark {
	st, err := os.Stat(path)
	if err != nil {
		return mark{broken: !os.IsNotExist(err)}
	}
	m := mark{there: true, size: uint64(st.Size())}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		m.inode, m.mtime, m.ctime = sys.Ino, sys.Mtim, sys.Ctim
	}
	return m
}

// watch puts changes of peers.toml and of the invitations to work until ctx is
// done, when somebody knocks who is not known at once.
func (d *Daemon) watch(ctx context.Context) {
	tick := time.NewTicker(peersPoll)
	defer tick.Stop()
	var asked chan struct{} // by somebody who waits for this round
	d.recheck.Store(true)   // what has changed since the configuration was read
	for {
		d.watcher.peers.read(d.recheck.Swap(false), d.repeer)
		d.watcher.invitations.read(d.inviter.over(), d.inviter.look)
		if asked != nil {
			close(asked)
			asked = nil
		}
		select {
		case <-tick.C:
		case asked = <-d.watcher.asked:
		case <-ctx.Done():
			return
		}
	}
}

// repeer takes over who is paired now. Who is not any more is cut off first:
// that waits for nothing.
func (d *Daemon) repeer() {
	d.admit(*d.own.Load())
	d.revoke()
	d.using.Lock()
	defer d.using.Unlock()
	if changed, _ := d.takePeers(); changed {
		d.log.Info("peers changed", "peers", len(d.good.Peers))
	}
}

// takePeers makes the exports anew for who is paired now, if that has changed since
// they were made. Its error was logged. It is called with using held.
func (d *Daemon) takePeers() (changed bool, err error) {
	cfg, err := d.good.Repeer(d.paired())
	if err != nil {
		d.log.Error("the paired peers do not go together with those of the configuration file", "err", err)
		return false, err
	}
	if samePeers(d.good.Peers, cfg.Peers) {
		d.peers.Store(&cfg.Peers)
		return false, nil
	}
	d.use(cfg)
	return true, nil
}

// paired are the peers of the site. It fails closed: those that cannot be read
// are none. It is tried again, as the reason may go without a change of the file:
// no descriptors left, a device that failed once.
func (d *Daemon) paired() site.Peers {
	peers, err := d.cfg.Site.Peers()
	text := ""
	if err != nil {
		text = err.Error()
		d.recheck.Store(true)
	}
	if before := d.unread.Swap(&text); err != nil && (before == nil || *before != text) {
		d.log.Error("the paired peers cannot be read, only those of the configuration file are let in", "err", err)
	}
	if err != nil {
		return nil
	}
	return peers
}

// admit lets in who is paired, and own, the peers of the configuration file.
func (d *Daemon) admit(own site.Peers) site.Peers {
	peers := d.paired()
	for _, p := range own {
		if !peers.Allowed(p.ID) {
			peers = append(peers, p)
		}
	}
	d.peers.Store(&peers)
	return peers
}

func samePeers(a, b site.Peers) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Where, y.Where = "", ""
		if x != y {
			return false
		}
	}
	return true
}

// revoke ends the sessions of who is not let in any more, also those that this
// daemon has dialled.
func (d *Daemon) revoke() {
	d.server.Revoke(d.Allowed)
	d.dialled.revoke(d.Allowed)
}

// tickets is the second lock of an export.
func (d *Daemon) tickets(e *config.Export) *mover.TicketPolicy {
	if !e.Tickets {
		return nil
	}
	return &mover.TicketPolicy{Self: []wire.ID{d.key.ID()}, Controllers: e.Controllers}
}

// dialled are the links that orders and jobs have made.
type dialled struct {
	mu    sync.Mutex
	links map[wire.Link]struct{}
}

// add keeps link until it ends.
func (d *dialled) add(link wire.Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		d.links = make(map[wire.Link]struct{})
	}
	d.links[link] = struct{}{}
	go func() { // ends with the link
		<-link.Done()
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.links, link)
	}()
}

func (d *dialled) revoke(allowed func(wire.ID) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for link := range d.links {
		if !allowed(link.Peer()) {
			// Telling the peer may take two seconds; the next must not wait.
			go link.CloseWithError(wire.CodeUnauthorized, "this daemon is not paired with its peer any more")
		}
	}
}
