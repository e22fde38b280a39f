package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a log has lost is found by what is known of it: by the newest signed head
// when it is opened, and later by the last record that this process has seen.
// Without that a log that was cut, or exchanged for another, would go on as if
// nothing had happened, and its next head would be the proof that it is whole.

// catchUp reads what other processes have appended, and records when what was
// there is there no more.
func (l *Log) catchUp() error {
	seq, last := l.seq, l.last
	moved, names, err := l.follow()
	if err != nil || !moved || seq == 0 {
		return err
	}
	return l.missing(names, seq, last)
}

// compare finds whether the log still has what its newest head signs.
func (l *Log) compare() error {
	h, err := readHead(l.dir)
	if err != nil {
		return fmt.Errorf("%w; move it away: the record will say that it is gone", err)
	}
	names, err := files(l.dir)
	switch {
	case err != nil:
		return err
	case h != nil:
		return l.missing(names, h.Seq, h.Hash)
	case l.seq > 1: // the first record is followed by its head before any other comes
		return l.lost(Entry{Details: map[string]string{"file": headFile}})
	}
	return nil
}

// missing records that the log has lost a record that it had.
func (l *Log) missing(names []string, seq uint64, hash Hash) error {
	if there, err := l.has(names, seq, hash); err != nil || there {
		return err
	}
	return l.lost(Entry{Details: map[string]string{"seq": fmt.Sprint(seq), "hash": hash.String()}})
}

// lost records e, and signs that it is recorded: once is enough.
func (l *Log) lost(e Entry) error {
	e.Actor, e.Action, e.Outcome = "audit", actionCut, "failed"
	if err := l.add(e); err != nil {
		return err
	}
	return l.head()
}

// has reports whether record seq is there with that hash. One in a file that was
// taken away, as an archive does with the oldest, cannot be told.
func (l *Log) has(names []string, seq uint64, hash Hash) (bool, error) {
	if seq >= l.seq {
		return seq == l.seq && hash == l.last, nil
	}
	name := ""
	for _, n := range names {
		if begin, _ := strconv.ParseUint(strings.TrimSuffix(n, suffix), 10, 64); begin <= seq {
			name = n
		}
	}
	if name == "" {
		return true, nil
	}
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return false, err
	}
	defer f.Close() // only read
	begin, end := fmt.Appendf(nil, `{"seq":%d,`, seq), hashTail+hash.String()+`"}`
	for r := bufio.NewReaderSize(f, maxLine); ; {
		b, err := r.ReadSlice('\n')
		switch {
		case bytes.HasPrefix(b, begin):
			found, perr := parse(bytes.TrimSuffix(b, []byte("\n")))
			return perr == nil && found.Hash == hash && strings.HasSuffix(strings.TrimSuffix(string(b), "\n"), end), nil
		case err == io.EOF:
			return false, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return false, err
		}
	}
}

// follow goes to the end of the log as it is now. Moved: it is not where this
// process has left it.
func (l *Log) follow() (moved bool, names []string, err error) {
	if names, err = files(l.dir); err != nil {
		return false, nil, err
	}
	if len(names) == 0 {
		moved = l.file != nil
		l.leave(nil)
		l.seq, l.last = 0, Hash{}
		return moved, nil, nil
	}
	newest := filepath.Join(l.dir, names[len(names)-1])
	st, err := os.Stat(newest)
	if err != nil {
		return false, nil, err
	}
	if l.file == nil || l.file.Name() != newest || !same(l.file, newest) {
		f, err := os.OpenFile(newest, os.O_RDWR, 0)
		if err != nil {
			return false, nil, err
		}
		l.leave(f)
		if st, err = f.Stat(); err != nil {
			return false, nil, err
		}
		l.size = -1 // whatever it has is to be read
	}
	if st.Size() == l.size {
		return false, names, nil
	}
	return true, names, l.end(names, st.Size())
}

// leave goes on with f in the place of the file before.
func (l *Log) leave(f *os.File) {
	if l.file != nil {
		_ = l.file.Close() // only read since the last Sync
	}
	l.file, l.size = f, 0
}

// same reports whether f is the file at path: names are given anew.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	b, perr := os.Stat(path)
	return err == nil && perr == nil && os.SameFile(a, b)
}

// relock opens the lock that is there now: who moves the directory away leaves
// this process with a lock that nobody else takes.
func (l *Log) relock() error {
	path := l.lock.Name()
	for !same(l.lock, path) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		_ = l.lock.Close() // nothing was written
		l.lock = f
		if err := l.flock(f); err != nil {
			return err
		}
	}
	return nil
}

// lockWait bounds how long a record waits for its turn: one takes milliseconds, and
// who holds the lock for longer is stopped or has a disk that hangs. Copies
// that want to be recorded shall not hang with him.
const lockWait = 5 * time.Second

// lockPoll is how often it is looked whether it is one's turn.
const lockPoll = 2 * time.Millisecond

// flock waits only shortly when the wait before was in vain: many may stand here.
func (l *Log) flock(f *os.File) error {
	wait := lockWait
	if l.stuck {
		wait /= 50
	}
	for end := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			l.stuck = false
			return nil
		case err == unix.EWOULDBLOCK && time.Now().After(end):
			l.stuck = true
			return fmt.Errorf("another process holds it for longer than %v; see who: fuser %s", wait, f.Name())
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return err
		}
	}
}
