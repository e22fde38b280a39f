package nbd

import (
	"testing"

	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// TestSteadyStateAllocatesNothing counts in a serial loop; a rare refill of a
// pool after a garbage collection is below one per call.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
	}{
		{"structured", []string{"-f", "memory", "64M"}},
		{"simple", []string{"-f", "--no-sr", "memory", "64M"}},
		{"blocks", []string{"-f", "--filter=blocksize-policy", "memory", "64M", "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M"}},
	} {
		s := nbdtest.Unix(t, "nbdkit", c.args...)
		u, err := ParseURI(s.URI)
		if err != nil {
			t.Fatal(err)
		}
		client, err := Open(t.Context(), Config{URI: u, Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 3<<20)
		for _, off := range []int64{0, 12345} {
			var failure error
			use := func() {
				if _, err := client.WriteAt(p, off); err != nil {
					failure = err
				}
				if _, err := client.ReadAt(p, off); err != nil {
					failure = err
				}
			}
			use()
			if n := testing.AllocsPerRun(200, use); n >= 1 && !raceEnabled || failure != nil {
				t.Errorf("%s: write and read of 3 MiB at %d: %v allocations, %v", c.name, off, n, failure)
			}
		}
		client.Close()
	}
}
