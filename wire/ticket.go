package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// ErrBadTicket means that bytes are not a ticket, or one whose signature is
// not that of the key that it names.
var ErrBadTicket = errors.New("wire: not a valid ticket")

// Limits of a ticket. A site that revokes a controller waits for at most
// MaxTicketLife and TicketSkew.
const (
	// MaxTicket bounds the bytes of a ticket on the wire.
	MaxTicket = 1024
	// MaxTicketLife is how long a ticket may be good for.
	MaxTicketLife = 15 * time.Minute
	// TicketSkew is how far the clocks of two sites may be apart: a ticket is
	// good from so much before it was issued to so much after its end.
	TicketSkew = time.Minute

	ticketVersion = 1
	ticketFixed   = 2 + 2 + 16 + 32 + 32 + 4 + 8 + 8 + 4 + 16 + 8 + ed25519.PublicKeySize
	ticketBlock   = "HAULBACK TICKET" // the PEM type of a ticket in a file
	ticketDomain  = "haulback ticket 1"
)

// TicketOp is what a ticket lets its holder do with an export.
type TicketOp uint8

// The operations of tickets; append only.
const (
	TicketRead   TicketOp = 1 // copy from it: the export is the source
	TicketWrite  TicketOp = 2 // overwrite it: the export is the target
	TicketVerify TicketOp = 3 // compare with it; nothing is written
)

// ticketOps are the words of the operations, in their order.
var ticketOps = [...]string{TicketRead: "read", TicketWrite: "write", TicketVerify: "verify"}

// String is the word that ParseTicketOp reads.
func (o TicketOp) String() string {
	if o >= TicketRead && int(o) < len(ticketOps) {
		return ticketOps[o]
	}
	return fmt.Sprintf("TicketOp(%d)", uint8(o))
}

// ParseTicketOp is the operation called word.
func ParseTicketOp(word string) (TicketOp, error) {
	for op := TicketRead; int(op) < len(ticketOps); op++ {
		if ticketOps[op] == word {
			return op, nil
		}
	}
	return 0, fmt.Errorf("operation %q: read, write or verify", word)
}

// Ticket is a controller's word that two peers may do one thing with one disk
// for a while. It is no secret: it counts only on a link whose TLS key is that
// of the peer which it names.
type Ticket struct {
	Op       TicketOp
	Run      RunID
	Source   ID // the peer that reads its disk
	Target   ID // the peer whose disk is written or compared
	Pass     uint32
	Epoch    uint64 // of the controller's hold on the disk; a lower one is fenced off
	Issued   time.Time
	Life     time.Duration // whole seconds, at most MaxTicketLife
	Nonce    [16]byte
	Size     int64  // of the disk, bytes
	Export   string // the disk's name at the peer that the ticket is shown to
	Identity string // what the disk's driver calls it, as in Probed

	signer ed25519.PublicKey
}

// Sign gives t a fresh nonce and the time of issue, and returns its bytes
// signed with key.
func (t *Ticket) Sign(key *Key, now time.Time) ([]byte, error) {
	t.Issued = now.Truncate(time.Second)
	if _, err := rand.Read(t.Nonce[:]); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	t.signer = key.Public()
	b := t.append(nil)
	return append(b, key.Sign(ticketDomain, b)...), nil
}

// check refuses what no ticket may say.
func (t *Ticket) check() error {
	switch {
	case t.Op < TicketRead || t.Op > TicketVerify:
		return fmt.Errorf("%w: %v", ErrBadTicket, t.Op)
	case t.Life < time.Second || t.Life > MaxTicketLife || t.Life%time.Second != 0:
		return fmt.Errorf("%w: it is good for %v, 1s to %v may be", ErrBadTicket, t.Life, MaxTicketLife)
	case t.Source.IsZero() || t.Target.IsZero() || t.Run == RunID{}:
		return fmt.Errorf("%w: a peer or the run is missing", ErrBadTicket)
	case t.Size < 0 || t.Issued.Unix() < 0:
		return fmt.Errorf("%w: a negative number", ErrBadTicket)
	case t.Export == "" || t.Identity == "":
		return fmt.Errorf("%w: the export or the identity of its disk is missing", ErrBadTicket)
	case clean(t.Export) != t.Export || clean(t.Identity) != t.Identity:
		return fmt.Errorf("%w: a name of more than %d bytes, or with signs that cannot be printed", ErrBadTicket, maxText)
	}
	return nil
}

