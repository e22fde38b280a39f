package wire

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// The pairing protocol, haulback-pair/1: one exchange on one connection, after
// which it is closed (doc.go, "Pairing").
const (
	pairALPN  = "haulback-pair/1"
	pairLabel = "EXPORTER-haulback-pair"

	// pairTimeout bounds the exchange from the handshake on.
	pairTimeout = 5 * time.Second
	// pairPenalty is how long who has no right code holds the slot of his
	// handshake: it bounds the guesses of a network of 256 addresses to eight
	// a second, and those of all to 64.
	pairPenalty = time.Second
)

// TypeJoin and TypeJoined are the frames of haulback-pair/1; they come in no
// other protocol.
const (
	TypeJoin   Type = 32
	TypeJoined Type = 33
)

// Join is the joiner's only frame.
type Join struct {
	Proof   [sha256.Size]byte
	Address string // HOST:PORT of the joiner's daemon, or empty
	Agent   string
}

// Type implements Frame.
func (*Join) Type() Type { return TypeJoin }

func (j *Join) appendBody(b []byte) []byte {
	return appendText(appendText(append(b, j.Proof[:]...), j.Address), j.Agent)
}

func (j *Join) parseBody(b []byte) error {
	f := fields{b: b}
	f.copy(j.Proof[:])
	j.Address, j.Agent = f.text(), f.text()
	return f.done(TypeJoin)
}

// Joined is the inviter's answer, sent when the joiner is durably paired.
type Joined struct {
	Proof [sha256.Size]byte
	Agent string
}

// Type implements Frame.
func (*Joined) Type() Type { return TypeJoined }

func (j *Joined) appendBody(b []byte) []byte {
	return appendText(append(b, j.Proof[:]...), j.Agent)
}

func (j *Joined) parseBody(b []byte) error {
	f := fields{b: b}
	f.copy(j.Proof[:])
	j.Agent = f.text()
	return f.done(TypeJoined)
}

// Inviter lets a listener pair. Its methods are called from many goroutines.
type Inviter interface {
	// Inviting reports whether an invitation is open. Without one a handshake
	// for pairing fails like that of any unknown key. It must not block.
	Inviting() bool
	// Joins pairs the peer durably, if an invitation is open whose key it
	// proves to know, and gives that key. The error is a *Error, its text for
	// the joiner.
	Joins(ctx context.Context, a *Applicant) (key [sha256.Size]byte, err error)
}

// Applicant is somebody who wants to be paired.
type Applicant struct {
	ID      ID     // whose key the handshake has proved
	Addr    string // where the connection comes from, for logs
	Address string // where its daemon is, as it says
	Agent   string

	proof, exported [sha256.Size]byte
	inviter         ID
}

// Knows reports whether the applicant knows key, the Key of a PairCode.
func (a *Applicant) Knows(key [sha256.Size]byte) bool {
	want := joinProof(key, a.exported, a.ID, a.inviter, a.Address)
	return subtle.ConstantTimeCompare(want[:], a.proof[:]) == 1
}

// joinProof and joinedProof are bound to the keys of the connection, so that
// one in the middle, who has two connections, can pass neither on.
func joinProof(key, exported [sha256.Size]byte, joiner, inviter ID, address string) [sha256.Size]byte {
	return pairProof(key, "join", exported, joiner, inviter, address)
}

func joinedProof(key, exported [sha256.Size]byte, joiner, inviter ID) [sha256.Size]byte {
	return pairProof(key, "joined", exported, joiner, inviter, "")
}

func pairProof(key [sha256.Size]byte, word string, exported [sha256.Size]byte, joiner, inviter ID, address string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, key[:])
	io.WriteString(mac, word)
	mac.Write([]byte{0})
	mac.Write(exported[:])
	mac.Write(joiner[:])
	mac.Write(inviter[:])
	mac.Write(binary.BigEndian.AppendUint16(nil, uint16(len(address))))
	io.WriteString(mac, address)
	return [sha256.Size]byte(mac.Sum(nil))
}

// pairStream is the stream that both transports have for the exchange.
type pairStream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

func exportPair(state tls.ConnectionState) (out [sha256.Size]byte, err error) {
	b, err := state.ExportKeyingMaterial(pairLabel, nil, len(out))
	copy(out[:], b)
	return out, err
}

