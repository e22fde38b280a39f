package mover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

// dump is the stream of m.
func dump(t *testing.T, e *mover.Engine, m *movertest.Memory, o mover.DumpOptions) ([]byte, mover.DumpReport) {
	t.Helper()
	var out bytes.Buffer
	if o.Run == (wire.RunID{}) {
		o.Run = wire.RunID{0xd}
	}
	rep, err := e.Dump(t.Context(), endpoint("source", m), &out, o, new(mover.Progress))
	if err != nil {
		t.Fatalf("dump: %v", err)
	}
	return out.Bytes(), rep
}

// changedDump is what differs between base and want, as a stream.
func changedDump(t *testing.T, e *mover.Engine, base, want []byte, b archive.Base, run byte) ([]byte, mover.DumpReport) {
	t.Helper()
	var out bytes.Buffer
	from := endpoint("source", disk(want))
	from.Hint = func(context.Context, mover.Disk) (cbt.Hint, error) {
		return cbt.Hint{Provider: "test", Since: "base", Size: int64(len(want)), Trust: cbt.Exact, Areas: slices.Collect(differing(base, want).All())}, nil
	}
	rep, err := e.Dump(t.Context(), from, &out, mover.DumpOptions{Run: wire.RunID{run}, Track: wire.TrackingStrict, Tracking: "test", Base: b}, new(mover.Progress))
	if err != nil || !rep.Hinted {
		t.Fatalf("changed dump: %v, hinted %v", err, rep.Hinted)
	}
	return out.Bytes(), rep
}

func restore(t *testing.T, e *mover.Engine, to mover.Endpoint, stream io.Reader, o mover.RestoreOptions) (mover.Report, error) {
	t.Helper()
	r, err := archive.NewReader(stream)
	if err != nil {
		return mover.Report{}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return e.Restore(ctx, to, r, o, new(mover.Progress))
}

// streamWindow is what a restore keeps of its stream.
const streamWindow = mover.StreamBatches * cbt.BatchSize

func TestDumpRestore(t *testing.T) {
	const mib = 1 << 20
	for _, size := range []int{1, 777, 64 << 10, mib, mib + 1, 5*mib + 777, 130*mib + 5} {
		for _, kind := range []string{"empty", "same", "changed", "larger"} {
			if size > streamWindow && kind != "changed" {
				continue // one is enough: it is there because it does not fit into the window
			}
			t.Run(fmt.Sprintf("%d/%s", size, kind), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(size), 1))
				want := image(rng, size)
				e := newEngine(t, mover.Config{})
				src := disk(want)
				stream, d := dump(t, e, src, mover.DumpOptions{Raw: size%2 == 1})
				target, tail := make([]byte, size), []byte(nil)
				switch kind {
				case "same":
					target = bytes.Clone(want)
				case "changed":
					target = bytes.Clone(want)
					scribble(rng, target, 1+size/mib)
				case "larger":
					tail = []byte("stays")
					target = append(target, tail...)
				}
				dst := disk(target)
				rep, err := restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{})
				if err != nil || rep.State != wire.StateVerified || !rep.Equal || rep.Root != d.Totals.Root || rep.Larger != int64(len(tail)) {
					t.Fatalf("restore: %v, report %+v, root of the dump %v", err, rep, d.Totals.Root)
				}
				if !bytes.Equal(dst.Bytes(), append(bytes.Clone(want), tail...)) {
					t.Fatal("the target differs from what was dumped")
				}
				if kind == "same" && rep.Counters.Sent != 0 {
					t.Errorf("%d bytes written to an equal target", rep.Counters.Sent)
				}
				ver, err := run(t, e, mover.Job{Mode: wire.ModeVerify, Source: endpoint("source", src), Target: endpoint("target", dst)})
				if err != nil && kind != "larger" || ver.Root != rep.Root {
					t.Errorf("verify: %v, root %x, want %x", err, ver.Root, rep.Root)
				}
			})
		}
	}
}

