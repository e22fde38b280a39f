package hooks

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/config"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

func reset(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// program is a call of a script that writes numbers of processes to dir.
func program(dir, script string, timeout time.Duration) *config.Call {
	return &config.Call{Command: []string{"/bin/sh", "-c", script, "sh", dir}, Timeout: timeout}
}

// await waits until ok. What it waits for takes milliseconds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("waiting for " + what)
		}
	}
}

// pid is the number that a script has written to a file.
func pid(t *testing.T, path string) (n int) {
	t.Helper()
	await(t, path, func() bool {
		n, _ = strconv.Atoi(strings.TrimSpace(read(t, path)))
		return n > 0
	})
	return n
}

// ended waits for a process to be gone, or a zombie that nobody reaps.
func ended(t *testing.T, n int) {
	t.Helper()
	await(t, "the end of "+strconv.Itoa(n), func() bool {
		text := read(t, "/proc/"+strconv.Itoa(n)+"/stat")
		_, rest, _ := strings.Cut(text, ") ")
		return text == "" || strings.HasPrefix(rest, "Z") || unix.Kill(n, 0) == unix.ESRCH
	})
}

func TestProgramTimesOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script string }{
		{"it waits", `sleep 1000 & echo $! >"$1/child"; echo working; wait`},
		{"its child waits", `(echo $$ >"$1/child"; exec sleep 1000); echo never`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error, 1)
			go func() { done <- run(ctx, program(dir, c.script, time.Hour), nil, nil, nil) }()
			child := pid(t, dir+"/child")
			cancel(errTimeout) // as if the hour were over
			if err := <-done; err == nil || !strings.Contains(err.Error(), "did not end within 1h0m0s and was killed") {
				t.Errorf("got %v", err)
			}
			ended(t, child)
		})
	}
}

// TestProgramIsStubborn: what ignores SIGTERM is killed, and its child.
func TestProgramIsStubborn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: takes the 5 s that a program has after SIGTERM")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, program(dir, `trap "" TERM; sh -c 'trap "" TERM; echo $$ >"$0/child"; while :; do sleep 1; done' "$1"`, time.Hour), nil, nil, nil)
	}()
	child := pid(t, dir+"/child")
	cancel(errors.New("the daemon stops"))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "the daemon stops, so it was killed") {
		t.Errorf("got %v", err)
	}
	ended(t, child)
}

// TestProgramLeavesSomething: what a program leaves in its group ends with it, and
// what holds its output open in a session of its own does not hold us.
func TestProgramLeavesSomething(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := run(t.Context(), program(dir, `sleep 1000 & echo $! >"$1/child"`, time.Hour), nil, nil, nil); err != nil {
		t.Error(err)
	}
	ended(t, pid(t, dir+"/child"))
	dir = t.TempDir()
	if err := run(t.Context(), program(dir, `setsid sh -c 'echo $$ >"$0/child"; exec sleep 1000' "$1" & while ! test -s "$1/child"; do :; done`, time.Hour), nil, nil, nil); err != nil {
		t.Error(err)
	}
	child := pid(t, dir+"/child")
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Errorf("it is not ours to end: %v", err)
	}
}

func TestProgramFails(t *testing.T) {
	t.Parallel()
	gone := &config.Call{Command: []string{t.TempDir() + "/gone"}, Timeout: time.Hour}
	if err := run(t.Context(), gone, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), "chmod +x") {
		t.Errorf("got %v", err)
	}
	// It reads nothing of an input that is larger than a pipe.
	if err := run(t.Context(), program("", "exit 0", time.Hour), nil, make([]byte, 1<<20), nil); err != nil {
		t.Errorf("a program that does not read: %v", err)
	}
	if err := run(t.Context(), program("", "kill -9 $$", time.Hour), nil, nil, nil); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
	over := program("", "exit 0", time.Nanosecond)
	if err := run(t.Context(), over, nil, nil, nil); err == nil {
		t.Error("no time, and it ran")
	}
}
