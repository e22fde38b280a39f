package wire

import "crypto/tls"

// HostileConfig speaks the pairing protocol and believes everybody.
func HostileConfig(key *Key) (*tls.Config, error) {
	return tlsConfig(key, func(ID) error { return nil }, pairALPN)
}

// JoinAnyone is the joiner's end for one who does not look at keys.
func JoinAnyone(conn *tls.Conn, key *Key, code PairCode) (ID, error) {
	return join(conn.ConnectionState(), key, code, "", "", conn)
}
