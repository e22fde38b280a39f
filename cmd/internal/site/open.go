package site

import (
	"context"
	"log/slog"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

// Disk is a disk of this machine and how to open it.
type Disk struct {
	URI    string
	Create int64        // opened for writing and not there: made with so many bytes; 0: refused
	Track  string       // change tracking that is asked for when it is opened for reading, or empty
	Log    *slog.Logger // gets what a driver's processes say; nil discards it
}

// Opener opens the disk as often as it is asked to.
func (d Disk) Opener() mover.OpenDisk {
	return func(ctx context.Context, access mover.Access) (mover.Disk, error) {
		opts := vddk.Options{Mode: vddk.ReadOnly, Track: d.Track, Log: d.Log}
		if access == mover.ReadWrite {
			opts = vddk.Options{Mode: vddk.ReadWrite, Create: d.Create > 0, CreateSize: d.Create, Log: d.Log}
		}
		return vddk.Open(ctx, d.URI, opts)
	}
}
