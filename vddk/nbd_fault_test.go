package vddk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// retryable is the question that the engine asks of an error.
func retryable(err error) bool {
	class, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	return ok && class.Retryable()
}

// openServer opens what the server exports, and closes it in the end.
func openServer(t *testing.T, s *nbdtest.Server, opts vddk.Options) vddk.Disk {
	t.Helper()
	d, err := vddk.OpenNBD(t.Context(), s.URI, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestNBDServerErrors(t *testing.T) {
	for _, c := range []struct {
		name, inject string
		use          func(vddk.Disk) error
		want         error
		retry        bool
	}{
		{"read EIO", "error-pread=EIO", readSome, syscall.EIO, false},
		{"read ENOMEM", "error-pread=ENOMEM", readSome, syscall.ENOMEM, true},
		{"read ESHUTDOWN", "error-pread=ESHUTDOWN", readSome, syscall.ESHUTDOWN, true},
		{"write ENOSPC", "error-pwrite=ENOSPC", writeSome, syscall.ENOSPC, false},
		{"write EPERM", "error-pwrite=EPERM", writeSome, syscall.EPERM, false},
		{"zero EIO", "error-zero=EIO", zeroSome, syscall.EIO, false},
		{"map EIO", "error-extents=EIO", mapSome, syscall.EIO, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := nbdtest.Unix(t, "nbdkit", "-f", "--filter=error", "memory", "64M", c.inject, strings.Split(c.inject, "=")[0]+"-rate=100%")
			d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
			err := c.use(d)
			if !errors.Is(err, c.want) || retryable(err) != c.retry {
				t.Errorf("got %v, retryable %v, want %v, %v", err, retryable(err), c.want, c.retry)
			}
			if err := d.Flush(); err != nil {
				t.Errorf("the connection does not go on: flush: %v", err)
			}
		})
	}
}

func readSome(d vddk.Disk) error  { _, err := d.ReadAt(make([]byte, 3<<20), 1<<20+5); return err }
func writeSome(d vddk.Disk) error { _, err := d.WriteAt(make([]byte, 3<<20), 1<<20+5); return err }
func zeroSome(d vddk.Disk) error {
	return d.Zero(cbt.Extent{Off: 5, Len: 50 << 20}, cbt.Deallocate)
}
func mapSome(d vddk.Disk) error { _, err := d.NextData(0); return err }

// TestNBDFirstFailure: n says how far a transfer is good, and the error where
// it is not.
func TestNBDFirstFailure(t *testing.T) {
	nbdtest.Need(t, "nbdkit")
	s := nbdtest.Unix(t, "nbdkit", "-f", "eval", "get_size=echo 4M", "can_write=exit 0", "can_flush=exit 0",
		`pread=if [ $4 -ge 2097152 ]; then echo EIO bad sector >&2; exit 1; fi; head -c $3 /dev/zero | tr '\0' A`)
	d := openServer(t, s, vddk.Options{})
	p := make([]byte, 4<<20)
	n, err := d.ReadAt(p, 0)
	if !errors.Is(err, syscall.EIO) || n != 2<<20 || !bytes.Equal(p[:n], bytes.Repeat([]byte{'A'}, n)) {
		t.Errorf("read with EIO from 2 MiB on: got %d, %v", n, err)
	}
	if !strings.Contains(err.Error(), "[2097152") {
		t.Errorf("the error does not say where: %v", err)
	}
}

// TestNBDFlushSticks: after a failed flush nothing is written any more, though
// the server would.
func TestNBDFlushSticks(t *testing.T) {
	trigger := filepath.Join(t.TempDir(), "trigger")
	s := nbdtest.Unix(t, "nbdkit", "-f", "eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 0",
		"pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null", "flush=if [ -e "+trigger+" ]; then echo EIO >&2; exit 1; fi")
	d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trigger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("flush that fails: got %v, want EIO", err)
	}
	if err := os.Remove(trigger); err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]func() error{
		"flush": d.Flush,
		"write": func() error { _, err := d.WriteAt([]byte("x"), 0); return err },
		"zero":  func() error { return d.Zero(cbt.Extent{Len: 4096}, cbt.Keep) },
	} {
		if err := use(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s after a failed flush: got %v, want the EIO", name, err)
		}
	}
	if _, err := d.ReadAt(make([]byte, 10), 0); err != nil {
		t.Errorf("read after a failed flush: %v", err)
	}
}

