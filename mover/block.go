package mover

import (
	"context"
	"sync"
	"sync/atomic"
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

// pool hands out memory and bounds its bytes over all sessions, in two ways.
//
// What waits for a peer is taken for the length of a session, all at once, so
// that two sessions cannot wait for each other's: a block (dump, restore and the
// source half) or a share (the target half).
//
// What waits for a disk or a processor only is lent for that time: one buffer
// is the share's own, so that it always gets on, however long the disks of
// others take; the rest comes from a store that all have in common, whoever
// waited longest first. So one session reads at the depth that its disk needs,
// and 64 of them take 64 buffers and that store, not 64 times that depth.
type pool struct {
	bound *semaphore.Weighted // bytes of sessions
	max   int64
	taken atomic.Int64  // of them, now
	store chan struct{} // the right to one batch buffer each, to be lent
	mmap  func(n int) ([]byte, error)
	guard func(b []byte, taken bool) // tests only: nobody may touch b unless it is taken

	mu     sync.Mutex
	raws   [][]byte // the last one that was used is used first: it may be in a cache
	frames [][]byte
}

// The store: at most an eighth of the memory, and enough for four disks that
// are read at readDepth each.
const (
	storePart = 8
	storeMost = 4 * readDepth
)

func newPool(bytes int64) *pool {
	n := min(bytes/storePart/cbt.BatchSize, storeMost)
	bytes -= n * cbt.BatchSize
	p := &pool{bound: semaphore.NewWeighted(bytes), max: bytes, store: make(chan struct{}, n), mmap: anonymous}
	for range n {
		p.store <- struct{}{}
	}
	return p
}

// acquire waits at most 10 s for so many bytes.
func (p *pool) acquire(ctx context.Context, n int64) error {
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := p.bound.Acquire(wait, n); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return wire.Errorf(wire.CodeLimit, "%d KiB of memory are not free (%d MiB in all): raise the memory limit or run fewer sessions at once", n>>10, p.max>>20)
	}
	p.taken.Add(n)
	return nil
}

// release gives back what was acquired.
func (p *pool) release(n int64) {
	p.taken.Add(-n)
	p.bound.Release(n)
}

// busyPart of the memory is what sessions may take and each still have all its
// workers: of 1 GiB, 29 sessions of two.
const busyPart = 8

// workers is how many of n workers a new session is to have. Where many disks
// are moved at once, one each keeps every core busy, and all of them at once
// would not fit.
func (p *pool) workers(n int) int {
	if p.taken.Load() > p.max/busyPart {
		return 1
	}
	return n
}

// take waits at most 10 s for n blocks.
func (p *pool) take(ctx context.Context, n int) ([]*block, error) {
	if err := p.acquire(ctx, int64(n)*blockLen); err != nil {
		return nil, err
	}
	var out []*block
	for range n {
		raw, err := p.buffer(&p.raws, cbt.BatchSize)
		var frame []byte
		if err == nil {
			frame, err = p.buffer(&p.frames, wire.DataBufferLen)
		}
		out = append(out, &block{raw, frame})
		if err != nil {
			p.put(out)
			p.release(int64(n-len(out)) * blockLen)
			return nil, err
		}
	}
	return out, nil
}

// put gives blocks of take back.
func (p *pool) put(blocks []*block) {
	for _, b := range blocks {
		p.keep(&p.raws, b.raw)
		p.keep(&p.frames, b.frame)
	}
	p.release(int64(len(blocks)) * blockLen)
}

// buffer is one of free, or a new one of so many bytes.
func (p *pool) buffer(free *[][]byte, n int) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := len(*free); k > 0 {
		b := (*free)[k-1]
		*free = (*free)[:k-1]
		if p.guard != nil {
			p.guard(b, true)
		}
		return b, nil
	}
	return p.mmap(n)
}

// anonymous is n bytes of fresh memory.
func anonymous(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, wire.Errorf(wire.CodeLimit, "the system has no memory for a buffer of %d bytes: %w", n, err)
	}
	return b, nil
}

func (p *pool) keep(free *[][]byte, b []byte) {
	if b == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.guard != nil {
		p.guard(b, false)
	}
	*free = append(*free, b)
}

// close returns the memory of what is free to the system.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := append(p.raws, p.frames...)
	p.raws, p.frames = nil, nil
	for _, b := range free {
		_ = unix.Munmap(b) // it is whole
	}
}

// share is the memory of the target half of one session: frames for as long as
// it lives, and batch buffers for as long as a disk call and the hashing take.
type share struct {
	pool   *pool
	bytes  int64
	frames [][]byte      // wire.DataBufferLen each, one per data stream
	own    chan struct{} // 1: the right to a buffer that no other session has
}

// share waits at most 10 s for the memory of a session with so many streams.
func (p *pool) share(ctx context.Context, streams int) (*share, error) {
	s := &share{pool: p, own: make(chan struct{}, 1)}
	s.bytes = cbt.BatchSize + int64(streams)*wire.DataBufferLen
	if err := p.acquire(ctx, s.bytes); err != nil {
		return nil, err
	}
	s.own <- struct{}{}
	for range streams {
		f, err := p.buffer(&p.frames, wire.DataBufferLen)
		s.frames = append(s.frames, f)
		if err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// close gives everything back. Nothing may be borrowed any more.
func (s *share) close() {
	for _, f := range s.frames {
		s.pool.keep(&s.pool.frames, f)
	}
	s.pool.release(s.bytes)
}

// borrow waits for a buffer of cbt.BatchSize. Who has one must not wait for a
// peer, a limit of speed, or another buffer before giving it back.
func (s *share) borrow(ctx context.Context) (b []byte, err error) {
	select {
	case <-s.own:
	default:
		select {
		case <-s.own:
		case <-s.pool.store:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if b, err = s.pool.buffer(&s.pool.raws, cbt.BatchSize); err != nil {
		s.giveBack(nil)
	}
	return b, err
}

// giveBack ends a borrow. All rights are alike: the session's own comes first.
func (s *share) giveBack(b []byte) {
	s.pool.keep(&s.pool.raws, b)
	select {
	case s.own <- struct{}{}:
	default:
		s.pool.store <- struct{}{}
	}
}
