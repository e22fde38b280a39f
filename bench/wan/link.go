package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRoot means that this process may not make network namespaces and TUN devices.
var ErrRoot = errors.New("wan: only root can emulate a link (network namespaces, /dev/net/tun)")

// Config describes a link. The zero Config is two namespaces and a wire.
type Config struct {
	Out, Back Path   // from A to B, and from B to A
	Seed      uint64 // of the losses
	// Sysctls are set in both namespaces, by path below /proc/sys:
	// "net/ipv4/tcp_wmem". Not all are allowed there.
	Sysctls map[string]string
}

// Symmetric is a link of rate bits a second and a round trip of rtt, whose queues
// hold what the line sends in queue. The share loss of the packets from A to B is
// lost; what comes back, acknowledgements mostly, is not touched.
func Symmetric(rate int64, rtt, queue time.Duration, loss float64, seed uint64) Config {
	back := Path{Rate: rate, Delay: rtt / 2, Queue: queue}
	out := back
	out.Loss = loss
	return Config{Out: out, Back: back, Seed: seed}
}

// Stats are the counts of both directions.
type Stats struct{ Out, Back Counts }

// Link is an emulated link between two sides. Its methods may be used by
// several goroutines.
type Link struct {
	A, B *Side

	out, back *way
	wake      int // eventfd: Close was called
	close     sync.Once
	done      chan struct{} // closed when the loop has ended
	err       error         // why it ended; read after done
}

// tick is the shortest time between two rounds of the loop. At 1 Gbit/s it is 16
// packets.
const tick = 200 * time.Microsecond

// round is how many bunches are taken from one side before the other has its turn.
const round = 256

// New makes a link and starts its loop. Close ends it.
func New(c Config) (*Link, error) {
	if err := errors.Join(c.Out.validate(), c.Back.validate()); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, ErrRoot
	}
	l := &Link{wake: -1, done: make(chan struct{})}
	var err error
	if l.A, err = newSide(netip.MustParseAddr("192.0.2.1"), c.Sysctls); err == nil {
		l.B, err = newSide(netip.MustParseAddr("192.0.2.2"), c.Sysctls)
	}
	if err == nil {
		l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		l.release()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("%w: %w", ErrRoot, err) // a container's root, or one without the device
		}
		return nil, err
	}
	l.out = newWay(l.A.tun, l.B.tun, c.Out, c.Seed, 1)
	l.back = newWay(l.B.tun, l.A.tun, c.Back, c.Seed, 2)
	go l.loop()
	return l, nil
}

// Stats is what has passed so far.
func (l *Link) Stats() Stats { return Stats{Out: l.out.counts(), Back: l.back.counts()} }

// Close ends the loop and gives the namespaces back. Processes that still run in
// them find a network on which nothing arrives; ending them is the caller's. It
// returns why the loop ended, if that was before.
func (l *Link) Close() error {
	l.close.Do(func() {
		one := [8]byte{7: 1, 0: 1}
		_, _ = unix.Write(l.wake, one[:]) // cannot fail: the counter is far from full
		<-l.done
		l.release()
	})
	return l.err
}

func (l *Link) release() {
	for _, s := range []*Side{l.A, l.B} {
		if s != nil {
			s.close()
		}
	}
	if l.wake >= 0 {
		unix.Close(l.wake)
	}
}

// loop moves packets until Close. One thread does both directions: with two, the
// cores that the daemons need would be woken twice as often.
func (l *Link) loop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(l.done)
	fds := []unix.PollFd{
		{Fd: int32(l.wake), Events: unix.POLLIN},
		{Fd: int32(l.A.tun), Events: unix.POLLIN},
		{Fd: int32(l.B.tun), Events: unix.POLLIN},
	}
	for {
		now := monotonic()
		l.out.deliver(now)
		l.back.deliver(now)
		n, err := l.out.take(now, round)
		m, err2 := l.back.take(now, round)
		if l.err = errors.Join(err, err2); l.err != nil {
			return
		}
		watch := fds
		if n+m > 0 {
			watch = fds[:1] // more will come: look at all of it in a tick
		}
		if n < round && m < round {
			wait := l.wait(now, n+m > 0)
			if _, err := unix.Ppoll(watch, wait, nil); err != nil && !errors.Is(err, unix.EINTR) {
				l.err = fmt.Errorf("wan: ppoll: %w", err)
				return
			}
		}
		if fds[0].Revents != 0 {
			return
		}
	}
}

// wait is how long nothing has to be done; nil is for ever.
func (l *Link) wait(now int64, busy bool) *unix.Timespec {
	const never = 1 << 62
	at := int64(never)
	for _, w := range []*way{l.out, l.back} {
		if due, ok := w.next(); ok {
			at = min(at, due)
		}
	}
	if busy {
		at = min(at, now+int64(tick))
	}
	if at == never {
		return nil
	}
	t := unix.NsecToTimespec(max(at-now, int64(tick)))
	return &t
}