func (t *Ticket) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, ticketVersion)
	b = append(b, byte(t.Op), 0)
	b = append(b, t.Run[:]...)
	b = append(b, t.Source[:]...)
	b = append(b, t.Target[:]...)
	b = binary.BigEndian.AppendUint32(b, t.Pass)
	b = binary.BigEndian.AppendUint64(b, t.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Issued.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(t.Life/time.Second))
	b = append(b, t.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Size))
	b = append(b, t.signer...)
	return appendText(appendText(b, t.Export), t.Identity)
}

// ParseTicket reads a ticket and checks its signature against the key that it
// names. Whose key that is, and whether its time has come, is for the caller.
func ParseTicket(b []byte) (*Ticket, error) {
	if len(b) > MaxTicket || len(b) < ticketFixed+4+ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrBadTicket, len(b))
	}
	body, signature := b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	f := fields{b: body}
	version := f.u16()
	if version != ticketVersion {
		return nil, fmt.Errorf("%w: version %d, this daemon knows %d", ErrBadTicket, version, ticketVersion)
	}
	t := &Ticket{Op: TicketOp(f.u8()), signer: make(ed25519.PublicKey, ed25519.PublicKeySize)}
	f.zero(1)
	f.copy(t.Run[:])
	f.copy(t.Source[:])
	f.copy(t.Target[:])
	t.Pass, t.Epoch = f.u32(), f.u64()
	t.Issued = time.Unix(f.i64(), 0)
	t.Life = time.Duration(f.u32()) * time.Second
	f.copy(t.Nonce[:])
	t.Size = f.i64()
	f.copy(t.signer)
	t.Export, t.Identity = f.text(), f.text()
	if f.bad || len(f.b) != 0 || t.Issued.Unix() > maxIssued {
		return nil, fmt.Errorf("%w: wrong fields", ErrBadTicket)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	if !VerifySignature(t.signer, ticketDomain, body, signature) {
		return nil, fmt.Errorf("%w: its signature is wrong", ErrBadTicket)
	}
	return t, nil
}

// maxIssued is the last second of the year 9999, the last that is printed.
const maxIssued = 253402300799

// Signer is the identity of the key that signed a parsed ticket.
func (t *Ticket) Signer() ID { return idOf(t.signer) }

// Good says how much longer t is good at now, or why it is not. It is never
// more than Life: a clock that is set back gives nobody more time.
func (t *Ticket) Good(now time.Time) (time.Duration, error) {
	begin, end := t.Issued.Add(-TicketSkew), t.Issued.Add(t.Life+TicketSkew)
	switch {
	case now.Before(begin):
		return 0, fmt.Errorf("it is good from %s on, and here it is %s: compare the clocks", t.Issued.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !now.Before(end):
		return 0, fmt.Errorf("it was good until %s", t.Issued.Add(t.Life).UTC().Format(time.RFC3339))
	}
	return min(end.Sub(now), t.Life), nil
}

// EncodeTicket is the text form of a ticket, for files.
func EncodeTicket(b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: ticketBlock, Bytes: b})
}

// DecodeTicket reads the text form of a ticket and gives its bytes, which have
// passed ParseTicket.
func DecodeTicket(text []byte) ([]byte, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != ticketBlock || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: no PEM block %s", ErrBadTicket, ticketBlock)
	}
	_, err := ParseTicket(block.Bytes)
	return block.Bytes, err
}

// idOf is the identity that belongs to a public key.
func idOf(public ed25519.PublicKey) ID {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ID{} // nobody's: not a key of the right length
	}
	return sha256.Sum256(spki)
}
