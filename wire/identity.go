package wire

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// ID is the identity of a daemon: the SHA-256 of its public key's
// SubjectPublicKeyInfo, not of a certificate, so that the certificate can be
// remade at every start.
type ID [sha256.Size]byte

const (
	idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	idRun      = 13 // characters that one check character covers
	idRuns     = 4
	idGroup    = 7 // characters between two dashes
)

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// String is the form that people compare and type: 8 groups of 7 characters,
// the last of every second group being a check character. The form is that of
// syncthing's device IDs.
func (id ID) String() string {
	plain := idEncoding.EncodeToString(id[:])
	checked := make([]byte, 0, idRuns*(idRun+1))
	for i := 0; i < len(plain); i += idRun {
		run := plain[i : i+idRun]
		checked = append(checked, run...)
		checked = append(checked, luhn32(run))
	}
	var out strings.Builder
	for i := 0; i < len(checked); i += idGroup {
		if i > 0 {
			out.WriteByte('-')
		}
		out.Write(checked[i : i+idGroup])
	}
	return out.String()
}

// IsZero reports whether id is not set.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler for configuration files.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseID.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// idTyping undoes what people do to an ID between two screens: digits that
// base32 does not have, and separators.
var idTyping = strings.NewReplacer("0", "O", "1", "I", "8", "B", "-", "", " ", "", "\t", "", "\r", "", "\n", "")

// ParseID reads the form that String prints. Case, spaces and dashes do not
// matter; 0, 1 and 8 are read as O, I and B. An error is ErrBadID and names
// the groups with the wrong check character.
func ParseID(text string) (ID, error) {
	checked := idTyping.Replace(strings.ToUpper(text))
	if len(checked) != idRuns*(idRun+1) {
		return ID{}, fmt.Errorf("%w: %d characters instead of %d", ErrBadID, len(checked), idRuns*(idRun+1))
	}
	if i := strings.IndexFunc(checked, func(r rune) bool { return !strings.ContainsRune(idAlphabet, r) }); i >= 0 {
		return ID{}, fmt.Errorf("%w: group %d has a character other than A-Z and 2-7", ErrBadID, i/idGroup+1)
	}
	var plain []byte
	for i := range idRuns {
		run := checked[i*(idRun+1) : (i+1)*(idRun+1)]
		if luhn32(run[:idRun]) != run[idRun] {
			return ID{}, fmt.Errorf("%w: a typing error in group %d or %d (%s-%s)", ErrBadID, 2*i+1, 2*i+2, run[:idGroup], run[idGroup:])
		}
		plain = append(plain, run[:idRun]...)
	}
	return decodeID(string(plain))
}

// decodeID refuses the spellings that set the 4 bits after the 256th, so that
// one ID has one spelling.
func decodeID(plain string) (ID, error) {
	var id ID
	if n, err := idEncoding.Decode(id[:], []byte(plain)); err != nil || n != len(id) {
		return ID{}, fmt.Errorf("%w: not base32", ErrBadID)
	}
	if idEncoding.EncodeToString(id[:]) != plain {
		return ID{}, fmt.Errorf("%w: the character before the last is wrong", ErrBadID)
	}
	return id, nil
}

// luhn32 is the check character of run: Luhn's sum in base 32. It finds every
// single wrong character, and every exchange of two neighbours but A with 7.
func luhn32(run string) byte {
	sum := 0
	for i := range len(run) {
		v := strings.IndexByte(idAlphabet, run[i])
		if i%2 == 1 {
			v *= 2
		}
		sum += v/32 + v%32
	}
	return idAlphabet[(32-sum%32)%32]
}
