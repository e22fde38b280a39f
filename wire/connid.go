package wire

import (
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"

	"github.com/quic-go/quic-go"
)

// connIDs makes the connection IDs of a socket: four random bytes and four of
// a keyed hash of them. The hash lets the reader of the socket know a packet
// that a connection of ours will have to process from garbage, without asking
// quic-go; nobody who has not seen an ID can make one. More than counting
// (backlog) does not depend on it.
type connIDs struct{ seed maphash.Seed }

const (
	connIDRandom = 4
	connIDLen    = 8
)

func newConnIDs() *connIDs { return &connIDs{seed: maphash.MakeSeed()} }

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (g *connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [connIDLen]byte
	rand.Read(id[:connIDRandom])
	binary.BigEndian.PutUint32(id[connIDRandom:], g.tag(id[:connIDRandom]))
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (g *connIDs) ConnectionIDLen() int { return connIDLen }

func (g *connIDs) tag(random []byte) uint32 { return uint32(maphash.Bytes(g.seed, random)) }

// ours reports whether packet is one with a short header (RFC 9000, 17.3) for
// an ID of g.
func (g *connIDs) ours(packet []byte) bool {
	return len(packet) > connIDLen && packet[0]&0x80 == 0 &&
		binary.BigEndian.Uint32(packet[1+connIDRandom:]) == g.tag(packet[1:1+connIDRandom])
}
