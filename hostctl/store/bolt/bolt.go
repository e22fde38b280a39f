package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/hostctl/store"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Config is how a file is opened. Zero values mean the defaults.
type Config struct {
	Path string
	// What the file is, in errors ("job store"), and what somebody has to know who
	// moves a damaged one away.
	What, Without string

	LockTimeout time.Duration    // how long another process may still hold the file; 2 s
	Now         func() time.Time // the clock of leases and of the queue; time.Now
	Visibility  time.Duration    // after which an item is delivered again; 30 s
	Deliveries  int              // of one item, before it is a dead letter; 100
	History     int              // changes that a watch can go back; 65 536
	HistorySize int64            // and their bytes; 64 MiB
}

func (c Config) filled() Config {
	if c.What == "" {
		c.What, c.Without = "job store", "move it away to start without jobs (disks keep their own journals: a job that is submitted again goes on)"
	}
	if c.LockTimeout <= 0 {
		c.LockTimeout = 2 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Visibility <= 0 {
		c.Visibility = 30 * time.Second
	}
	if c.Deliveries <= 0 {
		c.Deliveries = 100
	}
	if c.History <= 0 {
		c.History = 1 << 16
	}
	if c.HistorySize <= 0 {
		c.HistorySize = 64 << 20
	}
	return c
}

// DB is an open file: a store.Store, a store.Queue and a store.Lease. Safe for
// concurrent use.
type DB struct {
	c     Config
	bolt  *bbolt.DB
	lease leases
	queue queue

	write  sync.Mutex
	broken atomic.Pointer[error]
	stuck  atomic.Bool // bbolt did not return from a write

	mu      sync.Mutex
	changed chan struct{} // closed and made anew with each change of the data
	closed  chan struct{} // ends the watches
	once    sync.Once
}

// pageSize is fixed so that the second header page is found when the first is
// damaged.
const pageSize = 4096

// Open opens the file of c, or makes it when there is none. It never changes a
// file that it refuses.
func Open(c Config) (*DB, error) {
	c = c.filled()
	if _, err := os.Lstat(c.Path); errors.Is(err, os.ErrNotExist) {
		if err := create(c.Path); err != nil {
			return nil, fmt.Errorf("make the %s %s: %w", c.What, c.Path, err)
		}
	}
	if err := checkHeaders(c.Path); err != nil {
		return nil, c.refuse(err)
	}
	b, err := openFile(c.Path, c.LockTimeout)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("the %s %s is in use by another process: one daemon at a time; stop the other, or give this one a state directory of its own: %w", c.What, c.Path, err)
	} else if err != nil {
		return nil, c.refuse(err)
	}
	db := &DB{c: c, bolt: b, changed: make(chan struct{}), closed: make(chan struct{})}
	db.lease.db, db.queue.db = db, db
	if err := db.load(); err != nil {
		_ = b.Close() // nothing was written
		return nil, c.refuse(err)
	}
	return db, nil
}

// refuse says what to do about a file that is not as it should be.
func (c *Config) refuse(err error) error {
	return fmt.Errorf("the %s %s cannot be used and was left as it is: %w; keep a copy of it, then restore it from a backup, or %s", c.What, c.Path, err, c.Without)
}

func openFile(path string, timeout time.Duration) (b *bbolt.DB, err error) {
	err = guard(func() (err error) {
		b, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: timeout, PageSize: pageSize, FreelistType: bbolt.FreelistMapType})
		return err
	})
	return b, err
}

// create makes the file under a name of its own and links it to path, where
// one that came first wins.
func create(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	b, err := openFile(f.Name(), time.Second)
	if err != nil {
		return err
	}
	if err := errors.Join(b.Update(format), b.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// checkHeaders looks at what bbolt would pass over or stumble upon: a damaged
// header page (it would take the other one, which is a change older), an empty
// or a truncated file.
func checkHeaders(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is not a regular file but %v", info.Mode().Type())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return nil // in use: whoever opens it next will hear that
	}
	var pages [2 * pageSize]byte
	if n, err := f.ReadAt(pages[:], 0); n < len(pages) {
		return fmt.Errorf("it has %d bytes, fewer than its headers (%w)", info.Size(), err)
	}
	for i := range 2 {
		high, err := header(pages[i*pageSize:])
		if err != nil {
			return fmt.Errorf("header %d: %w", i, err)
		}
		// Pages beyond the file are legal for an unused tail, never for the
		// headers' own; bbolt grows the file before it uses them.
		if high > uint64(info.Size())/pageSize {
			return fmt.Errorf("it was truncated: it has %d bytes, its header %d says %d", info.Size(), i, high*pageSize)
		}
	}
	return nil
}

// header checks one meta page of bbolt (its file format 2) and answers the
// number of pages.
func header(page []byte) (pages uint64, err error) {
	le, body := binary.NativeEndian, page[16:]
	if le.Uint32(body) != 0xED0CDAED || le.Uint32(body[4:]) != 2 {
		return 0, errors.New("it is not a store of haulback (or this header is damaged)")
	}
	if size := le.Uint32(body[8:]); size != pageSize {
		return 0, fmt.Errorf("pages of %d bytes are not of this program", size)
	}
	sum := uint64(14695981039346656037) // FNV-1a, as bbolt has it
	for _, b := range body[:56] {
		sum = (sum ^ uint64(b)) * 1099511628211
	}
	if sum != le.Uint64(body[56:]) {
		return 0, errors.New("it is damaged: its checksum does not match")
	}
	return le.Uint64(body[40:]), nil
}

// guard turns a fault in the memory map, or a panic of bbolt about a damaged
// page, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a page of the file is damaged or cannot be read: %v", p)
		}
	}()
	return f()
}

// view and update are the only ways to the file.
func (db *DB) view(f func(*bbolt.Tx) error) error {
	return db.named(guard(func() error { return db.bolt.View(f) }))
}

// update commits f or nothing. When the commit fails so late that the change
// can be seen though nobody knows whether it is on the disk, no more is written.
// The same when bbolt panics: it may hold its locks for ever then.
func (db *DB) update(f func(*bbolt.Tx) error) error {
	db.write.Lock() // bbolt has one writer; here also so that nobody reuses the ID before it is looked at
	defer db.write.Unlock()
	if err := db.broken.Load(); err != nil {
		return db.named(*err)
	}
	id, returned := 0, false
	err := guard(func() error {
		err := db.bolt.Update(func(tx *bbolt.Tx) error {
			err := f(tx)
			if err == nil {
				id = tx.ID()
			}
			return err
		})
		returned = true
		return err
	})
	if !returned {
		db.stuck.Store(true)
		return db.named(db.breaks(err))
	}
	if err == nil || id == 0 {
		return db.named(err)
	}
	seen := 0
	if e := guard(func() error { return db.bolt.View(func(tx *bbolt.Tx) error { seen = tx.ID(); return nil }) }); e != nil || seen >= id {
		err = db.breaks(fmt.Errorf("a change may not be on the disk: %w", err))
	}
	return db.named(err)
}

// breaks ends all writing.
func (db *DB) breaks(err error) error {
	err = fmt.Errorf("%w: %w", store.ErrBroken, err)
	db.broken.Store(&err)
	return err
}

func (db *DB) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", db.c.What, db.c.Path, err)
}

// Close ends watches and takers and closes the file. More calls do nothing. A file
// that bbolt may hold for ever stays open until the process ends.
func (db *DB) Close() (err error) {
	db.once.Do(func() {
		close(db.closed)
		if !db.stuck.Load() {
			err = db.bolt.Close()
		}
	})
	return err
}
