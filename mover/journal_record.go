package mover

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// A journal file is a row of slots of 4 KiB; a record begins a slot and fills
// as many as it needs, so that an append never rewrites the sector of a record
// that is durable already. Big-endian:
//
//	 0  4  magic "HBJ1"
//	 4  1  format version, 1
//	 5  1  record type
//	 6  2  zero
//	 8 16  file ID: random per file, so that a stale slot of a former use of
//	       the same disk block is never taken for ours
//	24  8  seq: 0 for the first record, one more for each
//	32  8  epoch
//	40  4  payload length
//	44  4  zero
//	48  n  payload
//	48+n 16  first 16 bytes of BLAKE3(sum of the record before, bytes 0 to 48+n)
//
// The record before the first has the sum zero.
const (
	journalMagic   = "HBJ1"
	journalVersion = 1
	slotLen        = 4096
	recHeadLen     = 48
	recSumLen      = 16
	maxPayload     = 1 << 20
)

// recordType is append only; never renumber.
type recordType uint8

const (
	recHead     recordType = 1  // the file: identity of the disk it is for
	recOpen     recordType = 2  // a session began: epoch durable, nothing written yet
	recMark     recordType = 3  // the disk is Inconsistent from here on
	recDurable  recordType = 4  // extents written and flushed
	recForget   recordType = 5  // extents that read back wrong
	recCopied   recordType = 6  // all is written and flushed
	recVerified recordType = 7  // all is proved
	recClosed   recordType = 8  // the session ended in order
	recPoison   recordType = 9  // the disk is given up, with the reason
	recState    recordType = 10 // compaction: State and what belongs to it
	recSuspect  recordType = 11 // a flush failed: caches of the disk may say what it does not hold
	recFence    recordType = 12 // the epoch of the controller's ticket; a lower one is out for ever
)

var (
	errNoRecord  = errors.New("no record")
	errBadRecord = errors.New("damaged record")
)

type chain [recSumLen]byte