// TestRestoreChain: full, changed, changed again, each onto what the one before
// left; and what is not the base is refused before a byte is written.
func TestRestoreChain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	day := [3][]byte{image(rng, 9<<20+333)}
	for i := 1; i < 3; i++ {
		day[i] = bytes.Clone(day[i-1])
		scribble(rng, day[i], 5)
	}
	e := newEngine(t, mover.Config{})
	full, f := dump(t, e, disk(day[0]), mover.DumpOptions{})
	inc1, i1 := changedDump(t, e, day[0], day[1], archive.Base{Root: f.Totals.Root}, 0xe)
	inc2, _ := changedDump(t, e, day[1], day[2], archive.Base{Run: i1.Header.Run}, 0xf)
	if len(inc1) > len(full)/2 {
		t.Errorf("the changed stream has %d bytes, the full one %d", len(inc1), len(full))
	}
	dst := disk(make([]byte, len(day[0])))
	to := endpoint("target", dst)
	refused := func(what string, stream []byte, o mover.RestoreOptions) {
		t.Helper()
		before := dst.Bytes()
		rep, err := restore(t, e, to, bytes.NewReader(stream), o)
		if codeOf(err) != wire.CodeHint || !bytes.Equal(dst.Bytes(), before) || rep.State == wire.StateVerified {
			t.Errorf("%s: %v, report %+v, written %v", what, err, rep, !bytes.Equal(dst.Bytes(), before))
		}
	}
	step := func(what string, stream, want []byte) {
		t.Helper()
		rep, err := restore(t, e, to, bytes.NewReader(stream), mover.RestoreOptions{})
		if err != nil || rep.State != wire.StateVerified || !bytes.Equal(dst.Bytes(), want) {
			t.Fatalf("%s: %v, report %+v, equal %v", what, err, rep, bytes.Equal(dst.Bytes(), want))
		}
		if rep.Equal != (what == "full") || rep.Hinted == rep.Equal {
			t.Errorf("%s: report %+v of what was proved", what, rep)
		}
	}
	refused("changed onto nothing", inc1, mover.RestoreOptions{})
	refused("changed onto nothing, checked", inc1, mover.RestoreOptions{CheckBase: true})
	refused("another root than the caller's", inc1, mover.RestoreOptions{Base: cbt.Digest{1}})
	step("full", full, day[0])
	refused("second before first", inc2, mover.RestoreOptions{})
	step("first", inc1, day[1])
	step("first again", inc1, day[1])
	step("second", inc2, day[2])
	refused("first after second", inc1, mover.RestoreOptions{})

	// One ID for all streams: it names none of them any more.
	name := byte(f.Header.Run[0])
	inc2, _ = changedDump(t, e, day[1], day[2], archive.Base{Run: f.Header.Run}, name)
	step("full", full, day[0])
	refused("a stream that is its own base", inc2, mover.RestoreOptions{})
	inc2, _ = changedDump(t, e, day[1], day[2], archive.Base{Root: cbt.Digest{7}, Run: f.Header.Run}, 0xf)
	refused("the run of the base and another root", inc2, mover.RestoreOptions{})
	inc1, _ = changedDump(t, e, day[0], day[1], archive.Base{Root: f.Totals.Root, Run: f.Header.Run}, name)
	step("its own name, the root of its base", inc1, day[1])
}

