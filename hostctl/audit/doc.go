// Package audit is the record of who was let in, who was not, and who changed
// what: an append-only log of JSON lines whose records are chained by BLAKE3 and
// signed now and then with the key of the site.
//
//	DIR/0000000000000001.jsonl   records from the one with that number on
//	DIR/head                     the newest signed head
//	DIR/torn-...                 what a crash left of a record, kept aside
//	DIR/lock                     held while a record is appended
//
// A record is one line, with its fields in this order:
//
//	{"seq":7,"time":"2026-11-22T21:00:00.123Z","actor":"uid 0","action":
//	"peer.added","object":"dr","outcome":"ok","details":{"id":"..."},
//	"prev":"<64 hex>","hash":"<64 hex>"}
//
// prev is the hash of the record before, zeros in the first. hash is the
// BLAKE3-256 of "haulback audit 1\n" and the bytes of the line up to and without
// the comma before "hash": who checks needs no JSON parser to agree with. The
// record with seq 1, every 64th after it, and the one that Close leaves have the
// action "audit.head" and sign prev with the site's Ed25519 key; the newest is in
// the file head as well. A file that has grown to 16 MiB is followed by another,
// and the chain goes on in it.
//
// Append returns when the record is durable, and any number of processes may
// append to one directory: they take turns by the lock, and wait some seconds for
// it at most. When a record cannot be made durable it says so, and nothing of it
// stays. What to do then is the caller's: haulback refuses to let more people in,
// and lets copies go on.
//
// A line that a crash has cut is kept aside and the next record, "audit.torn",
// says so. A log that has no longer what its newest signed head says, or what a
// process that appends to it has seen there, was cut or exchanged by somebody;
// "audit.cut" says so for ever, and what comes later is recorded behind it.
//
// # What is not promised
//
// Who may write the directory and read the key of the site can make another log
// with good signatures. Keep heads elsewhere (Verify compares them), or ship the
// lines to another machine as they come. Between two signed heads only such a
// hash shows that the end was cut or written anew. Whole files that are missing at
// the beginning are told, not found fault with: an archive takes them away.
package audit
