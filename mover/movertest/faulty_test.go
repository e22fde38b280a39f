package movertest

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cbt"
)

func TestFaultyCounts(t *testing.T) {
	f := NewFaulty(NewMemory(1<<20), Fault{Op: "WriteAt", Nth: 3, Count: 2, Err: syscall.EIO})
	for call := 1; call <= 6; call++ {
		_, err := f.WriteAt([]byte{byte(call)}, int64(call))
		if want := call == 3 || call == 4; errors.Is(err, syscall.EIO) != want {
			t.Errorf("call %d: got %v, want an EIO: %v", call, err, want)
		}
	}
	p := make([]byte, 7)
	if _, err := f.ReadAt(p, 0); err != nil || !bytes.Equal(p, []byte{0, 1, 2, 0, 0, 5, 6}) {
		t.Errorf("written: got %v, %v", p, err)
	}
	if got := f.Calls("WriteAt"); got != 6 {
		t.Errorf("calls: got %d, want 6", got)
	}
}

func TestFaultyWrites(t *testing.T) {
	for name, c := range map[string]struct {
		fault Fault
		n     int
		err   error
		want  string
	}{
		"short":     {Fault{Op: "WriteAt", Done: 3, Err: syscall.ENOSPC}, 3, syscall.ENOSPC, "abc\x00\x00\x00"},
		"lost":      {Fault{Op: "WriteAt", Silent: true}, 6, nil, "\x00\x00\x00\x00\x00\x00"},
		"lost tail": {Fault{Op: "WriteAt", Silent: true, Done: 4}, 6, nil, "abcd\x00\x00"},
		"flip":      {Fault{Op: "WriteAt", Flip: true}, 6, nil, "abctef"},
		"elsewhere": {Fault{Op: "WriteAt", Extent: cbt.Extent{Off: 100, Len: 1}, Err: syscall.EIO}, 6, nil, "abcdef"},
		"here":      {Fault{Op: "WriteAt", Extent: cbt.Extent{Off: 5, Len: 1}, Err: syscall.EIO}, 0, syscall.EIO, "\x00\x00\x00\x00\x00\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFaulty(NewMemory(1<<20), c.fault)
			data := []byte("abcdef")
			n, err := f.WriteAt(data, 0)
			if n != c.n || !errors.Is(err, c.err) {
				t.Errorf("write: got %d, %v, want %d, %v", n, err, c.n, c.err)
			}
			got := make([]byte, 6)
			if _, err := f.ReadAt(got, 0); err != nil || string(got) != c.want {
				t.Errorf("written: got %q, %v, want %q", got, err, c.want)
			}
			if string(data) != "abcdef" {
				t.Errorf("the caller's buffer became %q", data)
			}
		})
	}
}

func TestFaultyOthers(t *testing.T) {
	f := NewFaulty(NewMemoryFrom([]byte{1, 2, 3}),
		Fault{Op: "Flush", Err: syscall.EIO},
		Fault{Op: "Check", Nth: 2, Err: fs.ErrInvalid},
		Fault{Op: "ReadCold", Flip: true},
		Fault{Op: "ReadAt", Nth: 2, Done: 1, Err: syscall.EIO},
		Fault{Op: "Close", Err: syscall.EIO})
	if err1, err2 := f.Flush(), f.Flush(); !errors.Is(err1, syscall.EIO) || err2 != nil {
		t.Errorf("flush: got %v, %v, want EIO, then nil", err1, err2)
	}
	if err1, err2 := f.Check(), f.Check(); err1 != nil || err2 == nil {
		t.Errorf("check: got %v, %v, want nil, then an error", err1, err2)
	}
	p := make([]byte, 3)
	if _, err := f.ReadCold(p, 0); err != nil || !bytes.Equal(p, []byte{1, 0x12, 3}) {
		t.Errorf("flipped: got %v, %v", p, err)
	}
	if _, err := f.ReadAt(p, 0); err != nil || !bytes.Equal(p, []byte{1, 2, 3}) {
		t.Errorf("plain: got %v, %v", p, err)
	}
	if n, err := f.ReadAt(p, 0); n != 1 || !errors.Is(err, syscall.EIO) {
		t.Errorf("short read: got %d, %v, want 1, EIO", n, err)
	}
	if err1, err2 := f.Close(), f.Close(); !errors.Is(err1, syscall.EIO) || err2 != nil {
		t.Errorf("close: got %v, %v, want EIO, then nil", err1, err2)
	}
}

func TestFaultyGone(t *testing.T) {
	f := NewFaulty(NewMemory(4096), Fault{Nth: 3, Gone: true})
	for call := 1; call <= 5; call++ {
		_, err := f.ReadAt(make([]byte, 1), 0)
		if want := call >= 3; errors.Is(err, syscall.ENODEV) != want {
			t.Errorf("call %d: got %v, gone: %v", call, err, want)
		}
	}
	if err := errors.Join(f.Flush(), f.Check()); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("flush and check: got %v, want ENODEV", err)
	}
}

func TestFaultyDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFaulty(NewMemory(4096), Fault{Op: "Flush", Count: -1, Hook: func() { time.Sleep(time.Hour) }})
		start := time.Now()
		for range 3 {
			if err := f.Flush(); err != nil {
				t.Error(err)
			}
		}
		if got := time.Since(start); got != 3*time.Hour {
			t.Errorf("three slow flushes took %v, want 3h", got)
		}
	})
}

func TestFaultyUnknownOp(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a fault on an unknown method was planned")
		}
	}()
	NewFaulty(NewMemory(1), Fault{Op: "Writeat"})
}