// TestRestoreCheckBase proves all of the result, and finds a target that is not
// the base though its journal says so.
func TestRestoreCheckBase(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 2))
	base := image(rng, 9<<20+333)
	want := bytes.Clone(base)
	scribble(rng, want, 4)
	e := newEngine(t, mover.Config{})
	full, f := dump(t, e, disk(base), mover.DumpOptions{})
	inc, c := changedDump(t, e, base, want, archive.Base{Root: f.Totals.Root}, 0xe)
	_, w := dump(t, e, disk(want), mover.DumpOptions{})

	dst := disk(bytes.Clone(base)) // copied there by another program
	rep, err := restore(t, e, endpoint("target", dst), bytes.NewReader(inc), mover.RestoreOptions{CheckBase: true})
	if err != nil || !rep.Equal || rep.State != wire.StateVerified || rep.Root != w.Totals.Root || !bytes.Equal(dst.Bytes(), want) {
		t.Errorf("onto the base: %v, report %+v", err, rep)
	}
	if n := int64(len(want)); rep.Counters.Scanned != n || rep.Counters.Verified != n || !strings.Contains(rep.Reason, "before and after") {
		t.Errorf("all was read, and the report says: %+v", rep)
	}
	d, _ := dst.Reopen(movertest.ReadOnly)
	id := d.Identity()
	_ = d.Close()
	if st := e.Journal(t, id); st.State != wire.StateVerified || st.Skipped != 0 || st.Root != w.Totals.Root {
		t.Errorf("journal %+v", st)
	}

	at, _ := c.Header.Map.Complement(int64(len(base))).Next(0)
	dst = disk(bytes.Clone(base))
	opens := 0
	meddled := endpoint("target", dst)
	meddled.Open = func(ctx context.Context, a mover.Access) (mover.Disk, error) {
		if opens++; opens == 4 { // looked at, read, restored; now it is to be proved
			b := dst.Bytes()
			d, err := dst.Reopen(movertest.ReadWrite)
			if err != nil {
				return nil, err
			}
			_, err = d.WriteAt([]byte{b[at.Off] ^ 1}, at.Off)
			if err = errors.Join(err, d.Close()); err != nil {
				return nil, err
			}
		}
		return endpoint("target", dst).Open(ctx, a)
	}
	rep, err = restore(t, e, meddled, bytes.NewReader(inc), mover.RestoreOptions{CheckBase: true})
	if st := journalOf(t, e, dst); codeOf(err) != wire.CodeVerify || rep.State == wire.StateVerified || st.State != wire.StateInconsistent {
		t.Errorf("written to meanwhile: %v, report %v, journal %v, %d opens", err, rep.State, st.State, opens)
	}
	for _, o := range []mover.RestoreOptions{{}, {CheckBase: true}, {Base: f.Totals.Root}} { // that was no cut of a run of its own
		if rep, err := restore(t, e, endpoint("target", dst), bytes.NewReader(inc), o); codeOf(err) != wire.CodeHint || rep.State == wire.StateVerified {
			t.Errorf("again with %+v: %v, report %v", o, err, rep.State)
		}
	}
	for _, stream := range [][]byte{full, inc} {
		if _, err := restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{}); err != nil {
			t.Errorf("from the start: %v", err)
		}
	}

	dst = disk(make([]byte, len(base)))
	if _, err := restore(t, e, endpoint("target", dst), bytes.NewReader(full), mover.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	touched := dst.Bytes()
	touched[at.End()-1] ^= 1
	before := disk(touched)
	rep, err = restore(t, e, endpoint("target", before), bytes.NewReader(inc), mover.RestoreOptions{CheckBase: true})
	if codeOf(err) != wire.CodeHint || !bytes.Equal(before.Bytes(), touched) || rep.State == wire.StateVerified {
		t.Errorf("onto a disk that is not the base: %v, report %+v", err, rep)
	}
}

// TestRestoreFindsLies: a stream whose tracker left something out is caught by
// its sample, where the sample has it.
func TestRestoreFindsLies(t *testing.T) {
	base := image(rand.New(rand.NewPCG(3, 3)), 4<<20)
	want := bytes.Clone(base)
	want[0] ^= 1 // the first grain is always sampled
	e := newEngine(t, mover.Config{})
	stream, _ := changedDump(t, e, base, base, archive.Base{Run: [16]byte{1}}, 0xe)
	dst := disk(want)
	rep, err := restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{Base: cbt.Digest{}})
	if codeOf(err) != wire.CodeHint {
		t.Fatalf("nobody knows the base: %v", err)
	}
	stream, _ = changedDump(t, e, base, base, archive.Base{Root: cbt.Digest{5}}, 0xe)
	rep, err = restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{Base: cbt.Digest{5}})
	if codeOf(err) != wire.CodeHint || rep.State == wire.StateVerified || !bytes.Equal(dst.Bytes(), want) {
		t.Errorf("a sample differs: %v, report %+v", err, rep)
	}
	if strings.Contains(err.Error(), "--strict") { // a restore has none
		t.Errorf("advice that nobody can follow: %v", err)
	}
}

