package nbd

import "sync"

const (
	// serverBlockSize is the most that one piece of a request carries: what the
	// mover merges writes to, and large enough for direct I/O.
	serverBlockSize = 1 << 20
	// serverSpareSize is the block that a connection has for itself: what a
	// server has to answer in one chunk when asked not to fragment.
	serverSpareSize = 64 << 10
	// serverHead is the room in front of the data, for the header of the reply:
	// both leave in one write. A page, so that the data is aligned for direct
	// I/O (Go's large allocations are).
	serverHead = 4096
)

// serverBlock is memory for a piece of a request.
type serverBlock struct {
	mem   []byte // serverHead bytes, then the data
	spare bool
}

func newServerBlock(size int, spare bool) *serverBlock {
	return &serverBlock{mem: make([]byte, serverHead+size), spare: spare}
}

func (b *serverBlock) data() []byte { return b.mem[serverHead:] }

// serverPool bounds the memory of all connections. Whoever finds it empty uses
// the connection's spare block, which nobody else can take: clients that do not
// read their replies can hold the whole pool, and the others go on with a spare
// block each.
type serverPool struct {
	mu      sync.Mutex
	freed   sync.Cond
	free    []*serverBlock // last in, first out: still in the CPU's cache
	unmade  int64          // blocks that may still be made
	waiting int
}

func newServerPool(size int64) *serverPool {
	p := &serverPool{unmade: size / serverBlockSize}
	p.freed.L = &p.mu
	return p
}

// take returns a block; it waits for one when the pool is empty and *spare in
// use. *spare is guarded by the pool.
func (p *serverPool) take(spare **serverBlock) *serverBlock {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if n := len(p.free); n > 0 {
			b := p.free[n-1]
			p.free = p.free[:n-1]
			return b
		}
		if p.unmade > 0 {
			p.unmade--
			return newServerBlock(serverBlockSize, false)
		}
		if b := *spare; b != nil {
			*spare = nil
			return b
		}
		p.waiting++
		p.freed.Wait()
		p.waiting--
	}
}

// give takes a block back, to the pool or as *spare.
func (p *serverPool) give(b *serverBlock, spare **serverBlock) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.spare {
		*spare = b
	} else {
		p.free = append(p.free, b)
	}
	if p.waiting > 0 {
		p.freed.Broadcast()
	}
}

// trim gives the memory of unused blocks back.
func (p *serverPool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unmade += int64(len(p.free))
	p.free = nil
}
