package site

import (
	"context"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

// Opener opens the disk uri. With create, a file that is not there is made
// with that many bytes when it is opened for writing.
func Opener(uri string, create int64) mover.OpenDisk {
	return func(ctx context.Context, access mover.Access) (mover.Disk, error) {
		opts := vddk.Options{Mode: vddk.ReadOnly}
		if access == mover.ReadWrite {
			opts = vddk.Options{Mode: vddk.ReadWrite, Create: create > 0, CreateSize: create}
		}
		return vddk.Open(ctx, uri, opts)
	}
}
