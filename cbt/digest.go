package cbt

import "encoding/hex"

// DigestSize is the length of a Digest in bytes.
const DigestSize = 32

// Digest is the BLAKE3-256 of the bytes of one grain, or of a manifest.
type Digest [DigestSize]byte

// String is the digest in lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }
