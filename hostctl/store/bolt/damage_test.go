package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store"
	"go.etcd.io/bbolt"
)

// fill makes a file with some of everything, and answers its bytes and what it
// holds.
func fill(t *testing.T, path string) (data []byte, want map[string]string) {
	t.Helper()
	db := mustOpen(t, Config{Path: path})
	want = map[string]string{}
	for i := range 30 {
		key, value := fmt.Sprintf("job.%02d", i), strings.Repeat(fmt.Sprint(i), 1+i*5)
		if _, err := db.Create(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
		want[key] = value
		if err := db.Push(t.Context(), key, i%3); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Acquire(t.Context(), "engine", "somebody", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, want
}

// TestFlippedBits flips single bits of a file: it is refused, unchanged, or what
// it says is true. Never is a value another value, and never one missing.
func TestFlippedBits(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: the race detector's pointer checks end the process on a page that bbolt should refuse")
	}
	t.Parallel()
	dir := t.TempDir()
	data, want := fill(t, filepath.Join(dir, "db"))
	live := livePages(t, filepath.Join(dir, "db"))
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(dir, "flipped")
	refused, named := 0, 0
	const rounds = 400
	for range rounds {
		bad := bytes.Clone(data)
		at := live[rng.IntN(len(live))]*pageSize + rng.IntN(pageSize)
		bad[at] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(Config{Path: path, LockTimeout: 50 * time.Millisecond})
		if err != nil {
			refused++
			if _, ok := errors.AsType[*store.DamagedError](err); ok {
				named++
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
				t.Fatalf("seed %d: the message does not help: %v", seed, err)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, bad) {
				t.Fatalf("seed %d: the refused file was changed", seed)
			}
		} else {
			holds(t, db, want, fmt.Sprintf("seed %d: bit at %d", seed, at))
			_ = db.Close()
		}
		os.Remove(path) // a lock that a fault left behind goes with the inode
	}
	if refused < rounds/8 || named < rounds/20 { // many flips hit what no value is in
		t.Errorf("seed %d: of %d flips %d were refused and %d named: the test does not hit", seed, rounds, refused, named)
	}
}

// livePages are those that are in use, headers included.
func livePages(t *testing.T, path string) (live []int) {
	t.Helper()
	b, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.View(func(tx *bbolt.Tx) error {
		for i := 0; ; i++ {
			info, err := tx.Page(i)
			if err != nil || info == nil {
				return err
			}
			if info.Type != "free" {
				for n := range info.OverflowCount + 1 {
					live = append(live, i+n)
				}
				i += info.OverflowCount
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return live
}

func holds(t *testing.T, db *DB, want map[string]string, what string) {
	t.Helper()
	entries, _, err := db.List(context.Background(), "")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, e := range entries {
		if want[e.Key] != string(e.Value) {
			t.Fatalf("%s: %s is %q, want %q", what, e.Key, e.Value, want[e.Key])
		}
	}
	if len(entries) != len(want) || len(db.queue.items) != len(want) {
		t.Fatalf("%s: %d entries and %d items of %d, and nobody said so", what, len(entries), len(db.queue.items), len(want))
	}
}

// TestDamageByPlan has damage that chance seldom finds.
func TestDamageByPlan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, _ := fill(t, filepath.Join(dir, "db"))
	path := filepath.Join(dir, "x")
	for name, c := range map[string]struct {
		damage func([]byte)
		want   string
	}{
		"first header":  {func(b []byte) { b[16+48] ^= 1 }, "header 0"},
		"second header": {func(b []byte) { b[pageSize+16+48] ^= 1 }, "header 1"},
		"free list":     {func(b []byte) { b[freeList(t, filepath.Join(dir, "db"))*pageSize+16] ^= 1 }, "pages are damaged"},
		"lost value":    {nil, "something was lost"},
	} {
		bad := bytes.Clone(data)
		if c.damage != nil {
			c.damage(bad)
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.damage == nil { // a key with a flipped bit has gone from its place
			b, err := bbolt.Open(path, 0o600, nil)
			if err == nil {
				err = b.Update(func(tx *bbolt.Tx) error { return tx.Bucket(dataBucket).Delete([]byte("job.07")) })
			}
			if err == nil {
				err = b.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		db, err := Open(Config{Path: path})
		if err == nil {
			_ = db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		os.Remove(path)
	}
}

// freeList is the page of that name that the newest header points to.
func freeList(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := func(header, field int) uint64 {
		return binary.NativeEndian.Uint64(data[header*pageSize+16+field:])
	}
	newest := 0
	if at(1, 48) > at(0, 48) {
		newest = 1
	}
	page := at(newest, 32)
	if n := binary.NativeEndian.Uint16(data[page*pageSize+10:]); n == 0 {
		t.Fatal("no page is free: nothing to flip")
	}
	return int(page)
}

// TestDamageWhileOpen flips a bit under an open store: the read names the key.
func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	db := mustOpen(t, Config{Path: path})
	if _, err := db.Create(t.Context(), "job.a", []byte("a value that is easy to find")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := 0; ; at++ {
		i := bytes.Index(data[at:], []byte("easy to find"))
		if i < 0 {
			break
		}
		at += i
		if _, err := f.WriteAt([]byte{'E'}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = db.Get(t.Context(), "job.a")
	if d, ok := errors.AsType[*store.DamagedError](err); !ok || d.Key != "job.a" || errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of the damaged: %v", err)
	}
	if _, err := db.Update(t.Context(), "job.a", nil, 1); err == nil {
		t.Error("the damaged value was overwritten unseen")
	}
	for _, err := range db.Watch(t.Context(), "", 0) {
		if _, ok := errors.AsType[*store.DamagedError](err); !ok {
			t.Errorf("watch over the damaged: %v", err)
		}
		break
	}
}

// TestTruncatedWhileOpen: a file that somebody cuts off under the store breaks
// it. Nothing hangs, and the reason says that it has to be opened again.
func TestTruncatedWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	db, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := db.Create(t.Context(), fmt.Sprintf("job.%d", i), make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 2*pageSize); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := db.Create(t.Context(), fmt.Sprintf("job.new%d", i), nil); !errors.Is(err, store.ErrBroken) {
			t.Errorf("create %d: %v", i, err)
		}
		if _, err := db.Get(t.Context(), "job.7"); err == nil {
			t.Error("read a page that is not there")
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestForeignFiles are refused and stay as they are.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, _ := fill(t, filepath.Join(dir, "db"))
	other := filepath.Join(dir, "other")
	b, err := bbolt.Open(other, 0o600, &bbolt.Options{PageSize: pageSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": {}, "text": []byte("hello"), "zeros": make([]byte, 1<<16), "other bbolt": foreign,
		"cut in the headers": data[:pageSize], "cut": data[:len(data)/2], "newer": newer(t, dir),
	} {
		path := filepath.Join(dir, "x "+name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(Config{Path: path})
		if err == nil {
			_ = db.Close()
			t.Errorf("%s: was taken", name)
		} else if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "left as it is") {
			t.Errorf("%s: the message does not help: %v", name, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
			t.Errorf("%s: was changed", name)
		}
	}
	if _, err := Open(Config{Path: dir}); err == nil {
		t.Error("a directory was taken")
	}
	_, err = Open(Config{Path: filepath.Join(dir, "x empty"), What: "failback store", Without: "call for help"})
	if err == nil || !strings.HasPrefix(err.Error(), "the failback store "+dir) || !strings.HasSuffix(err.Error(), "from a backup, or call for help") {
		t.Errorf("the message is of another store: %v", err)
	}
}

// newer is a file of a later program.
func newer(t *testing.T, dir string) []byte {
	t.Helper()
	path := filepath.Join(dir, "newer")
	db := mustOpen(t, Config{Path: path})
	if err := db.update(func(tx *bbolt.Tx) error { return putNumber(tx, formatKey, version+1) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSecondOpenAndMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	mustOpen(t, Config{Path: path})
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	// Locks are of open files: a second one in this process meets the same.
	_, err := Open(Config{Path: path, LockTimeout: 20 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second open: %v", err)
	}
	if left, _ := filepath.Glob(path + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestFullDisk writes until the medium is full: that is an error, what was
// there stays, and it goes on when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); errors.Is(err, syscall.EPERM) {
		t.Skip("needs root to mount a small tmpfs")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "db")
	db := mustOpen(t, Config{Path: path})
	want := map[string]string{}
	write := func(i int) error {
		key, value := fmt.Sprintf("job.%d", i), strings.Repeat("x", 8<<10)
		_, err := db.Create(t.Context(), key, []byte(value))
		if err == nil {
			want[key] = value
		}
		return err
	}
	n := 0
	for ; n < 1000; n++ {
		if err := write(n); err != nil {
			if !strings.Contains(err.Error(), path) || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("full: %v", err)
			}
			break
		}
	}
	if n == 1000 || n == 0 {
		t.Fatalf("%d writes: the medium is not small", n)
	}
	check := func(what string) {
		entries, _, err := db.List(t.Context(), "")
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%s: %d of %d entries (%v)", what, len(entries), len(want), err)
		}
	}
	check("full")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := write(n); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, Config{Path: path})
	check("opened again")
}

// TestUnsureCommit stands in for an fsync that failed after the header was
// written: nothing may be built on it.
func TestUnsureCommit(t *testing.T) {
	t.Parallel()
	db := mustOpen(t, Config{Path: filepath.Join(t.TempDir(), "db")})
	sure := errors.New("input/output error")
	db.broken.Store(&sure)
	if _, err := db.Create(t.Context(), "job.a", nil); !errors.Is(err, sure) {
		t.Errorf("create after an unsure commit: %v", err)
	}
	if _, err := db.Get(t.Context(), "job.a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
}
