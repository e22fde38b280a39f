package vddk_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/vddk"
)

// holdEnv makes the test binary a program that opens a disk and holds it until
// its standard input ends.
const holdEnv = "VDDK_TEST_HOLD"

func TestMain(m *testing.M) {
	if uri := os.Getenv(holdEnv); uri != "" {
		os.Exit(hold(uri))
	}
	code := m.Run()
	vddkKit.Remove()
	os.Exit(code)
}

func hold(uri string) int {
	mode, path, _ := strings.Cut(uri, " ")
	opts := vddk.Options{Mode: vddk.ReadOnly}
	if mode == "rw" {
		opts.Mode = vddk.ReadWrite
	}
	d, err := vddk.Open(context.Background(), path, opts)
	if err != nil {
		fmt.Println("refused:", err)
		return 1
	}
	fmt.Println("held")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the test lets go
	d.Close()
	return 0
}

// startHolder runs another process that holds the disk; the returned command
// is killed at the end of the test.
func startHolder(t *testing.T, mode, uri string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+mode+" "+uri)
	out, err1 := cmd.StdoutPipe()
	_, err2 := cmd.StdinPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead already
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("holder: got %q, %v", line, err)
	}
	return cmd
}

// wantHeld: a second process keeps us out, even stopped, until it is dead.
func wantHeld(t *testing.T, uri string) {
	t.Helper()
	holder := startHolder(t, "rw", uri)
	for _, mode := range []vddk.Mode{vddk.ReadWrite, vddk.ReadOnly} {
		wantLocked(t, uri, mode)
	}
	if err := holder.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wantLocked(t, uri, vddk.ReadWrite)
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed: always an error
	open(t, uri, vddk.ReadWrite).Close()

	startHolder(t, "ro", uri)
	wantLocked(t, uri, vddk.ReadWrite)
	open(t, uri, vddk.ReadOnly).Close()
}

func wantLocked(t *testing.T, uri string, mode vddk.Mode) *vddk.LockedError {
	t.Helper()
	d, err := vddk.Open(t.Context(), uri, vddk.Options{Mode: mode})
	if err == nil {
		d.Close()
	}
	locked, ok := errors.AsType[*vddk.LockedError](err)
	if !ok || !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "fuser") && !strings.Contains(err.Error(), "losetup") {
		t.Errorf("open %s (mode %d): got %v, want a LockedError with a remedy", uri, mode, err)
		return &vddk.LockedError{}
	}
	return locked
}

func TestFileHeldByAnotherProcess(t *testing.T) {
	wantHeld(t, newImage(t, t.TempDir(), noise(4096)))
}

// TestFileHolderIsNamed: locks of the old kind carry the process.
func TestFileHolderIsNamed(t *testing.T) {
	path := newImage(t, t.TempDir(), noise(4096))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	locked := wantLocked(t, path, vddk.ReadWrite)
	if want := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(locked.By, want) {
		t.Errorf("holder: got %q, want it to name %s", locked.By, want)
	}
}
