package wire

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// groControl is what the control messages of one read may take: the segment
// size, the kernel's drops, and of both IP versions the traffic class and the
// packet info, which together are 168 bytes.
const groControl = 256

// notes is what the control messages of a read say.
type notes struct {
	segment  int    // bytes; 0: one packet
	drops    uint32 // of the socket so far
	hasDrops bool
	// rest are the messages that quic-go understands: ECN and packet info.
	rest []byte
}

// readControl parses oob and keeps rest at its beginning. The kernel writes no
// garbage; but quic-go closes the socket on a message that it cannot parse, so
// what is not as expected is left out.
func readControl(oob []byte) notes {
	var c notes
	keep := 0
	for left := oob; len(left) > 0; {
		h, body, remainder, err := unix.ParseOneSocketControlMessage(left)
		if err != nil {
			break
		}
		whole := left[:len(left)-len(remainder)]
		left = remainder
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 4:
			c.segment = int(int32(binary.NativeEndian.Uint32(body)))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(body) >= 4:
			c.drops, c.hasDrops = binary.NativeEndian.Uint32(body), true
		case understood(h.Level, h.Type, len(body)):
			keep += copy(oob[keep:], whole)
		}
	}
	c.rest = oob[:keep]
	return c
}

func understood(level, kind int32, size int) bool {
	switch level {
	case unix.IPPROTO_IP:
		return kind == unix.IP_TOS && size == 1 || kind == unix.IP_PKTINFO && size == unix.SizeofInet4Pktinfo
	case unix.IPPROTO_IPV6:
		return kind == unix.IPV6_TCLASS && size == 4 || kind == unix.IPV6_PKTINFO && size == unix.SizeofInet6Pktinfo
	}
	return false
}