func TestNBDNeedsFlushOrFUA(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 3", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null")
	if d, err := vddk.OpenNBD(t.Context(), s.URI, vddk.Options{Mode: vddk.ReadWrite}); err == nil || !strings.Contains(err.Error(), "neither FLUSH nor FUA") {
		t.Errorf("write to an export without FLUSH and FUA: got %v, %v", d, err)
	}
	d := openServer(t, s, vddk.Options{})
	if err := readSome2(d); err != nil {
		t.Errorf("read it: %v", err)
	}
}

func readSome2(d vddk.Disk) error { _, err := d.ReadAt(make([]byte, 1<<19), 5); return err }

// TestNBDFUAInsteadOfFlush: without FLUSH every write says FUA.
func TestNBDFUAInsteadOfFlush(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s := nbdtest.Unix(t, "nbdkit", "-f", "eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 3", "can_fua=echo native", "can_zero=exit 0",
		"pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null; echo write $3 $4 flags $5 >>"+log, "zero=echo zero $3 $4 flags $5 >>"+log)
	d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
	_, err1 := d.WriteAt([]byte("hello"), 100)
	err2 := d.Zero(cbt.Extent{Off: 4096, Len: 8192}, cbt.Deallocate)
	if err := errors.Join(err1, err2, d.Flush()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if want := "write 5 100 flags fua\nzero 8192 4096 flags fua,may_trim\n"; err != nil || string(got) != want {
		t.Errorf("the server saw %q, %v, want %q", got, err, want)
	}
}

// TestNBDKilled: a server that dies with requests under way fails them all, as
// retryable, and nothing hangs or touches a buffer later.
func TestNBDKilled(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		use  func(vddk.Disk) error
	}{
		{"read", []string{"delay-read=3600"}, readSome},
		{"write", []string{"delay-write=3600"}, writeSome},
		{"zero", []string{"delay-zero=3600", "delay-write=3600"}, zeroSome},
		{"map", []string{"delay-extents=3600"}, mapSome},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := nbdtest.Unix(t, "nbdkit", append([]string{"-f", "--filter=delay", "memory", "64M"}, c.args...)...)
			d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := c.use(d); !retryable(err) {
						t.Errorf("killed in the middle: got %v, want a retryable error", err)
					}
				})
			}
			if c.name != "read" { // that nobody waits for: the delay is for reads only there
				readSome2(d)
			}
			s.Kill()
			wg.Wait()
			for name, use := range map[string]func() error{"flush": d.Flush, "check": d.Check, "read": func() error { return readSome(d) }} {
				if err := use(); !retryable(err) {
					t.Errorf("%s after the server is gone: got %v, want a retryable error", name, err)
				}
			}
		})
	}
}

// TestNBDCloseUnblocks: Close ends calls that wait for a server that does not answer.
func TestNBDCloseUnblocks(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "--filter=delay", "memory", "64M", "delay-read=3600")
	d := openServer(t, s, vddk.Options{})
	started, ended := make(chan struct{}, 8), make(chan error, 8)
	for range 8 {
		go func() {
			started <- struct{}{}
			ended <- readSome(d)
		}()
	}
	for range 8 {
		<-started
	}
	d.Close()
	for range 8 {
		if err := <-ended; err == nil {
			t.Error("read of a server that never answers: no error")
		}
	}
}

func TestNBDNoServer(t *testing.T) {
	s := nbdtest.TCP(t, "nbdkit", "-f", "null", "1M")
	s.Kill()
	_, err := vddk.OpenNBD(t.Context(), s.URI, vddk.Options{})
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) || !retryable(err) {
		t.Errorf("no server: got %v, retryable %v", err, retryable(err))
	}
}

// TestNBDCheckwrite: nbdkit compares what is written with what is there.
func TestNBDCheckwrite(t *testing.T) {
	content := make([]byte, 3<<20+4096)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(content) // never fails
	clear(content[1<<20 : 2<<20])
	s := nbdtest.Unix(t, "nbdkit", nbdArgs(t, []string{"-f", "--filter=checkwrite", "file", "IMG"}, content)...)
	d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
	_, err1 := d.WriteAt(content, 0)
	err2 := d.Zero(cbt.Extent{Off: 1<<20 + 7, Len: 1<<20 - 100}, cbt.Keep)
	if err := errors.Join(err1, err2); err != nil {
		t.Errorf("write what is there: %v", err)
	}
	if _, err := d.WriteAt([]byte{^content[77]}, 77); !errors.Is(err, syscall.EIO) {
		t.Errorf("write something else: got %v, want EIO", err)
	}
	if err := d.Zero(cbt.Extent{Off: 1<<20 - 1, Len: 2}, cbt.Keep); !errors.Is(err, syscall.EIO) {
		t.Errorf("zero something else: got %v, want EIO", err)
	}
}
