//go:build linux && amd64 && cgo

package vix_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/vddk/vix"
	"github.com/haulback/haulback/vddk/vix/vixtest"
)

// The library can be loaded once in a process, so every test runs a client: this
// program again, with the name of a scenario in the environment.
const clientEnv, clientDir, fileEnv = "VIX_TEST_CLIENT", "VIX_TEST_LIBDIR", "VIX_TEST_FILE"

func init() { runtime.LockOSThread() } // the main goroutine stays on the main thread

func TestMain(m *testing.M) {
	if name := os.Getenv(clientEnv); name != "" {
		os.Exit(client(name, os.Getenv(clientDir)))
	}
	code := m.Run()
	kit.Remove()
	os.Exit(code)
}

// client loads the library and runs a scenario beside the calls of the main
// thread. Log lines go to standard output.
func client(name, dir string) int {
	var mu sync.Mutex
	lib, err := vix.Load(vix.Config{LibDir: dir, Log: func(level vix.Level, line string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("log %d %s\n", level, line)
	}})
	if err == nil {
		result := make(chan error)
		go func() {
			err := scenarios[name](lib)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err = errors.Join(err, lib.Close(ctx))
			result <- err
		}()
		lib.Run()
		err = <-result
	}
	if err != nil {
		fmt.Println("FAILED:", err)
		return 1
	}
	return 0
}

// run runs a scenario and returns what it said.
func run(t *testing.T, lib *vixtest.Library, scenario string) (string, error) {
	t.Helper()
	return runIn(t, lib.Dir, scenario)
}

func runIn(t *testing.T, dir, scenario string) (string, error) {
	t.Helper()
	if scenarios[scenario] == nil {
		t.Fatalf("no scenario %q", scenario)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientEnv+"="+scenario, clientDir+"="+dir, "LD_LIBRARY_PATH="+dir+"/lib64")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustRun is run that has to succeed.
func mustRun(t *testing.T, lib *vixtest.Library, scenario string) string {
	t.Helper()
	out, err := run(t, lib, scenario)
	if err != nil {
		t.Fatalf("%s: %v\n%s", scenario, err, out)
	}
	return out
}

const diskName = "[ds 1] vm/vm.vmdk"

func params() vix.Params {
	return vix.Params{Server: "host", VM: "vm-42", Thumbprint: vixtest.Thumbprint, User: "root", Password: "secret-of-the-test"}
}

func target() vix.Target { return vix.Target{Path: diskName, Transports: "nbdssl:nbd"} }

var scenarios = map[string]func(*vix.Library) error{
	"copy":      copyScenario,
	"map":       mapScenario,
	"allocate":  allocateScenario,
	"busy":      busyScenario,
	"open":      openScenario,
	"read":      readScenario,
	"flush":     flushScenario,
	"refuse":    refuseScenario,
	"access":    accessScenario,
	"zero":      zeroScenario,
	"strange":   strangeScenario,
	"closed":    closedScenario,
	"read only": readOnlyScenario,
	"cookie":    cookieScenario,
	"cancel":    cancelScenario,

	"stuck in Open":      stuckScenario("Open"),
	"stuck in ReadAsync": stuckScenario("ReadAsync"),
	"stuck in ConnectEx": stuckScenario("ConnectEx"),

	"wrong hole":  wrongHoleScenario,
	"many writes": manyWritesScenario,
}

func with(lib *vix.Library, t vix.Target, use func(*vix.Disk) error) error {
	d, err := lib.Open(context.Background(), params(), t)
	if err != nil {
		return err
	}
	return errors.Join(use(d), d.Close(), d.Close())
}

// copyScenario fills the disk from many goroutines and reads it back.
func copyScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		want := noise(int(d.Size()))
		fmt.Println("mode", d.TransportMode(), "modes", lib.TransportModes(), "version", lib.Version())
		if err := parallel(want, d.WriteAt); err != nil {
			return err
		}
		if err := d.Flush(); err != nil {
			return err
		}
		got := make([]byte, len(want))
		if err := parallel(got, d.ReadAt); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errors.New("what was read is not what was written")
		}
		whole := make([]byte, len(want)) // more pieces than slots
		if n, err := d.ReadAt(whole, 0); n != len(want) || err != nil || !bytes.Equal(whole, want) {
			return fmt.Errorf("read of all: %d, %w", n, err)
		}
		return nil
	})
}

