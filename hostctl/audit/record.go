package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zeebo/blake3"
)

// Entry is what is to be recorded. Its texts may come from peers: they are cut
// at 512 bytes and written as JSON.
type Entry struct {
	Actor   string            // who: "uid 0", "peer dr", "daemon"
	Action  string            // what: "peer.added"
	Object  string            // to what: the name of a peer, an export, a job
	Outcome string            // "ok", "refused", "failed"
	Details map[string]string // what else; at most 16
}

// The actions of the log itself.
const (
	actionHead = "audit.head"
	actionTorn = "audit.torn"
	actionCut  = "audit.cut"
)

// Record is one line of the log.
type Record struct {
	Seq     uint64            `json:"seq"`
	Time    time.Time         `json:"time"`
	Actor   string            `json:"actor"`
	Action  string            `json:"action"`
	Object  string            `json:"object"`
	Outcome string            `json:"outcome"`
	Details map[string]string `json:"details,omitempty"`
	Prev    Hash              `json:"prev"`
	Hash    Hash              `json:"-"`
}

// Hash is the BLAKE3-256 of a record.
type Hash [32]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("audit: %q is not a hash", text)
	}
	copy(h[:], b)
	return nil
}

const (
	maxText    = 512
	maxDetails = 16
	// maxLine bounds a line: all texts at their longest, six bytes for each of
	// theirs in JSON.
	maxLine   = 128 << 10
	signEvery = 64
	hashTail  = `,"hash":"`
	tailLen   = len(hashTail) + 64 + len(`"}`)
)

var errNoRecord = errors.New("not a record")

// text cuts s at maxText bytes and makes it UTF-8.
func text(s string) string {
	s = strings.ToValidUTF8(s, "?")
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// bounded is what of e is recorded.
func (e Entry) bounded() Entry {
	e.Actor, e.Action, e.Object, e.Outcome = text(e.Actor), text(e.Action), text(e.Object), text(e.Outcome)
	details := make(map[string]string, len(e.Details))
	for k, v := range e.Details {
		if len(details) < maxDetails {
			details[text(k)] = text(v)
		}
	}
	e.Details = details
	return e
}

// line is the record after prev with what e says, and its hash.
func line(seq uint64, now time.Time, e Entry, prev Hash) ([]byte, Hash, error) {
	e = e.bounded()
	b, err := json.Marshal(Record{
		Seq: seq, Time: now.UTC(), Actor: e.Actor, Action: e.Action, Object: e.Object, Outcome: e.Outcome, Details: e.Details, Prev: prev,
	})
	if err != nil {
		return nil, Hash{}, err
	}
	b = b[:len(b)-1] // the closing brace comes after the hash
	h := sum(b)
	b = append(append(append(b, hashTail...), h.String()...), `"}`...)
	return append(b, '\n'), h, nil
}

func sum(b []byte) (h Hash) {
	w := blake3.New()
	_, _ = w.WriteString("haulback audit 1\n") // never fails
	_, _ = w.Write(b)
	w.Sum(h[:0])
	return h
}

// parse reads a line, without its end, and checks its hash: an error other than
// errNoRecord means that somebody has changed it.
func parse(b []byte) (Record, error) {
	var r Record
	if len(b) < tailLen+2 || b[0] != '{' || !bytes.HasPrefix(b[len(b)-tailLen:], []byte(hashTail)) || !bytes.HasSuffix(b, []byte(`"}`)) {
		return r, errNoRecord
	}
	body, said := b[:len(b)-tailLen], b[len(b)-tailLen+len(hashTail):len(b)-2]
	d := json.NewDecoder(bytes.NewReader(append(bytes.Clone(body), '}')))
	d.DisallowUnknownFields()
	if d.Decode(&r) != nil || r.Hash.UnmarshalText(said) != nil {
		return r, errNoRecord
	}
	if r.Hash != sum(body) {
		return r, errors.New("the line was changed: its hash is not that of its text")
	}
	return r, nil
}
