package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/bench/result"
)

// ready is how long servers may take to start.
const ready = 20 * time.Second

// settle is how long after its end a run's use of CPU and wire is read: servers
// still close what the client has left.
const settle = 100 * time.Millisecond

// limit is how long a run may take: a minute, and as long as 16 MiB/s take.
func limit(size int64) time.Duration {
	return time.Minute + time.Duration(size>>24)*time.Second
}

// measured runs a peer once in a room of its own. What goes wrong with the peer
// is told in r; an error is ours, or the end of the context.
func (b *bench) measured(ctx context.Context, p *peers.Peer, j *peers.Job, r *result.Run) error {
	j.Dir = filepath.Join(b.scratch, "job")
	if err := os.Mkdir(j.Dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(j.Dir)
	plan, err := p.Plan(b.kit, *j)
	if err != nil {
		return err
	}
	for _, d := range j.Disks {
		for _, disk := range []string{d.Source, d.Target} {
			if err := b.cache(ctx, disk); err != nil {
				return err
			}
		}
	}
	room, err := measure.NewRoom("run", b.cores)
	if err != nil {
		return err
	}
	defer room.Close()
	if err := b.introduce(p, &plan, j.Dir, room); err != nil {
		return err
	}
	if err := serve(ctx, room, plan.Servers); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Exit, r.Error = -1, err.Error()
		return nil
	}
	if err := timed(ctx, room, &plan, limit(j.Size), r); err != nil {
		return err
	}
	if plan.Read != nil && r.Error == "" {
		if r.Extra, r.Note, err = plan.Read(); err != nil {
			r.Error = err.Error()
		}
	}
	if r.Error != "" {
		r.Error += said(&plan)
	}
	return nil
}

// introduce puts a peer's commands into the results, before its first run.
func (b *bench) introduce(p *peers.Peer, plan *peers.Plan, dir string, room *measure.Room) error {
	if b.seen[p.Title] {
		return nil
	}
	b.seen[p.Title] = true
	return b.line(result.Line{Peer: &result.Peer{
		Name: p.Name, Variant: p.Variant, Title: p.Title, Encrypted: p.Encrypted, Commands: plan.Commands(room.Core, append(b.kit.Dirs(), dir, "RUN", b.image.Dir, "IMAGE", b.scratch, "SCRATCH")...), Remarks: b.kit.Remarks(p),
	}})
}

// serve starts the servers and waits until each is ready.
func serve(ctx context.Context, room *measure.Room, all []peers.Server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, ready, fmt.Errorf("not ready after %v", ready))
	defer cancel()
	for i := range all {
		s := &all[i]
		var err error
		if s.Process, err = room.Start(s.Command); err != nil {
			return err
		}
		if s.TCP != 0 {
			err = room.Listens(ctx, "tcp", s.TCP)
		}
		if s.Unix != "" && err == nil {
			err = exists(ctx, s)
		}
		if s.Log != "" && err == nil {
			err = logs(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(s.Args[0]), err, end(s.Stderr))
		}
	}
	return nil
}

// exists waits until a server has made its socket.
func exists(ctx context.Context, s *peers.Server) error {
	for {
		if _, err := os.Stat(s.Unix); err == nil || !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := pause(ctx, s); err != nil {
			return err
		}
	}
}

// pause lets a server have some time, if it still runs.
func pause(ctx context.Context, s *peers.Server) error {
	if !s.Process.Running() {
		return errors.New("it ended")
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(10 * time.Millisecond):
		return nil
	}
}

// logs waits until a server has logged that it is ready.
func logs(ctx context.Context, s *peers.Server) error {
	for {
		text, err := os.ReadFile(s.Stderr)
		if err != nil || strings.Contains(string(text), s.Log) {
			return err
		}
		if err := pause(ctx, s); err != nil {
			return err
		}
	}
}

// timed runs the clients and reads what the run used.
func timed(ctx context.Context, room *measure.Room, plan *peers.Plan, total time.Duration, r *result.Run) error {
	inner, cancel := context.WithTimeoutCause(ctx, total, fmt.Errorf("ended by the benchmark after %v", total))
	defer cancel()
	room.Restart()
	began := time.Now()
	var all []*measure.Process
	for _, c := range plan.Clients {
		p, err := room.Start(c)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	for i := range plan.Servers {
		if s := &plan.Servers[i]; s.Finish {
			all = append(all, s.Process)
		}
	}
	for _, p := range all {
		at, exit, err := p.Wait(inner)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Wall = max(r.Wall, at.Sub(began).Seconds())
		if exit != 0 && r.Exit == 0 {
			r.Exit, r.Error = exit, fmt.Sprintf("%s: exit code %d", filepath.Base(p.Command.Args[0]), exit)
		}
		if err != nil {
			r.Error = fmt.Sprintf("%s: %v", filepath.Base(p.Command.Args[0]), err)
		}
	}
	time.Sleep(settle)
	r.CPU, r.Wire, r.RSS = room.CPU(), room.Wire(), room.RSS()
	return nil
}

// said is the end of what the programs of a plan wrote where errors go.
func said(plan *peers.Plan) (text string) {
	files := []string{}
	for i := range plan.Clients {
		files = append(files, plan.Clients[i].Stderr)
	}
	for i := range plan.Servers {
		files = append(files, plan.Servers[i].Stderr)
	}
	for _, f := range files {
		if t := end(f); t != "" {
			text += "\n" + filepath.Base(f) + ": " + t
		}
	}
	return text
}

// end is the last 600 bytes of a file.
func end(file string) string {
	text, _ := os.ReadFile(file)
	return strings.TrimSpace(string(text[max(0, len(text)-600):]))
}
