package nbd

import (
	"encoding/binary"
	"strings"
)

// maxOptionItems is how many infos or contexts one option may ask for. There
// are four and one.
const maxOptionItems = 256

func invalidOption(text string) error { return &optionError{repErrInvalid, text} }

// takeString takes a 32-bit length and that many bytes off b.
func takeString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, invalidOption("the option ends within a length")
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) {
		return "", nil, invalidOption("a string is longer than its option")
	}
	s = string(b[:n])
	if !validName(s) {
		return "", nil, invalidOption("a string is not UTF-8 of at most 4096 bytes")
	}
	return s, b[n:], nil
}

// parseInfo reads the data of INFO and GO: a name, and what is asked for.
func parseInfo(b []byte) (name string, wanted []uint16, err error) {
	name, b, err = takeString(b)
	if err != nil {
		return "", nil, err
	}
	if len(b) < 2 || len(b) != 2+2*int(binary.BigEndian.Uint16(b)) {
		return "", nil, invalidOption("the number of information requests does not fit")
	}
	if len(b) > 2+2*maxOptionItems {
		return "", nil, invalidOption("too many information requests")
	}
	for b = b[2:]; len(b) > 0; b = b[2:] {
		wanted = append(wanted, binary.BigEndian.Uint16(b))
	}
	return name, wanted, nil
}

// parseMetaContext reads the data of LIST and SET_META_CONTEXT: a name, and the
// queries.
func parseMetaContext(b []byte) (name string, queries []string, err error) {
	name, b, err = takeString(b)
	if err != nil {
		return "", nil, err
	}
	if len(b) < 4 {
		return "", nil, invalidOption("the option ends within the number of queries")
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if n > maxOptionItems {
		return "", nil, invalidOption("too many queries")
	}
	for range n {
		var q string
		if q, b, err = takeString(b); err != nil {
			return "", nil, err
		}
		if !strings.Contains(q, ":") {
			return "", nil, invalidOption("a query without a namespace")
		}
		queries = append(queries, q)
	}
	if len(b) != 0 {
		return "", nil, invalidOption("bytes after the last query")
	}
	return name, queries, nil
}

// contextID is the number that base:allocation has on every connection. Clients
// must not expect any.
const contextID = 1

// metaContext lists or chooses base:allocation, the one context there is.
func (c *serverConn) metaContext(o serverOption) error {
	set := o.code == optSetMetaContext
	if set {
		c.status = nil // whatever comes of it, the choice before is void
	}
	name, queries, err := parseMetaContext(o.data)
	switch {
	case err != nil:
		return err
	case !c.structured:
		return invalidOption("metadata needs structured replies, which were not chosen")
	case c.server.lookup(name) == nil:
		return &optionError{repErrUnknown, noSuchExport(name)}
	}
	id := uint32(0) // reserved in a list
	if set {
		id = contextID
	}
	if selects(queries, set) {
		if err := c.replyOption(o.code, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), contextAllocation...)); err != nil {
			return err
		}
		if set {
			c.status = &name
		}
	}
	return c.replyOption(o.code, repAck, nil)
}

// selects reports whether the queries ask for base:allocation. Only a list
// knows "all": no query, or a namespace alone.
func selects(queries []string, set bool) bool {
	if len(queries) == 0 {
		return !set
	}
	for _, q := range queries {
		if q == contextAllocation || (q == "base:" && !set) {
			return true
		}
	}
	return false
}
