package nbd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/haulback/haulback/cbt"
)

// Export is a Device under a name.
type Export struct {
	// Name is at most 4096 bytes of UTF-8; "" is what a client gets that names
	// none.
	Name string
	// Description is for people who list the exports.
	Description string
	Device      Device
	// ReadOnly refuses every change; WriteAt, Zero and Flush are not called.
	ReadOnly bool
	// MinBlock is what offset and length of every request have to be a multiple
	// of, and the size too. Default 1. PreferredBlock is what is best, default
	// 4096. Both are powers of two.
	MinBlock, PreferredBlock int64
	// MaxRequest is the longest read or write in bytes, a multiple of MinBlock.
	// Default 32 MiB, which is the least that clients count on.
	MaxRequest int64
	// NoMultiConn tells clients to use one connection only.
	NoMultiConn bool
	// NoTrim says that zeroing cannot give space back, so trim is not offered.
	NoTrim bool
	// FastZero says that Zero with cbt.Deallocate never writes zeros.
	FastZero bool
	// ReadHoles says that NextData answers BLOCK_STATUS only and every read goes
	// to the Device, where otherwise a read of a hole is answered without. It is
	// for a map that somebody else draws: a disk of another server.
	ReadHoles bool
}

// serverZeroer and serverMapper are the abilities that a Device may have.
type (
	serverZeroer interface {
		Zero(e cbt.Extent, how cbt.Allocation) error
	}
	serverMapper interface {
		NextData(off int64) (cbt.Extent, error)
	}
)

// serverExport is an Export that is or was added.
type serverExport struct {
	Export
	size   int64
	zeroer serverZeroer // nil: none
	mapper serverMapper
	lost   atomic.Pointer[error] // of the first flush that failed

	// Guarded by the server's mu.
	users int
	gone  bool
	idle  chan struct{} // closed when gone and without users
}

// AddExport offers x from now on.
func (s *Server) AddExport(x Export) error {
	added, err := newServerExport(x)
	if err != nil {
		return fmt.Errorf("nbd: export %q: %w", x.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrServerClosed
	case s.exports[x.Name] != nil:
		return fmt.Errorf("nbd: export %q: there is one of that name", x.Name)
	}
	s.exports[x.Name] = added
	return nil
}

// RemoveExport takes the export away, drops its clients, and waits until their
// requests have returned: then nobody uses the Device. When ctx ends first its
// error is returned, and the Device may still be in use.
func (s *Server) RemoveExport(ctx context.Context, name string) error {
	x := s.takeExport(name)
	if x == nil {
		return fmt.Errorf("nbd: export %q: there is none of that name", name)
	}
	s.drain(func(c *serverConn) bool { return c.export == x })
	select {
	case <-x.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nbd: export %q: requests in work: %w", name, ctx.Err())
	}
}

func (s *Server) takeExport(name string) *serverExport {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exports[name]
	if x == nil {
		return nil
	}
	delete(s.exports, name)
	x.gone = true
	if x.users == 0 {
		close(x.idle)
	}
	return x
}

func newServerExport(x Export) (*serverExport, error) {
	x.defaults()
	if err := x.validate(); err != nil {
		return nil, err
	}
	e := &serverExport{Export: x, size: x.Device.Size(), idle: make(chan struct{})}
	e.zeroer, _ = x.Device.(serverZeroer)
	e.mapper, _ = x.Device.(serverMapper)
	return e, nil
}

func (x *Export) defaults() {
	if x.MinBlock == 0 {
		x.MinBlock = 1
	}
	if x.PreferredBlock == 0 {
		x.PreferredBlock = max(4096, x.MinBlock)
	}
	if x.MaxRequest == 0 {
		x.MaxRequest = maxRequest
	}
}

func (x *Export) validate() error {
	powerOfTwo := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case x.Device == nil:
		return fmt.Errorf("no device")
	case !validName(x.Name) || !validName(x.Description):
		return fmt.Errorf("name and description: at most %d bytes of UTF-8 without a zero byte", maxStringLen)
	case !powerOfTwo(x.MinBlock) || x.MinBlock > serverSpareSize:
		return fmt.Errorf("least block of %d bytes: not a power of two up to %d", x.MinBlock, serverSpareSize)
	case !powerOfTwo(x.PreferredBlock) || x.PreferredBlock < max(512, x.MinBlock) || x.PreferredBlock > maxRequest:
		return fmt.Errorf("preferred block of %d bytes: not a power of two from %d to %d", x.PreferredBlock, max(512, x.MinBlock), maxRequest)
	case x.MaxRequest < x.PreferredBlock || x.MaxRequest > maxRequest || x.MaxRequest%x.MinBlock != 0:
		return fmt.Errorf("largest request of %d bytes: not a multiple of %d from %d to %d", x.MaxRequest, x.MinBlock, x.PreferredBlock, maxRequest)
	case x.Device.Size() < 0 || x.Device.Size()%x.MinBlock != 0:
		return fmt.Errorf("size of %d bytes: not a multiple of the least block of %d", x.Device.Size(), x.MinBlock)
	}
	return nil
}

func validName(s string) bool {
	return len(s) <= maxStringLen && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// transmissionFlags are what a client with or without structured replies is
// offered.
func (x *serverExport) transmissionFlags(structured bool) uint16 {
	flags := txHasFlags | txSendFlush | txSendFUA
	if x.ReadOnly {
		flags |= txReadOnly
	} else {
		flags |= txSendWriteZeroes | txSendFastZero
		if x.zeroer != nil && !x.NoTrim {
			flags |= txSendTrim
		}
	}
	if structured {
		flags |= txSendDF
	}
	if !x.NoMultiConn {
		flags |= txCanMultiConn
	}
	return flags
}

// flush makes durable what was answered, on all connections. It does not try
// again after a failure: what was lost then is lost.
func (x *serverExport) flush() error {
	if x.ReadOnly {
		return nil
	}
	if lost := x.lost.Load(); lost != nil {
		return *lost
	}
	err := x.Device.Flush()
	if err == nil {
		if lost := x.lost.Load(); lost != nil { // another's error may be ours (K4)
			return *lost
		}
		return nil
	}
	lost := err // a variable of its own: only a failure allocates
	x.lost.CompareAndSwap(nil, &lost)
	return err
}

// next is the run of data or hole that begins at off and ends at or before end,
// widened to whole blocks, data before hole.
func (x *serverExport) next(off, end int64) (run cbt.Extent, hole bool, err error) {
	run = cbt.Extent{Off: off, Len: end - off}
	if x.mapper == nil {
		return run, false, nil
	}
	data, err := x.mapper.NextData(off)
	switch {
	case err == io.EOF:
		return run, true, nil
	case err != nil:
		return run, false, err
	case data.Off < off || data.Len <= 0:
		return run, false, nil // nonsense: what is not known to be a hole is data
	}
	if start := data.Off / x.MinBlock * x.MinBlock; start > off {
		run.Len = min(start, end) - off
		return run, true, nil
	}
	if last := data.End(); last > 0 && last < end {
		run.Len = min((last+x.MinBlock-1)/x.MinBlock*x.MinBlock, end) - off
	}
	return run, false, nil
}
