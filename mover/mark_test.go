package mover

import (
	"errors"
	"testing"
)

// stuckFile is a journal file whose flush waits.
type stuckFile struct {
	StateFile
	began chan struct{}
	flush chan error
}

func (stuckFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (f stuckFile) Sync() error {
	f.began <- struct{}{}
	return <-f.flush
}

// While one writer's record that the disk is about to be overwritten is on its
// way to the journal, no other writer may begin: and none at all if it fails.
func TestEveryWriterWaitsForTheMark(t *testing.T) {
	broken := errors.New("the journal's disk")
	for _, want := range []error{nil, broken} {
		f := stuckFile{began: make(chan struct{}), flush: make(chan error)}
		tg := &target{cfg: &Config{}, journal: &journal{f: f, size: journalLen}}
		const writers = 4
		ended := make(chan error, writers)
		for range writers {
			go func() { ended <- tg.mark() }()
		}
		<-f.began
		if tg.marked.Load() || len(ended) > 0 {
			t.Error("a writer may begin before the mark is durable")
		}
		f.flush <- want
		for range writers {
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("a writer got %v, want %v", err, want)
			}
		}
		if tg.marked.Load() != (want == nil) {
			t.Errorf("marked: %v", tg.marked.Load())
		}
	}
}
