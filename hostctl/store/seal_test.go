package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestSealGolden(t *testing.T) {
	got := hex.EncodeToString(Seal(nil, "job.a", []byte("value")))
	if want := "0000000576616c7565" + goldenSeal; got != want {
		t.Errorf("sealed %s, want %s: files of older programs cannot be read", got, want)
	}
}

// TestUnsealEveryBit flips each bit, and cuts at each byte.
func TestUnsealEveryBit(t *testing.T) {
	for _, value := range [][]byte{nil, []byte("v"), bytes.Repeat([]byte{0xA5}, 100)} {
		sealed := Seal(nil, "job.a", value)
		if got, err := Unseal("job.a", sealed); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("unsealed %x (%v), want %x", got, err, value)
		}
		for i := range len(sealed) * 8 {
			bad := bytes.Clone(sealed)
			bad[i/8] ^= 1 << (i % 8)
			damaged(t, "job.a", bad)
		}
		for n := range sealed {
			damaged(t, "job.a", sealed[:n])
		}
		damaged(t, "job.b", sealed)
		damaged(t, "job.a", append(bytes.Clone(sealed), 0))
	}
}

func damaged(t *testing.T, key string, sealed []byte) {
	t.Helper()
	_, err := Unseal(key, sealed)
	if d, ok := errors.AsType[*DamagedError](err); !ok || d.Key != key {
		t.Fatalf("%x under %s: %v", sealed, key, err)
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add("job.a", Seal(nil, "job.a", []byte("value")))
	f.Add("", []byte{})
	f.Add("k", bytes.Repeat([]byte{0xFF}, SealSize))
	f.Fuzz(func(t *testing.T, key string, sealed []byte) {
		value, err := Unseal(key, sealed)
		if err == nil && !bytes.Equal(Seal(nil, key, value), sealed) {
			t.Errorf("%x is not what is sealed of %x", sealed, value)
		}
	})
}

// goldenSeal is the checksum: BLAKE3 in derive-key mode of length and name of the
// key, and the value.
const goldenSeal = "63af5d4532f4f79718841de1d54f4d22"
