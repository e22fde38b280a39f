package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

// seededKey is the key of RFC 8032's first test vector.
func seededKey(t testing.TB) *Key {
	t.Helper()
	key, err := keyOf(ed25519.NewKeyFromSeed(unhex(t, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sampleTicket() *Ticket {
	return &Ticket{
		Op: TicketWrite, Run: bytes16, Source: bytes32, Target: ID{1}, Pass: 2, Epoch: 7, Issued: time.Unix(1700000000, 0),
		Life: 15 * time.Minute, Nonce: bytes16, Size: 1 << 30, Export: "vm1", Identity: "file:1",
	}
}

// signed is the bytes of t with its times and nonce as they are.
func (t *Ticket) signedAs(key *Key) []byte {
	t.signer = key.Public()
	b := t.append(nil)
	return append(b, key.Sign(ticketDomain, b)...)
}

// The bytes of the fields are written by hand from doc.go; the public key is
// RFC 8032's.
const goldenTicket = `0001 02 00` + hex16 + hex32 + `
	0100000000000000000000000000000000000000000000000000000000000000
	00000002 0000000000000007 000000006553f100 00000384` + hex16 + `0000000040000000
	d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a
	0003 766d31  0006 66696c653a31`

func TestTicketGolden(t *testing.T) {
	key := seededKey(t)
	b := sampleTicket().signedAs(key)
	want := unhex(t, goldenTicket)
	if !bytes.Equal(b[:len(b)-ed25519.SignatureSize], want) {
		t.Fatalf("got\n%x want\n%x", b, want)
	}
	if !ed25519.Verify(key.Public(), append([]byte("haulback ticket 1\x00"), want...), b[len(want):]) {
		t.Fatal("the signature is not over the domain, a zero byte and the fields")
	}
	got, err := ParseTicket(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := got.signedAs(key); !bytes.Equal(again, b) || got.Signer() != key.ID() {
		t.Fatalf("parses to %+v of %v", got, got.Signer())
	}
	for i := range b {
		if _, err := ParseTicket(b[:i]); !errors.Is(err, ErrBadTicket) {
			t.Fatalf("%d of %d bytes: %v", i, len(b), err)
		}
		wrong := bytes.Clone(b)
		wrong[i] ^= 1
		if _, err := ParseTicket(wrong); !errors.Is(err, ErrBadTicket) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	text := EncodeTicket(b)
	if back, err := DecodeTicket(text); err != nil || !bytes.Equal(back, b) {
		t.Fatalf("%s: %v", text, err)
	}
	if _, err := DecodeTicket(append(text, 'x')); !errors.Is(err, ErrBadTicket) {
		t.Fatalf("something after the block: %v", err)
	}
}

func TestTicketSays(t *testing.T) {
	key := seededKey(t)
	for _, c := range []struct {
		name string
		edit func(*Ticket)
		ok   bool
	}{
		{"as it is", func(*Ticket) {}, true},
		{"no operation", func(k *Ticket) { k.Op = 0 }, false},
		{"an unknown operation", func(k *Ticket) { k.Op = 4 }, false},
		{"too long a life", func(k *Ticket) { k.Life = MaxTicketLife + time.Second }, false},
		{"no life", func(k *Ticket) { k.Life = 0 }, false},
		{"no run", func(k *Ticket) { k.Run = RunID{} }, false},
		{"no source", func(k *Ticket) { k.Source = ID{} }, false},
		{"no target", func(k *Ticket) { k.Target = ID{} }, false},
		{"no export", func(k *Ticket) { k.Export = "" }, false},
		{"no identity", func(k *Ticket) { k.Identity = "" }, false},
		{"a line end in a name", func(k *Ticket) { k.Export = "a\nb" }, false},
		{"a long name", func(k *Ticket) { k.Identity = strings.Repeat("a", 257) }, false},
		{"the longest names", func(k *Ticket) { k.Export, k.Identity = strings.Repeat("a", 256), strings.Repeat("b", 256) }, true},
	} {
		k := sampleTicket()
		c.edit(k)
		_, err := k.Sign(key, time.Unix(1700000000, 0))
		if (err == nil) != c.ok {
			t.Errorf("%s: sign: %v", c.name, err)
		}
		b := k.signedAs(key)
		if clean(k.Export) != k.Export || clean(k.Identity) != k.Identity {
			continue // what goes onto the wire is clean
		}
		if _, err := ParseTicket(b); (err == nil) != c.ok || len(b) > MaxTicket {
			t.Errorf("%s: parse of %d bytes: %v", c.name, len(b), err)
		}
	}
	// A ticket whose signer is exchanged is no ticket, whoever made it.
	b := sampleTicket().signedAs(key)
	other, _ := NewKey()
	copy(b[ticketFixed-32:], other.Public())
	if _, err := ParseTicket(b); !errors.Is(err, ErrBadTicket) {
		t.Errorf("another signer: %v", err)
	}
}

func TestTicketTime(t *testing.T) {
	k := sampleTicket()
	for _, c := range []struct {
		at   time.Duration // after its issue
		left time.Duration // 0: not good
	}{
		{-TicketSkew - 1, 0},
		{-TicketSkew, k.Life},
		{0, k.Life},
		{TicketSkew, k.Life},
		{k.Life, TicketSkew},
		{k.Life + TicketSkew - time.Second, time.Second},
		{k.Life + TicketSkew, 0},
		{-20 * 365 * 24 * time.Hour, 0},
		{100 * 365 * 24 * time.Hour, 0},
	} {
		left, err := k.Good(k.Issued.Add(c.at))
		if left != c.left || (err == nil) != (c.left > 0) {
			t.Errorf("%v after its issue: %v, %v; want %v", c.at, left, err, c.left)
		}
	}
}

func FuzzTicket(f *testing.F) {
	key := seededKey(f)
	f.Add(sampleTicket().signedAs(key), false)
	f.Add(unhex(f, goldenTicket), true)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign && len(b) >= ticketFixed { // no fuzzer guesses a signature
			b = bytes.Clone(b)
			copy(b[ticketFixed-32:], key.Public())
			b = append(b, key.Sign(ticketDomain, b)...)
		}
		k, err := ParseTicket(b)
		if err != nil {
			if !errors.Is(err, ErrBadTicket) {
				t.Fatalf("%v", err)
			}
			return
		}
		if again := k.append(nil); !bytes.Equal(again, b[:len(b)-ed25519.SignatureSize]) {
			t.Fatalf("parses from\n%s and encodes to\n%s", hex.EncodeToString(b), hex.EncodeToString(again))
		}
		k.Good(time.Now())
	})
}
