package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// Bounds of what a caller may ask of one disk.
const (
	maxURI      = 4096
	maxRanges   = 4096
	batchExtent = 1024 // extents in a message when the caller does not say
	maxExtents  = 16384
)

// progressEvery is how often a long read says how far it is.
const progressEvery = time.Second

// endpointHandler is service Endpoint.
type endpointHandler struct{ s *Server }

func checkURI(field, uri string) error {
	if uri == "" {
		return jobpb.Invalid(field, "it is missing")
	}
	if len(uri) > maxURI {
		return jobpb.Invalid(field, "%d bytes, %d at most", len(uri), maxURI)
	}
	return nil
}

// Probe implements controlv1.EndpointHandler.
func (h endpointHandler) Probe(ctx context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error) {
	if err := checkURI("uri", req.Uri); err != nil {
		return nil, err
	}
	return h.s.cfg.Endpoint.Probe(ctx, req)
}

// Checksum implements controlv1.EndpointHandler. Progress is sent by this
// goroutine alone; the one that reads only leaves its numbers.
func (h endpointHandler) Checksum(ctx context.Context, req *controlv1.ChecksumRequest, stream controlv1.EndpointChecksumServerStream) error {
	if err := checkChecksum(req); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var read, total atomic.Int64
	done := make(chan checked, 1)
	go func() {
		var out checked
		defer func() {
			out.panicked = recover() // it belongs to the call, not to the daemon
			done <- out
		}()
		out.result, out.err = h.s.cfg.Endpoint.Checksum(ctx, req, func(r, t int64) { read.Store(r); total.Store(t) })
	}()
	send := func(m *controlv1.ChecksumResponse) error {
		return callOf(ctx).pace.send(func() error { return stream.Send(m) })
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case out := <-done:
			if err := out.check(); err != nil {
				return err
			}
			n := out.result.ReadBytes
			return send(&controlv1.ChecksumResponse{TotalBytes: max(total.Load(), n), ReadBytes: n, Result: out.result})
		case <-tick.C:
			if err := send(&controlv1.ChecksumResponse{TotalBytes: total.Load(), ReadBytes: read.Load()}); err != nil {
				cancel()
				<-done // then the disk is closed
				return err
			}
		}
	}
}

// checked is what a reader came to.
type checked struct {
	result   *controlv1.ChecksumResult
	err      error
	panicked any
}

func (c *checked) check() error {
	if c.panicked != nil {
		panic(c.panicked)
	}
	if c.err == nil && c.result == nil {
		return errors.New("a checksum without a result")
	}
	return c.err
}

func checkChecksum(req *controlv1.ChecksumRequest) error {
	if err := checkURI("uri", req.Uri); err != nil {
		return err
	}
	if len(req.Ranges) > maxRanges {
		return jobpb.Invalid("ranges", "%d ranges, %d at most", len(req.Ranges), maxRanges)
	}
	if req.RateBytes < 0 {
		return jobpb.Invalid("rate_bytes", "%d is less than 0", req.RateBytes)
	}
	var end int64
	for i, r := range req.Ranges {
		from, size := r.GetByteOffset(), r.GetSizeBytes()
		if from < end || size <= 0 || from+size < from {
			return jobpb.Invalid(fmt.Sprintf("ranges[%d]", i), "%d bytes at %d; ranges are not empty, in ascending order, and do not overlap", size, from)
		}
		end = from + size
	}
	return nil
}

// extentsHandler is service Extents.
type extentsHandler struct{ s *Server }

// Allocated implements controlv1.ExtentsHandler.
func (h extentsHandler) Allocated(ctx context.Context, req *controlv1.AllocatedRequest, stream controlv1.ExtentsAllocatedServerStream) error {
	if err := checkURI("uri", req.Uri); err != nil {
		return err
	}
	l, err := newLister(req.StartingOffset, req.MaxResults)
	if err != nil {
		return err
	}
	l.send = func(list []*controlv1.BlockMetadata) error {
		return callOf(ctx).pace.send(func() error {
			return stream.Send(&controlv1.AllocatedResponse{BlockMetadataType: l.kind(), VolumeCapacityBytes: l.head.Size, BlockMetadata: list})
		})
	}
	return l.run(func() error { return h.s.cfg.Extents.Allocated(ctx, req, l.begin, l.each) })
}