// TestRestoreDamaged: whatever is wrong with a stream, the target is not
// Verified, and a whole stream heals it.
func TestRestoreDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	want := image(rng, 6<<20+333)
	before := image(rng, len(want))
	e := newEngine(t, mover.Config{Checkpoint: 1 << 20, Window: 4 << 20})
	stream, _ := dump(t, e, disk(want), mover.DumpOptions{})
	broken := errors.New("the pipe broke")
	for i := range 40 {
		n := rng.IntN(len(stream))
		dst := disk(bytes.Clone(before))
		var in io.Reader = bytes.NewReader(stream[:n])
		expect := archive.ErrDamaged
		switch i % 3 {
		case 1:
			bad := bytes.Clone(stream)
			bad[n] ^= 1 << rng.IntN(8)
			in = bytes.NewReader(bad)
		case 2:
			in, expect = io.MultiReader(in, iotest.ErrReader(broken)), broken
		}
		if i == 3 { // all but the trailer
			in = bytes.NewReader(stream[:len(stream)-100])
		}
		rep, err := restore(t, e, endpoint("target", dst), in, mover.RestoreOptions{})
		if !errors.Is(err, expect) && !errors.Is(err, archive.ErrFormat) || rep.State == wire.StateVerified || rep.Equal {
			t.Fatalf("case %d at %d: %v, report %+v", i, n, err, rep)
		}
		st := journalOf(t, e, dst)
		if touched := !bytes.Equal(dst.Bytes(), before); touched && st.State != wire.StateInconsistent || st.State == wire.StateVerified {
			t.Fatalf("case %d at %d: touched %v, the journal says %v", i, n, touched, st.State)
		}
		rep, err = restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{})
		if err != nil || !bytes.Equal(dst.Bytes(), want) || rep.State != wire.StateVerified {
			t.Fatalf("case %d at %d: the second restore: %v", i, n, err)
		}
	}
}

func journalOf(t *testing.T, e *mover.Engine, m *movertest.Memory) mover.JournalState {
	t.Helper()
	d, err := m.Reopen(movertest.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() // only read
	return e.Journal(t, d.Identity())
}

// TestRestoreDiskFaults: what a target does wrong has the endings that it has in
// a copy; what is asked for again comes from memory.
func TestRestoreDiskFaults(t *testing.T) {
	const always = -1
	for name, c := range map[string]struct {
		fault movertest.Fault
		code  wire.Code
		state wire.State
	}{
		"write error":         {movertest.Fault{Op: "WriteAt", Nth: 2, Err: syscall.EIO}, wire.CodeWrite, wire.StateInconsistent},
		"full":                {movertest.Fault{Op: "WriteAt", Nth: 2, Err: syscall.ENOSPC, Done: 512}, wire.CodeNoSpace, wire.StateInconsistent},
		"flush error":         {movertest.Fault{Op: "Flush", Nth: 2, Err: syscall.EIO}, wire.CodeFlush, wire.StateInconsistent},
		"flush error for all": {movertest.Fault{Op: "Flush", Nth: 2, Count: always, Err: syscall.EIO}, wire.CodeFlush, wire.StateInconsistent},
		"bit flipped":         {movertest.Fault{Op: "WriteAt", Nth: 2, Flip: true}, wire.CodeOK, wire.StateVerified},
		"silently short":      {movertest.Fault{Op: "WriteAt", Nth: 2, Done: 4096, Silent: true}, wire.CodeOK, wire.StateVerified},
		"bits always flipped": {movertest.Fault{Op: "WriteAt", Count: always, Flip: true}, wire.CodePoisoned, wire.StatePoisoned},
		"gone":                {movertest.Fault{Op: "WriteAt", Nth: 3, Gone: true}, wire.CodeWrite, wire.StateInconsistent},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(4, 4))
			want := image(rng, 6<<20+333)
			before := bytes.Clone(want)
			for off := 0; off < len(before); off += 96 << 10 {
				before[off] ^= 0x55
			}
			e := newEngine(t, mover.Config{Memory: 64 << 20, Workers: 1, Checkpoint: 1 << 20, Window: 4 << 20})
			stream, _ := dump(t, e, disk(want), mover.DumpOptions{})
			dst := disk(before)
			rep, err := restore(t, e, mover.Endpoint{Name: "target", Open: faulty(dst, []movertest.Fault{c.fault})}, bytes.NewReader(stream), mover.RestoreOptions{})
			if got := codeOf(err); got != c.code && !(name == "gone" && got == wire.CodeDiskChanged) {
				t.Errorf("ended with %v, want code %v", err, c.code)
			}
			if st := journalOf(t, e, dst); st.State != c.state || err != nil && rep.State == wire.StateVerified {
				t.Errorf("journal %v, report %v, want %v", st.State, rep.State, c.state)
			}
			rep, err = restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{})
			if err != nil || rep.State != wire.StateVerified || !bytes.Equal(dst.Bytes(), want) {
				t.Errorf("the next restore did not heal the disk: %v, %v", err, rep.State)
			}
		})
	}
}

