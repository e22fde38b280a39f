package simvs

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Guest is what runs in a VM. Its methods are safe for concurrent use; a disk is
// its number in the order of device keys, from 0.
type Guest struct{ m *machine }

// Guest finds a VM by reference, name, instanceUuid or path.
func (s *Server) Guest(vm string) (*Guest, error) {
	m, err := s.find(vm)
	if err != nil {
		return nil, err
	}
	return &Guest{m}, nil
}

// with calls do with a disk while nobody takes a snapshot. The guest must run.
func (g *Guest) with(n int, do func(d *disk) error) error {
	g.m.mu.RLock()
	defer g.m.mu.RUnlock()
	if n < 0 || n >= len(g.m.disks) {
		return fmt.Errorf("simvs: VM %s has no disk %d", g.m.name, n)
	}
	d := g.m.disks[n]
	if d.file == nil {
		return fmt.Errorf("%w: %s", ErrOff, g.m.name)
	}
	return do(d)
}

// ReadAt reads from a disk.
func (g *Guest) ReadAt(number int, p []byte, off int64) (n int, err error) {
	err = g.with(number, func(d *disk) error {
		n, err = d.file.ReadAt(p, off)
		return err
	})
	return n, err
}

// WriteAt writes to a disk; behind its end nothing is written.
func (g *Guest) WriteAt(number int, p []byte, off int64) (n int, err error) {
	err = g.with(number, func(d *disk) error {
		if off < 0 || off+int64(len(p)) > d.size {
			return fmt.Errorf("simvs: VM %s: disk %d: %w: %d bytes at %d of %d", g.m.name, number, io.ErrShortWrite, len(p), off, d.size)
		}
		n, err = d.file.WriteAt(p, off)
		return err
	})
	return n, err
}

// Flush makes a disk durable.
func (g *Guest) Flush(number int) error {
	return g.with(number, func(d *disk) error { return d.file.Sync() })
}

// Churn is writing that goes on.
type Churn struct {
	Disk  int    `json:"disk"`
	Rate  int64  `json:"rate"`            // bytes per second; 0: 1 MiB
	Block int64  `json:"block,omitempty"` // bytes per write; 0: 4 KiB
	Seed  uint64 `json:"seed,omitempty"`  // the same seed writes the same, one by one
	Off   int64  `json:"off,omitempty"`   // where it writes
	Len   int64  `json:"len,omitempty"`   // 0: to the end of the disk
	Limit int64  `json:"limit,omitempty"` // bytes; 0: until it is stopped
}

// Churn writes random bytes at random places until the context is done, the
// limit is reached or the guest is off, and returns how many bytes it has written.
func (g *Guest) Churn(ctx context.Context, c Churn) (written int64, err error) {
	var size int64
	if err := g.with(c.Disk, func(d *disk) error { size = d.size; return nil }); err != nil {
		return 0, err
	}
	if c.Rate <= 0 {
		c.Rate = 1 << 20
	}
	if c.Block <= 0 {
		c.Block = 4096
	}
	if c.Len <= 0 {
		c.Len = size - c.Off
	}
	places := c.Len / c.Block
	if c.Off < 0 || places <= 0 || c.Off+c.Len > size {
		return 0, fmt.Errorf("simvs: churn: %d bytes at %d of a disk of %d", c.Len, c.Off, size)
	}
	random := rand.New(rand.NewPCG(c.Seed, 0x6368_7572_6e)) //nolint:gosec // repeatable by design
	block := make([]byte, c.Block)
	began := time.Now()
	for c.Limit == 0 || written < c.Limit {
		due := began.Add(time.Duration(float64(written) / float64(c.Rate) * float64(time.Second)))
		select {
		case <-ctx.Done():
			return written, nil
		case <-time.After(time.Until(due)):
		}
		for i := range block {
			block[i] = byte(random.Uint32())
		}
		n, err := g.WriteAt(c.Disk, block, c.Off+random.Int64N(places)*c.Block)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// File is one file with the bytes of a disk, for an independent look.
type File struct {
	Key        int32  `json:"key"`
	Label      string `json:"label"`
	Name       string `json:"name"`       // "[ds] web/web.vmdk"
	Descriptor string `json:"descriptor"` // local path
	Flat       string `json:"flat"`       // local path
	Size       int64  `json:"size"`
	ChangeID   string `json:"change_id,omitempty"` // of a snapshot
}

// Files are the leaves of a VM, or the files of a snapshot, by its reference.
func (s *Server) Files(vm, snapshot string) ([]File, error) {
	m, err := s.find(vm)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var p *point
	for ref, one := range m.points {
		if ref.Value == snapshot {
			p = one
		}
	}
	if snapshot != "" && p == nil {
		return nil, fmt.Errorf("simvs: VM %s has no snapshot %q", m.name, snapshot)
	}
	var files []File
	for _, d := range m.disks {
		l, id := d.leaf, ""
		if p != nil {
			var ok bool
			if l, ok = p.disks[d.key]; !ok {
				continue
			}
			id = p.changes[d.key]
		}
		files = append(files, File{Key: d.key, Label: d.label, Name: l.name(), Descriptor: l.path(), Flat: l.flat(), Size: d.size, ChangeID: id})
	}
	return files, nil
}
