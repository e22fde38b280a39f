package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/vix"
	"github.com/haulback/haulback/vddk/worker/control"
)

// export is a disk on its way to NBD. Clients get an errno; what the library
// said goes to the supervisor before the client has its answer.
type export struct {
	*vix.Disk
	name     string
	readOnly bool
	tell     func(control.Message)
}

func (s *session) open(ctx context.Context, r *control.Open) (*control.Opened, error) {
	s.mu.Lock()
	ready := s.ready
	s.last++
	name := fmt.Sprintf("disk-%d", s.last)
	s.mu.Unlock()
	if !ready {
		return nil, errNotStarted
	}
	d, err := s.lib.Open(ctx, s.params, vix.Target{
		Path: r.Path, Snapshot: r.Snapshot, Transports: r.Transports, ReadOnly: r.ReadOnly, MaxRequest: r.MaxRequest,
	})
	if err != nil {
		return nil, err
	}
	x := &export{Disk: d, name: name, readOnly: r.ReadOnly, tell: func(m control.Message) { _ = s.out.Write(m) }} // standard input ends too when nobody reads
	if !r.ReadOnly && d.TransportMode() == "san" {
		return nil, errors.Join(fmt.Errorf("open %s for writing: the library chose transport san, which must not write under a snapshot", r.Path), d.Close())
	}
	err = s.server.AddExport(nbd.Export{
		Name: name, Device: x, ReadOnly: r.ReadOnly, MinBlock: vix.SectorSize, PreferredBlock: 64 << 10, NoTrim: true,
		// The library's map may be wrong, and is as old as the first question: a
		// proof that rests on it proves nothing.
		ReadHoles: true,
	})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	s.mu.Lock()
	s.disks[name] = x
	s.mu.Unlock()
	return &control.Opened{Export: name, Size: d.Size(), Mode: d.TransportMode()}, nil
}

// close takes the export away from its clients, and flushes and closes the disk.
func (s *session) close(ctx context.Context, name string) error {
	s.mu.Lock()
	x := s.disks[name]
	delete(s.disks, name)
	s.mu.Unlock()
	if x == nil {
		return fmt.Errorf("close %s: there is no such disk", name)
	}
	return errors.Join(s.server.RemoveExport(ctx, name), x.end())
}

func (x *export) end() error {
	if x.readOnly {
		return x.Disk.Close()
	}
	return errors.Join(x.Disk.Flush(), x.Disk.Close())
}

// failed reports err, of a request for e, to the supervisor.
func (x *export) failed(e cbt.Extent, err error) error {
	if err != nil && err != io.EOF {
		x.tell(control.Message{Failed: &control.Failed{Export: x.name, Off: e.Off, Len: e.Len, Error: control.NewError(err)}})
	}
	return err
}

func (x *export) ReadAt(p []byte, off int64) (int, error) {
	n, err := x.Disk.ReadAt(p, off)
	return n, x.failed(cbt.Extent{Off: off, Len: int64(len(p))}, err)
}

func (x *export) WriteAt(p []byte, off int64) (int, error) {
	n, err := x.Disk.WriteAt(p, off)
	return n, x.failed(cbt.Extent{Off: off, Len: int64(len(p))}, err)
}

func (x *export) Flush() error {
	err := x.Disk.Flush()
	if err != nil {
		x.tell(control.Message{Failed: &control.Failed{Export: x.name, Flush: true, Error: control.NewError(err)}})
	}
	return err
}

func (x *export) Zero(e cbt.Extent, how cbt.Allocation) error {
	return x.failed(e, x.Disk.Zero(e, how))
}

func (x *export) NextData(off int64) (cbt.Extent, error) {
	e, err := x.Disk.NextData(off)
	return e, x.failed(cbt.Extent{Off: off, Len: 1}, err)
}
