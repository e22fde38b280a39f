package wire

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// backlog keeps the reader of a socket from running ahead of quic-go. Every
// connection there has a queue of 256 packets between the reader and the
// goroutine that processes them, 3 ms at 1 Gbit/s, and what does not fit is
// dropped: on loopback that alone held the congestion window at 0.3 MB. So the
// reader waits while too much of what it has handed out is not processed, and
// what comes meanwhile is kept in the kernel's buffer, which is 30 times larger.
//
// quic-go does not tell how long its queues are. What is handed out is counted
// here, what is processed by ConnectionStats: BytesReceived has every packet
// that a queue was emptied of, PacketsReceived those of them that could be
// decrypted and were new. The sum over all connections of the socket is compared
// with the limit of one, which is right for any number of them: the queues
// together are then shorter than one may be.
//
// It is a wait for something that others may forge, so it is bounded:
//   - packets that no connection processes are not counted (connIDs);
//   - the counts agree again when all bytes are processed, which forgives
//     duplicates and garbage that carries a true connection ID;
//   - a wait without any progress ends, and each one that ends so makes the next
//     one shorter;
//   - when the kernel's buffer overflows there is nothing left to gain, and the
//     reader runs free for one buffer full: quic-go's limits then hit the
//     connection that is the cause, not the one whose packets come next.
type backlog struct {
	ids   *connIDs
	stats *packetCounters

	// Of the reader alone.
	handed   tally
	done     tally // when it was looked at last
	free     int   // packets to hand out before the next wait
	patience time.Duration

	mu    sync.Mutex
	conns []processor
	past  tally // processed by connections that have ended, less what others had done before they were tracked
	stale bool  // connections have come or gone: the counts do not agree
}

// processor is a *quic.Conn.
type processor interface{ ConnectionStats() quic.ConnectionStats }

type tally struct{ packets, bytes uint64 }

func tallyOf(p processor) tally {
	st := p.ConnectionStats()
	return tally{st.PacketsReceived, st.BytesReceived}
}

func (t tally) plus(o tally) tally  { return tally{t.packets + o.packets, t.bytes + o.bytes} }
func (t tally) minus(o tally) tally { return tally{t.packets - o.packets, t.bytes - o.bytes} }

const (
	// backlogLimit leaves room for the batch of 8 that quic-go takes at once and for
	// what was not counted.
	backlogLimit = 200
	// backlogLow is where a wait ends: with less the connection would run dry
	// before the reader is awake.
	backlogLow = backlogLimit / 2
	// backlogYields is how often the reader lets others run before it sleeps:
	// with one P that is all it takes.
	backlogYields = 16
	backlogStep   = 20 * time.Microsecond
	// maxPatience is for a wait without progress. The steps count as well: a
	// process that did not run for 20 ms has had no chance.
	maxPatience   = 20 * time.Millisecond
	minPatience   = maxPatience / 32
	patienceSteps = 16
	// backlogFree is about a kernel buffer full of packets.
	backlogFree = socketBuffer / 2048
)

func newBacklog(stats *packetCounters) *backlog {
	return &backlog{ids: newConnIDs(), stats: stats, patience: maxPatience}
}

// track counts what p processes until ctx is done.
func (b *backlog) track(ctx context.Context, p processor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Contains(b.conns, p) {
		return
	}
	b.past = b.past.minus(tallyOf(p)) // may be "negative" until p is added
	b.conns = append(b.conns, p)
	b.stale = true
	context.AfterFunc(ctx, func() { b.forget(p) })
}

func (b *backlog) forget(p processor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.conns, p); i >= 0 {
		b.past = b.past.plus(tallyOf(p))
		b.conns = slices.Delete(b.conns, i, i+1)
		b.stale = true
	}
}

// hand counts a packet that the reader gives to quic-go.
func (b *backlog) hand(packet []byte) {
	if b.free > 0 {
		b.free--
	}
	if b.ids.ours(packet) {
		b.handed.packets++
		b.handed.bytes += uint64(len(packet))
	}
}

// overflow is told that the kernel had to drop packets of the socket.
func (b *backlog) overflow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.conns) > 1 {
		b.free = backlogFree
	}
}

// left is the number of packets that are handed out and not processed.
func (b *backlog) left() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = b.past
	for _, p := range b.conns {
		b.done = b.done.plus(tallyOf(p))
	}
	packets, bytes := int64(b.handed.packets-b.done.packets), int64(b.handed.bytes-b.done.bytes)
	if b.stale || packets <= 0 || bytes <= 0 || len(b.conns) == 0 {
		b.stale = false
		b.agree()
		return 0
	}
	return uint64(packets)
}

// agree makes the counts those of nothing left.
func (b *backlog) agree() { b.handed = b.done }

// wait returns when there is room for another batch.
func (b *backlog) wait() {
	if b.free > 0 || b.handed.packets-b.done.packets <= backlogLimit {
		return
	}
	left := b.left()
	if left <= backlogLimit {
		return
	}
	start := time.Now()
	progress, idle := start, 0
	for step := 0; left > backlogLow; step++ {
		if step < backlogYields {
			runtime.Gosched()
		} else {
			time.Sleep(backlogStep)
		}
		before := b.done.bytes
		left = b.left()
		if idle++; b.done.bytes != before {
			progress, idle = time.Now(), 0
		}
		if idle > backlogYields+patienceSteps && time.Since(progress) > b.patience {
			b.agree()
			b.patience = max(b.patience/2, minPatience)
			b.stats.resyncs.Add(1)
			b.stats.waitedSince(start)
			return
		}
	}
	b.patience = maxPatience
	b.stats.waitedSince(start)
}
