package vsphere

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// changeID is a point in a disk's change tracking. The host's own is
// "52 de c0 d9 ... 63/81": the UUID of a count and where it stands. What we hand
// out has the time and the size of the point after it, because the host's answer
// is worth nothing where either does not fit: a revert since then, a disk that
// has grown.
type changeID struct {
	host string // the host's text, to be given back as it is
	uuid string // of the count: another one has nothing to do with this
	seq  uint64
	at   time.Time // zero: not known
	size int64     // 0: not known
}

// stampMark parts the host's text from ours. No host's has it.
const stampMark = ";haulback:"

// stamp is the change ID that we hand out; empty stays empty.
func stamp(host string, at time.Time, size int64) string {
	if host == "" || host == anyChange {
		return host
	}
	return fmt.Sprintf("%s%s%d,%d", host, stampMark, at.UnixMilli(), size)
}

// anyChange is the host's word for "all that is allocated". It is no point in
// time.
const anyChange = "*"

// text is the point for people: its time, or else the host's text.
func (id *changeID) text() string {
	if id.at.IsZero() {
		return clean(id.host)
	}
	return "since " + id.at.UTC().Format(time.RFC3339)
}

// parseChangeID reads a stamped change ID, or the host's own.
func parseChangeID(s string) (id changeID, err error) {
	host, ours, stamped := strings.Cut(s, stampMark)
	id.host = host
	switch {
	case host == "":
		return id, fmt.Errorf("there is no change ID: the disk was not tracked then")
	case host == anyChange:
		return id, fmt.Errorf("%q is no point in time", anyChange)
	}
	uuid, seq, ok := strings.Cut(host, "/")
	if id.seq, err = strconv.ParseUint(seq, 10, 64); !ok || err != nil || uuid == "" {
		return id, fmt.Errorf("change ID %q: want UUID/NUMBER", clean(host))
	}
	id.uuid = strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(uuid))
	if !stamped {
		return id, nil
	}
	at, size, _ := strings.Cut(ours, ",")
	ms, err1 := strconv.ParseInt(at, 10, 64)
	n, err2 := strconv.ParseInt(size, 10, 64)
	if err1 != nil || err2 != nil || n <= 0 {
		return id, fmt.Errorf("change ID %q: what follows %q cannot be read", clean(s), stampMark)
	}
	id.at, id.size = time.UnixMilli(ms), n
	return id, nil
}
