package wan

import "encoding/binary"

// The kernel puts a header of 10 bytes before a packet of a TUN device with
// IFF_VNET_HDR (struct virtio_net_hdr, in the byte order of the machine):
//
//	0 flags | 1 kind of bunch | 2 header length | 4 size of a segment |
//	6 where the checksum begins | 8 where it is, from there
const (
	vnetLen    = 10
	vnetKind   = 1
	vnetSeg    = 4
	vnetCsum   = 6
	vnetOffset = 8

	flagCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	kindTCP4 = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	kindUDP4 = 5 // VIRTIO_NET_HDR_GSO_UDP_L4

	ipHeader    = 20
	maxPacket   = vnetLen + 1<<16 // what one read of the device may give
	maxHeader   = vnetLen + 60 + 60
	tcpFinPush  = 0x09
	protocolTCP = 6
)

// bunch is how a packet of the device is cut into packets of the link. One that
// cannot be cut, or is only one, has a single segment.
type bunch struct {
	header  int // bytes of IP and TCP or UDP header, which each segment has
	size    int // payload of a segment; the last may have less
	payload int // of all
	count   int // segments
	tcp     bool
}

// parse reads the headers of b, which begins with the kernel's. Whatever it
// does not know is one packet.
func parse(b []byte) bunch {
	whole := bunch{payload: len(b) - vnetLen, size: len(b) - vnetLen, count: 1}
	kind := b[vnetKind]
	size := int(binary.NativeEndian.Uint16(b[vnetSeg:]))
	l4 := int(binary.NativeEndian.Uint16(b[vnetCsum:]))
	ip := b[vnetLen:]
	if kind != kindTCP4 && kind != kindUDP4 || b[0]&flagCsum == 0 || size == 0 ||
		len(ip) < ipHeader || ip[0]>>4 != 4 || l4 != int(ip[0]&15)*4 || l4+ipHeader > len(ip) {
		return whole
	}
	header := l4 + 8
	if kind == kindTCP4 {
		header = l4 + int(ip[l4+12]>>4)*4
	}
	if header >= len(ip) || header > maxHeader-vnetLen {
		return whole
	}
	n := len(ip) - header
	return bunch{header: header, size: size, payload: n, count: (n + size - 1) / size, tcp: kind == kindTCP4}
}

// bytes is the size of segment i as an IP packet.
func (u *bunch) bytes(i int) int {
	return u.header + min(u.size, u.payload-i*u.size)
}

// part gives segments first to end-1 of b as a bunch of their own: its headers,
// made in buf, and its payload, which is b's.
func (u *bunch) part(buf, b []byte, first, end int) (header, payload []byte) {
	header = append(buf[:0], b[:vnetLen+u.header]...)
	payload = b[vnetLen+u.header:]
	payload = payload[first*u.size : min(end*u.size, len(payload))]
	if end-first == 1 {
		header[vnetKind] = 0
		binary.NativeEndian.PutUint16(header[vnetSeg:], 0)
	}
	ip := header[vnetLen:]
	l4 := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[2:], uint16(u.header+len(payload)))
	binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(first))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:l4]))
	length := uint16(u.header - l4 + len(payload))
	if u.tcp {
		binary.BigEndian.PutUint32(ip[l4+4:], binary.BigEndian.Uint32(ip[l4+4:])+uint32(first*u.size))
		if end < u.count {
			ip[l4+13] &^= tcpFinPush
		}
	} else {
		binary.BigEndian.PutUint16(ip[l4+4:], length)
	}
	// The receiving kernel completes the checksum, or trusts it: what stands in
	// the packet is the sum of the pseudo header.
	at := l4 + int(binary.NativeEndian.Uint16(header[vnetOffset:]))
	if at+2 <= len(ip) {
		binary.BigEndian.PutUint16(ip[at:], sum(uint32(ip[9])+uint32(length), ip[12:20]))
	}
	return header, payload
}

// sum is the ones' complement sum of b, which has an even length, and start.
func sum(start uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return uint16(start)
}
