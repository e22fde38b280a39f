package wan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/haulback/haulback/bench/result"
)

// pair is the two ends of one copy: haulbackd with the target on side B, and
// "haulback copy" with the source on side A. Each is one process with one core's
// worth of Go (GOMAXPROCS=1): the emulated link needs some of the machine too.
type pair struct {
	m      *Measurement
	link   *Link
	dir    string
	source string
	run    *result.Run
}

const (
	readyWithin = 20 * time.Second
	endWithin   = 30 * time.Second // of a daemon, after SIGTERM: its last flush
)

// all makes the sites, starts the daemon, copies, and ends the daemon.
func (p *pair) all(ctx context.Context, transport string) error {
	address, daemon, err := p.start(ctx)
	if err != nil {
		return err
	}
	copied := p.copy(ctx, address, transport, daemon.Process.Pid)
	ended := p.end(daemon)
	p.usage(result.Target, daemon)
	return errors.Join(copied, ended)
}

func (p *pair) state(site string) string { return filepath.Join(p.dir, site) }

// haulback is a command at a site.
func (p *pair) haulback(ctx context.Context, site string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.m.Programs, "haulback"), append([]string{"--state-dir", p.state(site)}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HAULBACK_PROGRESS_FPS=10")
	return cmd
}

func (p *pair) ask(ctx context.Context, site string, args ...string) (string, error) {
	out, err := p.haulback(ctx, site, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("haulback %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// start pairs the two sites and starts the target's daemon; the address is where
// it listens.
func (p *pair) start(ctx context.Context) (address string, daemon *exec.Cmd, err error) {
	for _, site := range []string{"a", "b"} {
		if err := os.MkdirAll(p.state(site), 0o700); err != nil {
			return "", nil, err
		}
	}
	target := filepath.Join(p.dir, "target.img")
	if err := truncate(target, p.m.Size); err != nil {
		return "", nil, err
	}
	a, err := p.ask(ctx, "a", "peer", "id")
	if err != nil {
		return "", nil, err
	}
	b, err := p.ask(ctx, "b", "peer", "id")
	if err != nil {
		return "", nil, err
	}
	if _, err := p.ask(ctx, "b", "peer", "add", a, "--name", "a"); err != nil {
		return "", nil, err
	}
	config := filepath.Join(p.dir, "haulbackd.toml")
	text := fmt.Sprintf("listen = %q\nstate_dir = %q\n[[export]]\nname = \"disk\"\nuri = %q\nrole = \"target\"\npeers = [\"a\"]\n",
		p.link.B.Addr.String()+":0", p.state("b"), "file://"+target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	daemon = exec.Command(filepath.Join(p.m.Programs, "haulbackd"), "run", "--config", config)
	daemon.Env = append(os.Environ(), "GOMAXPROCS=1")
	log := filepath.Join(p.dir, "haulbackd.log")
	f, err := os.Create(log)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	daemon.Stderr = f
	if err := p.link.B.Start(daemon); err != nil {
		return "", nil, fmt.Errorf("haulbackd: %w", err)
	}
	if address, err = listening(ctx, log); err == nil {
		_, err = p.ask(ctx, "a", "peer", "add", b, "--name", "b", "--address", address)
	}
	if err != nil {
		return "", nil, errors.Join(err, p.end(daemon))
	}
	return address, daemon, nil
}

func truncate(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// listening waits until the daemon's log says where it listens.
func listening(ctx context.Context, log string) (string, error) {
	limit := time.Now().Add(readyWithin)
	for {
		b, err := os.ReadFile(log)
		if err != nil {
			return "", err
		}
		for line := range bytes.Lines(b) {
			var l struct{ Msg, Listen string }
			if json.Unmarshal(line, &l) == nil && l.Msg == "haulbackd ready" {
				return l.Listen, nil
			}
		}
		if time.Now().After(limit) {
			return "", fmt.Errorf("haulbackd is not ready after %v: %s", readyWithin, bytes.TrimSpace(b))
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end ends a process that we started, by its ID, and waits for it.
func (p *pair) end(cmd *exec.Cmd) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(endWithin, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return nil // what it thinks of being ended is no result
	}
	return err
}

// usage takes the CPU time of a process that has ended.
func (p *pair) usage(end result.End, cmd *exec.Cmd) {
	s := cmd.ProcessState
	p.run.CPU[end] = (s.UserTime() + s.SystemTime()).Seconds()
}

// memory notes the highest resident memory of a living process so far. What
// wait4 says of one that has ended includes what its parent had at the fork.
func (p *pair) memory(end result.End, pid int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return // it has just ended
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err == nil {
		p.run.RSS[end] = max(p.run.RSS[end], kib<<10)
	}
}

// copy runs the client until it ends, or until what has to be measured is.
func (p *pair) copy(ctx context.Context, address, transport string, daemon int) error {
	cmd := p.haulback(ctx, "a", "--json", "copy", p.source, "haulback://"+address+"/disk", "--transport", transport)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout = in
	began := time.Now()
	err = p.link.A.Start(cmd)
	in.Close()
	if err != nil {
		return fmt.Errorf("haulback copy: %w", err)
	}
	var ended time.Time // by us
	limit := time.AfterFunc(p.m.Most, func() { _ = cmd.Process.Signal(syscall.SIGINT) })
	defer limit.Stop()
	s := series{began: began}
	p.run.Note = s.read(out, func() {
		p.memory(result.Source, cmd.Process.Pid)
		p.memory(result.Target, daemon)
	})
	if time.Since(began) >= p.m.Most {
		ended = time.Now()
	}
	err = cmd.Wait()
	p.run.Wall = time.Since(began).Seconds()
	p.usage(result.Source, cmd)
	durable, whole := s.whole()
	p.run.Extra[ExtraDurable], p.run.Extra[ExtraWhole] = float64(durable), whole
	rate, over := s.rate(p.m.Settle, p.m.Window)
	p.run.Extra[result.ExtraRate], p.run.Extra[ExtraMeasured] = rate, over.Seconds()
	p.run.Extra[result.ExtraLinkShare] = rate * 8 / float64(p.m.Rate)
	if err != nil && ended.IsZero() {
		p.run.Exit = cmd.ProcessState.ExitCode()
		return fmt.Errorf("haulback copy: %w: %s", err, last(said.Bytes()))
	}
	return nil
}

// last is the last line of what a program has said.
func last(b []byte) string {
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}

// series is how many bytes were durable when.
type series struct {
	began  time.Time
	points []point
}

type point struct {
	at    time.Duration // since the start of the client
	bytes int64
}

// read takes the lines of the copy's JSON, until it ends, and calls each after
// every status. What it returns is what the copy says of its transport.
func (s *series) read(in io.Reader, each func()) (note string) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l struct {
			Type    string    `json:"message_type"`
			Time    time.Time `json:"time"`
			Written int64     `json:"written"`
			Actual  string    `json:"actual_transport"`
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue
		}
		if l.Actual != "" {
			note = l.Actual
		}
		if l.Type == "status" || l.Type == "summary" {
			s.add(l.Time.Sub(s.began), l.Written)
			each()
		}
	}
	_, _ = io.Copy(io.Discard, in) // after a line that is too long
	return note
}

// add keeps the moments at which more became durable.
func (s *series) add(at time.Duration, bytes int64) {
	if n := len(s.points); bytes > 0 && (n == 0 || bytes > s.points[n-1].bytes) {
		s.points = append(s.points, point{at, bytes})
	}
}

// rate is bytes per second from settle after the first durable bytes on, for
// window, or as long as there are some. Bytes become durable in checkpoints: both
// ends of the measured time are moments right after one. A copy that was too short
// for that is measured from its first to its last.
func (s *series) rate(settle, window time.Duration) (float64, time.Duration) {
	if len(s.points) < 2 {
		return 0, 0
	}
	first, end := 0, len(s.points)-1
	for first < end && s.points[first].at < s.points[0].at+settle {
		first++
	}
	for end > first+1 && s.points[end].at > s.points[first].at+window {
		end--
	}
	if first == end {
		first = 0
	}
	a, b := s.points[first], s.points[end]
	if b.at <= a.at {
		return 0, 0
	}
	return float64(b.bytes-a.bytes) / (b.at - a.at).Seconds(), b.at - a.at
}

// whole is the bytes that became durable, and per second since the start.
func (s *series) whole() (int64, float64) {
	if len(s.points) == 0 {
		return 0, 0
	}
	p := s.points[len(s.points)-1]
	return p.bytes, float64(p.bytes) / p.at.Seconds()
}
