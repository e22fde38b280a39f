package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// goldenCode is the code of an inviter 000102..0f with the secret 101112..19,
// made from doc.go's text by a program in another language.
const goldenCode = "AAAQE-AYEAU-DAOC5-AJBIF-QYDIO-B4IBR-CEQTC-QKRMF-YYDEF"

func sampleCode() PairCode {
	c := PairCode{}
	copy(c.inviter[:], bytes32[:])
	copy(c.secret[:], bytes32[16:])
	return c
}

func TestPairCode(t *testing.T) {
	c := sampleCode()
	if got := c.Reveal(); got != goldenCode {
		t.Fatalf("got %s, want %s", got, goldenCode)
	}
	c.Address = "dr-proxy:7420"
	text := c.Reveal()
	got, err := ParsePairCode(text)
	if err != nil || got != c {
		t.Fatalf("%s parses to %v, %v", text, got == c, err)
	}
	if again, err := ParsePairCode(" " + strings.ToLower(strings.ReplaceAll(goldenCode, "-", " ")) + "\n"); err != nil || again != sampleCode() {
		t.Fatalf("as people type it: %v", err)
	}
	plain, _, _ := strings.Cut(text, "@")
	for i, r := range plain {
		if r == '-' {
			continue
		}
		for _, other := range idAlphabet {
			if other == r {
				continue
			}
			wrong := plain[:i] + string(other) + plain[i+1:]
			if _, err := ParsePairCode(wrong); !errors.Is(err, ErrBadCode) || strings.Contains(err.Error(), wrong[:5]) {
				t.Fatalf("%d changed to %c: %v", i, other, err)
			}
		}
	}
	for _, wrong := range []string{"", "A", plain[1:], plain + "A", text + "@", plain + "@", plain + "@host", strings.Replace(plain, plain[:1], "9", 1)} {
		if _, err := ParsePairCode(wrong); !errors.Is(err, ErrBadCode) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if !c.Invites(bytes32) || c.Invites(ID{1}) {
		t.Error("the wrong inviter")
	}
}

func TestPairCodeIsNotPrinted(t *testing.T) {
	c := sampleCode()
	secret := strings.Split(c.Reveal(), "-")[7]
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "code", c, "in", struct{ C PairCode }{c})
	j, _ := json.Marshal(struct{ C PairCode }{c})
	for _, out := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %x %q %s", c, &c, c, c, c, c), log.String(), string(j)} {
		if strings.Contains(out, secret) || strings.Contains(out, "101112") || strings.Contains(out, "16, 17") {
			t.Errorf("printed: %s", out)
		}
	}
}

func FuzzPairCode(f *testing.F) {
	c := sampleCode()
	f.Add(c.Reveal())
	f.Add(c.Reveal() + "@h:1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParsePairCode(text)
		if err != nil {
			if !errors.Is(err, ErrBadCode) {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParsePairCode(c.Reveal()); err != nil || again != c {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
