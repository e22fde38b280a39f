package main

import (
	"context"
	"errors"
	"time"

	"github.com/haulback/haulback/vddk"
)

// A disk whose server went away does not come back to this process: only an open
// makes a new connection. Clients would hear ESHUTDOWN until somebody looks.
const (
	watchEvery = time.Second
	lostAfter  = 5 // checks in a row: memory that was short comes back sooner
)

// errDiskLost ends the serving.
type errDiskLost struct{ err error }

func (e *errDiskLost) Error() string {
	return "the disk is lost, and clients are sent away: " + e.err.Error() + "; start this again when what is behind it is back"
}

func (e *errDiskLost) Unwrap() error { return e.err }

// watchDisk checks the disk until ctx ends, and calls lost once when the driver
// says over and over that what is behind it is gone.
func watchDisk(ctx context.Context, every time.Duration, disk vddk.Disk, lost func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for failed := 0; failed < lostAfter; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := disk.Check()
		if r, ok := errors.AsType[interface {
			error
			Retryable() bool
		}](err); !ok || !r.Retryable() {
			failed = 0
			continue
		}
		if failed++; failed == lostAfter {
			lost(&errDiskLost{err})
		}
	}
}