// Changed implements controlv1.ExtentsHandler.
func (h extentsHandler) Changed(ctx context.Context, req *controlv1.ChangedRequest, stream controlv1.ExtentsChangedServerStream) error {
	if err := errors.Join(checkURI("base", req.Base), checkURI("target", req.Target)); err != nil {
		return err
	}
	l, err := newLister(req.StartingOffset, req.MaxResults)
	if err != nil {
		return err
	}
	l.send = func(list []*controlv1.BlockMetadata) error {
		return callOf(ctx).pace.send(func() error {
			return stream.Send(&controlv1.ChangedResponse{
				BlockMetadataType: l.kind(), VolumeCapacityBytes: l.head.Size, BlockMetadata: list, Tracking: l.head.Tracking, Trust: l.head.Trust,
			})
		})
	}
	return l.run(func() error { return h.s.cfg.Extents.Changed(ctx, req, l.begin, l.each) })
}

// lister makes messages of extents and holds them to what is promised.
type lister struct {
	from  int64
	batch int
	head  ExtentHead
	begun bool
	end   int64 // of the last extent
	list  []*controlv1.BlockMetadata
	send  func([]*controlv1.BlockMetadata) error
}

func newLister(from int64, batch int32) (*lister, error) {
	if from < 0 {
		return nil, jobpb.Invalid("starting_offset", "%d is less than 0", from)
	}
	if batch < 0 || batch > maxExtents {
		return nil, jobpb.Invalid("max_results", "%d; it is 0 to %d", batch, maxExtents)
	}
	if batch == 0 {
		batch = batchExtent
	}
	return &lister{from: from, batch: int(batch)}, nil
}

func (l *lister) kind() controlv1.BlockMetadataType {
	if l.head.Fixed {
		return controlv1.BlockMetadataType_BLOCK_METADATA_TYPE_FIXED_LENGTH
	}
	return controlv1.BlockMetadataType_BLOCK_METADATA_TYPE_VARIABLE_LENGTH
}

// begin sends the first message at once, so that the caller knows the size.
func (l *lister) begin(head ExtentHead) error {
	if l.begun || head.Size < 0 {
		return fmt.Errorf("the list of extents has begun already, or a disk of %d bytes", head.Size)
	}
	if l.from > head.Size {
		return jobpb.Invalid("starting_offset", "%d is beyond the end of the disk, which has %d bytes", l.from, head.Size)
	}
	l.head, l.begun = head, true
	return l.send(nil)
}

// each takes one extent. What is out of order is a bug of the driver, and a
// caller who trusts the order would lose data over it.
func (l *lister) each(e cbt.Extent) error {
	if !l.begun || e.Off < l.end || e.Len <= 0 || e.Len > l.head.Size-e.Off {
		return fmt.Errorf("extent %d bytes at %d: it is out of order or beyond the disk, the one before ended at %d", e.Len, e.Off, l.end)
	}
	l.end = e.Off + e.Len
	if l.end <= l.from {
		return nil
	}
	off := max(e.Off, l.from)
	l.list = append(l.list, &controlv1.BlockMetadata{ByteOffset: off, SizeBytes: l.end - off})
	if len(l.list) < l.batch {
		return nil
	}
	return l.flush()
}

func (l *lister) flush() error {
	if len(l.list) == 0 {
		return nil
	}
	list := l.list
	l.list = nil
	return l.send(list)
}

func (l *lister) run(list func() error) error {
	if err := list(); err != nil {
		return err
	}
	if !l.begun { // an end without a beginning would read as "nothing"
		return errors.New("the list of extents never began")
	}
	return l.flush()
}
