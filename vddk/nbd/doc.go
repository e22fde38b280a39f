// Package nbd speaks the NBD protocol (doc/proto.md and doc/uri.md of the
// NetworkBlockDevice/nbd project), over TCP and unix sockets, with TLS where
// the URI asks for it. [Client] is one side of it; the server, in files named
// server*.go, is the other.
//
// # Client
//
//	u, err := nbd.ParseURI("nbd+unix:///disk?socket=/run/a.sock")
//	c, err := nbd.Open(ctx, nbd.Config{URI: u, Contexts: []string{"qemu:dirty-bitmap:b0"}})
//	n, err := c.ReadAt(p, off)
//	dirty, err := c.DirtyBitmap(ctx, "b0")
//
// Negotiation is fixed newstyle, with GO, structured replies, block sizes and
// metadata contexts; each is done without where a server refuses it, down to
// EXPORT_NAME and simple replies. TLS is never done without: nbds either
// encrypts (1.2 or later, host name checked) or fails, and nbd never encrypts.
//
//	caller ──┬─ cut into pieces ─┬─ slot ─ header+payload, one writev ─→ connection 1
//	caller ──┤                   ├─ slot ──────────────────────────────→ connection 2 ...
//	         └─ waits for all ←── reader of the connection: checks, puts data
//	                              straight into the caller's memory
//
// Rules:
//
//   - Bytes, never blocks: a server's minimum block size is met by reading, and
//     for writes by read, change and write under a lock. Requests are cut at the
//     server's maximum and never reach beyond the export.
//   - Extents of concurrent writes are disjoint. Then parts of one block are kept
//     from undoing each other; a write of a whole block does not wait for the
//     read, change and write of a part of it, which would overlap.
//   - What NextData learns it believes for 1 s, or until the walk ends or begins
//     anew; own writes are data at once. ReadAt always asks the server; ours
//     answers reads of holes from its device's map unless Export.ReadHoles is set.
//   - Several connections only where the server says that they see one state
//     (CAN_MULTI_CONN). Then one FLUSH covers what returned on any of them. When
//     one connection is lost, all are.
//   - A reply must answer its request: every byte exactly once, within bounds.
//     Whatever the protocol forbids is a [*ProtocolError] that says what it was,
//     and ends the connection. No length is allocated because a server said so:
//     data goes where there is room for it already, and all else is limited.
//   - A server that is silent for Config.Timeout while a request is in flight is
//     lost. Lost connections, ESHUTDOWN and ENOMEM are Retryable; nothing is
//     retried here.
//   - After a failed Flush every later write, Zero and Flush fails as well.
//   - HOLE alone is no hole: NextData skips only what the server says is ZERO.
//   - Without FLUSH every write carries FUA; without either an export cannot be
//     opened for writing ([ErrNoFlush]).
//   - ReadAt and WriteAt allocate nothing in steady state.
//
// # Not promised
//
// NBD has no lock: another client may write to the export, and nobody notices.
// The size is what the server said when it was asked first; a later change is
// noticed at best as a failed request. A server may lie about FLUSH.
package nbd
