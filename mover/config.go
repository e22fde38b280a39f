package mover

import (
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

// Config is what an Engine may use. The zero value works; each field says
// what zero means.
type Config struct {
	// Memory bounds the buffers of all sessions together, in bytes; 0 means
	// 1 GiB. An eighth of it, at most 32 MiB, is lent to whoever reads or writes
	// at the moment; of the rest a session takes what it needs while it waits for
	// its peer, 2 MiB per worker, or is refused with wire.CodeLimit when that is
	// not free within 10 s.
	Memory int64
	// Workers is the number of goroutines per session and stage that read and
	// hash; 0 means GOMAXPROCS, at most 4. It is the number of data streams too.
	Workers int
	// Checkpoint is the number of written bytes after which the target
	// flushes and acknowledges; 0 means 64 MiB, the batch of promise 3.
	Checkpoint int64
	// CheckpointEvery flushes earlier what has been waiting for so long; 0
	// means 1 s.
	CheckpointEvery time.Duration
	// Window is how many bytes beyond one checkpoint a source sends before
	// they are durable; 0 means 32 MiB, the window of promise 3.
	Window int64
	// Batches is how many batches may be unsettled at once; 0 means 2048. It
	// bounds the digests in memory: 2048 batches are 1 MiB of them.
	Batches int
	// Refine says when the source half of a copy asks which pieces of 4 KiB of a
	// grain differ, and sends only these; the zero value is Auto.
	Refine Choice
	// Stall is how long a session may make no progress with work outstanding
	// before it is given up and picked up again on a new link; 0 means 30 s.
	Stall time.Duration
	// Linger is how long a target disk stays held, and its verdicts stay
	// valid, after its link was lost; 0 means 2 min.
	Linger time.Duration
	// Sessions bounds how many sessions a Server serves at once; 0 means 256.
	Sessions int
	// Sampling says how many of the grains that change tracking calls unchanged
	// are compared all the same; the zero value is cbt's default. Its Seed is
	// not used: it comes from the run.
	Sampling cbt.Sampling
	// Limits are those of all sessions together; the zero value is none.
	// Engine.SetLimits changes them.
	Limits throttle.Limits
	// Compress says when a source of this engine compresses what it sends; the
	// target takes both. The zero value measures what is faster.
	Compress Choice
	// Agent is the program and version told to peers.
	Agent string
	// Log gets what begins, ends and is retried; nil discards it.
	Log *slog.Logger

	bug  bug                              // tests only: a deliberate mistake, see bug.go
	cpu  func() (own, idle time.Duration) // tests only: instead of processors
	path pathTest                         // tests only: decides for the judge

	tally *tally // of the engine
}

// Limits of a Config that are not a matter of taste.
const (
	minCheckpoint = cbt.BatchSize
	maxCheckpoint = 512 << 20
	firstFrame    = 5 * time.Second // from the link to its Hello, and to each answer
	readRetries   = 2               // more tries of a grain that cannot be read
	maxBadGrains  = 4096            // unreadable grains after which a disk counts as gone
	maxRedo       = 3               // read-backs of a batch that may fail before the disk is poisoned
	readPiece     = 256 << 10       // bytes read at once, so that they are hashed while in cache
	readDepth     = 8               // batches of one disk that are read at once past its cache
	verifyDepth   = 4               // of them, batches that are read back
)

// Effective is c with every zero replaced by its default.
func (c Config) Effective() Config { return c.withDefaults() }

// withDefaults returns c with zeros replaced.
func (c Config) withDefaults() Config {
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.Memory, 1<<30)
	set(&c.Checkpoint, 64<<20)
	set(&c.Window, 32<<20)
	set((*int64)(&c.CheckpointEvery), int64(time.Second))
	set((*int64)(&c.Stall), int64(30*time.Second))
	set((*int64)(&c.Linger), int64(2*time.Minute))
	if c.Workers == 0 {
		c.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if c.Batches == 0 {
		c.Batches = 2048
	}
	if c.Sessions == 0 {
		c.Sessions = 256
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate returns an error that names the first field out of its range.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Memory < 64<<20:
		return fmt.Errorf("mover: memory of %d bytes is below 64 MiB", c.Memory)
	case c.Workers < 1 || c.Workers > wire.MaxDataStreams:
		return fmt.Errorf("mover: %d workers, 1 to %d may be", c.Workers, wire.MaxDataStreams)
	case c.Checkpoint < minCheckpoint || c.Checkpoint > maxCheckpoint:
		return fmt.Errorf("mover: checkpoint of %d bytes, %d to %d may be", c.Checkpoint, minCheckpoint, maxCheckpoint)
	case c.Window < 4*cbt.BatchSize:
		return fmt.Errorf("mover: window of %d bytes is below %d", c.Window, 4*cbt.BatchSize)
	case c.Refine > Off || c.Compress > Off:
		return fmt.Errorf("mover: refine %v or compress %v is none of auto, on and off", c.Refine, c.Compress)
	case c.Batches < 64:
		return fmt.Errorf("mover: %d unsettled batches are below 64", c.Batches)
	case c.Sampling.Every < 0 || c.Sampling.Least < 0:
		return fmt.Errorf("mover: sampling of 1 grain in %d, at least %d: negative", c.Sampling.Every, c.Sampling.Least)
	case c.CheckpointEvery < 0 || c.Stall < 0 || c.Linger < 0 || c.Sessions < 1:
		return fmt.Errorf("mover: a duration or the number of sessions is negative")
	}
	if err := c.Limits.Validate(); err != nil {
		return fmt.Errorf("mover: %w", err)
	}
	return nil
}
