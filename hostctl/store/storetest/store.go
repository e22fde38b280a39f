package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store"
)

// Kit is an implementation under test, empty and of this test alone.
type Kit struct {
	Store store.Store
	Queue store.Queue
	Lease store.Lease

	Pass       func(time.Duration) // lets time pass
	Visibility time.Duration       // of the queue
	Deliveries int                 // of the queue, before a dead letter; at least 2
	History    int                 // changes after which a watch from the first is ErrCompacted
	// Reopen ends the process that holds the kit's state and answers one that
	// goes on with it; nil: the state cannot outlive it.
	Reopen func() Kit
}

// Test runs the suite.
func Test(t *testing.T, open func(testing.TB) Kit) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Kit)
	}{
		{"Values", testValues},
		{"Keys", testKeys},
		{"CompareAndSwap", testCAS},
		{"List", testList},
		{"Revision", testRevision},
		{"WatchNoGap", testWatch},
		{"WatchWaits", testWatchWaits},
		{"WatchCompacted", testCompacted},
		{"WatchModel", testModel},
		{"QueueOrder", testQueueOrder},
		{"QueueRedelivery", testRedelivery},
		{"QueueDead", testDead},
		{"QueueNak", testNak},
		{"QueueTakeWaits", testTakeWaits},
		{"Lease", testLease},
		{"Reopen", testReopen},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// is fails the test unless err is want.
func is(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func testValues(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	_, err := s.Get(ctx, "a.b")
	is(t, "get of nothing", err, store.ErrNotFound)
	for i, value := range [][]byte{{}, nil, {0}, []byte("text"), bytes.Repeat([]byte{7}, 1<<20)} {
		key := fmt.Sprintf("v.%d", i)
		given := bytes.Clone(value)
		r := must(s.Create(ctx, key, given))(t)
		for j := range given {
			given[j]++ // what the caller does with its bytes later is its own affair
		}
		e := must(s.Get(ctx, key))(t)
		if !bytes.Equal(e.Value, value) || e.Revision != r || e.Key != key {
			t.Errorf("value %d: got %d bytes of %q at %d, want %d at %d", i, len(e.Value), e.Key, e.Revision, len(value), r)
		}
		for j := range e.Value {
			e.Value[j]++
		}
		if again := must(s.Get(ctx, key))(t); !bytes.Equal(again.Value, value) {
			t.Errorf("value %d changed with the caller's copy", i)
		}
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Get(done, "v.0")
	is(t, "get when done", err, context.Canceled)
}

func testKeys(t *testing.T, k Kit) {
	for _, key := range []string{"", ".", "a.", ".a", "a..b", "a b", "a/b", "ä", "a*", "a>", strings.Repeat("k", 257), "a\x00"} {
		if _, err := k.Store.Create(t.Context(), key, []byte("x")); err == nil {
			t.Errorf("the key %q was taken", key)
		}
	}
	for _, key := range []string{"a", "A-_9.b", strings.Repeat("k", 256)} {
		must(k.Store.Create(t.Context(), key, []byte("x")))(t)
	}
	if _, _, err := k.Store.List(t.Context(), "a"); err == nil {
		t.Error("a prefix without a dot was taken")
	}
}

func testCAS(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	_, err := s.Update(ctx, "k", []byte("0"), 0)
	is(t, "update of nothing", err, store.ErrNotFound)
	is(t, "delete of nothing", s.Delete(ctx, "k", 0), store.ErrNotFound)
	first := must(s.Create(ctx, "k", []byte("1")))(t)
	_, err = s.Create(ctx, "k", []byte("2"))
	is(t, "second create", err, store.ErrExists)
	second := must(s.Update(ctx, "k", []byte("2"), first))(t)
	for _, stale := range []uint64{0, first, second + 1} {
		_, err = s.Update(ctx, "k", []byte("3"), stale)
		is(t, "stale update", err, store.ErrConflict)
		is(t, "stale delete", s.Delete(ctx, "k", stale), store.ErrConflict)
	}
	if e := must(s.Get(ctx, "k"))(t); string(e.Value) != "2" || e.Revision != second {
		t.Errorf("after refused changes: %q at %d", e.Value, e.Revision)
	}
	if err := s.Delete(ctx, "k", second); err != nil {
		t.Fatal(err)
	}
	_, err = s.Get(ctx, "k")
	is(t, "get of the deleted", err, store.ErrNotFound)
	if third := must(s.Create(ctx, "k", []byte("3")))(t); third <= second {
		t.Errorf("created again at %d, not after %d: the old revision may match again", third, second)
	}

	// Many at once: each increment counts.
	must(s.Create(ctx, "n", []byte{0}))(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for done := 0; done < 10; {
				e, err := s.Get(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err = s.Update(ctx, "n", []byte{e.Value[0] + 1}, e.Revision); err == nil {
					done++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e := must(s.Get(ctx, "n"))(t); e.Value[0] != 40 {
		t.Errorf("40 increments came to %d: compare-and-swap lets two win", e.Value[0])
	}
}

func testList(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	for _, key := range []string{"b.2", "a.1", "b.10", "bb.1", "b", "b.1.x"} {
		must(s.Create(ctx, key, []byte(key)))(t)
	}
	for prefix, want := range map[string][]string{
		"":     {"a.1", "b", "b.1.x", "b.10", "b.2", "bb.1"},
		"b.":   {"b.1.x", "b.10", "b.2"},
		"b.1.": {"b.1.x"},
		"c.":   nil,
	} {
		entries, at, err := s.List(ctx, prefix)
		var got []string
		for _, e := range entries {
			got = append(got, e.Key)
			if string(e.Value) != e.Key || e.Revision == 0 || e.Revision > at {
				t.Errorf("list %q: %s has %q at %d, the list is at %d", prefix, e.Key, e.Value, e.Revision, at)
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("list %q: %q (%v), want %q", prefix, got, err, want)
		}
	}
}

func testRevision(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	_, last, err := s.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	grown := func(what string, r uint64) {
		if r <= last {
			t.Errorf("%s: revision %d after %d", what, r, last)
		}
		last = r
	}
	grown("create", must(s.Create(ctx, "a", nil))(t))
	grown("create of another key", must(s.Create(ctx, "b", nil))(t))
	grown("update", must(s.Update(ctx, "a", nil, last-1))(t))
	if err := s.Delete(ctx, "a", last); err != nil {
		t.Fatal(err)
	}
	_, at, _ := s.List(ctx, "")
	grown("delete", at)
}

// collect reads n changes.
func collect(t testing.TB, s store.Store, prefix string, after uint64, n int) []store.Change {
	t.Helper()
	got, err := watched(t.Context(), s, prefix, after, n)
	if err != nil {
		t.Fatalf("watch %q after %d: %v, with %d of %d changes", prefix, after, err, len(got), n)
	}
	return got
}

func watched(ctx context.Context, s store.Store, prefix string, after uint64, n int) (got []store.Change, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for c, err := range s.Watch(ctx, prefix, after) {
		if err != nil {
			return got, err
		}
		if got = append(got, c); len(got) >= n {
			break
		}
	}
	return got, nil
}

func testWatch(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	one := must(s.Create(ctx, "w.a", []byte("1")))(t)
	must(s.Create(ctx, "x.a", []byte("other")))(t)
	two := must(s.Update(ctx, "w.a", []byte("2"), one))(t)
	if err := s.Delete(ctx, "w.a", two); err != nil {
		t.Fatal(err)
	}
	must(s.Create(ctx, "w.b", nil))(t)
	got := collect(t, s, "w.", 0, 4)
	want := []struct {
		key, value string
		deleted    bool
	}{{"w.a", "1", false}, {"w.a", "2", false}, {"w.a", "", true}, {"w.b", "", false}}
	last := uint64(0)
	for i, c := range got {
		if c.Key != want[i].key || string(c.Value) != want[i].value || c.Deleted != want[i].deleted || c.Revision <= last {
			t.Errorf("change %d is %+v, want %+v after %d", i, c, want[i], last)
		}
		last = c.Revision
	}
	if rest := collect(t, s, "w.", two, 2); !rest[0].Deleted || rest[1].Key != "w.b" {
		t.Errorf("after %d: %+v", two, rest)
	}
}

func testWatchWaits(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	_, at, err := s.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	following, cancel := context.WithCancel(ctx)
	ended, seen := make(chan error, 1), make(chan store.Change)
	go func() {
		for c, err := range s.Watch(following, "w.", at) {
			if err != nil {
				ended <- err
				return
			}
			seen <- c
		}
		ended <- errors.New("the watch ended without an error")
	}()
	for i := range 3 {
		r := must(s.Create(ctx, fmt.Sprintf("w.%d", i), nil))(t)
		select {
		case c := <-seen:
			if c.Revision != r {
				t.Errorf("saw %d, want %d", c.Revision, r)
			}
		case err := <-ended:
			t.Fatalf("the watch ended: %v", err)
		case <-time.After(5 * time.Second):
			t.Fatalf("the watch did not tell %d", r)
		}
	}
	cancel()
	is(t, "watch when done", <-ended, context.Canceled)
}

func testCompacted(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	r := must(s.Create(ctx, "c.k", nil))(t)
	first := r
	for range k.History + 1 {
		r = must(s.Update(ctx, "c.k", nil, r))(t)
	}
	for name, after := range map[string]uint64{"the first": first, "a revision that is not yet": r + 1} {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		for _, err := range s.Watch(limited, "c.", after) {
			is(t, "watch after "+name, err, store.ErrCompacted)
			break
		}
		cancel()
	}
	if got := collect(t, s, "c.", r-1, 1); got[0].Revision != r {
		t.Errorf("the newest change is %d, want %d", got[0].Revision, r)
	}
}

// testModel changes keys at random while watches follow: a list and what
// follows it is always the whole truth.
func testModel(t *testing.T, k Kit) {
	ctx, s := t.Context(), k.Store
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	entries, at, err := s.List(ctx, "m.")
	if err != nil || len(entries) != 0 {
		t.Fatal(entries, err)
	}
	steps := min(40, k.History)
	seen := make(chan []store.Change, 1)
	go func() {
		got, err := watched(ctx, s, "m.", at, steps)
		if err != nil {
			t.Errorf("watch: %v, with %d of %d changes", err, len(got), steps)
		}
		seen <- got
	}()
	type known struct {
		value    string
		revision uint64
	}
	model, final := map[string]known{}, map[string]known{}
	for i := range steps {
		key := fmt.Sprintf("m.%d", rng.IntN(4))
		value := fmt.Sprint(i)
		old, exists := model[key]
		switch {
		case !exists:
			model[key] = known{value, must(s.Create(ctx, key, []byte(value)))(t)}
		case rng.IntN(3) == 0:
			if err := s.Delete(ctx, key, old.revision); err != nil {
				t.Fatal(err)
			}
			delete(model, key)
		default:
			model[key] = known{value, must(s.Update(ctx, key, []byte(value), old.revision))(t)}
		}
	}
	for _, c := range <-seen {
		if final[c.Key] = (known{string(c.Value), c.Revision}); c.Deleted {
			delete(final, c.Key)
		}
	}
	if fmt.Sprint(final) != fmt.Sprint(model) {
		t.Errorf("seed %d: watched %v, want %v", seed, final, model)
	}
}
