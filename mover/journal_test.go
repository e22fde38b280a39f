package mover_test

import (
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// journalFile is a journal with a life behind it, byte for byte.
type journalFile struct {
	t        *testing.T
	identity string
	bytes    []byte
	ends     []int // where each record ends
}

func newJournalFile(t *testing.T) *journalFile {
	t.Helper()
	dir := memState{}
	j, err := mover.OpenJournal(dir, "disk:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	var m cbt.Map
	m.Add(cbt.Extent{Off: 1 << 20, Len: 64 << 10})
	root := cbt.Digest{9}
	for i, step := range []func() error{
		func() error { return j.Open(1, wire.RunID{1}, 1, [16]byte{1}, cbt.Digest{2}, 4<<20) },
		j.Mark,
		func() error { return j.Durable(m) },
		func() error { return j.Forget(m) },
		func() error { return j.Durable(m) },
		func() error { return j.Verified(root) },
		func() error { return j.Open(2, wire.RunID{2}, 1, [16]byte{3}, cbt.Digest{2}, 4<<20) },
		j.Mark,
		j.Suspect,
		func() error { return j.Poison("as a test") },
	} {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	f := &journalFile{t: t, identity: "disk:1"}
	file := dir[mover.JournalName("disk:1")]
	f.bytes = slices.Clone(file.b[:j.End()])
	for off := 4096; off <= len(f.bytes); off += 4096 {
		f.ends = append(f.ends, off)
	}
	return f
}

// states are the states after each record.
func (f *journalFile) states() map[string]bool {
	m := make(map[string]bool)
	for _, end := range f.ends {
		st, err := f.open(f.bytes[:end], 0)
		if err != nil {
			f.t.Fatalf("prefix of %d bytes: %v", end, err)
		}
		m[stateKey(st)] = true
	}
	return m
}

func stateKey(s mover.JournalState) string {
	d := fmt.Sprint(slices.Collect(s.Durable.All()))
	s.Durable = cbt.Map{}
	return fmt.Sprintf("%+v %s", s, d)
}

func (f *journalFile) open(b []byte, bug mover.Bug) (mover.JournalState, error) {
	dir := memState{mover.JournalName(f.identity): {b: append(slices.Clone(b), make([]byte, mover.JournalLen-len(b))...)}}
	j, err := mover.OpenJournal(dir, f.identity, bug)
	if err != nil {
		return mover.JournalState{}, err
	}
	return j.State(), nil
}

// replay opens the journal with bits of one byte turned over.
func (f *journalFile) replay(off int, mask byte, bug mover.Bug) (mover.JournalState, error) {
	b := slices.Clone(f.bytes)
	b[off] ^= mask
	return f.open(b, bug)
}

func TestJournalReplaysEveryPrefix(t *testing.T) {
	f := newJournalFile(t)
	var last mover.JournalState
	for n := range len(f.ends) {
		st, err := f.open(f.bytes[:f.ends[n]], 0)
		if err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
		if st.Epoch < last.Epoch {
			t.Errorf("record %d: epoch fell from %d to %d", n, last.Epoch, st.Epoch)
		}
		last = st
	}
	if last.State != wire.StatePoisoned || last.Reason != "as a test" || last.Epoch != 2 || !last.Suspect {
		t.Errorf("at the end: %+v", last)
	}
	torn := slices.Clone(f.bytes)
	clear(torn[len(torn)-4096+40:]) // the last record never reached the disk whole
	st, err := f.open(torn, 0)
	if err != nil || st.State != wire.StateInconsistent || st.Run != (wire.RunID{2}) {
		t.Errorf("torn last record: %+v, %v", st, err)
	}
}

// A journal that is damaged in its middle must not fall back to an older
// "Verified".
func TestJournalDamagedInTheMiddle(t *testing.T) {
	f := newJournalFile(t)
	for _, end := range f.ends[:len(f.ends)-1] {
		b := slices.Clone(f.bytes)
		clear(b[end-4096 : end])
		st, err := f.open(b, 0)
		if err != nil || st.State != wire.StateInconsistent || st.Reason == "" {
			t.Errorf("record before %d gone: %+v, %v", end, st, err)
		}
	}
}

func TestJournalCompacts(t *testing.T) {
	dir := memState{}
	j, err := mover.OpenJournal(dir, "disk:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Open(1, wire.RunID{1}, 1, [16]byte{1}, cbt.Digest{}, 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := j.Mark(); err != nil {
		t.Fatal(err)
	}
	var all cbt.Map
	for i := range int64(3000) {
		var m cbt.Map
		m.Add(cbt.Extent{Off: i * 3 * cbt.GrainSize, Len: cbt.GrainSize})
		all = all.Union(m)
		if err := j.Durable(m); err != nil {
			t.Fatalf("checkpoint %d: %v", i, err)
		}
	}
	again, err := mover.OpenJournal(dir, "disk:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	st := again.State()
	if !st.Durable.Equal(all) || st.State != wire.StateInconsistent || st.Run != (wire.RunID{1}) || st.Epoch != 1 {
		t.Errorf("after compactions: %d extents of %d, %v", st.Durable.Count(), all.Count(), st.State)
	}
	if n := len(dir[mover.JournalName("disk:1")].b); n > 8<<20 {
		t.Errorf("the file has grown to %d bytes", n)
	}
}

func FuzzJournal(f *testing.F) {
	t := &testing.T{}
	f.Add([]byte("HBJ1"), 0)
	f.Fuzz(func(_ *testing.T, b []byte, at int) {
		good := newJournalFile(t)
		if at < 0 || at > len(good.bytes) {
			return
		}
		copy(good.bytes[at:], b)
		if _, err := good.open(good.bytes, 0); err != nil {
			return // refused; that it does not panic is the point
		}
	})
}

// memState is a state directory in memory, without locks.
type memState map[string]*memFile

type memFile struct{ b []byte }

func (m memState) Open(name string) (mover.StateFile, error) {
	if m[name] == nil {
		m[name] = &memFile{}
	}
	return m[name], nil
}

func (m memState) Rename(old, new string) error {
	m[new] = m[old]
	delete(m, old)
	return nil
}

func (m memState) Remove(name string) error {
	delete(m, name)
	return nil
}

func (m memState) Sync() error { return nil }

func (m memState) List() (names []string, err error) {
	for n := range m {
		names = append(names, n)
	}
	return names, nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off > int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(f.b) {
		f.b = append(f.b, make([]byte, need-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Sync() error            { return nil }
func (f *memFile) Allocate(n int64) error { return f.Truncate(max(n, int64(len(f.b)))) }
func (f *memFile) Size() (int64, error)   { return int64(len(f.b)), nil }
func (f *memFile) Truncate(n int64) error {
	f.b = append(f.b, make([]byte, max(0, int(n)-len(f.b)))...)[:n]
	return nil
}
func (f *memFile) Close() error { return nil }

// A journal that was cut or grown from outside is damaged: the disk counts as
// Inconsistent, whatever its first records say.
func TestJournalOfAWrongLength(t *testing.T) {
	f := newJournalFile(t)
	whole := append(slices.Clone(f.bytes), make([]byte, mover.JournalLen-len(f.bytes))...)
	for _, n := range []int{0, 1, 1024, 4096, 4097, 5000, 12288, mover.JournalLen - 4096, mover.JournalLen - 1, mover.JournalLen + 1} {
		b := append(slices.Clone(whole), 0)[:n]
		dir := memState{mover.JournalName(f.identity): {b: b}}
		st, err := mover.ReadJournal(dir, f.identity)
		if err != nil || st.State != wire.StateInconsistent {
			t.Errorf("%d bytes: read as %v, %v", n, st.State, err)
		}
		j, err := mover.OpenJournal(dir, f.identity, 0)
		if err != nil || j.State().State != wire.StateInconsistent {
			t.Errorf("%d bytes: opened as %v, %v", n, j.State().State, err)
		}
	}
}
