// Package wire is how two daemons speak: who they are, the frames they
// exchange, and the links that carry them. This text is the specification of
// protocol haulback/1, from which a second implementation can be written; the
// golden bytes in golden_test.go and data_test.go prove it. The package knows
// no disk and no VM. Package mover has the two halves of a session.
//
// # Words
//
// The source half reads a disk, the target half has the disk that is to become
// equal to it. Either may be the end that dialed. A grain is 64 KiB of a disk,
// a batch 16 grains; both are counted from offset 0, and the last of each may
// be short. Batch b begins at b * 1048576 bytes. A session is one pass of one
// disk on one link. "Raw" bytes are bytes of the disk, before compression.
//
// Integers are big-endian. A count or an offset is a u64 below 1<<63, written
// i64 here. A batch number is an i64 of at most 1<<42 - 1. A flag is a byte, 0
// or 1. A mask is a u16 whose bit g stands for grain g of a batch, or for piece g,
// of 4096 bytes, of a grain. A text is a
// u16 length of at most 256 and that many bytes of UTF-8 in which each rune is
// printable (Go's unicode.IsPrint): no control characters, no line ends, no
// space but U+0020. A blob is a u16 length of at most 1024 and that many bytes,
// none of them being no blob. Bytes marked 0 have to be zero. A body holds
// exactly the fields of its frame; one byte less or more is malformed.
//
// # Identity
//
// A daemon has one Ed25519 key. Its identity is the SHA-256 of the key's DER
// SubjectPublicKeyInfo. Both ends show a self-signed certificate in TLS 1.3;
// dates, names and issuers in it mean nothing. An end goes on only if the
// other's identity is one that it expects (dialing) or is paired with
// (listening), and not its own. ALPN is "haulback/1" on all networks, but for
// pairing and for further connections of a link. There are no session tickets and no 0-RTT data.
//
// An identity is printed as base32 (A-Z, 2-7, unpadded: 52 characters) in four
// runs of 13, each followed by a check character, all cut into 8 groups of 7
// with dashes. For the check character take the value 0-31 of each character,
// double it at odd positions from 0, add v/32 + v%32 over all; the character's
// value is what is missing to a multiple of 32.
//
// # Links
//
// A link has a control stream, used in both directions, and one-way streams
// named by kind and index:
//
//	kind 1 manifest  index 0      target to source   Manifest, Holes
//	kind 2 data      index 0-7    source to target   Data
//	kind 3 plan      index 0      source to target   Plan
//	kind 4 refine    index 0      source to target   Refine
//	kind 5 parts     index 0      target to source   Parts
//
// Each may be opened once in the life of a link; any other name, or a name the
// second time, ends the link with CodeFrame. Frames follow each other on a
// stream without anything between them.
//
// QUIC: the dialer opens one bidirectional stream, the control stream; the
// listener opens none. It exists for the listener when its first bytes arrive,
// which have to within 5 s. Whoever writes a one-way stream opens a
// unidirectional stream and sends 4 bytes before its frames:
//
//	0 kind u8 | 1 index u8 | 2 0 0
//
// A link admits 12 of these from the peer in all. The idle time-out is 30 s,
// keep-alives go every 10 s. A link ends with an application close: its error
// code is the Code, its reason the text.
//
// A link may have up to 64 connections. The dialer of the first dials the
// others, from the same address, before its first byte on the control stream, to
// the same identity, with ALPN "haulback-more/1". On the one bidirectional stream
// of each it sends 52 bytes, in 5 s:
//
//	0 "HBQ1" | 4 name [16] | 20 proof [32]
//
// Name and a key of 32 bytes are the first and the other bytes of 48 that both
// ends export from the first connection with the label "EXPORTER-haulback-more"
// and no context. The proof is HMAC-SHA-256, with this key, of 32 bytes exported
// from the connection itself with the same label. The listener takes it into the
// living link of that name if the proof is right and the identity is the link's,
// and answers with a byte 1; or closes it with a code, and the link goes on
// without. One-way streams may come on any connection that was taken; data stream
// i should go on connection i modulo their number, all others go on the first.
// When a connection that was taken ends, the link ends, with its reason on all.
// ExportKey is that of the first.
//
// What a peer may have sent and nobody has read is 32 MiB in all. The first
// connection from an address has a window of 16 MiB, 12 for a stream of it, the
// second 4, all others 128 KiB; each may grow from what the link has left, where
// 128 KiB stay set aside for each connection up to the 64th. A listener refuses
// one that would exceed it with CodeLimit: the dialer makes the second before the
// third.
//
// TLS 1.3 over TCP: one connection per stream, all dialed by the end that
// dialed the first, the control stream. Each connection begins, inside TLS,
// with 24 bytes from the dialer:
//
//	0 kind u8 | 1 index u8 | 2 flags u16 | 4 "HBT1" | 8 token [16]
//
// The control stream has kind, index, flags and token 0. The others carry the
// token that both ends export from the control connection with the label
// "EXPORTER-haulback-attach", no context, 16 bytes; it has to come from the
// same peer. Flag 1 says that the dialer reads the stream. A one-way stream
// ends with TLS's close_notify; a connection that ends without it is broken.
// The control stream is cut into chunks:
//
//	u16 n, 1 to 16382 | n bytes     bytes of the stream
//	u16 0                           no more of them in this direction
//	u16 65535 | u16 Code | text     the link has ended
//
// In memory: Pipe, for tests and for a copy within one process. Its exporter is
// HKDF-Expand with SHA-256 of a common random secret, the info being the label,
// a zero byte and the context.
//
// # Frames
//
// Each frame has a header of 8 bytes and a body:
//
//	0 type u8 | 1 0 0 0 | 4 length u32 of the body
//
// A type that is not in this list, a byte 1-3 that is not zero, and a length
// above the limit of the type or of the stream are refused before any of the
// body is read; nothing is allocated for it. Offsets below are in the body;
// after a text they depend on it and are left out.
//
//	 1 Hello     0 version u16 = 1 | 2 op u8 | 3 mode u8 | 4 run [16] |
//	             20 pass u32 | 24 rate i64 | 32 track u8 |
//	             33 full flag | 34 export text | agent text |
//	             ticket blob                                          max 2048
//	 2 Welcome   0 version u16 = 1 | 2 agent text                     max 512
//	 3 Error     0 code u16 | 2 text                                  max 260
//	 4 Open      0 mode u8 | 1 full flag | 2 streams u8, 1-8 |
//	             3 flags u8: 1 hinted, 2 fresh, 4 refine | 4 owner [16] | 20 held u64, at most 2^62 | 28 start i64 |
//	             36 size i64 | 44 grain u32 = 65536 |
//	             48 grains per batch u32 = 16 | 52 window u32, not 0 |
//	             56 plan [32] | 88 identity text | reason text        max 1024
//	 5 Opened    0 epoch u64 | 8 start i64 | 16 size i64 |
//	             24 tag [16] | 40 had i64 | 48 state u8 | 49 refine flag |
//	             cold text | identity text                         max 1024
//	 6 Manifest  0 batch | 8 grains u8, 1-16 | 9 0 | 10 zero mask |
//	             12 unread mask | 14 skip mask | 16 digest [32] for
//	             each grain in none of the masks, in order            max 528
//	 7 Holes     0 first batch | 8 count, not 0                       16
//	 8 Data      see below                                            max 1049688
//	 9 Same      0 runs u16, 1-512 | 2 { first batch | count } ...    max 8194
//	10 Diff      0 batch | 8 mask, not 0 | 10 unread mask, of it      12
//	11 Ack       0 settled i64 | 8 received i64 | 16 durable i64 |
//	             24 verified i64 | 32 read back i64 | 40 busy flag    41
//	12 Redo      0 batch | 8 mask, not 0 | 10 round u8, not 0 | 11 0  12
//	13 Finish    0 root [32] | 32 compared i64 | 40 bad i64           48
//	14 Verified  0 state u8 | 1 epoch u64 | 9 root [32] |
//	             41 compared i64 | 49 read back i64 | 57 lost i64 |
//	             65 skipped i64 | 73 sampled i64                      81
//	15 Probed    0 size i64 | 8 target flag | 9 state u8 |
//	             10 run [16] | 26 pass u32 | 30 epoch u64 |
//	             38 durable i64 | 46 root [32] | 78 skipped i64 |
//	             86 sampled i64 | 94 identity text |
//	             kind text | cold text | use text                     max 2048
//	16 Order     0 peer [32] | 32 rate i64 | 40 retry u32 |
//	             44 full flag | 45 address text | export text |
//	             transport text | ticket blob                         max 2048
//	17 Status    0 counters | text                                    max 512
//	18 Report    0 code u16 | 2 state u8 | 3 epoch u64 |
//	             11 root [32] | 43 larger i64 | 51 counters |
//	             hinted flag | text | cold text | transport text |
//	             source text | target text | reason text |
//	             why text | control text | connections u8 |
//	             ranges u8, 0-64 | { off i64 | len i64 |
//	             unreadable flag } ...                                max 4096
//	19 Ping      0 seq u32 | 4 reply flag | 5 0 0 0                   8
//	20 Plan      0 steps u16, 1-256 | 2 { first batch | count |
//	             read mask, not 0 | sampled mask, of read } ...       max 5122
//	21 Pace      0 wire i64 | 8 read i64 | 16 latency u32 |
//	             20 priority u8, 1-3 | 21 0 0 0                       24
//	22 Renew     0 source ticket blob | target ticket blob            max 2052
//	23 Hint      0 size i64 | 8 granularity i64 |
//	             16 areas u32, at most 65536 | 20 base u32 |
//	             24 sample i64 | 32 trust u8, 0-2 | 33 provider text |
//	             since text | remark text                             max 1024
//	24 Areas     0 areas u16, 1-512 | 2 { off i64 | len i64, not 0 }
//	             ...                                                  max 8194
//	25 Base      0 pass u32, not 0 | 4 0 0 0 0                        8
//	26 Path      0 op u8: 1 seen, 2 drain | 1 bbr flag | 2 0 0 |
//	             4 rtt u32 | 8 at i64 | 16 waited i64 | 24 bytes i64 |
//	             32 packets i64 | 40 lost i64 | control text          max 306
//	30 Refine    0 batch | 8 mask, not 0                              10
//	31 Parts     0 batch | 8 mask | 10 sum [16] of each of the 16
//	             pieces of each grain in the mask, in order           4106
//
// A count of batches, in Holes, Same and Plan, obeys the bound of a batch
// number. The steps of a Plan ascend and do not overlap. The masks of a Manifest
// have no grain in common and none beyond its grains, and skip is not all of
// them. A full flag excludes hinted; fresh goes with
// start 0, refine with ModeCopy. Areas ascend and do not touch, over all frames of a hint. The rates of a Pace are bytes per second, 0 or at least 65536; its
// latency is in microseconds, 0 or 100 to 60000000.
// Counters are a u8 n and n times an i64, in the order of the fields of
// [Counters]; a reader takes those it knows and ignores the rest, and what is
// missing is 0. The numbers of op, mode, state and code are the constants of
// [Op], [Mode], [State] and [Code]; the first three are refused when they are
// unknown, an unknown code is a failure like any other.
//
// Wherever a reader meets an Error, the peer has given up and this is why.
// Daemons of today say so by ending the link and send no Error frames.
//
// # Data
//
// A Data frame has the grains of one batch that are to be written, in 1 to 16
// records:
//
//	 0 batch | 8 epoch u64 | 16 pass u32 | 20 records u8 |
//	21 flags u8: 1 redo | 22 0 0 | 24 record ...
//
//	record: 0 offset i64 | 8 raw length u32 | 12 payload length u32 |
//	        16 encoding u8 | 17 0 | 18 pieces mask | 20 digest [32] | 52 binding [16] |
//	        68 payload
//
//	encoding 1 raw    the bytes; payload length = raw length
//	         2 LZ4    one LZ4 block, no frame; 0 < payload < raw length
//	         3 zero   zeros that stay allocated
//	         4 hole   zeros whose space may be given back
//	         5 bad    the source could not read it; it stays as it is
//
// The offset is from the start of the disk. A record lies within the batch and
// within the source disk's size, begins on a grain, and covers whole grains;
// only at the end of the disk it ends where the disk does. With a payload it is
// one grain; encodings 3 to 5 may cover several, have no payload and a digest
// of zeros. Records ascend and do not overlap. A grain that reads as zeros is
// sent as 3 or 4, not as data.
//
// With a mask of pieces the record carries only these of its grain, some and not
// all, without gaps between them; the other pieces stay on the target as they are.
// The last piece of the disk ends where the disk does. The encoding is 1 or 2, and
// the payload begins with a check of 16 bytes, for which the payload length has 16
// more than above. The check is the first 16 bytes of BLAKE3, keyed like a binding,
// over the 80 bytes of the binding and the pieces. Offset, raw length and digest
// are those of the whole grain.
//
// A digest is the BLAKE3-256 of the raw bytes of the grain, of its real length.
// The binding ties a record to its place. It is the first 16 bytes of BLAKE3,
// keyed with 32 bytes that both ends export from the link (from the control
// connection, on TLS) with the label "EXPORTER-haulback-binding" and no
// context, over 80 bytes:
//
//	0 tag [16] of Opened | 16 pass u32 of Hello | 20 epoch u64 of Opened |
//	28 bytes 0-51 of the record
//
// A reader checks in this order: the head; epoch and pass (CodeFenced); the
// batch (CodeExtent); for each record lengths and encoding, its place
// (CodeExtent), its binding (CodeBinding). Then it expands into a buffer of
// exactly the raw length (CodeDecompress) and compares the digest, or where there
// are only pieces their check (CodeDigest). Nothing is written before all of a frame has passed. The flag redo is not
// bound: it counts only if the target waits for just these grains.
//
// # Tickets
//
// A listener may want a controller's ticket for an export, in Hello; the ticket
// of an Order is for the Hello that its push begins with. A ticket is
//
//	  0 version u16 = 1 | 2 op u8: 1 read, 2 write, 3 verify | 3 0 |
//	  4 run [16], not 0 | 20 source [32], not 0 | 52 target [32], not 0 |
//	 84 pass u32 | 88 epoch u64 | 96 issued i64 | 104 life u32, 1 to 900 |
//	108 nonce [16] | 124 size i64 | 132 public key [32] |
//	164 export text | identity text | signature [64]
//
// Issued is seconds since 1970 UTC, at most 253402300799, life seconds; neither
// text is empty. The signature is Ed25519 over "haulback ticket 1", a zero byte,
// and all before it. It counts if the identity of the public key is that of a
// controller of the export and the clock is between a minute before issued and a
// minute after issued + life; a link is good for life at most from when it
// showed its ticket. Source and target are identities: the peer at the other end
// of the link and the listener, by the op of Hello; those of an order are the
// listener and Order.Peer. Op, run, export, identity and size of the disk have to
// be those of the session, and pass, if it is not 0. A session whose ticket does
// not fit, or not any more, ends with CodeTicket; the same request with a later
// ticket goes on. Epoch is the controller's and not that of Opened: the listener
// keeps the highest that it has let write to a disk, durably, and refuses a lower
// one with CodeFenced; a higher one ends the session that has the disk. A ticket
// is used by its holder as often as he likes while it is good, because links are
// lost; nobody else can use it. Probes need none; a disk
// of a host, whose name is that of an export, a slash, and what the listener makes
// of it, is probed by controllers only, and always wants a ticket. Who gave an order may send Renew
// at any time: its tickets take the place of those of Hello and of Order, if they
// are not empty; a source ticket has to fit as the first had to.
//
// # Pairing
//
// Two ends that do not know each other pair by a code that one of them, the
// inviter, made and a person carries to the other. It is base32 of 26 bytes, the
// first 16 of the inviter's identity and a random secret of 10, as 42
// characters in three runs of 14, each with a check character as that of an
// identity, in 9 groups of 5 with dashes; "@HOST:PORT" may follow. Its key is
// HMAC-SHA-256, keyed with the secret, of "haulback pair 1" and the 16 bytes.
//
// The joiner connects over QUIC or TCP with ALPN "haulback-pair/1", which a
// listener takes from any key while an invitation is open and not otherwise. It
// has 5 s for one exchange, on the one bidirectional stream of QUIC, or inside
// TLS without the header of 24 bytes:
//
//	32 Join      0 proof [32] | 32 address text | agent text          max 576
//	33 Joined    0 proof [32] | 32 agent text                         max 320
//
// Joined, or Error, answers Join and ends the connection. A proof is
// HMAC-SHA-256, keyed with the code's key, of "join" or "joined", a zero byte, 32
// bytes exported with the label "EXPORTER-haulback-pair" and no context, the
// joiner's identity, the inviter's identity, and the address as text (empty in
// Joined). Address is where the joiner's daemon is, or empty. The inviter sends
// Joined when the pairing is durable; the joiner, who has seen in the handshake
// that the inviter's identity begins with the code's 16 bytes, checks the proof
// before it believes in it. A wrong proof is answered after a second.
//
// # A session
//
// The dialer's first frame is Hello, within 5 s of the link. Op push makes the
// dialer the source, pull the target, of the export that it names. The listener
// answers Welcome or ends the link with a code. Then, in 5 s, the source sends
// Open, and the target, in 60 s, Opened:
//
//	source                                        target
//	  |  control    Base, if it has one ------->   |
//	  |  control    Open ----------------------->   |  takes the disk, makes the
//	  |  control    <---------------------- Opened  |  epoch durable in its journal
//	  |  plan       Plan, if hinted --------->   |
//	  |  manifest   <------------- Manifest, Holes  |  reads ahead, in disk order
//	  |  refine     Refine ---------------------->  |  if both want: reads again
//	  |  parts      <----------------------- Parts  |
//	  |  control    Same, or Diff -------------->   |
//	  |  data 0-7   Data ----------------------->   |  writes, flushes, journals,
//	  |  control    <------------------------- Ack  |  reads back past the cache
//	  |  control    <------------------------ Redo  |  what read back wrong
//	  |  data 0-7   Data with redo ------------->   |
//	  |  data 0-7   (end of the streams)            |
//	  |  control    Finish --------------------->   |  compares the roots
//	  |  control    <-------------------- Verified  |  after it is in the journal
//	  |  ends the link with CodeOK                  |
//
// Open and Opened. Owner is random, for one source process and run. Held is the
// epoch that owner was given last, or 0. A target whose journal names another
// owner refuses a Held other than 0 with CodeFenced: that owner is out for
// ever. Otherwise the new epoch is above Held and above that of the journal.
// Start is where a session goes on after a lost link: Open.Start is the first
// batch that the source has no settled verdict for; Opened.Start, which counts,
// is 0, or at least that and nothing that the source gave no verdict for. A
// source that has dropped its verdicts, because its disk was opened anew or its
// hint has lied, says Fresh, and Opened.Start is 0. After
// 0 both sides forget all verdicts. Opened.Size is at least Open.Size, and what
// lies beyond is never touched. Tag is the target's to choose, different for
// different disks (today BLAKE3 of its identity, cut). Plan is the digest of a
// cbt.Plan; Hinted says that it leaves grains out, Reason is for people. Streams is the number of data streams, indices from 0: the source
// opens all of them and ends all of them, used or not, when it sends Finish.
//
// Plans. After Opened of a hinted session the source opens the plan stream,
// names what is read from batch Opened.Start on, and ends the stream. What no
// step names is skipped: neither side reads it, it has no manifest and no
// verdict, and it is settled as soon as all before it is. In the root it counts
// as skipped (package cbt). The target takes the plan as it comes and stores
// nothing of it; a mask beyond the grains of its batch is CodeExtent. A source
// that finds a sampled grain different ends the link with CodeDistrust, and
// comes back with a plan of all; a target that is told to write a sampled grain
// says the same, and so does one at Open whose journal says neither Clean nor
// Verified, unless the journal's last run, pass and plan are those of this
// session: no hint knows what a cut run wrote. Such a session has no Holes.
//
// Hints from afar. With Hello.Track 3 (told) or 4 (told, strict) the dialer of a
// pull or an order sends Hint right after Welcome, then Areas until there are as
// many as Hint says, each frame within 5 s and all within 60 s; they lie within
// its size. The listener plans with them as with a tracker of its own, which it
// does not ask, and samples what they call unchanged. A hint narrows what the
// peer itself gets, and no right is needed for it. Each link of a session brings
// the hint again; one that is another than on the link before is not used, and
// neither is that. Trust is that of package cbt; a hint that is not to be trusted
// makes a full plan with a reason, or with track 4 the end with CodeHint. In
// ModeVerify there are no areas, and sample says how many grains are compared: one
// in so many, drawn by the source, the first and the last always.
//
// Base. A hint that counts from the end of an earlier pass of the run says which.
// The source tells the target in Base, before Open, and Open.Plan is then the
// BLAKE3-256 of the plan's digest and the pass as u32. A target believes such a
// hint only where its journal says Verified by that pass of that run, and nothing
// has been written since; or where the same plan of the same pass has begun, and
// nobody else wrote since. In any other state it ends the link with CodeDistrust.
//
// Manifests. If Opened.Start is not the end of the disk, the target opens the
// manifest stream and tells every batch from there, of a hinted session every
// batch of the plan, once, in disk order; the mask skip is the grains of the
// batch that the plan leaves out. A grain
// that reads as zeros is in the mask zero, with no digest; one that cannot be
// read is in unread and counts as different. Holes stands for whole batches
// that the target knows to be holes, without a read. The first and the last
// batch of the disk are never in Holes, and with Open.Full no batch is: a
// comparison has always read something.
//
// Verdicts. The source gives each batch told exactly one: Same if all of its
// grains are equal; in ModeCopy one Data frame with all grains that differ; in
// ModeVerify one Diff, and nothing is written; its unread mask has what the
// source cannot read, for the list of the target. Verdicts come in any order; the
// streams have no order among themselves. A verdict for a batch that was not
// told or has one, and Same for a batch with unread grains, are errors. The
// source may call a run of Holes the same without a look only where its own
// disk has holes. Where Opened.Cold is "server" the map is hearsay: the source
// sends zeros for those of its grains that are zeros and no holes, so that they
// are written and read back; a target compared by ModeVerify has no Holes then.
//
// Refinement. If Open and Opened have refine the source opens the refine stream
// and the target the parts stream. A source may then, instead of a verdict, send
// Refine for a batch that was told in a Manifest with a digest for each grain of
// the mask; once for a batch. The target reads these grains again and sends Parts:
// the first 16 bytes of the BLAKE3-256 of each piece, 16 pieces for each grain,
// those beyond the end of the disk zero. Its mask is that of the question or
// less, or nothing: for the grains left out there are no part records. Answers
// come in any order. The verdict follows after Parts, from the grains as the source
// reads them then; in its Data frame grains that were in Parts may have part
// records. Nobody waits: questions and answers are as many as the window has
// batches. The sums are cut because they prove nothing. They choose what is sent,
// and if two pieces had one sum the grain would not read back with its digest,
// which is that of all of it, and be asked for by Redo. The source ends its stream
// when all is settled, and the target then its own. A question for what was not
// told, or twice, or after the verdict, and a part record for a grain that was not
// in Parts, or in a redo, are CodeFrame at the target; so is an answer to what was
// not asked at the source.
//
// Settled. A batch with Same or Diff is settled. One with Data is settled when
// its grains were written, flushed, journaled and read back equal to what was
// sent. What reads back wrong the target asks for with Redo; the answer is a
// Data frame with the flag, the same batch and exactly that mask. The source
// reads again: its digest may be a new one. After three Redos of a batch the
// disk is Poisoned.
//
// Ack is what is true at the target. Settled: all batches below are settled.
// Received and Durable count raw bytes of the Data frames of this link, of part
// records the pieces, redos included and encoding bad left out: taken off the wire and written, and
// durable with a journal record. Durable <= Received, and neither they nor
// Settled ever fall. Busy is a sign of life from a target that waits for its
// disk, or for its limits. A target sends an Ack when something moved, and every
// few seconds in any case.
//
// Ping. When another run wants a disk that a session holds, the target sends
// Ping to its source, which answers at once with the same Seq and Reply set. A
// source that says nothing for 3 s is taken for dead, unless the target itself
// leaves Data untaken because of a limit, and the disk goes to the other run
// under a higher epoch; one that is alive keeps it, and the other is refused with
// CodeBusy.
//
// Pace. After Welcome and before Finish the end that dialed may send Pace at any
// time: the limits of the job that hold now, 0 for none. It does so before Open
// or Opened where there are any. Each replaces the one before. The other end
// keeps to them on top of its own, of each the lower: Wire to what it sends and
// takes in Data frames, Read to what it reads of its disk, Latency to how long
// that may take. Priority (1 low, 2 normal, 3 high) is the share in what the
// daemon allows all its sessions; a listener takes low from a peer, and high as
// normal. Pace from the end that listens is CodeFrame. Before the first Pace
// Hello.Rate holds for op pull; Pace supersedes it, and Order.Rate. Whoever paces
// a session can slow that session down to 64 KiB/s: what others get of the
// listener's own limits grows, and a peer that is allowed to use a disk could be
// as slow without asking. Latency is of the disk: a target that no storage meets
// takes all sessions of that disk that have a target, and no others, down to
// 1 MiB/s.
//
// Path. A source that was dialed tells the dialer twice a second what it has
// seen of the link since the session began: packets, bytes on data streams, the
// time in microseconds, how much of it a data stream has kept its writer waiting,
// and the round trip now. The dialer may answer with Path drain, all else in it
// zero, because it wants to go on over another link: the source then gives no
// verdict that needs Data any more, waits a few seconds until what it has sent is
// durable, and ends the link with CodeSwitch. A source that dialed does the same
// by itself. Nothing is taken back by it, and the next link goes on at Start as
// after one that was lost. Any other Path is CodeFrame.
//
// Windows. Window is the number of batches that may be told by Manifest and not
// be settled; the target may use less. The source stops sending Data when its
// own limit of bytes is sent and not Durable; a target must therefore flush
// what it has within about a second, however little it is. Either end gives up
// with CodeTimeout after some time without progress.
//
// The end. When all batches are settled the source sends Finish with its
// manifest root (package cbt defines it; a zero grain counts with the digest of
// its zeros), the grains it compared, and those that stay different. The target
// flushes and compares with its own root, over what it read. If they differ, or
// nothing was compared, it ends the link with CodeVerify. With bad grains on
// either side Verified says Inconsistent; in ModeVerify it says Copied;
// otherwise StateVerified, which is in the journal before it is sent. Skipped and
// Sampled say how much of that is a hint's word and how much of the hint was
// checked; the source refuses numbers that are not its plan's. The
// source closes the link with CodeOK, and that is how the target learns that
// its word arrived; it waits 5 s for it. A source that lost the word comes back
// and asks.
//
// Op probe: Hello (pass and run may be 0), Welcome, Probed; the dialer closes.
// Op order: Hello, Welcome, Order, then Status several times a second and one
// Report; the dialer closes. The dialer may send Pace before Order, which
// then is what holds and not Order.Rate, and after it: the listener keeps to it
// and passes it on. Order.Peer may be the listener: then both disks are its own,
// the dialer needs the right to both, and the target's ticket names the listener
// as source and as target. If the dialer closes earlier the copy is cancelled.
//
// # Errors
//
// There is one way to refuse or to end: ending the link with a [Code] and a
// text for people. Malformed bytes are CodeFrame. A peer's text is shown and
// logged, never acted on. The codes Timeout, Draining, Flush, Unreachable,
// Distrust, Disk lost and Switch, and a link that is lost, are worth another try of the
// same request; no other is.
//
// # Versions
//
// The version is in the ALPN, and so in what TLS authenticates; Hello and
// Welcome repeat it, and from there on another version may mean anything.
// Types, codes, ops, modes, states, encodings, stream kinds and counters are
// append-only: never renumbered, never reused. New counters and codes may
// appear within a version. Everything else that changes is a new version.
//
// # What is not promised
//
// A digest in a Manifest is not bound: a target that lies about what it holds
// harms its own disk, and Verified is its word only. The roots show that both
// halves came to the same contents, to each other and nobody else. A binding
// holds on one link; it proves nothing later. Streams are not ordered among
// each other. Frames that were sent when a link ended may be lost, whatever
// side ended it; only Durable and Settled say what arrived. Lengths, timing and
// equal grains show to one who watches the network.
package wire
