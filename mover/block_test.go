package mover

import (
	"context"
	"errors"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// A session whose disk hangs holds all of the store, and no other is held up:
// each has a buffer of its own.
func TestEachShareGetsOn(t *testing.T) {
	p := newPool(64 << 20)
	defer p.close()
	ctx := t.Context()
	greedy, err := p.share(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	var held [][]byte
	for again := range 2 { // new ones, and those that were given back
		at := make(map[*byte]bool)
		for range 1 + cap(p.store) {
			b, err := greedy.borrow(ctx)
			if err != nil || len(b) != cbt.BatchSize || at[&b[0]] {
				t.Fatalf("buffer %d: %d bytes, lent already: %v, %v", len(held), len(b), at[&b[0]], err)
			}
			at[&b[0]] = true
			held = append(held, b)
		}
		for again == 0 && len(held) > 0 {
			greedy.giveBack(held[0])
			held = held[1:]
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := greedy.borrow(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("one more than there are: %v", err)
	}
	other, err := p.share(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b, err := other.borrow(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.borrow(canceled); !errors.Is(err, context.Canceled) {
			t.Errorf("a second buffer when the store is empty: %v", err)
		}
		other.giveBack(b)
	}
	for _, b := range held {
		greedy.giveBack(b)
	}
	if len(p.store) != cap(p.store) || len(greedy.own) != 1 {
		t.Errorf("%d of %d in the store, %d own", len(p.store), cap(p.store), len(greedy.own))
	}
	greedy.close()
	other.close()
	if !p.bound.TryAcquire(p.max) {
		t.Error("closed shares hold memory")
	}
}

// 64 disks are served at once within the memory of a small daemon, and what
// they read takes no more buffers than their own and the store.
func TestManyShares(t *testing.T) {
	const disks, memory = 64, 256 << 20
	p := newPool(memory)
	defer p.close()
	var all []*share
	if n := p.workers(4); n != 4 {
		t.Errorf("the first disk is to have %d workers of 4", n)
	}
	for range disks {
		s, err := p.share(t.Context(), 2)
		if err != nil {
			t.Fatalf("share %d: %v", len(all), err)
		}
		all = append(all, s)
	}
	held := 0
	for range readDepth {
		for _, s := range all {
			select { // what borrow waits for
			case <-s.own:
			case <-p.store:
			default:
				continue
			}
			held++
		}
	}
	if want := disks + cap(p.store); held != want {
		t.Errorf("%d buffers are lent, want %d", held, want)
	}
	if n := p.workers(4); n != 1 {
		t.Errorf("one more disk is to have %d workers", n)
	}
	if most := int64(held)*cbt.BatchSize + disks*2*wire.DataBufferLen; most > memory {
		t.Errorf("%d bytes of %d", most, memory)
	}
}

// A read-back that gets no buffer has read nothing: that is no proof, for no
// grain, and the batch is not settled.
func TestReadBackWithoutMemory(t *testing.T) {
	p := newPool(64 << 20)
	defer p.close()
	mem, err := p.share(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.close()
	none := errors.New("no memory")
	p.mmap = func(int) ([]byte, error) { return nil, none }
	ts := &targetSession{target: &target{layout: layout{cbt.BatchSize}, cfg: &Config{}}, mem: mem}
	rd := &reader{layout: ts.layout, holes: &holes{}, hash: cbt.NewHasher()}
	b := &tbatch{stage: stageFlushed, fresh: 1, written: 1}
	b.n = cbt.BatchGrains
	if err := ts.readBackOf(t.Context(), rd, b); !errors.Is(err, none) || b.stage != stageFlushed || !ts.ready.Empty() {
		t.Errorf("the batch is at stage %d, %v", b.stage, err)
	}
	if len(mem.own) != 1 {
		t.Error("the right to a buffer is lost")
	}
}

// Gaps of up to two grains are closed, and nothing else.
func TestBridge(t *testing.T) {
	for m, want := range map[wire.Mask]wire.Mask{
		0: 0, 1: 1, 0x8000: 0x8000, 0xffff: 0xffff,
		0b101: 0b111, 0b1001: 0b1111, 0b10001: 0b10001, 0b1000000000001001: 0b1000000000001111, 0x9001: 0xf001,
	} {
		if got := bridge(m); got != want {
			t.Errorf("bridge(%b) = %b, want %b", m, got, want)
		}
	}
}
