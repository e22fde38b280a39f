package vddk_test

import (
	"errors"
	"os"
	"testing"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

// TestVDDKColdReadOfWrongHole: a cold read asks the library, also where its map
// says that nothing is: else a wrong map would prove itself.
func TestVDDKColdReadOfWrongHole(t *testing.T) {
	workerPath(t)
	v := newVM(t, 80)
	path := v.disk(t, 1, nil)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	d := v.open(t, 1, vddk.ReadWrite)
	if e, err := d.NextData(0); err == nil {
		t.Fatalf("an empty disk has data in %v", e)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("data"), 256<<10) // the map does not see it
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		read func([]byte, int64) (int, error)
	}{{"ReadCold", d.(mover.ColdReader).ReadCold}, {"ReadAt", d.ReadAt}} {
		p := make([]byte, 64<<10)
		if n, err := c.read(p, 256<<10); err != nil || string(p[:4]) != "data" {
			t.Errorf("%s: %d, %v, %q: the map was believed", c.name, n, err, p[:4])
		}
	}
}
