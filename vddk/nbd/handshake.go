package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

const (
	magicOldstyle uint64 = 0x00420281861253

	// maxOptionReplies and maxOptionBytes bound the answer to one option. A
	// server with ten thousand exports stays far below both.
	maxOptionReplies = 1 << 16
	maxOptionBytes   = 8 << 20
	// maxExportSize is what an int64 counts; the protocol would allow more.
	maxExportSize = 1<<63 - 1
	// maxMinBlock is the protocol's own limit for a minimum block size.
	maxMinBlock = 64 << 10
)

// Offer is what a server says about one export.
type Offer struct {
	Name        string
	Description string
	Size        int64 // bytes
	ReadOnly    bool
	MultiConn   bool     // several connections see one state
	MinBlock    int64    // bytes; requests of ours are multiples of it
	PrefBlock   int64    // bytes
	MaxBlock    int64    // bytes of one request's payload
	Contexts    []string // metadata contexts on offer

	flags uint16
}

// CanFlush says that the server has FLUSH.
func (x *Offer) CanFlush() bool { return x.can(txSendFlush) }

// CanZero says that the server has WRITE_ZEROES.
func (x *Offer) CanZero() bool { return x.can(txSendWriteZeroes) }

func (x *Offer) can(flag uint16) bool { return x.flags&flag != 0 }

// clientHandshake negotiates on one connection, step by step in the order of
// its methods.
type clientHandshake struct {
	conn   net.Conn
	r      *bufio.Reader
	server uint16 // handshake flags

	structured bool
	contexts   []clientContext // active ones
	export     Offer
}

// clientContext is an active metadata context of a connection. Servers number
// them as they like.
type clientContext struct {
	name string
	id   uint32
}

func (h *clientHandshake) use(conn net.Conn) {
	h.conn, h.r = conn, bufio.NewReaderSize(conn, 4096)
}

// greet reads the server's greeting and answers it.
func (h *clientHandshake) greet() error {
	var b [18]byte
	if _, err := io.ReadFull(h.r, b[:16]); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint64(b[:]); got != magicInit {
		return violation("greeting starts with %#x, not with NBDMAGIC: not an NBD server", got)
	}
	switch got := binary.BigEndian.Uint64(b[8:]); got {
	case magicOption:
	case magicOldstyle:
		return violation("oldstyle negotiation, which cannot name an export; a server of 2011 or later is needed")
	default:
		return violation("greeting goes on with %#x, not with IHAVEOPT", got)
	}
	if _, err := io.ReadFull(h.r, b[16:]); err != nil {
		return err
	}
	h.server = binary.BigEndian.Uint16(b[16:])
	var flags uint32
	if h.fixed() {
		flags |= flagClientFixedNewstyle
	}
	if h.noZeroes() {
		flags |= flagClientNoZeroes
	}
	_, err := h.conn.Write(binary.BigEndian.AppendUint32(nil, flags))
	return err
}

func (h *clientHandshake) fixed() bool    { return h.server&flagFixedNewstyle != 0 }
func (h *clientHandshake) noZeroes() bool { return h.server&flagNoZeroes != 0 }

// startTLS upgrades the connection, or fails: there is no way on without it.
func (h *clientHandshake) startTLS(ctx context.Context, u URI) error {
	if !h.fixed() {
		return violation("server is too old for TLS (no fixed newstyle negotiation)")
	}
	if err := h.option(optStartTLS, nil, nil); err != nil {
		return err
	}
	if n := h.r.Buffered(); n > 0 {
		return violation("%d unencrypted bytes after it agreed to STARTTLS", n)
	}
	secured, err := clientTLS(ctx, h.conn, u)
	if err != nil {
		return err
	}
	h.use(secured)
	return nil
}

// sendOption writes one option.
func (h *clientHandshake) sendOption(option uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := h.conn.Write(append(b, data...))
	return err
}

