package wire_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/haulback/haulback/wire"
)

const idLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

func randomID(rng *rand.Rand) (id wire.ID) {
	for i := range id {
		id[i] = byte(rng.UintN(256))
	}
	return id
}

// The check characters were computed by hand from syncthing's description.
func TestIDGolden(t *testing.T) {
	const zero = "AAAAAAA-AAAAAAA-AAAAAAA-AAAAAAA-AAAAAAA-AAAAAAA-AAAAAAA-AAAAAAA"
	if got := (wire.ID{}).String(); got != zero {
		t.Errorf("zero: %s, want %s", got, zero)
	}
	// Device ID of syncthing's documentation of device IDs.
	const known = "MFZWI3D-BONSGYC-YLTMRWG-C43ENR5-QXGZDMM-FZWI3DP-BONSGYY-LTMRWAD"
	id, err := wire.ParseID(known)
	if err != nil || id.String() != known {
		t.Errorf("%s: read %s, %v", known, id, err)
	}
}

func TestIDTyping(t *testing.T) {
	const known = "MFZWI3D-BONSGYC-YLTMRWG-C43ENR5-QXGZDMM-FZWI3DP-BONSGYY-LTMRWAD"
	want, err := wire.ParseID(known)
	if err != nil {
		t.Fatal(err)
	}
	typo := strings.NewReplacer("I", "1", "O", "0", "B", "8").Replace(known)
	for _, text := range []string{strings.ToLower(known), strings.ReplaceAll(known, "-", ""), strings.ReplaceAll(known, "-", " "), " " + known + "\n", typo} {
		if got, err := wire.ParseID(text); err != nil || got != want {
			t.Errorf("ParseID(%q) = %s, %v", text, got, err)
		}
	}
	for text, mention := range map[string]string{
		"":                             "0 characters",
		known[:len(known)-1]:           "55 characters",
		known + "A":                    "57 characters",
		"9" + known[1:]:                "group 1",
		"N" + known[1:]:                "group 1 or 2",
		known[:60] + "X" + "AD":        "group 7 or 8",
		known[:55] + "-é" + known[58:]: "group 8",
	} {
		_, err := wire.ParseID(text)
		if !errors.Is(err, wire.ErrBadID) || !strings.Contains(err.Error(), mention) {
			t.Errorf("ParseID(%q): %v, want ErrBadID with %q", text, err, mention)
		}
	}
}

// Every single wrong character is found, at every place.
func TestIDSingleErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		id := randomID(rng)
		text := id.String()
		for i := range len(text) {
			for _, c := range []byte(idLetters) {
				if text[i] == '-' || text[i] == c {
					continue
				}
				wrong := text[:i] + string(c) + text[i+1:]
				if got, err := wire.ParseID(wrong); !errors.Is(err, wire.ErrBadID) {
					t.Fatalf("%s with %c at %d is taken for %s", text, c, i, got)
				}
			}
		}
	}
}

// Two exchanged neighbours within a checked run are found but for A and 7.
func TestIDTranspositions(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	missed, all := 0, 0
	for range 400 {
		text := strings.ReplaceAll(randomID(rng).String(), "-", "")
		for i := range len(text) - 1 {
			a, b := text[i], text[i+1]
			if a == b || i%14 >= 12 { // the 14th is the check character
				continue
			}
			all++
			if _, err := wire.ParseID(text[:i] + string([]byte{b, a}) + text[i+2:]); err != nil {
				continue
			}
			if missed++; !(a == 'A' && b == '7' || a == '7' && b == 'A') {
				t.Errorf("%s: exchange of %c and %c at %d is not found", text, a, b, i)
			}
		}
	}
	if rate := float64(missed) / float64(all); rate > 0.005 {
		t.Errorf("missed %d of %d exchanges, want 0.2 %%", missed, all)
	}
}

func TestIDText(t *testing.T) {
	id := randomID(rand.New(rand.NewPCG(5, 6)))
	text, err := id.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back wire.ID
	if err := back.UnmarshalText(text); err != nil || back != id {
		t.Errorf("%s came back as %s, %v", id, back, err)
	}
	if err := back.UnmarshalText([]byte("x")); err == nil || back != id {
		t.Errorf("a bad text gave %s, %v", back, err)
	}
}
