package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Side is one end of a link: a network namespace with one address. Its methods
// may be used by several goroutines.
type Side struct {
	// Addr is the address of this side. It is of a range for documentation and
	// leads nowhere else.
	Addr netip.Addr
	ns   int // file descriptor of the namespace
	tun  int // of the device; no os.File, which its finalizer would close
}

const (
	mtu      = 1500
	device   = "wan0"
	backlog  = 10000 // packets that may wait in the device while the loop is not scheduled; the kernel's 500 are 6 ms
	tunPath  = "/dev/net/tun"
	loopback = "lo"
)

// Path is a name of the namespace, for "nsenter --net=". It is good for as long
// as the process lives and the link is open.
func (s *Side) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.ns) }

// Start starts cmd in the namespace. Everything else is the caller's, Wait too.
func (s *Side) Start(cmd *exec.Cmd) error { return s.Do(cmd.Start) }

// Do runs f in the namespace: sockets that f itself makes belong to it, for their
// whole life. Goroutines that f starts are elsewhere; net.Dial of one literal
// address starts none.
func (s *Side) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(s.ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("wan: enter namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f, which may change the thread's namespace, on a thread that is
// given back as it was. One that cannot be is ended.
func onThread(f func() error) error {
	var own int
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		if own, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			done <- fmt.Errorf("wan: own namespace: %w", err)
			return
		}
		defer unix.Close(own)
		err = f()
		if unix.Setns(own, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// newSide makes a namespace with a device that has addr of a net of 4.
func newSide(addr netip.Addr, sysctls map[string]string) (s *Side, err error) {
	s = &Side{Addr: addr, ns: -1, tun: -1}
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("wan: make a network namespace: %w", err)
		}
		var err error
		if s.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("wan: name the namespace: %w", err)
		}
		if err := s.open(); err != nil {
			return err
		}
		for key, value := range sysctls {
			if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
				return fmt.Errorf("wan: sysctl in the namespace: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// open makes the device, in the namespace of the thread.
func (s *Side) open() error {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("wan: open %s: %w", tunPath, err)
	}
	s.tun = fd
	if err := ifreq(fd, unix.TUNSETIFF, device, func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return nil
	}); err != nil {
		return err
	}
	// Bunches of UDP exist since Linux 6.2; before, the kernel cuts them.
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) != nil {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
			return fmt.Errorf("wan: TUNSETOFFLOAD: %w", err)
		}
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("wan: socket: %w", err)
	}
	defer unix.Close(sock)
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	number := func(n uint32) func(*unix.Ifreq) error {
		return func(r *unix.Ifreq) error { r.SetUint32(n); return nil }
	}
	ip := s.Addr.As4()
	return errors.Join(
		ifreq(sock, unix.SIOCSIFFLAGS, loopback, up),
		ifreq(sock, unix.SIOCSIFADDR, device, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }),
		ifreq(sock, unix.SIOCSIFNETMASK, device, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 252}) }),
		ifreq(sock, unix.SIOCSIFMTU, device, number(mtu)),
		ifreq(sock, unix.SIOCSIFTXQLEN, device, number(backlog)),
		ifreq(sock, unix.SIOCSIFFLAGS, device, up),
	)
}

// ifreq does one request about the interface name.
func ifreq(fd int, request uint, name string, set func(*unix.Ifreq) error) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := set(r); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		return fmt.Errorf("wan: interface %s: request %#x: %w", name, request, err)
	}
	return nil
}

func (s *Side) close() {
	for _, fd := range []int{s.tun, s.ns} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	s.tun, s.ns = -1, -1
}
