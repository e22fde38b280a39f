package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// cmsg is one control message as the kernel writes it.
func cmsg(level, kind int32, body ...byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(body)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(body))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], body)
	return b
}

func number(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func groSize(n int32) []byte { return cmsg(unix.SOL_UDP, unix.UDP_GRO, number(n)...) }

var (
	tos   = cmsg(unix.IPPROTO_IP, unix.IP_TOS, 1)
	info4 = cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12)...)
	class = cmsg(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, number(2)...)
	info6 = cmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)...)
)

// fakeUDP reads what was planned, then fails.
type fakeUDP struct{ plan []fakeRead }

type fakeRead struct {
	data  []byte
	oob   []byte
	flags int
	from  netip.AddrPort
}

var errNoMore = errors.New("no more")

func (f *fakeUDP) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	if len(f.plan) == 0 {
		return 0, 0, 0, netip.AddrPort{}, errNoMore
	}
	r := f.plan[0]
	f.plan = f.plan[1:]
	return copy(b, r.data), copy(oob, r.oob), r.flags, r.from, nil
}

// messages are the buffers that quic-go reads into.
func messages(n, size int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, size)}
		ms[i].OOB = make([]byte, 128)
	}
	return ms
}

func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 5)
	}
	return b
}

func TestGROReader(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.1:4433")
	for _, c := range []struct {
		name    string
		size    int // of the caller's buffers
		data    int // bytes read
		oob     []byte
		want    []int // bytes of each packet
		control []byte
		stats   PacketStats
	}{
		{"one packet", 1452, 1200, tos, []int{1200}, tos, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"no control", 1452, 1200, nil, []int{1200}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"empty", 1452, 0, tos, []int{0}, tos, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"empty with a size", 1452, 0, groSize(100), []int{0}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"equal", 1452, 300, slices.Concat(tos, groSize(100), info4), []int{100, 100, 100}, slices.Concat(tos, info4), PacketStats{MergedReads: 1, MergedPackets: 3}},
		{"last shorter", 1452, 201, slices.Concat(groSize(100), class, info6), []int{100, 100, 1}, slices.Concat(class, info6), PacketStats{MergedReads: 1, MergedPackets: 3}},
		{"more than a batch", 1452, 1000, groSize(100), slices.Repeat([]int{100}, 10), nil, PacketStats{MergedReads: 1, MergedPackets: 10}},
		{"both versions", 1452, 7, slices.Concat(tos, info4, class, info6, groSize(6)), []int{6, 1}, slices.Concat(tos, info4, class, info6), PacketStats{MergedReads: 1, MergedPackets: 2}},
		{"size zero", 1452, 300, groSize(0), []int{300}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"size negative", 1452, 300, groSize(-5), []int{300}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"size of all", 1452, 300, groSize(300), []int{300}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"size above all", 1452, 300, groSize(301), []int{300}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"size cut off", 1452, 300, groSize(100)[:18], []int{300}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"too large", 200, 601, slices.Concat(tos, groSize(300)), []int{200, 200, 1}, tos, PacketStats{MergedReads: 1, MergedPackets: 3, Truncated: 2}},
		{"garbage", 1452, 300, bytes.Repeat([]byte{0xff}, 64), []int{300}, nil, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"garbage behind", 1452, 300, slices.Concat(groSize(200), tos, bytes.Repeat([]byte{7}, 40)), []int{200, 100}, tos, PacketStats{MergedReads: 1, MergedPackets: 2}},
		{"what quic-go would not take", 1452, 9, slices.Concat(cmsg(unix.IPPROTO_IP, unix.IP_TOS, 1, 2), cmsg(unix.SOL_SOCKET, 999, 1), tos), []int{9}, tos, PacketStats{PlainReads: 1, PlainPackets: 1}},
		{"drops", 1452, 9, cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, number(5)...), []int{9}, nil, PacketStats{PlainReads: 1, PlainPackets: 1, Overflowed: 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := numbered(c.data)
			conn := &PacketConn{}
			conn.gro = newGROReader(&fakeUDP{plan: []fakeRead{{data: data, oob: c.oob, from: from}}}, &conn.stats)
			conn.backlog = newBacklog(&conn.stats)
			ms := messages(8, c.size)
			var got []int
			step := groSizeOf(c.oob, c.data)
			for len(got) < len(c.want) {
				n, err := conn.ReadBatch(ms, 0)
				if err != nil || n == 0 {
					t.Fatalf("%d packets, %v", n, err)
				}
				for _, m := range ms[:n] {
					whole := data[min(len(got)*step, len(data)):]
					if !bytes.Equal(m.Buffers[0][:m.N], whole[:m.N]) {
						t.Errorf("packet %d has other bytes", len(got))
					}
					if cut := m.N == c.size; cut != (m.Flags&unix.MSG_TRUNC != 0) {
						t.Errorf("packet %d: flags %#x", len(got), m.Flags)
					}
					if !bytes.Equal(m.OOB[:m.NN], c.control) {
						t.Errorf("packet %d: control % x, want % x", len(got), m.OOB[:m.NN], c.control)
					}
					if m.Addr.String() != from.String() {
						t.Errorf("packet %d is from %v", len(got), m.Addr)
					}
					got = append(got, m.N)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("packets of %d bytes, want %d", got, c.want)
			}
			c.stats.GRO = "on"
			if st := conn.Stats(); st != c.stats {
				t.Errorf("stats %+v, want %+v", st, c.stats)
			}
			if n, err := conn.ReadBatch(ms, 0); err != errNoMore {
				t.Errorf("then %d packets, %v", n, err)
			}
		})
	}
}

