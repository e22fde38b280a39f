package mover

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// journalLen is reserved when a journal is made, so that a full state
// directory stops a run before its first write and not in the middle: 1024
// slots, 64 GiB of writes between two compactions.
const journalLen = 4 << 20

// maxJournal is more than a journal can come to: twice what maxDurable extents
// take, and what is written until the next compaction.
const maxJournal = 128 << 20

// journal is the durable record of one target disk. Every method that records
// something returns when it is durable. After an error the journal must not be
// used any more. It is for one goroutine at a time.
type journal struct {
	dir   StateDir
	name  string
	f     StateFile
	bug   bug
	state JournalState

	file [16]byte
	seq  uint64
	sum  chain
	at   int64 // where the next record goes
	size int64 // reserved bytes
	err  error // the first failure; nothing is appended after it
}

// openJournal opens or makes the journal of the disk identity and replays it.
// A journal of another disk under the same name is refused.
func openJournal(dir StateDir, identity string, b bug) (*journal, error) {
	j, err := readJournal(dir, identity, b)
	if err != nil {
		return nil, err
	}
	if j.f == nil || j.state.Reason == damaged {
		if err := j.rewrite(); err != nil {
			_ = j.close()
			return nil, journalError(identity, "make", err)
		}
	}
	return j, nil
}

// damaged is the Reason of a journal that is not to be believed.
const damaged = "the journal is damaged"

// readJournal replays the journal without changing it; f is nil when there is
// none. It must not make one: an empty file under a journal's name is one that
// somebody has cut.
func readJournal(dir StateDir, identity string, b bug) (*journal, error) {
	j := &journal{dir: dir, name: JournalName(identity), bug: b}
	j.state.Identity = identity
	names, err := dir.List()
	if err != nil {
		return nil, journalError(identity, "list", err)
	}
	if !slices.Contains(names, j.name) {
		return j, nil
	}
	f, err := dir.Open(j.name)
	for range heldTries { // a probe may be looking at it
		if !errors.Is(err, ErrHeld) {
			break
		}
		time.Sleep(heldWait)
		f, err = dir.Open(j.name)
	}
	if err != nil {
		return nil, journalError(identity, "open", err)
	}
	j.f = f
	n, err := f.Size()
	if err == nil {
		err = j.replay(n)
	}
	if err == nil && j.state.Identity != identity && j.state.Reason == "" {
		err = fmt.Errorf("it belongs to %q", j.state.Identity)
	}
	if err != nil {
		_ = j.close()
		return nil, journalError(identity, "open", err)
	}
	j.state.Identity = identity
	return j, nil
}

// A journal that is held is tried again for a second.
const (
	heldTries = 10
	heldWait  = 100 * time.Millisecond
)

// JournalName is the file name of the journal of the disk identity.
func JournalName(identity string) string {
	var d cbt.Digest
	cbt.NewHasher().Sum([]byte(identity), &d)
	return fmt.Sprintf("%x.journal", d[:12])
}

// ReadJournal tells what the journal of the disk identity says. A disk without
// one is Clean. A journal in use is an error that is ErrHeld.
func ReadJournal(dir StateDir, identity string) (JournalState, error) {
	j, err := readJournal(dir, identity, noBug)
	if err != nil {
		return JournalState{}, err
	}
	return j.state, j.close()
}

// journalError gives an error of the state directory its code and remedy.
func journalError(identity, op string, err error) error {
	if errors.Is(err, ErrHeld) {
		return wire.Errorf(wire.CodeBusy, "journal of %s: another haulback process works on this disk: %w", identity, err)
	}
	if isNoSpace(err) {
		return wire.Errorf(wire.CodeNoSpace, "journal of %s: %s: the state directory has no space left; free %d MiB there and run the same again: %w",
			identity, op, journalLen>>20, err)
	}
	return wire.Errorf(wire.CodeJournal, "journal of %s: %s: %w", identity, op, err)
}

// replay reads all records and leaves j ready to append. It stops at the first
// bad one. Where records of this file follow a bad one, the damage is not a
// torn end: what the journal says is not to be believed, and the disk counts
// as Inconsistent.
func (j *journal) replay(n int64) error {
	whole := n >= journalLen && n%slotLen == 0 && n <= maxJournal // else it was cut or grown by somebody
	j.size = min(n, maxJournal) / slotLen * slotLen
	b := make([]byte, j.size)
	if _, err := j.f.ReadAt(b, 0); err != nil && err != io.EOF {
		return err
	}
	for j.at < j.size {
		r, err := parseRecord(b[j.at:], j.sum, j.bug != bugNoRecordSum)
		if err == nil && (r.seq != j.seq || (j.seq > 0 && r.file != j.file) || (j.seq == 0) != (r.t == recHead)) {
			err = errBadRecord
		}
		if err == nil {
			err = j.state.apply(&r, j.bug == bugNoRunInJournal)
		}
		if err != nil {
			break
		}
		j.file, j.sum, j.seq = r.file, r.sum, j.seq+1
		j.at += int64(slots(len(r.payload))) * slotLen
	}
	if torn := j.torn(b[j.at:]); torn || !whole {
		j.state.State, j.state.Reason = wire.StateInconsistent, damaged
		j.state.Durable = cbt.Map{}
		j.state.Session, j.state.Plan = wire.RunID{}, cbt.Digest{} // who wrote last is not known
	}
	return nil
}

