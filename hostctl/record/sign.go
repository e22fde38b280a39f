package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Signer is the key of the daemon. Domain keeps its signatures apart from those
// that it makes for other purposes.
type Signer interface {
	Public() ed25519.PublicKey
	Sign(domain string, message []byte) []byte
}

// Domain is the domain of the signatures.
const Domain = "haulback failback record 1"

// Errors of Parse.
var (
	ErrFormat    = errors.New("record: not a whole record")
	ErrSchema    = errors.New("record: of a schema that this program does not know; use a newer one")
	ErrSignature = errors.New("record: the signature is wrong: somebody has changed the record, or it is not whole")
)

// MaxBytes bounds a file: 256 disks with 64 passes each take 8 MiB.
const MaxBytes = 32 << 20

const (
	signatureHead = `,"signature":"`
	signatureTail = "\"}\n"
	signatureLen  = len(signatureHead) + 2*ed25519.SignatureSize + len(signatureTail)
)

// encode is the file of r, signed.
func encode(r *Record, key Signer) ([]byte, error) {
	r.Key, r.Signature = hex.EncodeToString(key.Public()), ""
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	// What a host said need not be UTF-8; written twice it is what it is read as.
	var read Record
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, err
	}
	if text, err = json.Marshal(&read); err != nil {
		return nil, err
	}
	body, ok := bytes.CutSuffix(text, []byte(signatureHead+`"}`))
	if !ok {
		return nil, errors.New("record: the signature is not its last field")
	}
	signature := hex.EncodeToString(key.Sign(Domain, body))
	return append(append(append(body, signatureHead...), signature...), signatureTail...), nil
}

// Parse reads a file and checks its signature with the key that it names: whose
// that is the caller has to know. After ErrSchema and ErrSignature there is a
// record too, not to be believed.
func Parse(text []byte) (*Record, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes; %d at most", ErrFormat, len(text), MaxBytes)
	}
	if len(text) <= signatureLen || !utf8.Valid(text) {
		return nil, ErrFormat
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Schema < 1 {
		return nil, ErrFormat
	}
	body, tail := text[:len(text)-signatureLen], text[len(text)-signatureLen:]
	if head.Schema > Schema {
		return &Record{Schema: head.Schema}, fmt.Errorf("%w (schema %d)", ErrSchema, head.Schema)
	}
	r := new(Record)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	again, err := json.Marshal(r)
	if err != nil || !bytes.Equal(append(again, '\n'), text) {
		return nil, fmt.Errorf("%w: it is not as haulback writes it", ErrFormat)
	}
	key, kerr := hex.DecodeString(r.Key)
	signature, serr := hex.DecodeString(r.Signature)
	if hex.EncodeToString(signature) != r.Signature || hex.EncodeToString(key) != r.Key { // in capitals
		return r, ErrSignature
	}
	if kerr != nil || serr != nil || len(key) != ed25519.PublicKeySize || !bytes.HasPrefix(tail, []byte(signatureHead)) ||
		!ed25519.Verify(key, append(append([]byte(Domain), 0), body...), signature) {
		return r, ErrSignature
	}
	return r, nil
}

// PublicKey is the key that the record is signed with.
func (r *Record) PublicKey() ed25519.PublicKey {
	key, _ := hex.DecodeString(r.Key)
	return key
}
