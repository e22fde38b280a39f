package simvs

import (
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"os"
	"strconv"
	"strings"
	"sync"
)

// blockSize is the granularity of change tracking, as on a host.
const blockSize = 64 << 10

// seed makes the digests of blocks. They never leave the process.
var seed = maphash.MakeSeed()

// tracking is the change tracking of one disk: for each change ID that was given
// out in this epoch the digests of all blocks as they were. So what a snapshot
// had can still be asked for when it is gone, and whoever writes to the files is
// seen.
type tracking struct {
	mu       sync.Mutex // guards what follows
	epoch    string     // empty: off
	sequence int
	saved    map[string]*contents // by change ID
	stale    bool                 // enabled while there were snapshots
	blind    map[int]bool         // blocks that a revert changed unseen
	page     int                  // answers of the query under way
}

// contents is a disk at one moment.
type contents struct {
	size   int64
	blocks []uint64 // 0: all zero
}

// on begins an epoch, off ends it.
func (t *tracking) on(snapshots bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch == "" {
		t.epoch, t.sequence, t.saved, t.stale, t.blind = newEpoch(), 0, map[string]*contents{}, snapshots, nil
	}
}

func (t *tracking) off() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch, t.saved, t.stale, t.blind = "", nil, false, nil
}

// newEpoch is 16 bytes as VMware writes them.
func newEpoch() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] = 0x52
	parts := make([]string, 16)
	for i, b := range id {
		parts[i] = fmt.Sprintf("%02x", b)
	}
	return strings.Join(parts[:8], " ") + "-" + strings.Join(parts[8:], " ")
}

// take saves the contents of a frozen link and returns their change ID, or none
// when tracking is off.
func (t *tracking) take(_ *Server, l link, d *disk) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch == "" || l.ds == nil {
		return "", nil
	}
	c, err := readContents(l.flat(), d.size)
	if err != nil {
		return "", err
	}
	t.sequence++
	id := t.epoch + "/" + strconv.Itoa(t.sequence)
	t.saved[id] = c
	return id, nil
}

// readContents digests a flat file; holes are not read.
func readContents(path string, size int64) (*contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &contents{size: size, blocks: make([]uint64, (size+blockSize-1)/blockSize)}
	buf, zero := make([]byte, blockSize), make([]byte, blockSize)
	next := int64(0) // the first block that was not read
	err = data(f, func(off, end int64) error {
		for b := max(off/blockSize, next); b*blockSize < min(end, size); b++ {
			p := buf[:min(blockSize, size-b*blockSize)]
			if _, err := f.ReadAt(p, b*blockSize); err != nil {
				return err
			}
			if string(p) != string(zero[:len(p)]) {
				c.blocks[b] = maphash.Bytes(seed, p) | 1
			}
			next = b + 1
		}
		return nil
	})
	return c, err
}

// differ lists the blocks that are not the same. What one of them does not have
// is different.
func differ(a, b *contents) (list []int) {
	for i := range max(len(a.blocks), len(b.blocks)) {
		switch {
		case i >= len(a.blocks), i >= len(b.blocks), a.blocks[i] != b.blocks[i]:
			list = append(list, i)
		}
	}
	return list
}

// blindTo notes what a revert changes, for the switch that hides it.
func (t *tracking) blindTo(_ *Server, from, to link, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch == "" {
		return
	}
	a, errA := readContents(from.flat(), size)
	b, errB := readContents(to.flat(), size)
	if errA != nil || errB != nil {
		return
	}
	if t.blind == nil {
		t.blind = map[int]bool{}
	}
	for _, i := range differ(a, b) {
		t.blind[i] = true
	}
}

// stun is what happens to change tracking when a VM stops for a moment: what its
// configuration wants takes effect. m.mu is held.
func (m *machine) stun() {
	for _, d := range m.disks {
		switch {
		case m.wanted && !d.independent:
			d.track.on(len(m.points) > 0)
		case !m.wanted:
			d.track.off()
		}
	}
}
