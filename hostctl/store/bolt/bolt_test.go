package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store/storetest"
)

// clock is one that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// mustOpen opens a file that the end of the test closes.
func mustOpen(t testing.TB, c Config) *DB {
	t.Helper()
	db, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestConformance(t *testing.T) {
	storetest.Test(t, func(t testing.TB) storetest.Kit {
		ck := &clock{now: time.Unix(1e9, 0)}
		c := Config{Path: filepath.Join(t.TempDir(), "db"), Now: ck.Now, Visibility: 30 * time.Second, Deliveries: 3, History: 50}
		var kit func(db *DB) storetest.Kit
		kit = func(db *DB) storetest.Kit {
			return storetest.Kit{
				Store: db, Queue: db, Lease: db, Pass: ck.Pass,
				Visibility: c.Visibility, Deliveries: c.Deliveries, History: c.History,
				Reopen: func() storetest.Kit {
					// As kill -9: a copy of the file, nothing is closed.
					c.Path += ".copy"
					f, err := os.OpenFile(c.Path, os.O_CREATE|os.O_WRONLY, 0o600)
					if err == nil {
						err = errors.Join(db.Copy(f), f.Close())
					}
					if err != nil {
						t.Fatal(err)
					}
					return kit(mustOpen(t, c))
				},
			}
		}
		return kit(mustOpen(t, c))
	})
}
