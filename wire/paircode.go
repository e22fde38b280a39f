package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
)

// ErrBadCode means that a text is not a pairing code, or that a check
// character of it is wrong (a typing error).
var ErrBadCode = errors.New("wire: not a pairing code")

const (
	pairInviter = 16 // bytes of the inviter's identity: nobody finds a second key for them
	pairSecret  = 10 // bytes; 80 bits are not guessed over a network
	pairRun     = 14 // characters that one check character covers
	pairRuns    = 3
	pairGroup   = 5 // characters between two dashes
)

// PairCode is what an inviter hands to the one who may join, once. It prints
// as nothing but that it is one: Reveal is for the terminal it is meant for.
type PairCode struct {
	Address string // HOST:PORT of the inviter's daemon, or empty
	inviter [pairInviter]byte
	secret  [pairSecret]byte
}

// NewPairCode makes a code that invites to the daemon of id at address, which
// may be empty.
func NewPairCode(id ID, address string) (PairCode, error) {
	c := PairCode{Address: address}
	copy(c.inviter[:], id[:])
	_, err := rand.Read(c.secret[:])
	return c, err
}

// Invites reports whether id is the one who made the code.
func (c PairCode) Invites(id ID) bool { return bytes.Equal(c.inviter[:], id[:pairInviter]) }

// Key is what both ends prove to each other that they know. It is a hash: the
// code cannot be had from it, and whoever has it may join all the same.
func (c PairCode) Key() [sha256.Size]byte {
	mac := hmac.New(sha256.New, c.secret[:])
	io.WriteString(mac, "haulback pair 1")
	mac.Write(c.inviter[:])
	return [sha256.Size]byte(mac.Sum(nil))
}

// Reveal is the form that people type: 9 groups of 5 characters, the last of
// every third group being a check character, and perhaps @HOST:PORT.
func (c PairCode) Reveal() string {
	plain := idEncoding.EncodeToString(append(c.inviter[:], c.secret[:]...))
	var checked []byte
	for i := 0; i < len(plain); i += pairRun {
		run := plain[i : i+pairRun]
		checked = append(append(checked, run...), luhn32(run))
	}
	var groups []string
	for i := 0; i < len(checked); i += pairGroup {
		groups = append(groups, string(checked[i:i+pairGroup]))
	}
	text := strings.Join(groups, "-")
	if c.Address != "" {
		text += "@" + c.Address
	}
	return text
}

// ParsePairCode reads the form that Reveal gives. Case, spaces and dashes do
// not matter; 0, 1 and 8 are read as O, I and B. An error is ErrBadCode; it
// names the groups with a typing error and never quotes them.
func ParsePairCode(text string) (PairCode, error) {
	var c PairCode
	text, address, placed := strings.Cut(strings.TrimSpace(text), "@")
	checked := idTyping.Replace(strings.ToUpper(text))
	if len(checked) != pairRuns*(pairRun+1) {
		return c, fmt.Errorf("%w: %d characters instead of %d", ErrBadCode, len(checked), pairRuns*(pairRun+1))
	}
	if i := strings.IndexFunc(checked, func(r rune) bool { return !strings.ContainsRune(idAlphabet, r) }); i >= 0 {
		return c, fmt.Errorf("%w: group %d has a character other than A-Z and 2-7", ErrBadCode, i/pairGroup+1)
	}
	var plain string
	for i := range pairRuns {
		run := checked[i*(pairRun+1) : (i+1)*(pairRun+1)]
		if luhn32(run[:pairRun]) != run[pairRun] {
			return c, fmt.Errorf("%w: a typing error in groups %d to %d", ErrBadCode, 3*i+1, 3*i+3)
		}
		plain += run[:pairRun]
	}
	raw, err := idEncoding.DecodeString(plain)
	if err != nil || idEncoding.EncodeToString(raw) != plain {
		return c, fmt.Errorf("%w: the character before the last is wrong", ErrBadCode)
	}
	if placed {
		host, port, err := net.SplitHostPort(address)
		_, nerr := strconv.ParseUint(port, 10, 16)
		if err != nil || nerr != nil || host == "" || clean(address) != address || strings.ContainsAny(address, "@/ ") {
			return c, fmt.Errorf("%w: after the @ comes HOST:PORT", ErrBadCode)
		}
	}
	c.Address = address
	copy(c.inviter[:], raw)
	copy(c.secret[:], raw[pairInviter:])
	return c, nil
}

// Format does not show the code, whatever the verb.
func (c PairCode) Format(s fmt.State, _ rune) { io.WriteString(s, "[pairing code]") }

// LogValue does not show the code.
func (c PairCode) LogValue() slog.Value { return slog.StringValue("[pairing code]") }

// MarshalText does not show the code: encoders of structures use it.
func (c PairCode) MarshalText() ([]byte, error) { return []byte("[pairing code]"), nil }
