package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"
)

// maxListed is how many exports List looks at closely, one round trip or two
// for each.
const maxListed = 1000

// List asks a server for its exports: names, sizes, and the metadata contexts
// of each. The export of u does not matter, unless the server keeps its list
// to itself: then List tells of that export alone. An export that may not be
// looked at is listed with its name only and Size -1. Bounded like Open.
func List(ctx context.Context, u URI) ([]Offer, error) {
	exports, err := listExports(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("nbd: list %s: %w", u, err)
	}
	return exports, nil
}

func listExports(ctx context.Context, u URI) ([]Offer, error) {
	raw, release, err := clientDial(ctx, u)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	defer release()
	h := &clientHandshake{}
	h.use(raw)
	exports, err := h.list(ctx, u)
	if err != nil {
		return nil, handshakeError(ctx, u, err)
	}
	_ = h.conn.SetDeadline(time.Now().Add(byeTimeout)) // fails on a closed connection only
	_ = h.sendOption(optAbort, nil)                    // the connection is closed next
	return exports, nil
}

func (h *clientHandshake) list(ctx context.Context, u URI) ([]Offer, error) {
	if err := h.prepare(ctx, u); err != nil {
		return nil, err
	}
	if !h.fixed() {
		return nil, violation("server is too old to list exports (no fixed newstyle negotiation)")
	}
	names, err := h.names()
	if refused(err) {
		names, err = []string{u.Export}, nil
	}
	if err != nil {
		return nil, err
	}
	exports := make([]Offer, 0, len(names))
	for _, name := range names {
		x, err := h.look(name)
		if err != nil {
			return nil, err
		}
		exports = append(exports, x)
	}
	return exports, nil
}

func (h *clientHandshake) names() (names []string, err error) {
	err = h.option(optList, nil, func(kind uint32, b []byte) error {
		if kind != repServer || len(b) < 4 {
			return violation("reply of type %d with %d bytes to LIST", kind, len(b))
		}
		n := binary.BigEndian.Uint32(b)
		if int64(n) > int64(len(b)-4) || n > maxStringLen || !utf8.Valid(b[4:4+n]) {
			return violation("export name of %d bytes in a reply of %d, or not UTF-8", n, len(b))
		}
		if len(names) < maxListed {
			names = append(names, string(b[4:4+n]))
		}
		return nil
	})
	return names, err
}

// look asks about one export; a refusal is no error.
func (h *clientHandshake) look(name string) (Offer, error) {
	h.export = Offer{}
	if err := h.listContexts(name); err != nil {
		return Offer{}, err
	}
	err := h.info(optInfo, name)
	if refused(err) {
		return Offer{Name: name, Size: -1}, nil
	}
	return h.export, err
}
