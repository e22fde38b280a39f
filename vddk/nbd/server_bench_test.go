package nbd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
)

// BenchmarkServerRead has nbdcopy read one image from this server and from
// nbdkit's file plugin in turns, warm, over unix sockets. "ratio" is the median,
// over the turns, of our time over nbdkit's: both ends of a turn see the same
// load of others. 1.3 is the promise.
func BenchmarkServerRead(b *testing.B) {
	needTools(b, "nbdkit", "nbdcopy")
	path := filepath.Join(b.TempDir(), "image")
	const size = 1 << 30
	fillFile(b, path, size)
	r := startServer(b, nbd.ServerConfig{Exports: []nbd.Export{{Device: disk(b, path, vddk.ReadOnly), ReadOnly: true}}})
	kit := startNbdkit(b, "file", path)
	b.SetBytes(2 * size)
	var ours, theirs, ratio []float64
	for b.Loop() {
		x, y := timeCopy(b, r.uri("")), timeCopy(b, kit)
		ours, theirs, ratio = append(ours, x), append(theirs, y), append(ratio, x/y)
	}
	b.ReportMetric(median(ratio), "ratio")
	b.ReportMetric(size/median(ours)/1e6, "ours-MB/s")
	b.ReportMetric(size/median(theirs)/1e6, "nbdkit-MB/s")
}

// timeCopy is in seconds.
func timeCopy(b *testing.B, uri string) float64 {
	start := time.Now()
	run(b, "nbdcopy", uri, "null:")
	return time.Since(start).Seconds()
}

func median(d []float64) float64 {
	slices.Sort(d)
	return d[len(d)/2]
}

func fillFile(b *testing.B, path string, size int64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, mib)
	for i := range p {
		p[i] = byte(i*7 + i>>9)
	}
	for off := int64(0); off < size; off += mib {
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
}

// startNbdkit runs nbdkit on a unix socket until the test ends.
func startNbdkit(t testing.TB, args ...string) (uri string) {
	t.Helper()
	socket := filepath.Join(shortDir(t), "k")
	cmd := exec.Command("nbdkit", append([]string{"-f", "-U", socket}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return fmt.Sprintf("nbd+unix:///?socket=%s", socket)
		}
		if time.Now().After(end) {
			t.Fatal("nbdkit makes no socket")
		}
	}
}
