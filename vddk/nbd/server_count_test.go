package nbd_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
)

// tornDevice reads up to 1 MiB and 100 bytes of its disk.
type tornDevice struct{ nbd.Device }

func (d tornDevice) ReadAt(p []byte, off int64) (int, error) {
	if rest := mib + 100 - off; int64(len(p)) > rest {
		n, _ := d.Device.ReadAt(p[:max(rest, 0)], off)
		return n, syscall.EIO
	}
	return d.Device.ReadAt(p, off)
}

// TestReadCountsWhatCame: the server says at which byte the read failed, and
// sends none of those before it in the same request.
func TestReadCountsWhatCame(t *testing.T) {
	d := disk(t, image(t, 3*mib, 7), vddk.ReadOnly)
	r := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: tornDevice{d}, ReadOnly: true, ReadHoles: true}}})
	c := disk(t, r.uri(""), vddk.ReadOnly)
	for _, off := range []int64{0, mib, mib - 4096} {
		p, want := bytes.Repeat([]byte{0xa5}, 2*mib), make([]byte, 2*mib)
		if _, err := d.ReadAt(want, off); err != nil {
			t.Fatal(err)
		}
		n, err := c.ReadAt(p, off)
		if err == nil || !bytes.Equal(p[:n], want[:n]) || off+int64(n) > mib+100 {
			t.Errorf("read at %d: %d, %v: not what the disk has", off, n, err)
		}
	}
}
