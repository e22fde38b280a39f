package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
)

// SealSize is what Seal adds: the length of the value, then 128 bits of BLAKE3
// over key and value.
const SealSize = 4 + checkSize

const (
	checkSize   = 16
	sealContext = "haulback 2026-11-22 store value v1"
	maxKey      = 256 // a subject of a message system may be this long
)

// Seal appends value in the form that Unseal checks. The key is part of it, so
// that a value under a wrong key fails too.
func Seal(dst []byte, key string, value []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(value)))
	dst = append(dst, value...)
	return append(dst, check(key, value)...)
}

// Unseal answers the value inside sealed, which it shares, or a *DamagedError.
func Unseal(key string, sealed []byte) ([]byte, error) {
	if len(sealed) < SealSize {
		return nil, &DamagedError{Key: key, Text: fmt.Sprintf("has %d bytes, fewer than its checksum", len(sealed))}
	}
	value := sealed[4 : len(sealed)-checkSize]
	if n := binary.BigEndian.Uint32(sealed); uint64(n) != uint64(len(value)) {
		return nil, &DamagedError{Key: key, Text: fmt.Sprintf("has %d bytes and says %d", len(value), n)}
	}
	if !bytes.Equal(check(key, value), sealed[len(sealed)-checkSize:]) {
		return nil, &DamagedError{Key: key, Text: "does not match its checksum"}
	}
	return value, nil
}

func check(key string, value []byte) []byte {
	h := blake3.NewDeriveKey(sealContext)
	// The writes of a blake3.Hasher never fail.
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(key))))
	_, _ = h.Write([]byte(key))
	_, _ = h.Write(value)
	return h.Sum(nil)[:checkSize]
}

// CheckKey refuses what is not a key, see the package's rules.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("store: a key of %d bytes; %d are allowed", len(key), maxKey)
	}
	for token := range strings.SplitSeq(key, ".") {
		if token == "" || strings.ContainsFunc(token, notKey) {
			return fmt.Errorf("store: %q is not a key: tokens of letters, digits, _ and - with dots between", key)
		}
	}
	return nil
}

// CheckPrefix refuses what is not a prefix.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	whole, ok := strings.CutSuffix(prefix, ".")
	if !ok {
		return fmt.Errorf("store: the prefix %q does not end with a dot", prefix)
	}
	return CheckKey(whole)
}

func notKey(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
}
