package nbd_test

import (
	"bytes"
	"io"
	"sync/atomic"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
)

// liarDevice is all 'x', and its map says that it is all hole.
type liarDevice struct {
	size  int64
	reads atomic.Int64
}

func (d *liarDevice) ReadAt(p []byte, _ int64) (int, error) {
	d.reads.Add(1)
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func (d *liarDevice) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (d *liarDevice) Size() int64                            { return d.size }
func (d *liarDevice) Flush() error                           { return nil }
func (d *liarDevice) NextData(off int64) (cbt.Extent, error) { return cbt.Extent{}, io.EOF }

// TestServerReadHoles: with ReadHoles a read is answered by the device, whatever
// its map says; the map is told all the same. Without, a hole is not read.
func TestServerReadHoles(t *testing.T) {
	for _, readHoles := range []bool{true, false} {
		d := &liarDevice{size: mib}
		r := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: d, ReadHoles: readHoles}}})
		c := disk(t, r.uri(""), vddk.ReadOnly)
		p, want := make([]byte, 64<<10), make([]byte, 64<<10)
		if _, err := c.ReadAt(p, 128<<10); err != nil {
			t.Fatal(err)
		}
		if readHoles {
			want = bytes.Repeat([]byte{'x'}, len(p))
		}
		if reads := d.reads.Load(); !bytes.Equal(p, want) || (reads > 0) != readHoles {
			t.Errorf("ReadHoles %v: read %q... with %d reads of the device", readHoles, p[:4], reads)
		}
		if e, err := c.NextData(0); err != io.EOF {
			t.Errorf("ReadHoles %v: map says %v, %v, want a hole", readHoles, e, err)
		}
	}
}
