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
// batch is read, and again when it is read back.
type deep struct {
	mover.WritableDisk
	mu    sync.Mutex
	reads map[int64]int
	first *meeting
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
	if !m.come(&d.mu) {
		d.mu.Lock()
		d.alone = true
		d.mu.Unlock()
	}
	return d.ReadAt(p, off)
}

// A target has several reads with its device at once, whatever the number of
// processors: when it compares, and when it reads back.
func TestTargetReadsAtADepth(t *testing.T) {
	t.Parallel()
	want := image(rand.New(rand.NewPCG(6, 1)), 12<<20)
	before := bytes.Repeat([]byte{1}, len(want))
	m := disk(before)
	d := &deep{reads: make(map[int64]int), first: newMeeting(8), back: newMeeting(4)}
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
		t.Errorf("the device had %d and %d calls too few at once", d.first.left, d.back.left)
	}
}
