package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store"
)

func push(t testing.TB, q store.Queue, id string, priority int) {
	t.Helper()
	if err := q.Push(t.Context(), id, priority); err != nil {
		t.Fatal(err)
	}
}

// take takes what is there; empty when there is nothing.
func take(t testing.TB, q store.Queue) store.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	d, err := q.Take(ctx)
	if err != nil {
		t.Fatalf("nothing was delivered: %v", err)
	}
	return d
}

func nothing(t testing.TB, q store.Queue, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if d, err := q.Take(ctx); err == nil {
		t.Errorf("%s: %s was delivered (%d times)", when, d.ID(), d.Deliveries())
	}
}

func testQueueOrder(t *testing.T, k Kit) {
	q := k.Queue
	push(t, q, "low", -1)
	push(t, q, "old", 0)
	push(t, q, "new", 0)
	push(t, q, "old", 0) // is there already: it keeps its age
	push(t, q, "high", 1)
	for _, want := range []string{"high", "old", "new", "low"} {
		d := take(t, q)
		if d.ID() != want || d.Deliveries() != 1 {
			t.Errorf("took %s (%d), want %s", d.ID(), d.Deliveries(), want)
		}
		if want == "old" {
			push(t, q, "old", 0) // while it is delivered: no second one
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
		is(t, "second ack", d.Ack(t.Context()), store.ErrLost)
	}
	nothing(t, q, "all are done")
	push(t, q, "old", 0)
	if d := take(t, q); d.ID() != "old" || d.Deliveries() != 1 {
		t.Errorf("pushed again: %s (%d)", d.ID(), d.Deliveries())
	}
}

func testRedelivery(t *testing.T, k Kit) {
	ctx, q := t.Context(), k.Queue
	push(t, q, "j", 0)
	first := take(t, q)
	nothing(t, q, "while it is held")
	k.Pass(k.Visibility * 3 / 4)
	if err := first.InProgress(ctx); err != nil {
		t.Fatal(err)
	}
	k.Pass(k.Visibility * 3 / 4)
	nothing(t, q, "while it is in progress")
	if err := first.InProgress(ctx); err != nil {
		t.Fatal(err)
	}
	k.Pass(k.Visibility + time.Millisecond)
	second := take(t, q)
	if second.ID() != "j" || second.Deliveries() != 2 {
		t.Errorf("delivered again: %s (%d), want j (2)", second.ID(), second.Deliveries())
	}
	is(t, "in progress of the first", first.InProgress(ctx), store.ErrLost)
	is(t, "ack of the first", first.Ack(ctx), store.ErrLost)
	is(t, "nak of the first", first.Nak(ctx, 0), store.ErrLost)
	if err := second.Ack(ctx); err != nil {
		t.Error(err)
	}
	nothing(t, q, "it is done")
	push(t, q, "late", 0)
	late := take(t, q)
	k.Pass(k.Visibility + time.Millisecond)
	is(t, "ack when nobody has it", late.Ack(ctx), store.ErrLost)
	if d := take(t, q); d.ID() != "late" {
		t.Errorf("after a late ack: %s", d.ID())
	}
}

func testDead(t *testing.T, k Kit) {
	ctx, q := t.Context(), k.Queue
	push(t, q, "bad", 3)
	for i := range k.Deliveries {
		if d := take(t, q); d.Deliveries() != i+1 {
			t.Errorf("delivery %d says %d", i+1, d.Deliveries())
		}
		k.Pass(k.Visibility + time.Millisecond)
	}
	nothing(t, q, "it was delivered too often")
	letters := must(q.Dead(ctx))(t)
	if len(letters) != 1 || letters[0] != (store.Letter{ID: "bad", Priority: 3, Deliveries: k.Deliveries}) {
		t.Fatalf("dead letters: %+v", letters)
	}
	push(t, q, "bad", 0)
	nothing(t, q, "pushed while it is dead")
	if err := q.Forget(ctx, "bad"); err != nil {
		t.Error(err)
	}
	push(t, q, "bad", 0)
	if d := take(t, q); d.ID() != "bad" || d.Deliveries() != 1 {
		t.Errorf("brought back: %s (%d)", d.ID(), d.Deliveries())
	}
	if letters := must(q.Dead(ctx))(t); len(letters) != 0 {
		t.Errorf("dead letters: %+v", letters)
	}
	for range 2 {
		if err := q.Forget(ctx, "bad"); err != nil {
			t.Error(err)
		}
	}
	k.Pass(k.Visibility + time.Millisecond)
	nothing(t, q, "it was forgotten")
}

func testNak(t *testing.T, k Kit) {
	ctx, q := t.Context(), k.Queue
	push(t, q, "j", 0)
	d := take(t, q)
	if err := d.Nak(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	is(t, "ack after nak", d.Ack(ctx), store.ErrLost)
	nothing(t, q, "before the delay")
	k.Pass(time.Minute + time.Millisecond)
	d = take(t, q)
	if err := d.Nak(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if d = take(t, q); d.Deliveries() != 3 {
		t.Errorf("delivered %d times, want 3", d.Deliveries())
	}
}

func testTakeWaits(t *testing.T, k Kit) {
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := k.Queue.Take(ctx)
		got <- err
	}()
	push(t, k.Queue, "j", 0)
	is(t, "take before push", <-got, nil)
	done, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := k.Queue.Take(done)
		ended <- err
	}()
	cancel()
	is(t, "take when done", <-ended, context.Canceled)
}

func testLease(t *testing.T, k Kit) {
	ctx, l, ttl := t.Context(), k.Lease, 10*time.Second
	first := must(l.Acquire(ctx, "e", "a", ttl))(t)
	for _, holder := range []string{"a", "b"} {
		_, err := l.Acquire(ctx, "e", holder, ttl)
		is(t, "acquire by "+holder+" while held", err, store.ErrHeld)
	}
	must(l.Acquire(ctx, "other", "b", ttl))(t)
	k.Pass(ttl * 3 / 4)
	if err := l.Renew(ctx, "e", first, ttl); err != nil {
		t.Fatal(err)
	}
	k.Pass(ttl * 3 / 4)
	_, err := l.Acquire(ctx, "e", "b", ttl)
	is(t, "acquire after a renewal", err, store.ErrHeld)
	k.Pass(ttl)
	is(t, "renew after the end", l.Renew(ctx, "e", first, ttl), store.ErrFenced)
	second := must(l.Acquire(ctx, "e", "b", ttl))(t)
	if second <= first {
		t.Errorf("epoch %d after %d", second, first)
	}
	is(t, "renew by the old epoch", l.Renew(ctx, "e", first, ttl), store.ErrFenced)
	is(t, "release by the old epoch", l.Release(ctx, "e", first), store.ErrFenced)
	if err := l.Renew(ctx, "e", second, ttl); err != nil {
		t.Error(err)
	}
	if err := l.Release(ctx, "e", second); err != nil {
		t.Fatal(err)
	}
	is(t, "renew after release", l.Renew(ctx, "e", second, ttl), store.ErrFenced)
	if third := must(l.Acquire(ctx, "e", "a", ttl))(t); third <= second {
		t.Errorf("epoch %d after %d", third, second)
	}
}

func testReopen(t *testing.T, k Kit) {
	if k.Reopen == nil {
		return
	}
	ctx := t.Context()
	must(k.Store.Create(ctx, "k", []byte("kept")))(t)
	deleted := must(k.Store.Create(ctx, "gone", nil))(t)
	if err := k.Store.Delete(ctx, "gone", deleted); err != nil {
		t.Fatal(err)
	}
	_, at, err := k.Store.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	push(t, k.Queue, "held", 1)
	push(t, k.Queue, "acked", 0)
	push(t, k.Queue, "waits", 0)
	take(t, k.Queue)
	if err := take(t, k.Queue).Ack(ctx); err != nil {
		t.Fatal(err)
	}
	epoch := must(k.Lease.Acquire(ctx, "e", "a", time.Second))(t)

	k = k.Reopen()
	if e := must(k.Store.Get(ctx, "k"))(t); string(e.Value) != "kept" {
		t.Errorf("kept %q", e.Value)
	}
	if got := collect(t, k.Store, "", 0, 3); !got[2].Deleted || got[2].Revision != at {
		t.Errorf("history %+v, the last at %d", got, at)
	}
	if r := must(k.Store.Create(ctx, "new", nil))(t); r <= at {
		t.Errorf("revision %d after %d", r, at)
	}
	k.Pass(k.Visibility + 2*time.Second) // another process, elsewhere, waits for these
	for _, want := range []struct {
		id string
		n  int
	}{{"held", 2}, {"waits", 1}} {
		if d := take(t, k.Queue); d.ID() != want.id || d.Deliveries() != want.n {
			t.Errorf("took %s (%d), want %+v", d.ID(), d.Deliveries(), want)
		}
	}
	if next := must(k.Lease.Acquire(ctx, "e", "b", time.Second))(t); next <= epoch {
		t.Errorf("epoch %d after %d", next, epoch)
	}
	is(t, "renew by the epoch before", k.Lease.Renew(ctx, "e", epoch, time.Second), store.ErrFenced)
}
