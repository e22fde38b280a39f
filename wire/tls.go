package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// alpn is the protocol and its version. It is part of the TLS transcript, so
// nobody between two ends can make them talk an older version.
const alpn = "haulback/1"

// Peers says who may connect. It is asked at every handshake, from many
// goroutines, so that a reload takes effect without a restart. Links that
// exist are the caller's to close.
type Peers interface {
	Allowed(ID) bool
}

// tlsConfig is what both ends have in common. Dates are ignored, there is no
// CA and no name: the peer is its key, checked by verify on every handshake.
// There are no tickets and no 0-RTT, so nothing can be replayed.
func tlsConfig(key *Key, verify func(ID) error, protos ...string) (*tls.Config, error) {
	cert, err := key.certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{cert},
		ClientAuth:         tls.RequireAnyClientCert,
		NextProtos:         protos,
		InsecureSkipVerify: true, // VerifyConnection pins the key instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !slices.Contains(protos, cs.NegotiatedProtocol) {
				return Errorf(CodeVersion, "%w: the peer does not speak %s", ErrVersion, protos[0])
			}
			id, err := keyID(cs)
			if err != nil {
				return err
			}
			return verify(id)
		},
		SessionTicketsDisabled: true,
		// 16 KiB records from the first byte: bulk, not pages.
		DynamicRecordSizingDisabled: true,
	}, nil
}

// listenConfig admits who peers admits, to alpn and the protocols in more. While inv has an invitation open, any
// key may come to pair, and do nothing else; inv may be nil.
func listenConfig(key *Key, peers Peers, inv Inviter, more ...string) (*tls.Config, error) {
	conf, err := tlsConfig(key, func(id ID) error {
		if id == key.id || !peers.Allowed(id) {
			return Errorf(CodeUnauthorized, "%w: %s; to admit it run: haulback peer add %s", ErrUnknownPeer, id, id)
		}
		return nil
	}, append([]string{alpn}, more...)...)
	if err != nil || inv == nil {
		return conf, err
	}
	session := conf.VerifyConnection
	conf.NextProtos = append(conf.NextProtos, pairALPN)
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != pairALPN {
			return session(cs)
		}
		id, err := keyID(cs)
		if err == nil && (id == key.id || !inv.Inviting()) {
			err = Errorf(CodeUnauthorized, "%w: %s wants to join, and no invitation is open", ErrUnknownPeer, id)
		}
		return err
	}
	return conf, nil
}

// dialConfig admits want only: one identity, or two of a peer that is about to
// change its key.
func dialConfig(key *Key, want ...ID) (*tls.Config, error) { return pinned(key, alpn, want) }

// pinned is dialConfig for proto.
func pinned(key *Key, proto string, want []ID) (*tls.Config, error) {
	if len(want) == 0 || slices.ContainsFunc(want, ID.IsZero) {
		return nil, fmt.Errorf("%w: no ID to expect", ErrUnknownPeer)
	}
	return tlsConfig(key, func(id ID) error {
		if !slices.Contains(want, id) {
			return Errorf(CodeUnauthorized, "%w: the peer is %s and not %s; if its key was remade run: haulback peer add %s",
				ErrUnknownPeer, id, want[0], id)
		}
		return nil
	}, proto)
}

// verifiedID is the identity of the other end of a connection whose handshake
// proved that it holds the key.
func verifiedID(cs tls.ConnectionState) (ID, error) { return provenID(cs, alpn) }

// provenID is verifiedID of a connection that speaks proto.
func provenID(cs tls.ConnectionState, proto string) (ID, error) {
	if cs.NegotiatedProtocol != proto {
		return ID{}, Errorf(CodeVersion, "%w: the peer does not speak %s", ErrVersion, proto)
	}
	return keyID(cs)
}

// keyID is the identity of the key at the other end, whatever it speaks.
func keyID(cs tls.ConnectionState) (ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return ID{}, Errorf(CodeUnauthorized, "%w: it shows no certificate", ErrUnknownPeer)
	}
	cert := cs.PeerCertificates[0]
	if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok {
		return ID{}, Errorf(CodeUnauthorized, "%w: its key is not Ed25519", ErrUnknownPeer)
	}
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo), nil
}

// certificate makes the self-signed certificate that carries the key. The
// dates are valid forever for the programs that look at them (RFC 5280
// 4.1.2.5: no well-defined end); ours do not.
func (k *Key) certificate() (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.private}, nil
}

// Alerts of RFC 8446 section 6 that we tell people about.
const (
	alertBadCertificate = 42  // what a failed VerifyConnection sends
	alertCertRequired   = 116 // sent when we show no certificate
	alertNoALPN         = 120
)

// refused explains a fatal alert that the peer at addr sent to self.
func refused(alert uint8, addr net.Addr, self ID) *Error {
	switch alert {
	case alertBadCertificate, alertCertRequired:
		return Errorf(CodeUnauthorized, "%w: the peer at %s has not paired this daemon; on it run: haulback peer add %s",
			ErrUnknownPeer, addr, self)
	case alertNoALPN:
		return Errorf(CodeVersion, "%w: the peer at %s does not speak %s", ErrVersion, addr, alpn)
	}
	return Errorf(CodeFrame, "the peer at %s ended the handshake: %w", addr, tls.AlertError(alert))
}

// remoteAlert finds the alert in an error of crypto/tls, which keeps its type
// to itself; the text is the same as that of the exported type.
func remoteAlert(err error) (uint8, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return 0, false
	}
	for _, alert := range []uint8{alertBadCertificate, alertCertRequired, alertNoALPN} {
		if op.Err.Error() == tls.AlertError(alert).Error() {
			return alert, true
		}
	}
	return 0, false
}
