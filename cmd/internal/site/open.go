package site

import (
	"context"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

// Opener opens the disk uri. With create, a file that is not there is made
// with that many bytes when it is opened for writing; track is the change
// tracking that is asked for when it is opened for reading, or empty.
func Opener(uri string, create int64, track string) mover.OpenDisk {
	return func(ctx context.Context, access mover.Access) (mover.Disk, error) {
		opts := vddk.Options{Mode: vddk.ReadOnly, Track: track}
		if access == mover.ReadWrite {
			opts = vddk.Options{Mode: vddk.ReadWrite, Create: create > 0, CreateSize: create}
		}
		return vddk.Open(ctx, uri, opts)
	}
}