// torn reports whether b, what follows the last good record, holds records
// of this file in a later slot than the first; a torn append leaves none.
func (j *journal) torn(b []byte) (found bool) {
	if j.seq == 0 {
		return true // a journal gets its name only when its head is durable
	}
	for i := slotLen; i+recHeadLen <= len(b); i += slotLen {
		if r, err := parseRecord(b[i:], chain{}, false); err != errNoRecord && r.file == j.file && r.seq > j.seq {
			found = true
			j.state.Epoch = max(j.state.Epoch, r.epoch) // no epoch is given twice
		}
	}
	return found
}

// rewrite makes a new file that says what j.state says, and gives it the
// journal's name once it is durable.
func (j *journal) rewrite() error {
	tmp := j.name + ".new"
	if err := j.dir.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := j.dir.Open(tmp)
	if err != nil {
		return err
	}
	fresh := *j // what j is stays true until the new file has its name
	if err := fresh.fill(f); err != nil {
		_ = f.Close()
		_ = j.dir.Remove(tmp)
		return err
	}
	if err := j.dir.Rename(tmp, j.name); err != nil {
		_ = f.Close()
		return err
	}
	if j.f != nil {
		_ = j.f.Close() // nameless now
	}
	*j = fresh
	j.f = f
	return j.dir.Sync()
}

// fill writes j.state to a fresh file.
func (j *journal) fill(f StateFile) error {
	_, _ = rand.Read(j.file[:]) // never fails
	j.seq, j.sum, j.at = 0, chain{}, 0
	s := &j.state
	var b []byte
	add := func(t recordType, payload []byte) {
		b, j.sum = appendRecord(b, j.file, j.sum, t, j.seq, s.Epoch, payload)
		j.seq++
	}
	add(recHead, appendText(nil, s.Identity))
	add(recOpen, openPayload(s.Session, s.SessionPass, s.Owner, s.Plan, s.Size))
	add(recState, s.statePayload())
	if s.Fence > 0 {
		add(recFence, fencePayload(s.Fence))
	}
	for _, p := range mapPayloads(s.Durable) {
		add(recDurable, p)
	}
	j.at = int64(len(b))
	j.size = max(journalLen, 2*j.at)
	if err := f.Allocate(j.size); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// mapPayloads cuts m into payloads of at most maxPayload bytes each.
func mapPayloads(m cbt.Map) (out [][]byte) {
	const per = maxPayload / 20 // an extent takes at most two varints of 10 bytes
	var part cbt.Map
	for e := range m.All() {
		if part.Count() == per {
			out, part = append(out, part.AppendTo(nil)), cbt.Map{}
		}
		part.Add(e)
	}
	if !part.Empty() {
		out = append(out, part.AppendTo(nil))
	}
	return out
}

// add appends one record, durable on return.
func (j *journal) add(t recordType, epoch uint64, payload []byte) error {
	if j.err == nil {
		j.err = j.append(t, epoch, payload)
	}
	return j.err
}

func (j *journal) append(t recordType, epoch uint64, payload []byte) error {
	if j.at+int64(slots(len(payload)))*slotLen > j.size {
		if err := j.rewrite(); err != nil {
			return journalError(j.state.Identity, "compact", err)
		}
	}
	b, sum := appendRecord(nil, j.file, j.sum, t, j.seq, epoch, payload)
	if _, err := j.f.WriteAt(b, j.at); err != nil {
		return journalError(j.state.Identity, "append", err)
	}
	if err := j.f.Sync(); err != nil {
		return journalError(j.state.Identity, "flush", err)
	}
	j.sum, j.seq, j.at = sum, j.seq+1, j.at+int64(len(b))
	r := record{t: t, epoch: epoch, payload: payload}
	return j.state.apply(&r, j.bug == bugNoRunInJournal)
}

// open records that a session begins. From here on epoch is never given again.
func (j *journal) open(epoch uint64, run wire.RunID, pass uint32, owner [16]byte, plan cbt.Digest, size int64) error {
	return j.add(recOpen, epoch, openPayload(run, pass, owner, plan, size))
}

// fence records the epoch of a ticket: no lower one opens the disk again.
func (j *journal) fence(epoch uint64) error {
	return j.add(recFence, j.state.Epoch, fencePayload(epoch))
}

// mark records that the disk is about to be overwritten.
func (j *journal) mark() error { return j.add(recMark, j.state.Epoch, nil) }

// durable records extents that were flushed.
func (j *journal) durable(m cbt.Map) error {
	for _, p := range mapPayloads(m) {
		if err := j.add(recDurable, j.state.Epoch, p); err != nil {
			return err
		}
	}
	return nil
}

// forget records extents that read back wrong.
func (j *journal) forget(m cbt.Map) error {
	return j.add(recForget, j.state.Epoch, m.AppendTo(nil))
}

// verified records the proof, in two steps as the states have them.
func (j *journal) verified(root cbt.Digest, skipped, sampled int64) error {
	payload := verifiedPayload(root, skipped, sampled)
	if err := j.add(recCopied, j.state.Epoch, payload); err != nil {
		return err
	}
	return j.add(recVerified, j.state.Epoch, payload)
}

// suspect records that a flush failed.
func (j *journal) suspect() error { return j.add(recSuspect, j.state.Epoch, nil) }

// poison records that the disk is given up.
func (j *journal) poison(reason string) error {
	return j.add(recPoison, j.state.Epoch, appendText(nil, reason))
}

// close releases the file. It records nothing.
func (j *journal) close() error {
	if j.f == nil {
		return nil
	}
	return j.f.Close()
}
