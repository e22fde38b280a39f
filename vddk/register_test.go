package vddk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/vddk"
)

// TestRegister: a scheme has no driver until a program gives it one, and keeps it.
func TestRegister(t *testing.T) {
	_, err := vddk.ParseURI("osd://px/vol-1")
	if err == nil || !strings.Contains(err.Error(), "not registered") {
		t.Errorf("osd without a driver: %v", err)
	}
	if _, err := vddk.ParseURI("registertest://a"); err == nil || !strings.Contains(err.Error(), "unknown scheme") || !strings.Contains(err.Error(), "osd://profile/volume") {
		t.Errorf("before: %v", err)
	}
	scheme := fmt.Sprintf("registertest%d", rand.Uint64()) // a process keeps it, also for -count=2
	errOpened, errBad := errors.New("opened"), errors.New("bad text")
	var opened string
	vddk.Register(scheme, vddk.Driver{
		Parse: func(text string) error {
			if strings.HasSuffix(text, "bad") {
				return errBad
			}
			return nil
		},
		Open: func(_ context.Context, text string, _ vddk.Options) (vddk.Disk, error) {
			opened = text
			return nil, errOpened
		},
	})
	u, err := vddk.ParseURI(strings.ToUpper(scheme) + "://a/b")
	if want := (vddk.URI{Scheme: scheme, Text: strings.ToUpper(scheme) + "://a/b"}); err != nil || u != want || u.Local() || u.CanCreate() || u.String() != want.Text {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := vddk.ParseURI(scheme + "://p:secret@h/bad"); !errors.Is(err, errBad) || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bad text: %v", err)
	}
	if _, err := vddk.Open(t.Context(), scheme+"://a", vddk.Options{}); !errors.Is(err, errOpened) || opened != scheme+"://a" {
		t.Errorf("Open: %v, %q", err, opened)
	}
	if _, err := vddk.Open(t.Context(), scheme+"://a", vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1}); !errors.Is(err, vddk.ErrKind) {
		t.Errorf("create: %v", err)
	}
	for _, taken := range []string{scheme, "file", "nbd", "vddk"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Register of %s twice", taken)
				}
			}()
			vddk.Register(taken, vddk.Driver{Parse: func(string) error { return nil }, Open: func(context.Context, string, vddk.Options) (vddk.Disk, error) { return nil, nil }})
		}()
	}
}

// TestOpenAt: the descriptor counts, not what the path leads to by now.
func TestOpenAt(t *testing.T) {
	dir := t.TempDir()
	path := newImage(t, dir, noise(8192))
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := vddk.OpenAt(t.Context(), path, fd, vddk.Options{Mode: vddk.ReadWrite})
	if err != nil {
		t.Fatal(err)
	}
	if d.Size() != 8192 {
		t.Errorf("%d bytes: the other file was opened", d.Size())
	}
	wantLocked(t, path+".moved", vddk.ReadWrite)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := vddk.OpenAt(t.Context(), path, fd, vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1}); !errors.Is(err, vddk.ErrKind) {
		t.Errorf("create: %v", err)
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	if _, err := vddk.OpenAt(t.Context(), dir, at, vddk.Options{}); !errors.Is(err, vddk.ErrKind) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := vddk.OpenAt(t.Context(), "x", -1, vddk.Options{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
}
