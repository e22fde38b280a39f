package audit

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLostWhileOpen is a log that somebody changes under the process that
// appends to it. What that process has acknowledged is there, or verify says that
// it is not; and what it acknowledges from then on is there in any case.
func TestLostWhileOpen(t *testing.T) {
	replace := func(t *testing.T, dir string, text []string) {
		path := filepath.Join(dir, "new")
		store(t, path, text)
		if err := os.Rename(path, filepath.Join(dir, first)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, dir string, names ...string) {
		for _, name := range names {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string, l []string)
		ok   bool
	}{
		{"nothing", func(*testing.T, string, []string) {}, true},
		{"the same in another file", func(t *testing.T, dir string, l []string) { replace(t, dir, l) }, true},
		{"cut", func(t *testing.T, dir string, l []string) { store(t, filepath.Join(dir, first), l[:5]) }, false},
		{"cut in another file", func(t *testing.T, dir string, l []string) { replace(t, dir, l[:5]) }, false},
		{"deleted", func(t *testing.T, dir string, l []string) { remove(t, dir, first) }, false},
		{"all deleted", func(t *testing.T, dir string, l []string) { remove(t, dir, first, headFile, "lock") }, false},
		{"another log", func(t *testing.T, dir string, l []string) {
			b, err := os.ReadFile(filepath.Join(made(t, len(l)+5), first))
			if err != nil || os.WriteFile(filepath.Join(dir, first), b, 0o600) != nil {
				t.Fatal(err)
			}
		}, false},
		{"the end written anew", func(t *testing.T, dir string, l []string) {
			r, err := parse([]byte(strings.TrimSuffix(l[4], "\n")))
			if err != nil {
				t.Fatal(err)
			}
			l = l[:5]
			for seq, prev := r.Seq+1, r.Hash; seq < 20; seq++ {
				b, h, err := line(seq, clean0, Entry{Actor: "uid 0", Action: "innocent"}, prev)
				if err != nil {
					t.Fatal(err)
				}
				l, prev = append(l, string(b)), h
			}
			store(t, filepath.Join(dir, first), l)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, 1)
			add(t, l, 10)
			c.do(t, dir, lines(t, filepath.Join(dir, first)))
			for i := range 70 { // more than from one head to the next
				if err := l.Append(t.Context(), Entry{Actor: "uid 0", Action: "later", Object: fmt.Sprint(i)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			later := 0
			res := verify(t, dir, Check{Trusted: key(1).trusted, Each: func(r Record) {
				if r.Action == "later" {
					later++
				}
			}})
			if ok := len(res.Problems) == 0; ok != c.ok || later != 70 {
				t.Fatalf("%d of 70 later records are there; problems %v", later, res.Problems)
			}
			// Once is enough: who opens it again has nothing to say.
			if err := open(t, dir, 1).Close(); err != nil {
				t.Fatal(err)
			}
			if again := verify(t, dir, Check{Trusted: key(1).trusted}); len(again.Problems) != len(res.Problems) {
				t.Fatalf("%v, before %v", again.Problems, res.Problems)
			}
		})
	}
}

// TestLostWhileClosed is the same between two openings.
func TestLostWhileClosed(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string, l []string)
	}{
		{"the head file deleted", func(t *testing.T, dir string, _ []string) { os.Remove(filepath.Join(dir, headFile)) }},
		{"all but the head file deleted", func(t *testing.T, dir string, _ []string) { os.Remove(filepath.Join(dir, first)) }},
		{"what the head signs written anew", func(t *testing.T, dir string, l []string) {
			r, err := parse([]byte(strings.TrimSuffix(l[4], "\n")))
			if err != nil {
				t.Fatal(err)
			}
			l = l[:5]
			for seq, prev := r.Seq+1, r.Hash; seq < 30; seq++ { // more than there were
				b, h, err := line(seq, clean0, Entry{Actor: "uid 0", Action: "innocent"}, prev)
				if err != nil {
					t.Fatal(err)
				}
				l, prev = append(l, string(b)), h
			}
			store(t, filepath.Join(dir, first), l)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := made(t, 10)
			c.do(t, dir, lines(t, filepath.Join(dir, first)))
			l := open(t, dir, 1)
			add(t, l, 70)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if res := verify(t, dir, Check{Trusted: key(1).trusted}); len(res.Problems) == 0 || !strings.Contains(res.Problems[0].Text, "found cut, or exchanged") {
				t.Fatalf("%v", res.Problems)
			}
		})
	}
}

// TestEmptied is a log of which nothing is left: that is not "unchanged".
func TestEmptied(t *testing.T) {
	dir := made(t, 3)
	for _, name := range []string{first, headFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if res := verify(t, dir, Check{Trusted: key(1).trusted}); len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Text, "no record at all") {
		t.Fatalf("%v", res.Problems)
	}
}

// TestFirstHead is a crash between the first record and its head.
func TestFirstHead(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 1)
	add(t, l, 1)
	path := filepath.Join(dir, first)
	store(t, path, lines(t, path)[:1])
	if err := os.Remove(filepath.Join(dir, headFile)); err != nil {
		t.Fatal(err)
	}
	next := open(t, dir, 1)
	add(t, next, 1)
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if res := verify(t, dir, Check{Trusted: key(1).trusted}); len(res.Problems)+len(res.Notes) > 0 {
		t.Fatalf("%+v", res)
	}
}

// TestKilled kills a process that appends, again and again: every record that it
// has acknowledged is there, and nobody is accused.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("HAULBACK_AUDIT_TEST_KILL"); dir != "" {
		l, err := Open(dir, key(1))
		if err == nil {
			l.limit = 2 << 10 // files follow each other, too
		}
		for err == nil {
			if err = l.Append(context.Background(), Entry{Actor: "uid 0", Action: "acknowledged"}); err == nil {
				os.Stdout.Write([]byte("."))
			}
		}
		t.Fatal(err)
	}
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	dir := t.TempDir()
	known := 0
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "HAULBACK_AUDIT_TEST_KILL="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + round%7 { // it is in the middle of something after any of them
			if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			known++
		}
		time.AfterFunc(time.Duration(round*37%1000)*time.Microsecond, func() { _ = cmd.Process.Kill() })
		rest, _ := io.ReadAll(out) // what it has acknowledged until it was dead
		known += len(rest)
		_ = cmd.Wait() // killed
	}
	there := 0
	res := verify(t, dir, Check{Trusted: key(1).trusted, Each: func(r Record) {
		if r.Action == "acknowledged" {
			there++
		}
	}})
	if len(res.Problems) > 0 || there < known {
		t.Fatalf("%d records, %d acknowledged; %v", there, known, res.Problems)
	}
}

// TestLockIsHeld is a process that is stopped while it appends: who waits behind
// it is told, and goes on when the lock is given up.
func TestLockIsHeld(t *testing.T) {
	dir := made(t, 1)
	l := open(t, dir, 1)
	lock, err := os.Open(filepath.Join(dir, "lock"))
	if err == nil {
		defer lock.Close()
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- l.Append(t.Context(), Entry{Actor: "uid 0", Action: "x"}) }()
	select {
	case err := <-failed:
		if err == nil || !strings.Contains(err.Error(), "another process holds it") {
			t.Fatalf("got %v", err)
		}
	case <-time.After(10 * lockWait):
		t.Fatal("it waits for ever")
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	add(t, l, 1)
}