// option sends an option and reads its replies. each gets those before the
// final one; nil means that there may be none. A refusal is an *OptionError.
func (h *clientHandshake) option(option uint32, data []byte, each func(kind uint32, payload []byte) error) error {
	if err := h.sendOption(option, data); err != nil {
		return err
	}
	for total, n := 0, 0; ; n++ {
		kind, payload, err := readOptionReply(h.r, option)
		if err != nil {
			return err
		}
		switch total += len(payload); {
		case kind&repFlagError != 0:
			return clientOptionError(option, kind, printable(payload[:min(len(payload), maxStringLen)]))
		case kind == repAck && len(payload) > 0:
			return violation("ACK of %s has a payload of %d bytes", optionNames[option], len(payload))
		case kind == repAck:
			return nil
		case each == nil:
			return violation("reply of type %d to %s, which has none", kind, optionNames[option])
		case n >= maxOptionReplies || total > maxOptionBytes:
			return violation("more than %d replies or %d bytes to %s", maxOptionReplies, maxOptionBytes, optionNames[option])
		}
		if err := each(kind, payload); err != nil {
			return err
		}
	}
}

// readOptionReply reads one reply to option; its length is judged before
// anything is allocated.
func readOptionReply(r io.Reader, option uint32) (kind uint32, payload []byte, err error) {
	var b [20]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, nil, err
	}
	if got := binary.BigEndian.Uint64(b[:]); got != magicOptReply {
		return 0, nil, violation("reply to %s starts with %#x", optionNames[option], got)
	}
	if got := binary.BigEndian.Uint32(b[8:]); got != option {
		return 0, nil, violation("reply to option %d, but %s was asked", got, optionNames[option])
	}
	kind = binary.BigEndian.Uint32(b[12:])
	length := binary.BigEndian.Uint32(b[16:])
	if length > maxOptionLen {
		return 0, nil, violation("reply of %d bytes to %s; %d would be plenty", length, optionNames[option], maxOptionLen)
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(r, payload)
	return kind, payload, err
}

// refused tells the server's refusal of an option, after which there is another
// way, from an error that ends all.
func refused(err error) bool {
	o, ok := errors.AsType[*OptionError](err)
	return ok && o.code != repErrShutdown && o.code != repErrTLSReqd
}

// askStructured asks for structured replies; without them there are simple ones.
func (h *clientHandshake) askStructured() error {
	if !h.fixed() {
		return nil
	}
	err := h.option(optStructuredReply, nil, nil)
	h.structured = err == nil
	if refused(err) {
		return nil
	}
	return err
}

// enter asks for the export and enters transmission: by GO, or in the way of
// servers that do not have it.
func (h *clientHandshake) enter(name string) error {
	h.export.Name = name
	if h.fixed() {
		err := h.info(optGo, name)
		if o, ok := errors.AsType[*OptionError](err); !ok || o.code != repErrUnsup {
			return err
		}
	}
	return h.exportName(name)
}

// info runs INFO or GO.
func (h *clientHandshake) info(option uint32, name string) error {
	x := Offer{Name: name, MinBlock: 1, PrefBlock: 4096, MaxBlock: maxRequest, Contexts: h.export.Contexts}
	seen := false
	data := appendString(nil, name)
	data = binary.BigEndian.AppendUint16(data, 3)
	for _, info := range []uint16{infoName, infoDescription, infoBlockSize} {
		data = binary.BigEndian.AppendUint16(data, info)
	}
	err := h.option(option, data, func(kind uint32, payload []byte) error {
		if kind != repInfo {
			return violation("reply of type %d to %s", kind, optionNames[option])
		}
		export, err := x.parseInfo(payload)
		seen = seen || export
		return err
	})
	if err != nil {
		return err
	}
	if !seen {
		return violation("%s was acknowledged without the export's size", optionNames[option])
	}
	h.export = x
	return nil
}

// parseInfo takes in one information reply; export says that it was the one
// that must be there.
func (x *Offer) parseInfo(b []byte) (export bool, err error) {
	if len(b) < 2 {
		return false, violation("information of %d bytes", len(b))
	}
	kind, b := binary.BigEndian.Uint16(b), b[2:]
	switch kind {
	case infoExport:
		if len(b) != 10 {
			return false, violation("export information of %d bytes, not 10", len(b))
		}
		return true, x.setExport(binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:]))
	case infoDescription:
		x.Description = printable(b[:min(len(b), maxStringLen)])
	case infoBlockSize:
		if len(b) != 12 {
			return false, violation("block sizes of %d bytes, not 12", len(b))
		}
		return false, x.setBlockSizes(binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]))
	}
	return false, nil // the canonical name, and what is new: neither changes what we do
}