// groSizeOf is the distance of packets that a table's control stands for.
func groSizeOf(oob []byte, data int) int {
	if n := readControl(slices.Clone(oob)).segment; n > 0 && n < data {
		return n
	}
	return data
}

func TestGROReaderAddresses(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1%3]:2")
	var stats packetCounters
	plan := []fakeRead{{data: []byte("x"), from: a}, {data: []byte("x"), from: b}, {data: []byte("x"), from: a}}
	r := newGROReader(&fakeUDP{plan: plan}, &stats)
	var got []*net.UDPAddr
	for range plan {
		ms := messages(1, 10)
		if _, _, err := r.read(ms); err != nil {
			t.Fatal(err)
		}
		got = append(got, ms[0].Addr.(*net.UDPAddr))
	}
	if got[0] != got[2] || got[0].AddrPort() != a || got[1].AddrPort() != b {
		t.Errorf("addresses %v", got)
	}
	for i := range 2 * maxAddrs {
		r.address(netip.AddrPortFrom(a.Addr(), uint16(i)))
	}
	if len(r.addrs) > maxAddrs {
		t.Errorf("%d addresses kept", len(r.addrs))
	}
}

// forever reads the same again and again.
type forever fakeRead

func (f *forever) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	return copy(b, f.data), copy(oob, f.oob), 0, f.from, nil
}

func TestReadBatchAllocates(t *testing.T) {
	conn := &PacketConn{}
	conn.backlog = newBacklog(&conn.stats)
	id, _ := conn.backlog.ids.GenerateConnectionID()
	packet := append([]byte{0x40}, id.Bytes()...)
	conn.gro = newGROReader(&forever{data: bytes.Repeat(packet, 20), oob: slices.Concat(groSize(9), tos), from: netip.MustParseAddrPort("192.0.2.1:1")}, &conn.stats)
	ms := messages(8, 100)
	if n := leastAllocs(1000, func() {
		if _, err := conn.ReadBatch(ms, 0); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is kept is understood, and all of it is kept when it is parsed again.
func FuzzReadControl(f *testing.F) {
	f.Add(slices.Concat(tos, groSize(1452), info4))
	f.Add(slices.Concat(class, info6, cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, number(7)...)))
	f.Add(groSize(100)[:17])
	f.Add(bytes.Repeat([]byte{0xff}, 33))
	f.Fuzz(func(t *testing.T, oob []byte) {
		rest := slices.Clone(readControl(oob).rest)
		if len(rest) > len(oob) {
			t.Fatalf("%d bytes of %d are kept", len(rest), len(oob))
		}
		again := readControl(slices.Clone(rest))
		if !bytes.Equal(again.rest, rest) || again.segment != 0 || again.hasDrops {
			t.Errorf("% x\nparsed again: %+v", rest, again)
		}
		messages, err := unix.ParseSocketControlMessage(rest)
		if err != nil {
			t.Errorf("% x: %v", rest, err)
		}
		for _, m := range messages {
			if m.Header.Level != unix.IPPROTO_IP && m.Header.Level != unix.IPPROTO_IPV6 {
				t.Errorf("kept %+v", m.Header)
			}
		}
	})
}

func TestConnIDs(t *testing.T) {
	g, other := newConnIDs(), newConnIDs()
	seen := map[string]bool{}
	for range 1000 {
		id, err := g.GenerateConnectionID()
		if err != nil || id.Len() != g.ConnectionIDLen() || seen[id.String()] {
			t.Fatalf("%v, %v", id, err)
		}
		seen[id.String()] = true
		packet := append(append([]byte{0x43}, id.Bytes()...), "payload"...)
		if !g.ours(packet) {
			t.Fatalf("%x is not ours", packet)
		}
		if other.ours(packet) {
			t.Fatalf("%x is everybody's", packet)
		}
		for n := range connIDLen + 1 {
			if g.ours(packet[:n]) {
				t.Fatalf("%x is ours", packet[:n])
			}
		}
		packet[0] = 0xc3
		if g.ours(packet) {
			t.Fatalf("%x has a long header", packet)
		}
	}
}
