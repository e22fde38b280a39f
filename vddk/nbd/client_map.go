package nbd

import (
	"context"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/haulback/haulback/cbt"
)

const (
	// mapAge is how old an answer about allocation may be. Others may write to
	// the export, and a hole that was is the one lie that loses data.
	mapAge = time.Second
	// maxRecent is how many writes are remembered while a question is under way.
	maxRecent = 256
)

// clientMap remembers one answer about allocation, so that a walk of the disk
// does not ask for every grain. It is dropped when the walk does not go on (a new
// pass must ask anew, from the same place too), when it is old, and piece by piece where we write.
type clientMap struct {
	asking sync.Mutex // one question at a time
	reply  []StatusExtent

	mu     sync.Mutex
	known  cbt.Extent   // what data answers for; Len 0: nothing
	data   []cbt.Extent // sorted, disjoint
	walked int64        // where the walk was last
	at     time.Time
	open   bool         // a question is under way
	recent []cbt.Extent // what was written meanwhile; beyond maxRecent: all
}

// wrote says that e was written, zeroed or trimmed, successfully or not. It is
// called before the write returns: until then either answer is right.
func (m *clientMap) wrote(e cbt.Extent) {
	if e.Len == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open && len(m.recent) <= maxRecent {
		m.recent = append(m.recent, e)
	}
	m.insertLocked(e)
}

// insertLocked makes e data, as far as the answer reaches.
func (m *clientMap) insertLocked(e cbt.Extent) {
	if e = e.Intersect(m.known); e.Len == 0 {
		return
	}
	from, _ := slices.BinarySearchFunc(m.data, e.Off, func(d cbt.Extent, off int64) int {
		if d.End() < off {
			return -1
		}
		return 1
	})
	to := from
	for to < len(m.data) && m.data[to].Off <= e.End() {
		to++
	}
	if from < to {
		end := max(e.End(), m.data[to-1].End())
		e.Off = min(e.Off, m.data[from].Off)
		e.Len = end - e.Off
	}
	m.data = slices.Replace(m.data, from, to, e)
}

// find answers from what is known. Without an answer next is where to ask:
// behind what is known to be hole, or at off when nothing is known. When that
// is before end the question is open from here on: a write that returns after
// this look, and before learn takes in the answer, must not be lost to either.
func (m *clientMap) find(off, end int64) (e cbt.Extent, next int64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, next, ok = m.findLocked(off); !ok && next < end {
		m.open, m.recent = true, m.recent[:0]
	}
	return e, next, ok
}

func (m *clientMap) findLocked(off int64) (e cbt.Extent, next int64, ok bool) {
	if off < m.known.Off || off >= m.known.End() {
		return cbt.Extent{}, off, false
	}
	i, _ := slices.BinarySearchFunc(m.data, off, func(d cbt.Extent, off int64) int {
		if d.End() <= off {
			return -1
		}
		return 1
	})
	if i == len(m.data) {
		return cbt.Extent{}, m.known.End(), false
	}
	d := m.data[i]
	start := max(off, d.Off)
	return cbt.Extent{Off: start, Len: d.End() - start}, 0, true
}

// walk forgets what is old, and what an earlier walk was told.
func (m *clientMap) walk(off int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off <= m.walked || now.Sub(m.at) > mapAge {
		m.known, m.data = cbt.Extent{}, m.data[:0]
	}
	m.walked = off
}

// NextData returns the first extent at or after off that need not read as
// zeros, clipped to start there, and io.EOF when there is none. Without
// base:allocation all is data.
func (c *Client) NextData(off int64) (cbt.Extent, error) {
	switch {
	case c.closed.Load():
		return cbt.Extent{}, &Error{Op: "map", Extent: cbt.Extent{Off: off}, Err: fs.ErrClosed}
	case off < 0:
		return cbt.Extent{}, &Error{Op: "map", Extent: cbt.Extent{Off: off}, Err: cbt.ErrBounds}
	case off >= c.export.Size:
		return cbt.Extent{}, io.EOF
	case c.Context(contextAllocation) != nil:
		return cbt.Extent{Off: off, Len: c.export.Size - off}, nil
	}
	c.cache.asking.Lock()
	defer c.cache.asking.Unlock()
	c.cache.walk(off, time.Now())
	for {
		e, next, ok := c.cache.find(off, c.export.Size)
		switch {
		case ok:
			return e, nil
		case next >= c.export.Size:
			return cbt.Extent{}, io.EOF
		}
		if err := c.learn(off, next); err != nil {
			return cbt.Extent{}, err
		}
	}
}

// learn asks about what follows next, and ends the question that find opened;
// between off and next all is hole.
func (c *Client) learn(off, next int64) error {
	m := &c.cache
	asked := time.Now()
	reply, err := c.status(context.Background(), contextAllocation, cbt.Extent{Off: next, Len: c.export.Size - next}, m.reply)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = false
	if err != nil {
		return err
	}
	m.reply = reply
	if off == next {
		m.at = asked // else the hole before it is as old as it was
	}
	m.fillLocked(off, reply)
	return nil
}

// fillLocked takes in an answer, and after it what was written while it came.
// Only ZERO makes a hole: what is HOLE alone reads as anything.
func (m *clientMap) fillLocked(off int64, reply []StatusExtent) {
	m.known = cbt.Extent{Off: off, Len: reply[len(reply)-1].End() - off}
	m.data = m.data[:0]
	for _, e := range reply {
		if e.Flags&allocationZero != 0 {
			continue
		}
		if n := len(m.data); n > 0 && m.data[n-1].End() == e.Off {
			m.data[n-1].Len += e.Len
		} else {
			m.data = append(m.data, e.Extent)
		}
	}
	if len(m.recent) > maxRecent {
		m.data = append(m.data[:0], m.known)
	}
	for _, e := range m.recent {
		m.insertLocked(e)
	}
}
