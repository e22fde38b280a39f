package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Signer is the key of the site. Domain keeps its signatures apart from those
// that it makes for other purposes.
type Signer interface {
	Public() ed25519.PublicKey
	Sign(domain string, message []byte) []byte
}

// Domain is the domain of the signatures of heads.
const Domain = "haulback audit 1"

const headFile = "head"

// head is a point of the chain, signed.
type head struct {
	Seq       uint64 `json:"seq"`
	Hash      Hash   `json:"hash"`
	Key       string `json:"key"` // Ed25519, hexadecimal
	Signature string `json:"signature"`
}

// message is what is signed: how many records, and the hash of the last.
func (h *head) message() []byte {
	return append(binary.BigEndian.AppendUint64(nil, h.Seq), h.Hash[:]...)
}

func sign(s Signer, seq uint64, hash Hash) head {
	h := head{Seq: seq, Hash: hash, Key: hex.EncodeToString(s.Public())}
	h.Signature = hex.EncodeToString(s.Sign(Domain, h.message()))
	return h
}

// check says what is wrong with the signature. trusted may be nil.
func (h *head) check(trusted func(ed25519.PublicKey) bool) error {
	key, err := hex.DecodeString(h.Key)
	signature, serr := hex.DecodeString(h.Signature)
	switch {
	case err != nil || serr != nil || len(key) != ed25519.PublicKeySize:
		return errors.New("no signature")
	case !ed25519.Verify(key, append(append([]byte(Domain), 0), h.message()...), signature):
		return errors.New("the signature is wrong")
	case trusted != nil && !trusted(key):
		return fmt.Errorf("signed with a key that is not this site's: %s", h.Key)
	}
	return nil
}

// entry is the record of h.
func (h *head) entry() Entry {
	return Entry{Actor: "audit", Action: actionHead, Outcome: "ok", Details: map[string]string{"key": h.Key, "signature": h.Signature}}
}

// headOf is the head that r signs.
func headOf(r *Record) head {
	return head{Seq: r.Seq - 1, Hash: r.Prev, Key: r.Details["key"], Signature: r.Details["signature"]}
}

// readHead gives nil when there is none.
func readHead(dir string) (*head, error) {
	b, err := os.ReadFile(filepath.Join(dir, headFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := new(head)
	if err := json.Unmarshal(bytes.TrimSpace(b), h); err != nil {
		return nil, fmt.Errorf("audit: %s: %w", filepath.Join(dir, headFile), err)
	}
	return h, nil
}

func writeHead(dir string, h head) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, headFile), append(b, '\n'), 0o600)
}
