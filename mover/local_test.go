package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
)

// Runs of one engine that stay in this process do not take each other's disks,
// whatever their names have in common; two runs of one target do.
func TestLocalRunsAtOnce(t *testing.T) {
	t.Parallel()
	e := newEngine(t, mover.Config{Workers: 1})
	prefix := strings.Repeat("file:///very/long/", 20)
	var g errgroup.Group
	for i := range 8 {
		want := image(rand.New(rand.NewPCG(uint64(i), 1)), 3<<20)
		src, dst := disk(want), disk(make([]byte, len(want)))
		job := mover.Job{
			Run: wire.RunID{byte(i + 1)}, Mode: wire.ModeCopy,
			Source: endpoint("source", src), Target: endpoint(fmt.Sprintf("%s%d", prefix, i), dst),
		}
		g.Go(func() error {
			rep, err := e.Run(t.Context(), job, new(mover.Progress))
			if err == nil && (rep.State != wire.StateVerified || !bytes.Equal(dst.Bytes(), want)) {
				err = fmt.Errorf("run %d: %v, and the target is not the source", i, rep.State)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}

	want := image(rand.New(rand.NewPCG(9, 1)), 8<<20)
	reading, release := make(chan struct{}), make(chan struct{})
	src := disk(want)
	slow := faulty(src, []movertest.Fault{{Op: "ReadAt", Hook: func() { close(reading); <-release }}})
	job := mover.Job{Run: wire.RunID{1}, Mode: wire.ModeCopy, Source: mover.Endpoint{Name: "source", Open: slow}, Target: endpoint("target", disk(make([]byte, len(want))))}
	first := make(chan error, 1) // 1: the test may have failed
	go func() {
		_, err := e.Run(t.Context(), job, new(mover.Progress))
		first <- err
	}()
	<-reading
	job.Run, job.Source = wire.RunID{2}, endpoint("source", src)
	_, err := e.Run(t.Context(), job, new(mover.Progress))
	if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.CodeBusy {
		t.Errorf("a second run of the target: %v, want busy", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the first run: %v", err)
	}
}

// Job.Sample is the sample of this run, whatever the engine's is.
func TestJobSample(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	sampled := func(sample int64) int64 {
		d := newTracked(rand.New(rand.NewPCG(5, 5)), size)
		job := d.job(wire.TrackingStrict)
		job.Sample = sample
		rep, err := run(t, newEngine(t, mover.Config{Sampling: cbt.Sampling{Every: 256, Least: 1}}), job)
		if err != nil || rep.State != wire.StateVerified {
			t.Fatalf("copy: %v (%+v)", err, rep)
		}
		return rep.Counters.Sampled
	}
	few, many := sampled(0), sampled(2)
	if few == 0 || many < 10*few {
		t.Errorf("sampled %d bytes by the engine's rate, %d by the job's", few, many)
	}
}

// A run that returned holds nothing any more, also when its last word was lost:
// the next one may be of another process.
func TestLocalRunLetsGo(t *testing.T) {
	t.Parallel()
	e := newEngine(t, mover.Config{Workers: 1})
	want := image(rand.New(rand.NewPCG(3, 1)), 4<<20)
	for n := range 8 {
		src, dst := disk(want), disk(make([]byte, len(want)))
		ctx, cancel := context.WithCancelCause(t.Context())
		fault := movertest.Fault{Op: "Flush", Nth: n + 1, Hook: func() { cancel(wire.Errorf(wire.CodeTimeout, "lost")) }}
		job := mover.Job{
			Run: wire.RunID{byte(n + 1)}, Mode: wire.ModeCopy, Source: endpoint("source", src),
			Target: mover.Endpoint{Name: "target", Open: faulty(dst, []movertest.Fault{fault})},
		}
		_, err := e.Run(ctx, job, new(mover.Progress))
		d, held := dst.Reopen(movertest.ReadWrite)
		if held != nil {
			t.Fatalf("canceled at flush %d (%v): the disk is held: %v", n+1, err, held)
		}
		_ = d.Close()
		cancel(nil)
	}
}

// What the log says of a session within this process names no peer: there is
// none, and an ID of zeros is a name that nobody can look up.
func TestLocalLogNamesNoPeer(t *testing.T) {
	t.Parallel()
	var log logLines
	e := newEngine(t, mover.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	want := image(rand.New(rand.NewPCG(4, 4)), 1<<20)
	job := mover.Job{Run: wire.RunID{4}, Mode: wire.ModeCopy, Source: endpoint("source", disk(want)), Target: endpoint("target", disk(make([]byte, len(want))))}
	if _, err := e.Run(t.Context(), job, new(mover.Progress)); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "session begins") || strings.Contains(text, "peer=") {
		t.Errorf("the log:\n%s", text)
	}
}

// logLines is a log that several goroutines write.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
