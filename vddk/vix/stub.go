//go:build !(linux && amd64 && cgo)

package vix

import (
	"context"
	"time"

	"github.com/haulback/haulback/cbt"
)

// Library cannot be loaded in this build.
type Library struct{}

// Disk cannot be opened in this build.
type Disk struct{}

// Load returns ErrUnsupported.
func Load(Config) (*Library, error) { return nil, ErrUnsupported }

// Run returns at once.
func (*Library) Run() {}

// Version is empty.
func (*Library) Version() string { return "" }

// TransportModes is empty.
func (*Library) TransportModes() string { return "" }

// Stuck returns ErrUnsupported.
func (*Library) Stuck(_, _ time.Duration) error { return ErrUnsupported }

// Prepare returns ErrUnsupported.
func (*Library) Prepare(context.Context, Params, string) error { return ErrUnsupported }

// EndAccess returns ErrUnsupported.
func (*Library) EndAccess(context.Context, Params, string) error { return ErrUnsupported }

// Open returns ErrUnsupported.
func (*Library) Open(context.Context, Params, Target) (*Disk, error) { return nil, ErrUnsupported }

// Close returns ErrUnsupported.
func (*Library) Close(context.Context) error { return ErrUnsupported }

// Size is 0.
func (*Disk) Size() int64 { return 0 }

// TransportMode is empty.
func (*Disk) TransportMode() string { return "" }

// ReadAt returns ErrUnsupported.
func (*Disk) ReadAt([]byte, int64) (int, error) { return 0, ErrUnsupported }

// WriteAt returns ErrUnsupported.
func (*Disk) WriteAt([]byte, int64) (int, error) { return 0, ErrUnsupported }

// Flush returns ErrUnsupported.
func (*Disk) Flush() error { return ErrUnsupported }

// NextData returns ErrUnsupported.
func (*Disk) NextData(int64) (cbt.Extent, error) { return cbt.Extent{}, ErrUnsupported }

// Zero returns ErrUnsupported.
func (*Disk) Zero(cbt.Extent, cbt.Allocation) error { return ErrUnsupported }

// Close returns ErrUnsupported.
func (*Disk) Close() error { return ErrUnsupported }
