package daemon

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
)

// The names of sockets that a service manager may hand over (FileDescriptorName=),
// and the units that do.
const (
	quicSocket    = "quic"
	tlsSocket     = "tls"
	controlSocket = "control"
)

var socketUnits = map[string]string{quicSocket: "haulbackd.socket", tlsSocket: "haulbackd-tls.socket", controlSocket: "the socket unit of the control API"}

// passed are the sockets that a service manager has opened for this daemon; what
// it has not is opened here.
type passed struct {
	quic    *net.UDPConn
	tls     *net.TCPListener
	control *net.UnixListener
}

// takeSockets takes over what was handed over. What does not agree with the
// configuration is a mistake of one of the two: a daemon that listens where
// nobody has said so, or not where somebody did, is found out at night.
func takeSockets(cfg *config.Config) (p *passed, err error) {
	p = new(passed)
	defer func() {
		if err != nil {
			p.close()
			err = exitcode.Port(err)
		}
	}()
	seen := []string{}
	for _, f := range activation.Files(true) { // no child has to see them
		defer f.Close() // net has one of its own
		name := f.Name()
		if slices.Contains(seen, name) {
			return p, fmt.Errorf("socket %q of the service manager came twice; one socket unit has one address", name)
		}
		seen = append(seen, name)
		if err := p.take(name, f); err != nil {
			return p, err
		}
	}
	return p, p.check(cfg)
}

// take makes a socket of f.
func (p *passed) take(name string, f *os.File) error {
	var kind string
	ok := false
	switch name {
	case quicSocket:
		kind = "of UDP (ListenDatagram=)"
		if c, err := net.FilePacketConn(f); err == nil {
			if p.quic, ok = c.(*net.UDPConn); !ok {
				c.Close()
			}
		}
	case tlsSocket, controlSocket:
		l, err := net.FileListener(f)
		if name == tlsSocket {
			kind = "of TCP (ListenStream=ADDRESS:PORT)"
			p.tls, ok = l.(*net.TCPListener)
		} else {
			kind = "at a path (ListenStream=/PATH)"
			p.control, ok = l.(*net.UnixListener)
		}
		if err == nil && !ok {
			l.Close()
		}
	default:
		return fmt.Errorf("socket %q of the service manager: nobody knows what it is for; FileDescriptorName= is %s, %s or %s", name, quicSocket, tlsSocket, controlSocket)
	}
	if !ok {
		return fmt.Errorf("socket %q of the service manager is none %s that listens; look at %s", name, kind, socketUnits[name])
	}
	return nil
}

// check compares what was handed over with the configuration.
func (p *passed) check(cfg *config.Config) error {
	if p.quic != nil {
		if err := agrees(quicSocket, cfg.QUIC, cfg.Listen, p.quic.LocalAddr()); err != nil {
			return err
		}
	}
	if p.tls != nil {
		if err := agrees(tlsSocket, cfg.TLS, cfg.Listen, p.tls.Addr()); err != nil {
			return err
		}
	}
	if p.quic != nil && p.tls != nil && portOf(p.quic.LocalAddr()) != portOf(p.tls.Addr()) {
		return fmt.Errorf("the service manager hands over udp %v and tcp %v: peers know one port; write the same into %s and %s",
			p.quic.LocalAddr(), p.tls.Addr(), socketUnits[quicSocket], socketUnits[tlsSocket])
	}
	if p.control == nil {
		return nil
	}
	switch path := p.control.Addr().String(); {
	case cfg.Control.Socket == "":
		return fmt.Errorf("the service manager hands over the control socket %s, and the configuration wants none; take out control.socket = \"none\", or mask its socket unit", path)
	case path != cfg.Control.Socket:
		return fmt.Errorf("the service manager hands over the control socket %s, and the configuration says %s; write control.socket and ListenStream= of its socket unit alike", path, cfg.Control.Socket)
	}
	return nil
}

// agrees says whether a socket is where the configuration listens. A socket at
// every address of a machine, of both kinds, is at 0.0.0.0 too.
func agrees(name string, wanted bool, listen string, got net.Addr) error {
	if !wanted {
		return fmt.Errorf("the service manager hands over %s %v, and transports has no %q; add it there, or run: systemctl mask --now %s", got.Network(), got, name, socketUnits[name])
	}
	want, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ip := ipOf(got)
	same := want.IP.Equal(ip) || want.IP == nil && ip.IsUnspecified() || ip.Equal(net.IPv6unspecified) && want.IP.IsUnspecified()
	if !same || want.Port != 0 && want.Port != portOf(got) {
		return fmt.Errorf("the service manager hands over %s %v, and the configuration says listen = %q; write it and the address of %s alike (systemctl edit %[4]s, with an empty Listen...= before the new one)",
			got.Network(), got, listen, socketUnits[name])
	}
	return nil
}

func ipOf(a net.Addr) net.IP {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.IP
	case *net.TCPAddr:
		return a.IP
	}
	return nil
}

func portOf(a net.Addr) int {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.Port
	case *net.TCPAddr:
		return a.Port
	}
	return 0
}

// any reports whether the port of peers was handed over, at least in part.
func (p *passed) any() bool { return p.quic != nil || p.tls != nil }

// names are the sockets that were handed over, for the log.
func (p *passed) names() string {
	var list []string
	if p.quic != nil {
		list = append(list, quicSocket)
	}
	if p.tls != nil {
		list = append(list, tlsSocket)
	}
	if p.control != nil {
		list = append(list, controlSocket)
	}
	return strings.Join(list, " ")
}

// close gives up what nobody has taken; a start has failed.
func (p *passed) close() {
	if p.quic != nil {
		p.quic.Close()
	}
	if p.tls != nil {
		p.tls.Close()
	}
	if p.control != nil {
		p.control.Close()
	}
}