// invite is the inviter's end of the exchange. It returns after the answer is
// written; the error says why nobody was paired.
func invite(ctx context.Context, inv Inviter, self ID, addr net.Addr, state tls.ConnectionState, s pairStream) error {
	ctx, cancel := context.WithTimeout(ctx, pairTimeout)
	defer cancel()
	s.SetDeadline(time.Now().Add(pairTimeout))
	a := &Applicant{Addr: addr.String(), inviter: self}
	var err error
	if a.ID, err = keyID(state); err != nil {
		return err
	}
	if a.exported, err = exportPair(state); err != nil {
		return err
	}
	var j Join
	if err := NewReader(s, maxBody[TypeJoin]).Expect(&j); err != nil {
		return fmt.Errorf("wire: pairing: %w", err)
	}
	a.proof, a.Address, a.Agent = j.Proof, j.Address, j.Agent
	key, err := inv.Joins(ctx, a)
	if err != nil {
		timer := time.NewTimer(pairPenalty)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		e := AsError(err, CodeInternal)
		_, _ = s.Write(AppendFrame(nil, e)) // who gave no right code is owed nothing
		return err
	}
	_, err = s.Write(AppendFrame(nil, &Joined{Proof: joinedProof(key, a.exported, a.ID, self)}))
	return err
}

// join is the joiner's end.
func join(state tls.ConnectionState, key *Key, code PairCode, address, agent string, s pairStream) (ID, error) {
	s.SetDeadline(time.Now().Add(2 * pairTimeout)) // the inviter's deadline comes first
	inviter, err := keyID(state)
	if err != nil {
		return ID{}, err
	}
	exported, err := exportPair(state)
	if err != nil {
		return ID{}, err
	}
	address, agent = clean(address), clean(agent)
	secret := code.Key()
	j := &Join{Proof: joinProof(secret, exported, key.id, inviter, address), Address: address, Agent: agent}
	if _, err := s.Write(AppendFrame(nil, j)); err != nil {
		return ID{}, err
	}
	var answer Joined
	if err := NewReader(s, maxBody[TypeJoined]).Expect(&answer); err != nil {
		return ID{}, err
	}
	want := joinedProof(secret, exported, key.id, inviter)
	if subtle.ConstantTimeCompare(want[:], answer.Proof[:]) != 1 {
		return ID{}, Errorf(CodeUnauthorized, "%w: who answers does not know the pairing code", ErrUnknownPeer)
	}
	return inviter, nil
}

// pairConfig pins the one who made the code.
func pairConfig(key *Key, code PairCode) (*tls.Config, error) {
	return tlsConfig(key, func(id ID) error {
		if !code.Invites(id) {
			return Errorf(CodeUnauthorized, "%w: %s is there, which has not made this code", ErrUnknownPeer, id)
		}
		return nil
	}, pairALPN)
}

// closedInvitation says what a refused handshake means here.
func closedInvitation(err error, addr string) error {
	if e := AsError(err, CodeUnreachable); e.Code == CodeUnauthorized && !e.Remote || e.Code == CodeVersion {
		return Errorf(e.Code, "pair with %s: %w; no invitation is open there, or it was made elsewhere: run haulback peer invite there again", addr, err)
	}
	return fmt.Errorf("pair with %s: %w", addr, err)
}

// PairTLS joins the daemon at addr over TCP and gives its identity: it is the
// one who made the code, it knows the code, and it has paired key durably.
// Address is where the daemon of this end is, or empty.
func PairTLS(ctx context.Context, addr string, key *Key, code PairCode, address, agent string) (ID, error) {
	conf, err := pairConfig(key, code)
	if err != nil {
		return ID{}, err
	}
	tcp, err := (&net.Dialer{Timeout: openTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return ID{}, Errorf(CodeUnreachable, "pair with %s: no connection: %w", addr, err)
	}
	defer tcp.Close()
	defer context.AfterFunc(ctx, func() { tcp.Close() })()
	conn := tls.Client(rawConn{tcp}, conf)
	if err = handshake(ctx, conn); err == nil {
		var id ID
		if id, err = join(conn.ConnectionState(), key, code, address, agent, conn); err == nil {
			return id, nil
		}
	}
	return ID{}, closedInvitation(explainTLS(err, tcp.RemoteAddr(), key.id), addr)
}

// PairQUIC is PairTLS over QUIC on pc, which it closes.
func PairQUIC(ctx context.Context, pc net.PacketConn, addr net.Addr, key *Key, code PairCode, address, agent string) (ID, error) {
	s := NewSocket(pc, key)
	defer s.Close()
	conf, err := pairConfig(key, code)
	if err != nil {
		return ID{}, err
	}
	conn, err := s.tr.Dial(ctx, addr, conf, s.quicConfig(noStreams, leastWindow))
	if err == nil {
		s.track(conn)
		defer conn.CloseWithError(quic.ApplicationErrorCode(CodeOK), "done")
		var stream *quic.Stream
		if stream, err = conn.OpenStream(); err == nil {
			var id ID
			if id, err = join(conn.ConnectionState().TLS, key, code, address, agent, stream); err == nil {
				return id, nil
			}
		}
	}
	return ID{}, closedInvitation(explainQUIC(err, addr, key.id), addr.String())
}
