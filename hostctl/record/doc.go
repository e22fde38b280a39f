// Package record writes, and checks, the signed record of a failback: what was
// asked for and by whom, every action on a host, what was overwritten, what was
// compared, and what came of it. Anybody can check one with the daemon's public
// key and this page, without haulback.
//
//	DIR/ID.json   the record of failback ID, replaced as a whole
//
// # The file
//
// A record is one JSON object in one line of UTF-8 that ends with a line feed.
// Its last two fields are
//
//	,"key":"<64 hex>","signature":"<128 hex>"}
//
// key is the Ed25519 public key. The signature is of these bytes, in order:
//
//	"haulback failback record 1"   26 bytes of ASCII
//	0                              one byte
//	the file from its first byte, up to and without the comma before "signature"
//
// so that who checks needs no JSON parser to agree with. The rest is in the order
// of the fields of Record, as encoding/json writes them; Parse refuses whatever
// is not exactly what it would write: a field twice, one that it does not know,
// a blank. Times are RFC 3339 in UTC, names ending in _ms are milliseconds,
// in _bytes bytes; digests are hexadecimal.
//
// Each time a record is written its version is one higher, and previous is the
// SHA-256 of the whole file that it replaces, in hexadecimal: who has kept an
// earlier version can prove that it is one. audit is the newest record of the
// audit log at that time, which is signed as well (package audit).
//
// # When
//
// A record is written in state Failback and at each end: committed, undone,
// canceled. Write returns when it is durable. One that is damaged is put aside as
// ID.json.damaged and replaced.
//
// # What is not promised
//
// Who can read the daemon's key can sign another record. Keep records elsewhere.
// That a root is of the disk's contents is what the mover has proved, not what a
// signature can.
package record
