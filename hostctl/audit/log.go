package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile is the size at which the next file begins; an editor still opens it.
const maxFile = 16 << 20

// Log appends to the log of one directory. Make it with Open; safe for
// concurrent use, by many processes as well.
type Log struct {
	dir    string
	signer Signer
	now    func() time.Time
	limit  int64

	mu     sync.Mutex
	lock   *os.File
	stuck  bool     // the last wait for the lock was in vain
	file   *os.File // the newest file; nil: none yet
	size   int64    // of file, as far as it was read or written here
	seq    uint64   // of the last record
	last   Hash
	signed time.Time
	seen   uint64 // seq of the newest head that was written here or found
}

// Open opens the log in dir and makes it when there is none. Signer signs its
// heads.
func Open(dir string, signer Signer) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l := &Log{dir: dir, signer: signer, now: time.Now, limit: maxFile, lock: lock}
	if err := l.exclusively(l.begin); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// begin finds the end of the log and compares it with the newest head.
func (l *Log) begin() error {
	if err := l.catchUp(); err != nil {
		return err
	}
	return l.compare()
}

// Append records e, durably when it returns without an error. After an error
// nothing of it is there.
func (l *Log) Append(ctx context.Context, e Entry) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return l.exclusively(func() error {
		if err := l.catchUp(); err != nil {
			return err
		}
		if l.now().Sub(l.signed) > signAfter && l.seq > l.seen { // what was recorded until now
			if err := l.head(); err != nil {
				return err
			}
		}
		return l.add(e)
	})
}

// signAfter is how long records wait for a signature while others come.
const signAfter = time.Minute

// Head is the number and the hash of the last record: who keeps them elsewhere
// can prove that the log was not cut.
func (l *Log) Head() (uint64, Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq, l.last
}

// Close signs the head and releases the log.
func (l *Log) Close() error {
	l.mu.Lock()
	open := l.lock != nil
	l.mu.Unlock()
	if !open {
		return nil
	}
	err := l.exclusively(func() error {
		if err := l.catchUp(); err != nil {
			return err
		}
		if l.seq == l.seen {
			return nil
		}
		return l.head()
	})
	return errors.Join(err, l.release())
}

func (l *Log) release() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		err = l.file.Close()
	}
	err = errors.Join(err, l.lock.Close())
	l.file, l.lock = nil, nil
	return err
}

// exclusively runs f alone among all processes.
func (l *Log) exclusively(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock == nil {
		return fmt.Errorf("audit: %w", fs.ErrClosed)
	}
	if err := l.flock(l.lock); err != nil {
		return fmt.Errorf("audit: lock %s: %w", l.lock.Name(), err)
	}
	defer func() { _ = unix.Flock(int(l.lock.Fd()), unix.LOCK_UN) }()
	if err := l.relock(); err != nil {
		return fmt.Errorf("audit: lock %s: %w", l.lock.Name(), err)
	}
	if err := f(); err != nil {
		return fmt.Errorf("audit: %s: %w", l.dir, err)
	}
	return nil
}

// end takes up the last record of the newest file, of n bytes. What follows it
// is of a record that was never acknowledged.
func (l *Log) end(names []string, n int64) error {
	at := max(0, n-2*maxLine) // a record, and what a crash has left of the next
	b := make([]byte, n-at)
	if _, err := l.file.ReadAt(b, at); err != nil && err != io.EOF {
		return err
	}
	good := bytes.LastIndexByte(b, '\n') + 1
	for good > 0 {
		begin := bytes.LastIndexByte(b[:good-1], '\n') + 1
		if r, err := parse(b[begin : good-1]); err != errNoRecord {
			l.seq, l.last = r.Seq, r.Hash
			break
		}
		good = begin // a torn page: zeros, with an old line end behind them
	}
	l.size = at + int64(good)
	if good == 0 && at > 0 {
		return errors.New("no record in the last lines; run: haulback audit verify")
	}
	if good == 0 {
		if err := l.before(names); err != nil {
			return err
		}
	}
	if torn := b[good:]; len(torn) > 0 {
		return l.aside(torn)
	}
	return nil
}

// before takes up the last record of the file before the newest, in which no
// record was finished.
func (l *Log) before(names []string) error {
	l.seq, l.last = 0, Hash{}
	if len(names) < 2 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(l.dir, names[len(names)-2]))
	if err != nil {
		return err
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	r, err := parse(b[bytes.LastIndexByte(b, '\n')+1:])
	if err == errNoRecord {
		return err
	}
	l.seq, l.last = r.Seq, r.Hash
	return nil
}

// aside keeps torn, what stands after the last record, in a file of its own and
// records that.
func (l *Log) aside(torn []byte) error {
	name := fmt.Sprintf("torn-%016d", l.seq+1)
	if err := create(filepath.Join(l.dir, name), torn); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := l.file.Truncate(l.size); err != nil {
		return err
	}
	return l.add(Entry{Actor: "audit", Action: actionTorn, Object: name, Outcome: "ok", Details: map[string]string{"bytes": fmt.Sprint(len(torn))}})
}

// create makes a durable file.
func create(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncDir(filepath.Dir(path)))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// add appends e, and a signed head where one is due.
func (l *Log) add(e Entry) error {
	if l.seq%signEvery == 0 {
		if err := l.head(); err != nil {
			return err
		}
	}
	if l.seq == 1 { // a crash, or a full disk, may have come between it and its head
		if err := writeHead(l.dir, sign(l.signer, l.seq, l.last)); err != nil {
			return err
		}
	}
	return l.write(e)
}

// head appends a signed head of what is there, and keeps it in its file too.
func (l *Log) head() error {
	h := sign(l.signer, l.seq, l.last)
	if err := l.write(h.entry()); err != nil {
		return err
	}
	l.seen, l.signed = l.seq, l.now()
	return writeHead(l.dir, sign(l.signer, l.seq, l.last))
}

// write appends one record and makes it durable, or takes it back.
func (l *Log) write(e Entry) error {
	b, h, err := line(l.seq+1, l.now(), e, l.last)
	if err != nil {
		return err
	}
	if l.file == nil || l.size > 0 && l.size+int64(len(b)) > l.limit {
		if err := l.next(); err != nil {
			return err
		}
	}
	_, err = l.file.WriteAt(b, l.size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.seq, l.last, l.size = l.seq+1, h, l.size+int64(len(b))
	return nil
}

// next begins a file for the records from the next one on.
func (l *Log) next() error {
	path := filepath.Join(l.dir, fileName(l.seq+1))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(l.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	if l.file != nil {
		_ = l.file.Close() // every record in it is durable
	}
	l.file, l.size = f, 0
	return nil
}

const suffix = ".jsonl"

// fileName is the file that begins with record seq.
func fileName(seq uint64) string { return fmt.Sprintf("%016d%s", seq, suffix) }

func isFile(name string) bool {
	number, ok := strings.CutSuffix(name, suffix)
	return ok && len(number) == 16 && strings.Trim(number, "0123456789") == ""
}

// files are the names of the log's files, the oldest first.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if isFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
