package wan

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// makeBunch is what the kernel gives for payload bytes of TCP or UDP.
func makeBunch(kind byte, size, payload int) []byte {
	l4 := 8
	if kind == kindTCP4 {
		l4 = 32
	}
	b := make([]byte, vnetLen+ipHeader+l4+payload)
	b[0], b[vnetKind] = flagCsum, kind
	binary.NativeEndian.PutUint16(b[vnetSeg:], uint16(size))
	binary.NativeEndian.PutUint16(b[vnetCsum:], ipHeader)
	ip := b[vnetLen:]
	ip[0], ip[9] = 0x45, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], 0xffff) // the identification wraps
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	offset := 6
	if kind == kindTCP4 {
		ip[9], offset = protocolTCP, 16
		binary.BigEndian.PutUint32(ip[ipHeader+4:], 0xffff_ff00) // so does the sequence number
		ip[ipHeader+12] = 8 << 4
		ip[ipHeader+13] = 0x18 // PSH, ACK
	} else {
		binary.BigEndian.PutUint16(ip[ipHeader+4:], uint16(8+payload))
	}
	binary.NativeEndian.PutUint16(b[vnetOffset:], uint16(offset))
	for i := range payload {
		ip[ipHeader+l4+i] = byte(i % 251)
	}
	return b
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name string
		b    []byte
		want bunch
	}{
		{"TCP", makeBunch(kindTCP4, 1448, 4000), bunch{52, 1448, 4000, 3, true}},
		{"UDP", makeBunch(kindUDP4, 1400, 2800), bunch{28, 1400, 2800, 2, false}},
		{"one packet", makeBunch(0, 0, 100), bunch{0, 128, 128, 1, false}},
		{"IPv6", append(make([]byte, vnetLen), 0x60, 0, 0), bunch{0, 3, 3, 1, false}},
		{"UFO", makeBunch(3, 1400, 2800), bunch{0, 2828, 2828, 1, false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := parse(tc.b)
			if got != tc.want {
				t.Fatalf("parse: %+v, want %+v", got, tc.want)
			}
			for i := range got.count {
				if n := got.bytes(i); n <= 0 || n > max(mtu, len(tc.b)) {
					t.Errorf("segment %d has %d bytes", i, n)
				}
			}
		})
	}
}

// TestParseAnything: no packet may make the loop panic.
func TestParseAnything(t *testing.T) {
	for _, kind := range []byte{0, kindTCP4, kindUDP4, 0xff} {
		whole := makeBunch(kind, 1, 60)
		for n := vnetLen + 1; n <= len(whole); n++ {
			for _, options := range []byte{0x45, 0x4f, 0x40} {
				b := bytes.Clone(whole[:n])
				b[vnetLen] = options
				u := parse(b)
				if u.count > 1 {
					u.part(make([]byte, maxHeader), b, 0, 1)
				}
			}
		}
	}
}

func TestPart(t *testing.T) {
	for _, kind := range []byte{kindTCP4, kindUDP4} {
		b := makeBunch(kind, 1000, 3500)
		u := parse(b)
		for _, r := range []struct{ first, end int }{{0, 1}, {1, 3}, {3, 4}, {0, 4}} {
			header, payload := u.part(make([]byte, maxHeader), b, r.first, r.end)
			ip := header[vnetLen:]
			if want := b[vnetLen+u.header:][r.first*1000 : min(r.end*1000, 3500)]; !bytes.Equal(payload, want) {
				t.Errorf("kind %d %v: %d bytes of payload are not those of the segments", kind, r, len(payload))
			}
			if n := int(binary.BigEndian.Uint16(ip[2:])); n != len(ip)+len(payload) {
				t.Errorf("kind %d %v: IP says %d bytes, has %d", kind, r, n, len(ip)+len(payload))
			}
			if s := sum(0, ip[:ipHeader]); s != 0xffff {
				t.Errorf("kind %d %v: sum of the IP header is %#x, want 0xffff", kind, r, s)
			}
			if id := binary.BigEndian.Uint16(ip[4:]); id != uint16(0xffff+r.first) {
				t.Errorf("kind %d %v: identification %#x", kind, r, id)
			}
			if one := r.end-r.first == 1; one != (header[vnetKind] == 0) {
				t.Errorf("kind %d %v: kind %d in the kernel's header", kind, r, header[vnetKind])
			}
			l4 := ip[ipHeader:]
			if kind == kindUDP4 {
				if n := int(binary.BigEndian.Uint16(l4[4:])); n != 8+len(payload) {
					t.Errorf("%v: UDP says %d bytes, want %d", r, n, 8+len(payload))
				}
				continue
			}
			if seq := binary.BigEndian.Uint32(l4[4:]); seq != 0xffff_ff00+uint32(r.first*1000) {
				t.Errorf("%v: sequence number %#x", r, seq)
			}
			if push := l4[13]&8 != 0; push != (r.end == 4) {
				t.Errorf("%v: push flag %v: only the last part may have it", r, push)
			}
		}
	}
}