// busyScenario reads, writes and flushes while the map of a large disk is asked
// for.
func busyScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		var wg sync.WaitGroup
		end := make(chan struct{})
		failures := make(chan error, 8)
		p := noise(64 << 10)
		for w, work := range []func() error{
			func() error { _, err := d.ReadAt(make([]byte, 64<<10), 0); return err },
			func() error { _, err := d.ReadAt(make([]byte, 64<<10), 1<<30); return err },
			func() error { _, err := d.WriteAt(p, 2<<30); return err },
			d.Flush,
		} {
			wg.Go(func() {
				for {
					if err := work(); err != nil {
						failures <- fmt.Errorf("worker %d: %w", w, err)
						return
					}
					select {
					case <-end:
						return
					default:
					}
				}
			})
		}
		var err error
		for off := int64(0); err == nil && off < d.Size(); off += d.Size() / 32 {
			_, err = d.NextData(off)
			if err == io.EOF && off > 2<<30 {
				err = nil
			}
		}
		close(end)
		wg.Wait()
		close(failures)
		return errors.Join(err, <-failures)
	})
}

func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(p) // never fails
	return p
}

// parallel moves p by io from 8 goroutines in pieces of odd numbers of sectors.
func parallel(p []byte, io func([]byte, int64) (int, error)) error {
	const step = 77 * vix.SectorSize
	var wg sync.WaitGroup
	failures := make(chan error, 8)
	for w := range 8 {
		wg.Go(func() {
			for off := w * step; off < len(p); off += 8 * step {
				n := min(step, len(p)-off)
				if m, err := io(p[off:off+n], int64(off)); m != n || err != nil {
					failures <- fmt.Errorf("%d of %d bytes at %d: %w", m, n, off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(failures)
	return <-failures
}

// allocateScenario: a request allocates nothing, once its goroutine has run.
func allocateScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		p := make([]byte, 5<<20) // three pieces
		var failure error
		n := testing.AllocsPerRun(50, func() {
			_, err1 := d.WriteAt(p, 0)
			_, err2 := d.ReadAt(p, 512)
			failure = errors.Join(failure, err1, err2)
		})
		if n >= 1 {
			return fmt.Errorf("%v allocations a request", n)
		}
		return failure
	})
}

// mapScenario prints the extents with data.
func mapScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		for off := int64(0); ; {
			e, err := d.NextData(off)
			if err != nil {
				fmt.Println("end", err)
				return nil
			}
			fmt.Println("data", e.Off, e.Len)
			off = e.End()
		}
	})
}

// openScenario prints how the open failed.
func openScenario(lib *vix.Library) error {
	return report(with(lib, target(), func(*vix.Disk) error { return nil }))
}

// report prints an error's class and text.
func report(err error) error {
	r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	fmt.Printf("retryable=%v %v\n", ok && r.Retryable(), err)
	if err != nil && strings.Contains(err.Error(), "secret") {
		return errors.New("the error has the password in it")
	}
	return nil
}

func readScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		p := make([]byte, 1<<20)
		for range 3 {
			_, err := d.ReadAt(p, 0)
			if err := report(err); err != nil {
				return err
			}
		}
		return nil
	})
}

func flushScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		p := make([]byte, 4096)
		_, err := d.WriteAt(p, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(report(d.Flush()), report(d.Flush())); err != nil {
			return err
		}
		_, err = d.WriteAt(p, 0)
		if err := report(err); err != nil {
			return err
		}
		_, err = d.ReadAt(p, 0)
		return err
	})
}

func refuseScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		for _, c := range []struct{ off, n int64 }{{1, 512}, {0, 511}, {-512, 512}, {d.Size(), 512}, {d.Size() - 512, 1024}, {1 << 62, 512}} {
			if n, err := d.ReadAt(make([]byte, c.n), c.off); n != 0 || err == nil {
				return fmt.Errorf("read %v: %d, %w", c, n, err)
			}
			if n, err := d.WriteAt(make([]byte, c.n), c.off); n != 0 || err == nil {
				return fmt.Errorf("write %v: %d, %w", c, n, err)
			}
		}
		n, err := d.ReadAt(nil, d.Size())
		if n != 0 || err != nil {
			return fmt.Errorf("empty read: %d, %w", n, err)
		}
		return nil
	})
}

