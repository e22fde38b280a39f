package mover

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// Bug is a deliberate mistake, for the tests that prove the suite finds it.
type Bug = bug

// Bugs are all of them by name.
var Bugs = map[string]Bug{
	"journal before flush":       bugJournalBeforeFlush,
	"journal covers late writes": bugCoverLateWrites,
	"ignore flush error":         bugIgnoreFlushError,
	"retry flush and believe":    bugRetryFlush,
	"no drain of old session":    bugNoDrain,
	"no journal record sum":      bugNoRecordSum,
	"no read-back":               bugNoReadBack,
	"no run in journal":          bugNoRunInJournal,
	"ack before flush":           bugAckBeforeFlush,
	"no inconsistent mark":       bugNoMark,
	"no binding":                 bugNoBinding,
	"no digest check":            bugNoDigest,
	"lower epoch accepted":       bugLowerEpoch,
	"diff reads the cache":       bugWarmRead,
	"hint believed":              bugBelieveHint,
	"hint of any base":           bugAnyBase,
	"pieces not checked":         bugNoPartCheck,
	"piece at another place":     bugPartElsewhere,
	"answer of the first read":   bugStaleAnswer,
}

// WithBug is cfg with a mistake in it.
func WithBug(cfg Config, b Bug) Config {
	cfg.bug = b
	return cfg
}

// WithIdle is cfg on a machine of which that share of a processor is idle.
func WithIdle(cfg Config, share float64) Config {
	began := time.Now()
	cfg.cpu = func() (own, idle time.Duration) {
		d := float64(time.Since(began))
		return time.Duration(d * (1 - share)), time.Duration(d * share)
	}
	return cfg
}

// WithJudge is cfg whose path is looked at each millisecond, and changed when want
// says so.
func WithJudge(cfg Config, want func(from Route, c wire.Counters) (Route, bool)) Config {
	cfg.path = pathTest{every: time.Millisecond, want: want}
	return cfg
}

// GuardBuffers makes every touch of a buffer that nobody has taken a fault: one
// that was given back too early ends the test.
func (e *Engine) GuardBuffers() {
	e.pool.guard = func(b []byte, taken bool) {
		prot := unix.PROT_NONE
		if taken {
			prot = unix.PROT_READ | unix.PROT_WRITE
		}
		if err := unix.Mprotect(b, prot); err != nil {
			panic(err)
		}
	}
}

// CountBuffers counts the batch buffers that are made from now on. The function it
// returns says how many of them are lent.
func (e *Engine) CountBuffers() func() int {
	p, made := e.pool, 0
	mmap := p.mmap
	p.mmap = func(n int) ([]byte, error) { // called with p.mu held
		if n == cbt.BatchSize {
			made++
		}
		return mmap(n)
	}
	return func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return made - len(p.raws)
	}
}

// JournalLen is the least length of a journal file.
const JournalLen = journalLen

// StreamBatches is the window of a restore.
const StreamBatches = streamBatches

// BugCount is how many there are, noBug not counted.
const BugCount = int(bugCount) - 1

// Journal is the journal with its methods exported for tests.
type Journal struct{ *journal }

// OpenJournal is openJournal.
func OpenJournal(dir StateDir, identity string, b Bug) (Journal, error) {
	j, err := openJournal(dir, identity, b)
	return Journal{j}, err
}

// Open, Mark and the rest append one record each.
func (j Journal) Open(epoch uint64, run wire.RunID, pass uint32, owner [16]byte, plan cbt.Digest, size int64) error {
	return j.open(epoch, run, pass, owner, plan, size)
}
func (j Journal) Mark() error                    { return j.mark() }
func (j Journal) Durable(m cbt.Map) error        { return j.durable(m) }
func (j Journal) Forget(m cbt.Map) error         { return j.forget(m) }
func (j Journal) Verified(root cbt.Digest) error { return j.verified(root, 0, 0) }
func (j Journal) Copied(root cbt.Digest) error {
	return j.add(recCopied, j.state.Epoch, verifiedPayload(root, 0, 0))
}
func (j Journal) Suspect() error             { return j.suspect() }
func (j Journal) Fence(epoch uint64) error   { return j.fence(epoch) }
func (j Journal) Poison(reason string) error { return j.poison(reason) }

// Close releases the file.
func (j Journal) Close() error { return j.close() }

// State is what the journal says; End is where its last record ends.
func (j Journal) State() JournalState { return j.state }
func (j Journal) End() int64          { return j.at }

// Journal is what the journal of the disk identity says.
func (e *Engine) Journal(t interface {
	Helper()
	Fatal(...any)
}, identity string,
) JournalState {
	t.Helper()
	st, err := ReadJournal(e.state, identity)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// SendHint and ListenHint are the two ends of a hint on a link.
func SendHint(link wire.Link, h *cbt.Hint) error {
	return newLane(link).tell(&told{hint: sendable(h)})
}

// ListenHint gives what came.
func ListenHint(link wire.Link) (cbt.Hint, error) {
	t, err := newLane(link).listen()
	if err != nil {
		return cbt.Hint{}, err
	}
	return t.hint, nil
}
