package mover

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// block is what one worker works with: room for a batch as it lies on the
// disk, and for the frame that carries it. Whoever holds the block owns both.
// The memory is page-aligned (O_DIRECT) and outside the garbage collector's
// heap.
type block struct {
	raw   []byte // cbt.BatchSize
	frame []byte // wire.DataBufferLen
}

const blockLen = cbt.BatchSize + wire.DataBufferLen

// pool hands out blocks and bounds their bytes over all sessions. Sessions
// take all their blocks at once, so that two of them cannot wait for each
// other's.
type pool struct {
	bound *semaphore.Weighted
	max   int64

	mu   sync.Mutex
	free []*block
}

func newPool(bytes int64) *pool {
	n := bytes / blockLen
	return &pool{bound: semaphore.NewWeighted(n), max: n}
}

// take waits at most 10 s for n blocks.
func (p *pool) take(ctx context.Context, n int) ([]*block, error) {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := p.bound.Acquire(wait, int64(n)); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, wire.Errorf(wire.CodeLimit, "memory for %d blocks is not free (%d MiB in all): raise the memory limit or run fewer sessions at once",
			n, p.max*blockLen>>20)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*block
	for range n {
		if k := len(p.free); k > 0 {
			out, p.free = append(out, p.free[k-1]), p.free[:k-1]
			continue
		}
		b, err := newBlock()
		if err != nil {
			p.free = append(p.free, out...)
			p.bound.Release(int64(n))
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// put gives blocks of take back.
func (p *pool) put(blocks []*block) {
	p.mu.Lock()
	p.free = append(p.free, blocks...)
	p.mu.Unlock()
	p.bound.Release(int64(len(blocks)))
}

// close returns the memory of free blocks to the system.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.free {
		_ = unix.Munmap(b.raw[:blockLen:blockLen]) // the mapping starts at raw
	}
	p.free = nil
}

func newBlock() (*block, error) {
	m, err := unix.Mmap(-1, 0, blockLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for a block: %w", blockLen, err)
	}
	return &block{raw: m[:cbt.BatchSize:blockLen], frame: m[cbt.BatchSize:]}, nil
}
