// Package extents lists where a disk has data, and where it changed, in the
// shape of CSI's SnapshotMetadata: extents in disk order that do not overlap,
// from a starting offset on.
//
//	[Allocated]  data and holes; together they are the whole disk
//	[Changed]    what change tracking calls changed
//
// Allocated asks the disk as it goes and keeps one extent. Changed keeps what
// the tracker answered, because trackers answer at once.
//
// Not promised: that an answer is of one point in time, when somebody writes to
// the disk meanwhile; and that what is not in the answer of Changed is
// unchanged. It is a hint (package cbt).
package extents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/haulback/haulback/cbt"
)

// Kind says what an extent is. The words are part of the command line's and of
// the control API's output.
type Kind string

// The kinds.
const (
	Data       Kind = "data"    // allocated; may read as zeros
	Hole       Kind = "hole"    // not allocated, reads as zeros
	Zero       Kind = "zero"    // allocated and known to read as zeros; no driver tells so yet
	ChangedHas Kind = "changed" // may have changed since the tracking began
)

// Extent is a range of bytes and what it is.
type Extent struct {
	Off, Len int64
	Kind     Kind
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// Disk is what Allocated asks; every disk of package vddk is one.
type Disk interface {
	Size() int64
	NextData(off int64) (cbt.Extent, error)
}

// Tracker is what Changed asks.
type Tracker interface {
	Changed(ctx context.Context) (cbt.Hint, error)
}

// ErrUntrusted means that change tracking has no answer that may be used.
var ErrUntrusted = errors.New("change tracking cannot be used")

// Allocated yields data and holes of disk from byte from to the end,
// neighbours of one kind merged. The iteration ends with the first error. A
// driver that goes back or does not move on is an error and not a loop.
func Allocated(ctx context.Context, disk Disk, from int64) iter.Seq2[Extent, error] {
	return merged(func(yield func(Extent, error) bool) {
		size := disk.Size()
		for at := from; at < size; {
			if err := context.Cause(ctx); err != nil {
				yield(Extent{}, err)
				return
			}
			e, err := disk.NextData(at)
			if err == io.EOF {
				yield(Extent{at, size - at, Hole}, nil)
				return
			}
			if err == nil && (e.Off < at || e.Len <= 0 || e.Off >= size) {
				err = fmt.Errorf("map: the driver answered %v when asked from byte %d of %d", e, at, size)
			}
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if e.Off > at && !yield(Extent{at, e.Off - at, Hole}, nil) {
				return
			}
			end := min(e.End(), size)
			if !yield(Extent{e.Off, end - e.Off, Data}, nil) {
				return
			}
			at = end
		}
	})
}

// Answer is what a tracker said.
type Answer struct {
	Map      cbt.Map
	Provider string // "nbd-bitmap", "fiemap"
	Since    string // the point in time that it counts from
	Trust    cbt.Trust
	Remark   string // what was put in order, or why the trust is no higher
}

// Changed asks the tracker and puts its answer in order. What may not be used
// is ErrUntrusted, wrapped with the reason.
func Changed(ctx context.Context, t Tracker, size int64) (Answer, error) {
	hint, err := t.Changed(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return Answer{}, cause
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	m, remark, err := hint.Changed(size)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if hint.Remark != "" && remark != "" {
		remark += "; "
	}
	return Answer{Map: m, Provider: hint.Provider, Since: hint.Since, Trust: hint.Trust, Remark: remark + hint.Remark}, nil
}

// From yields the extents of the answer from byte from on.
func (a Answer) From(from int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for e, ok := a.Map.Next(from); ok; e, ok = a.Map.Next(e.End()) {
			if !yield(Extent{e.Off, e.Len, ChangedHas}, nil) {
				return
			}
		}
	}
}

// merged joins neighbours of one kind.
func merged(seq iter.Seq2[Extent, error]) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var last Extent
		for e, err := range seq {
			switch {
			case err == nil && last.Len > 0 && e.Kind == last.Kind && e.Off == last.End():
				last.Len += e.Len
				continue
			case last.Len > 0 && !yield(last, nil):
				return
			}
			if last = e; err != nil {
				yield(Extent{}, err)
				return
			}
		}
		if last.Len > 0 {
			yield(last, nil)
		}
	}
}