func (x *Offer) setExport(size uint64, flags uint16) error {
	switch {
	case size > maxExportSize:
		return violation("export of %d bytes", size)
	case flags&txHasFlags == 0:
		return violation("transmission flags %#x without HAS_FLAGS", flags)
	}
	x.Size, x.flags = int64(size), flags
	x.ReadOnly, x.MultiConn = x.can(txReadOnly), x.can(txCanMultiConn)
	return nil
}

// setBlockSizes checks what the protocol demands of the three, so that later
// arithmetic needs no doubts.
func (x *Offer) setBlockSizes(least, pref, most uint32) error {
	switch {
	case least == 0 || least&(least-1) != 0 || least > maxMinBlock:
		return violation("minimum block size of %d bytes: not a power of two up to %d", least, maxMinBlock)
	case pref < max(least, 512) || pref&(pref-1) != 0:
		return violation("preferred block size of %d bytes: not a power of two from max(512, minimum) on", pref)
	case most != 1<<32-1 && (most < pref || most%least != 0):
		return violation("maximum block size of %d bytes: below the preferred %d, or no multiple of the minimum %d", most, pref, least)
	}
	x.MinBlock, x.PrefBlock = int64(least), int64(pref)
	x.MaxBlock = min(int64(most), maxRequest)
	return nil
}

// exportName is the old way, in which a server says no by hanging up.
func (h *clientHandshake) exportName(name string) error {
	if err := h.sendOption(optExportName, []byte(name)); err != nil {
		return err
	}
	b := make([]byte, 10)
	if !h.noZeroes() {
		b = make([]byte, 10+124)
	}
	if _, err := io.ReadFull(h.r, b); err != nil {
		return fmt.Errorf("export %q: server hung up: no such export, or not for us: %w", name, err)
	}
	h.export = Offer{Name: name, MinBlock: 1, PrefBlock: 4096, MaxBlock: maxRequest, Contexts: h.export.Contexts}
	return h.export.setExport(binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:]))
}

// listContexts asks what metadata there is. A server that does not say has none.
func (h *clientHandshake) listContexts(name string) error {
	if !h.structured {
		return nil
	}
	found, err := h.metaContexts(optListMetaContext, name, nil)
	h.export.Contexts = nil
	for _, c := range found {
		h.export.Contexts = append(h.export.Contexts, c.name)
	}
	if refused(err) {
		return nil
	}
	return err
}

// setContexts activates those of wanted that there are.
func (h *clientHandshake) setContexts(name string, wanted []string) error {
	if !h.structured || len(wanted) == 0 {
		return nil
	}
	found, err := h.metaContexts(optSetMetaContext, name, wanted)
	if refused(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, c := range found {
		if !slices.Contains(wanted, c.name) {
			return violation("context %q was not asked for", c.name)
		}
		for _, d := range found[:i] {
			if d.id == c.id || d.name == c.name {
				return violation("contexts %q and %q: one number or one name twice", c.name, d.name)
			}
		}
	}
	h.contexts = found
	return nil
}

func (h *clientHandshake) metaContexts(option uint32, name string, queries []string) (found []clientContext, err error) {
	data := appendString(nil, name)
	data = binary.BigEndian.AppendUint32(data, uint32(len(queries)))
	for _, q := range queries {
		data = appendString(data, q)
	}
	err = h.option(option, data, func(kind uint32, b []byte) error {
		if kind != repMetaContext {
			return violation("reply of type %d to %s", kind, optionNames[option])
		}
		if len(b) < 5 || len(b) > 4+maxStringLen {
			return violation("metadata context of %d bytes", len(b))
		}
		found = append(found, clientContext{string(b[4:]), binary.BigEndian.Uint32(b)})
		return nil
	})
	return found, err
}

// abort says goodbye to a server that refused something. The answer does not
// matter.
func (h *clientHandshake) abort(why error) {
	if _, ok := errors.AsType[*OptionError](why); ok && h.fixed() {
		_ = h.sendOption(optAbort, nil) // the connection is closed next
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
