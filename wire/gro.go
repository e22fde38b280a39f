package wire

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// groBuffer holds whatever the kernel may merge: a datagram is never larger.
const groBuffer = 64 << 10

// groReader reads with UDP_GRO: the kernel hands over up to 64 KiB of one
// sender's packets of equal size, the last may be shorter, as one datagram and
// says the size. It merges only packets of the same traffic class, so the ECN
// mark is that of each. 14 packets, which is what quic-go sends at once, cost
// one system call instead of two, and one walk through the kernel's receive
// path instead of 14.
type groReader struct {
	in    udpReader
	stats *packetCounters
	buf   []byte
	oob   [groControl]byte

	// What is left of the last read.
	more    bool
	data    []byte
	segment int
	control []byte
	from    *net.UDPAddr

	addrs map[netip.AddrPort]*net.UDPAddr
	drops uint32
}

type udpReader interface {
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
}

// maxAddrs bounds the cache of addresses: more peers than a daemon has
// sessions, times connections.
const maxAddrs = 1024

func newGROReader(in udpReader, stats *packetCounters) *groReader {
	return &groReader{in: in, stats: stats, buf: make([]byte, groBuffer), addrs: map[netip.AddrPort]*net.UDPAddr{}}
}

// read fills ms with packets, at least one, and waits for one if none is left.
// It reports whether the kernel has dropped packets since the last read.
func (r *groReader) read(ms []ipv4.Message) (n int, overflow bool, err error) {
	if !r.more {
		if overflow, err = r.fetch(); err != nil {
			return 0, false, err
		}
	}
	for n < len(ms) && r.more {
		r.next(&ms[n])
		n++
	}
	return n, overflow, nil
}

func (r *groReader) fetch() (overflow bool, err error) {
	n, oobn, flags, addr, err := r.in.ReadMsgUDPAddrPort(r.buf, r.oob[:])
	if err != nil {
		return false, err
	}
	c := readControl(r.oob[:oobn])
	r.more, r.data, r.control, r.from = true, r.buf[:n], c.rest, r.address(addr)
	r.segment = c.segment
	if c.segment <= 0 || c.segment >= n {
		r.segment = n
		r.stats.plainReads.Add(1)
		r.stats.plainPackets.Add(1)
	} else {
		r.stats.mergedReads.Add(1)
		r.stats.mergedPackets.Add(uint64((n + r.segment - 1) / r.segment))
	}
	if flags&unix.MSG_TRUNC != 0 { // larger than a datagram can be
		r.stats.truncated.Add(1)
	}
	if c.hasDrops && c.drops != r.drops {
		r.stats.overflowed.Add(uint64(c.drops - r.drops)) // it wraps
		r.drops = c.drops
		overflow = true
	}
	return overflow, nil
}

// next moves one packet to m, as the kernel would: what does not fit is cut
// off and m says so.
func (r *groReader) next(m *ipv4.Message) {
	packet := r.data[:min(r.segment, len(r.data))]
	r.data = r.data[len(packet):]
	r.more = len(r.data) > 0
	m.N, m.NN, m.Flags, m.Addr = 0, 0, 0, r.from
	if len(m.Buffers) > 0 {
		m.N = copy(m.Buffers[0], packet)
	}
	if m.N < len(packet) {
		m.Flags |= unix.MSG_TRUNC
		r.stats.truncated.Add(1)
	}
	if len(r.control) <= len(m.OOB) {
		m.NN = copy(m.OOB, r.control)
	} else {
		m.Flags |= unix.MSG_CTRUNC
	}
}

// address is addr as quic-go wants it. It keeps some of them for as long as a
// connection lives, so they are never changed.
func (r *groReader) address(addr netip.AddrPort) *net.UDPAddr {
	if a := r.addrs[addr]; a != nil {
		return a
	}
	if len(r.addrs) >= maxAddrs {
		clear(r.addrs)
	}
	a := net.UDPAddrFromAddrPort(addr)
	r.addrs[addr] = a
	return a
}