// TestDumpFaults: a dump that fails has no trailer.
func TestDumpFaults(t *testing.T) {
	want := image(rand.New(rand.NewPCG(4, 5)), 6<<20)
	e := newEngine(t, mover.Config{})
	o := mover.DumpOptions{Run: wire.RunID{1}}
	var out bytes.Buffer
	bad := faulty(disk(want), []movertest.Fault{{Op: "ReadAt", Extent: cbt.Extent{Off: 4 << 20, Len: 1}, Count: -1, Err: syscall.EIO}})
	if _, err := e.Dump(t.Context(), mover.Endpoint{Open: bad}, &out, o, new(mover.Progress)); codeOf(err) != wire.CodeRead || !errors.Is(err, syscall.EIO) {
		t.Errorf("unreadable source: %v", err)
	}
	if _, err := restore(t, e, endpoint("target", disk(make([]byte, len(want)))), &out, mover.RestoreOptions{}); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("the stream of an unreadable source: %v", err)
	}
	if _, err := e.Dump(t.Context(), endpoint("empty", disk(nil)), io.Discard, o, new(mover.Progress)); codeOf(err) != wire.CodeTooSmall {
		t.Errorf("empty source: %v", err)
	}
	r, w := io.Pipe()
	_ = r.CloseWithError(syscall.EPIPE)
	if _, err := e.Dump(t.Context(), endpoint("source", disk(want)), w, o, new(mover.Progress)); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("closed pipe: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Dump(ctx, endpoint("source", disk(want)), io.Discard, o, new(mover.Progress)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDumpMode: what cannot be narrowed is dumped whole, and says why; with
// TrackingStrict it is not dumped at all.
func TestDumpMode(t *testing.T) {
	want := image(rand.New(rand.NewPCG(4, 6)), 3<<20)
	e := newEngine(t, mover.Config{})
	hint := func(trust cbt.Trust, err error) mover.HintFunc {
		return func(context.Context, mover.Disk) (cbt.Hint, error) {
			return cbt.Hint{Provider: "test", Size: int64(len(want)), Trust: trust}, err
		}
	}
	base := archive.Base{Root: cbt.Digest{1}}
	for name, c := range map[string]struct {
		hint mover.HintFunc
		base archive.Base
		kind archive.Kind
	}{
		"good":       {hint(cbt.Exact, nil), base, archive.Changed},
		"distrusted": {hint(cbt.Distrusted, nil), base, archive.Full},
		"failed":     {hint(cbt.Exact, errors.New("no such bitmap")), base, archive.Full},
		"no base":    {hint(cbt.Exact, nil), archive.Base{}, archive.Full},
		"no tracker": {nil, base, archive.Full},
	} {
		from := endpoint("source", disk(want))
		from.Hint = c.hint
		for _, track := range []wire.Tracking{wire.TrackingUse, wire.TrackingStrict} {
			var out bytes.Buffer
			rep, err := e.Dump(t.Context(), from, &out, mover.DumpOptions{Run: wire.RunID{1}, Track: track, Base: c.base}, new(mover.Progress))
			if track == wire.TrackingStrict && c.kind == archive.Full {
				if codeOf(err) != wire.CodeHint || out.Len() > 0 {
					t.Errorf("%s, strict: %v, %d bytes written", name, err, out.Len())
				}
				continue
			}
			r, rerr := archive.NewReader(&out)
			if err != nil || rerr != nil || r.Header().Kind != c.kind || rep.Hinted != (c.kind == archive.Changed) || r.Header().Reason == "" {
				t.Errorf("%s: %v, %v, report %+v", name, err, rerr, rep.Header)
			}
		}
	}
}

// TestDumpSparse: a stream of a large sparse disk needs no memory for what it
// leaves out, and a window of what it carries.
func TestDumpSparse(t *testing.T) {
	const size = 1 << 40
	src, dst := movertest.NewMemory(size), movertest.NewMemory(size)
	for off := int64(0); off < size-100; off += size / 7 {
		if _, err := src.WriteAt([]byte("here"), off); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = src.Close(), dst.Close()
	e := newEngine(t, mover.Config{})
	stream, rep := dump(t, e, src, mover.DumpOptions{})
	if len(stream) > 1<<20 {
		t.Errorf("the stream of %d bytes of data has %d bytes", rep.Header.Map.Len(), len(stream))
	}
	back, err := restore(t, e, endpoint("target", dst), bytes.NewReader(stream), mover.RestoreOptions{})
	if err != nil || back.Root != rep.Totals.Root || !back.Equal {
		t.Fatalf("restore: %v, %+v", err, back)
	}
}