// stuckScenario waits until the watchdog names the call that hangs. Before it may
// name others, which are slow.
func stuckScenario(call string) func(lib *vix.Library) error {
	return func(lib *vix.Library) error {
		go with(lib, target(), func(d *vix.Disk) error {
			_, err := d.ReadAt(make([]byte, 4096), 0)
			return err
		})
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			err := lib.Stuck(50*time.Millisecond, 50*time.Millisecond)
			if err != nil && strings.Contains(err.Error(), "_"+call+" ") || time.Now().After(end) {
				fmt.Println(err)
				os.Exit(0) // nothing else ends a call that hangs
			}
		}
	}
}

func accessScenario(lib *vix.Library) error {
	ctx := context.Background()
	err := errors.Join(
		report(lib.Prepare(ctx, params(), "haulback-1")),
		report(lib.EndAccess(ctx, params(), "haulback-1")),
		report(lib.EndAccess(ctx, params(), "haulback-2")))
	if lib.Prepare(ctx, params(), strings.Repeat("x", 51)) == nil {
		return errors.New("an identity of 51 bytes was taken")
	}
	return err
}

func zeroScenario(lib *vix.Library) error {
	return with(lib, target(), zeroDisk)
}

// strangeScenario is for the other library.
func strangeScenario(lib *vix.Library) error {
	other := target()
	other.Path, other.ReadOnly = "strange", true
	_, err := lib.Open(context.Background(), params(), other)
	_ = report(err)
	read := target()
	read.ReadOnly = true
	return with(lib, read, func(d *vix.Disk) error {
		fmt.Printf("mode %q modes %q size %d\n", d.TransportMode(), lib.TransportModes(), d.Size())
		_, err := d.ReadAt(make([]byte, 4096), 2000*512)
		_ = report(err)
		e, err := d.NextData(512)
		fmt.Println("data", e.Off, e.Len, err)
		_, err = d.ReadAt(make([]byte, 4096), 4096)
		return errors.Join(err, report(with(lib, target(), copyBack)))
	})
}

func copyBack(d *vix.Disk) error {
	p, q := noise(64<<10), make([]byte, 64<<10)
	_, err1 := d.WriteAt(p, 0)
	_, err2 := d.ReadAt(q, 0)
	if !bytes.Equal(p, q) {
		return errors.New("not what was written")
	}
	return errors.Join(err1, err2, d.Flush())
}

func closedScenario(lib *vix.Library) error {
	d, err := lib.Open(context.Background(), params(), target())
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for range 8 { // calls under way are waited for, later ones are refused
		wg.Go(func() {
			for {
				if _, err := d.ReadAt(make([]byte, 1<<20), 0); err != nil {
					return
				}
			}
		})
	}
	err = d.Close()
	wg.Wait()
	if d.Flush() == nil || d.Close() != nil {
		return errors.New("a closed disk was used")
	}
	return err
}

func readOnlyScenario(lib *vix.Library) error {
	t := target()
	t.ReadOnly = true
	return with(lib, t, func(d *vix.Disk) error {
		if _, err := d.WriteAt(make([]byte, 512), 0); err == nil {
			return errors.New("a write to a disk opened for reading")
		}
		if d.Flush() == nil || zeroDisk(d) == nil {
			return errors.New("flush or zero of a disk opened for reading")
		}
		_, err := d.ReadAt(make([]byte, 512), 0)
		return err
	})
}

func cookieScenario(lib *vix.Library) error {
	p := params()
	p.User, p.Password, p.Cookie = "", "", "a-session"
	d, err := lib.Open(context.Background(), p, target())
	if err != nil {
		return report(err)
	}
	return errors.Join(report(nil), d.Close())
}

func cancelScenario(lib *vix.Library) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // whether its turn comes first is a race; both are right
		if d, err := lib.Open(ctx, params(), target()); err == nil {
			_ = d.Close()
		} else if !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}
