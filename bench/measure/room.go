package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/result"
)

// Ends are both ends, in the order in which they are told.
var Ends = []result.End{result.Source, result.Target}

// Room is where one run happens. Its methods may be called from several
// goroutines. Close it, whatever happened.
type Room struct {
	calls    chan func()
	done     chan struct{}
	cores    map[result.End]int
	isolated bool
	lacks    []string
	groups   map[result.End]*group
	wire0    int64

	mu    sync.Mutex
	procs []*Process
	peaks map[int]peak
	stop  chan struct{}
	wg    sync.WaitGroup
}

// peak is the highest resident memory of a process.
type peak struct {
	end   result.End
	bytes int64
}

// poll is how often the processes are looked at: a process that grows in its
// last 20 ms is not seen there, and looking costs 0.1 % of a core.
const poll = 20 * time.Millisecond

// NewRoom makes a room in which each end may use one CPU. Name is part of the
// cgroups' names, for who looks.
func NewRoom(name string, cores map[result.End]int) (*Room, error) {
	r := &Room{
		calls: make(chan func()), done: make(chan struct{}), cores: cores,
		groups: map[result.End]*group{}, peaks: map[int]peak{}, stop: make(chan struct{}),
	}
	started := make(chan error)
	go r.thread(started)
	if err := <-started; err != nil {
		return nil, err
	}
	for _, e := range Ends {
		g, err := newGroup(fmt.Sprintf("haulbench-%d-%s-%s", os.Getpid(), name, e))
		if err != nil {
			r.Close()
			return nil, err
		}
		r.groups[e] = g
	}
	if r.groups[result.Source].by == byProc {
		r.lacks = append(r.lacks, "no cgroup can be made: CPU time is summed over processes")
	}
	r.wire0 = r.counter()
	r.wg.Go(r.watch)
	return r, nil
}

// thread is the thread that everything is started from. It is never unlocked:
// the runtime ends it with the goroutine, and the namespace with it.
func (r *Room) thread(started chan<- error) {
	runtime.LockOSThread()
	defer close(r.done)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		r.lacks = append(r.lacks, fmt.Sprintf("no network namespace (%v): bytes on the wire are not measured", err))
	} else if err := loUp(); err != nil {
		started <- fmt.Errorf("lo in a new network namespace: %w", err)
		return
	} else {
		r.isolated = true
	}
	started <- nil
	for f := range r.calls {
		f()
	}
}

func loUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// Do runs f on the room's thread, in its network namespace, and waits for it.
func (r *Room) Do(f func()) {
	finished := make(chan struct{})
	r.calls <- func() {
		defer close(finished)
		f()
	}
	<-finished
}

// Lacks says what cannot be measured here, and why.
func (r *Room) Lacks() []string { return r.lacks }

// CPUBy says how CPU time is taken.
func (r *Room) CPUBy() string { return r.groups[result.Source].by }

// counter is the receive counter of lo.
func (r *Room) counter() (n int64) {
	if !r.isolated {
		return 0
	}
	r.Do(func() {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			n, err = parseDev(string(text), "lo")
		}
		if err != nil {
			n = 0
		}
	})
	return n
}

// Wire is how many bytes crossed lo since the room, or Restart; 0 when that cannot be told.
func (r *Room) Wire() int64 { return r.counter() - r.wire0 }

// Restart forgets what was used until now: servers have started, the run begins.
func (r *Room) Restart() {
	for _, g := range r.groups {
		g.zero()
	}
	r.wire0 = r.counter()
}

// CPU is what each end's processes used since Restart, in seconds.
func (r *Room) CPU() map[result.End]float64 {
	all := map[result.End]float64{}
	for e, g := range r.groups {
		all[e] = g.used().Seconds()
	}
	return all
}

// RSS is the highest resident memory of each end's processes, summed.
func (r *Room) RSS() map[result.End]int64 {
	r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[result.End]int64{}
	for _, p := range r.peaks {
		all[p.end] += p.bytes
	}
	return all
}

// watch looks at the processes until the room is closed.
func (r *Room) watch() {
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			r.look()
		}
	}
}

func (r *Room) look() {
	for e, g := range r.groups {
		for _, pid := range g.pids() {
			if n, err := readHWM(pid); err == nil {
				r.mu.Lock()
				r.peaks[pid] = peak{e, max(n, r.peaks[pid].bytes)}
				r.mu.Unlock()
			}
		}
	}
}

// Listens waits until something in the room listens at a TCP port, or has a UDP
// port when network is "udp". It asks the kernel's tables: a server that serves
// one client would take a look for that client.
func (r *Room) Listens(ctx context.Context, network string, port int) error {
	for {
		var text []byte
		var err error
		r.Do(func() {
			for _, file := range []string{network, network + "6"} {
				b, e := os.ReadFile("/proc/thread-self/net/" + file)
				text, err = append(text, b...), errors.Join(err, e)
			}
		})
		if listens(string(text), network, port) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens at %s port %d: %w", network, port, errors.Join(context.Cause(ctx), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Close ends every process that is left in the room, waits for those that it
// started, and removes the cgroups.
func (r *Room) Close() {
	close(r.stop)
	r.wg.Wait()
	r.mu.Lock()
	procs := r.procs
	r.mu.Unlock()
	for _, p := range procs {
		p.End()
	}
	for _, g := range r.groups {
		g.remove()
	}
	close(r.calls)
	<-r.done
}
