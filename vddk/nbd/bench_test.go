package nbd

import (
	"cmp"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// benchSize is the size of the image in MiB; HAULBACK_NBD_BENCH_MIB sets another.
const benchSize = 1024

func benchImage(b *testing.B) (path string, size int64) {
	b.Helper()
	mib := benchSize
	if s := os.Getenv("HAULBACK_NBD_BENCH_MIB"); s != "" {
		var err error
		if mib, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	path = filepath.Join(b.TempDir(), "img")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	noise := make([]byte, 16<<20)
	_, _ = rand.Read(noise) // never fails
	for n := 0; n < mib; n += 16 {
		if _, err := f.Write(noise[:min(16, mib-n)<<20]); err != nil {
			b.Fatal(err)
		}
	}
	return path, int64(mib) << 20
}

// BenchmarkAgainstNbdcopy reads an image that is in the page cache of nbdkit's
// file plugin over a unix socket, in turns with `nbdcopy URI null:`, and reports
// the median of each, and of the ratios of the turns (below 1: the client is
// faster), which is the figure to look at on a machine with other work; of the
// CPU time too, which other work disturbs least.
//
//	go test -run '^$' -bench AgainstNbdcopy -benchtime 10x ./vddk/nbd
func BenchmarkAgainstNbdcopy(b *testing.B) {
	nbdtest.Need(b, "nbdcopy")
	path, size := benchImage(b)
	s := nbdtest.Unix(b, "nbdkit", "-f", "file", path)
	u, err := ParseURI(s.URI)
	if err != nil {
		b.Fatal(err)
	}
	readAll(b, u)
	b.SetBytes(size)
	var ours, theirs []time.Duration
	var ratios, cpu []float64
	for b.Loop() {
		var mine, other spent
		if len(ours)%2 == 0 {
			mine, other = readAll(b, u), runNbdcopy(b, u)
		} else {
			other, mine = runNbdcopy(b, u), readAll(b, u)
		}
		ours, theirs = append(ours, mine.wall), append(theirs, other.wall)
		ratios = append(ratios, float64(mine.wall)/float64(other.wall))
		cpu = append(cpu, float64(mine.cpu)/float64(other.cpu))
	}
	b.ReportMetric(median(ours).Seconds(), "client-s")
	b.ReportMetric(median(theirs).Seconds(), "nbdcopy-s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(cpu), "cpu-ratio")
	b.ReportMetric(float64(size)/median(ours).Seconds()/1e6, "client-MB/s")
}

// spent is what one reading of the image took.
type spent struct {
	wall, cpu time.Duration
}

func runNbdcopy(b *testing.B, u URI) spent {
	start := time.Now()
	cmd := exec.Command("nbdcopy", u.String(), "null:")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("nbdcopy: %v\n%s", err, out)
	}
	return spent{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

func ownCPU(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func median[T cmp.Ordered](d []T) T {
	slices.Sort(d)
	return d[len(d)/2]
}

// readAll does what nbdcopy does: connects, skips holes, reads the rest.
func readAll(b *testing.B, u URI) spent {
	start, cpu := time.Now(), ownCPU(b)
	c, err := Open(b.Context(), Config{URI: u})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	const workers, step = 4, 1 << 20
	work := make(chan cbt.Extent, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			p := make([]byte, step)
			for e := range work {
				if _, err := c.ReadAt(p[:e.Len], e.Off); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for off := int64(0); off < c.Size(); {
		e, err := c.NextData(off)
		if err != nil {
			break // io.EOF: holes to the end
		}
		for off = e.Off; off < e.End(); off += step {
			work <- cbt.Extent{Off: off, Len: min(step, e.End()-off)}
		}
		off = e.End()
	}
	close(work)
	wg.Wait()
	return spent{time.Since(start), ownCPU(b) - cpu}
}

// BenchmarkRead4K is many small reads at once.
func BenchmarkRead4K(b *testing.B) {
	s := nbdtest.Unix(b, "nbdkit", "-f", "memory", "64M")
	u, err := ParseURI(s.URI)
	if err != nil {
		b.Fatal(err)
	}
	c, err := Open(b.Context(), Config{URI: u})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	b.SetBytes(4096)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, 4096)
		for off := int64(0); pb.Next(); off = (off + 4096) % (64 << 20) {
			if _, err := c.ReadAt(p, off); err != nil {
				b.Error(err)
			}
		}
	})
}