// appendRecord appends one record, padded to whole slots, and returns its sum.
func appendRecord(b []byte, file [16]byte, prev chain, t recordType, seq, epoch uint64, payload []byte) ([]byte, chain) {
	at := len(b)
	b = append(b, journalMagic...)
	b = append(b, journalVersion, byte(t), 0, 0)
	b = append(b, file[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, payload...)
	sum := recordSum(prev, b[at:])
	b = append(b, sum[:]...)
	return append(b, make([]byte, slots(len(payload))*slotLen-(len(b)-at))...), sum
}

// slots is how many slots a record with n bytes of payload fills.
func slots(n int) int { return (recHeadLen + n + recSumLen + slotLen - 1) / slotLen }

func recordSum(prev chain, rec []byte) (c chain) {
	h := blake3.New()
	_, _ = h.Write(prev[:]) // never fails
	_, _ = h.Write(rec)
	var full [32]byte
	h.Sum(full[:0])
	copy(c[:], full[:])
	return c
}

// record is one record read from a journal. payload aliases the input.
type record struct {
	t          recordType
	file       [16]byte
	seq, epoch uint64
	payload    []byte
	sum        chain
}

// parseRecord reads the record at the start of b. It returns errNoRecord when
// b begins with zeros or another's bytes, errBadRecord when it looks like one
// of ours and is not whole.
func parseRecord(b []byte, prev chain, checkSum bool) (record, error) {
	if len(b) < recHeadLen || string(b[:4]) != journalMagic {
		return record{}, errNoRecord
	}
	r := record{t: recordType(b[5]), file: [16]byte(b[8:24]), seq: binary.BigEndian.Uint64(b[24:]), epoch: binary.BigEndian.Uint64(b[32:])}
	n := binary.BigEndian.Uint32(b[40:])
	switch {
	case b[4] != journalVersion:
		return r, fmt.Errorf("%w: version %d", errBadRecord, b[4])
	case n > maxPayload || int(n)+recHeadLen+recSumLen > len(b):
		return r, fmt.Errorf("%w: %d bytes of payload", errBadRecord, n)
	}
	r.payload = b[recHeadLen : recHeadLen+n]
	r.sum = recordSum(prev, b[:recHeadLen+n])
	if checkSum && r.sum != chain(b[recHeadLen+n:recHeadLen+n+recSumLen]) {
		return r, fmt.Errorf("%w: sum", errBadRecord)
	}
	return r, nil
}

// maxDurable bounds the extents of JournalState.Durable: 16 MiB of memory. What
// is beyond is durable all the same and only not accounted for.
const maxDurable = 1 << 20

// JournalState is what a journal says about its target disk.
type JournalState struct {
	State    wire.State
	Run      wire.RunID // the run that State is of
	Pass     uint32
	Epoch    uint64 // the highest any session had
	Owner    [16]byte
	Plan     cbt.Digest
	Size     int64      // of the source, bytes
	Identity string     // of the target disk
	Durable  cbt.Map    // written and flushed in Session and SessionPass
	Root     cbt.Digest // with StateCopied and StateVerified
	Skipped  int64      // with Root: grains that a hint alone calls unchanged
	Sampled  int64      // and grains that the hint calls unchanged and that were compared
	Reason   string     // with StatePoisoned, or what is damaged in the journal
	Fence    uint64     // the highest epoch of a controller's ticket that opened the disk; 0: none did
	Suspect  bool       // a flush failed since the last proof: not even the map of holes is believed

	Session     wire.RunID // the run of the last session; it becomes Run when it marks or verifies
	SessionPass uint32
}

// apply brings s forward by one record.
func (s *JournalState) apply(r *record, mixRuns bool) error {
	p := payloadReader{b: r.payload}
	s.Epoch = max(s.Epoch, r.epoch)
	switch r.t {
	case recHead:
		s.Identity = p.text()
	case recOpen:
		p.copy(s.Session[:])
		s.SessionPass = p.u32()
		p.copy(s.Owner[:])
		p.copy(s.Plan[:])
		s.Size = int64(p.u64())
		if !mixRuns && (s.Run != s.Session || s.Pass != s.SessionPass) {
			s.Durable = cbt.Map{}
		}
	case recMark:
		s.State, s.Run, s.Pass, s.Root, s.Reason = wire.StateInconsistent, s.Session, s.SessionPass, cbt.Digest{}, ""
		s.Skipped, s.Sampled = 0, 0
	case recDurable, recForget:
		m, err := cbt.ParseMap(r.payload, s.Size, maxPayload)
		if err != nil {
			return fmt.Errorf("%w: %w", errBadRecord, err)
		}
		for e := range m.All() {
			if r.t == recForget {
				s.Durable.Remove(e)
			} else if s.Durable.Count() < maxDurable {
				s.Durable.Add(e)
			}
		}
		return nil
	case recCopied, recVerified:
		s.State, s.Run, s.Pass = wire.StateCopied, s.Session, s.SessionPass
		if r.t == recVerified {
			s.State, s.Suspect = wire.StateVerified, false
		}
		p.copy(s.Root[:])
		s.sampled(&p)
	case recFence:
		s.Fence = max(s.Fence, p.u64())
	case recClosed:
	case recSuspect:
		s.Suspect = true
	case recPoison:
		s.State, s.Run, s.Pass, s.Reason = wire.StatePoisoned, s.Session, s.SessionPass, p.text()
	case recState:
		s.State = wire.State(p.u8())
		p.copy(s.Run[:])
		s.Pass = p.u32()
		p.copy(s.Root[:])
		s.Suspect = p.u8() == 1
		s.Reason = p.text()
		s.sampled(&p)
	default:
		return fmt.Errorf("%w: type %d", errBadRecord, r.t)
	}
	if p.bad || len(p.b) != 0 {
		return fmt.Errorf("%w: payload of type %d", errBadRecord, r.t)
	}
	return nil
}

// sampled reads what a hint left out. A record without it is of a pass that read
// everything: the first journals had no other.
func (s *JournalState) sampled(p *payloadReader) {
	s.Skipped, s.Sampled = 0, 0
	if len(p.b) > 0 {
		s.Skipped, s.Sampled = int64(p.u64()), int64(p.u64())
	}
	p.bad = p.bad || s.Skipped < 0 || s.Sampled < 0
}

func verifiedPayload(root cbt.Digest, skipped, sampled int64) []byte {
	return appendSampled(append([]byte(nil), root[:]...), skipped, sampled)
}

func appendSampled(b []byte, skipped, sampled int64) []byte {
	if skipped == 0 && sampled == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, uint64(skipped))
	return binary.BigEndian.AppendUint64(b, uint64(sampled))
}

func openPayload(run wire.RunID, pass uint32, owner [16]byte, plan cbt.Digest, size int64) []byte {
	b := append([]byte(nil), run[:]...)
	b = binary.BigEndian.AppendUint32(b, pass)
	b = append(b, owner[:]...)
	b = append(b, plan[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(size))
}

func (s *JournalState) statePayload() []byte {
	b := append([]byte{byte(s.State)}, s.Run[:]...)
	b = binary.BigEndian.AppendUint32(b, s.Pass)
	b = append(b, s.Root[:]...)
	suspect := byte(0)
	if s.Suspect {
		suspect = 1
	}
	return appendSampled(appendText(append(b, suspect), s.Reason), s.Skipped, s.Sampled)
}

func fencePayload(epoch uint64) []byte { return binary.BigEndian.AppendUint64(nil, epoch) }

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 1024)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// payloadReader reads the fields of a payload; bad is set when one is missing.
type payloadReader struct {
	b   []byte
	bad bool
}

func (p *payloadReader) take(n int) []byte {
	if p.bad || n > len(p.b) {
		p.bad = true
		return make([]byte, n)
	}
	out := p.b[:n]
	p.b = p.b[n:]
	return out
}

func (p *payloadReader) u8() uint8       { return p.take(1)[0] }
func (p *payloadReader) u32() uint32     { return binary.BigEndian.Uint32(p.take(4)) }
func (p *payloadReader) u64() uint64     { return binary.BigEndian.Uint64(p.take(8)) }
func (p *payloadReader) copy(dst []byte) { copy(dst, p.take(len(dst))) }
func (p *payloadReader) text() string {
	return string(p.take(int(binary.BigEndian.Uint16(p.take(2)))))
}
