package mover_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// deep is a disk that answers only when several ask at once: the first time a
// batch is read, when it is written, and again when it is read back.
type deep struct {
	mover.WritableDisk
	mu    sync.Mutex
	reads map[int64]int
	first *meeting
	write *meeting
	back  *meeting
	alone bool // a call waited in vain
}

// meeting waits for several to come.
type meeting struct {
	left int
	all  chan struct{}
}

func newMeeting(n int) *meeting { return &meeting{n, make(chan struct{})} }

// come reports whether the others came too.
func (m *meeting) come(mu *sync.Mutex) bool {
	mu.Lock()
	if m.left--; m.left == 0 {
		close(m.all)
	}
	mu.Unlock()
	select {
	case <-m.all:
		return true
	case <-time.After(5 * time.Second):
		return false
	}
}

func (d *deep) Coldness() string { return "direct" }

func (d *deep) ReadCold(p []byte, off int64) (int, error) {
	d.mu.Lock()
	d.reads[off]++
	m := d.first
	if d.reads[off] > 1 {
		m = d.back
	}
	d.mu.Unlock()
	d.meet(m)
	return d.ReadAt(p, off)
}

func (d *deep) WriteAt(p []byte, off int64) (int, error) {
	d.meet(d.write)
	return d.WritableDisk.WriteAt(p, off)
}

func (d *deep) meet(m *meeting) {
	if !m.come(&d.mu) {
		d.mu.Lock()
		d.alone = true
		d.mu.Unlock()
	}
}

// A target has several calls with its device at once, whatever the number of
// processors and data streams: when it compares, writes, and reads back.
func TestTargetWorksAtADepth(t *testing.T) {
	t.Parallel()
	want := image(rand.New(rand.NewPCG(6, 1)), 12<<20)
	before := bytes.Repeat([]byte{1}, len(want))
	m := disk(before)
	d := &deep{reads: make(map[int64]int), first: newMeeting(8), write: newMeeting(4), back: newMeeting(4)}
	rep, err := run(t, newEngine(t, mover.Config{Workers: 1}), mover.Job{
		Run: wire.RunID{1}, Mode: wire.ModeCopy, Source: endpoint("source", disk(want)),
		Target: mover.Endpoint{Name: "target", Open: func(context.Context, mover.Access) (mover.Disk, error) {
			w, err := m.Reopen(movertest.ReadWrite)
			d.WritableDisk = w
			return d, err
		}},
	})
	if err != nil || rep.State != wire.StateVerified || !bytes.Equal(m.Bytes(), want) {
		t.Errorf("copy: %v (%v)", err, rep.State)
	}
	if d.alone {
		t.Errorf("the device had %d reads, %d writes and %d reads back too few at once", d.first.left, d.write.left, d.back.left)
	}
}
