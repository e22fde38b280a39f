package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSubmitIsIdempotent(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}).run()
	first := r.submit("j", two())
	long := two()
	long.Transport = "auto"
	other := two()
	other.Full = true
	check := func(when string) {
		t.Helper()
		j, existed, err := r.e.Submit(t.Context(), "j", "uid 0", long, nil)
		if err != nil || !existed || j.Digest != first.Digest || j.Disks[0].Run != first.Disks[0].Run || j.Phase == 0 {
			t.Errorf("%s: existed %t, %+v (%v)", when, existed, j, err)
		}
		_, existed, err = r.e.Submit(t.Context(), "j", "uid 0", other, nil)
		exists, ok := errors.AsType[*ExistsError](err)
		if !ok || existed || reason(t, err) != ReasonExists || exists.Have != first.Digest || exists.Asked != Digest(other) ||
			!strings.Contains(err.Error(), first.Digest.String()) || !strings.Contains(err.Error(), Digest(other).String()) {
			t.Errorf("%s: another spec: %v", when, err)
		}
		j, existed, err = r.e.Submit(t.Context(), "j", "uid 1", two(), nil)
		if reason(t, err) != ReasonExists || existed || j.ID != "" || strings.Contains(err.Error(), first.Digest.String()) {
			t.Errorf("%s: another owner gets %+v (%v)", when, j, err)
		}
		if _, ok := errors.AsType[*ExistsError](err); ok {
			t.Errorf("%s: another owner gets the digests", when)
		}
	}
	check("at once")
	r.await("j", Completed)
	check("ended")
	r.restart()
	check("after a restart")
	if err := r.e.Remove(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	if _, existed, err := r.e.Submit(t.Context(), "j", "uid 1", other, nil); err != nil || existed {
		t.Errorf("after its removal: existed %t (%v)", existed, err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxActive: 2})
	submit := func(id, owner string, s Spec, tickets map[string][]byte) string {
		_, _, err := r.e.Submit(t.Context(), id, owner, s, tickets)
		return reason(t, err)
	}
	for _, id := range []string{"", "a b", "../x", ".a", "a.", "a..b", "ü", strings.Repeat("i", MaxID+1)} {
		if got := submit(id, "o", two(), nil); got != ReasonInvalid {
			t.Errorf("the ID %q: %q", id, got)
		}
	}
	big := Spec{Mode: Copy}
	for i := range MaxDisks {
		big.Disks = append(big.Disks, Disk{Source: "/" + strings.Repeat("s", 2000), Target: fmt.Sprint("/t", i)})
	}
	for _, c := range [][3]string{
		{"no owner", submit("x", "", two(), nil), ReasonInvalid},
		{"no disks", submit("x", "o", Spec{Mode: Copy}, nil), ReasonInvalid},
		{"too large", submit("x", "o", big, nil), ReasonQuota},
		{"unknown ticket", submit("x", "o", two(), map[string][]byte{"disk7": {1}}), ReasonInvalid},
		{"large ticket", submit("x", "o", two(), map[string][]byte{"disk0": make([]byte, maxTicket+1)}), ReasonInvalid},
		{"first", submit("a", "o", two(), nil), ""},
		{"longest ID", submit(strings.Repeat("i", MaxID), "o", two(), nil), ""},
	} {
		if c[1] != c[2] {
			t.Errorf("%s: %q, want %q", c[0], c[1], c[2])
		}
	}
	if got := submit("c", "o", two(), nil); got != ReasonQuota {
		t.Errorf("beyond the bound: %q", got)
	}
	if got := submit("a", "o", two(), nil); got != "" {
		t.Errorf("the same again beyond the bound: %q", got)
	}
	if err := r.e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := submit("d", "o", two(), nil); got != ReasonDraining {
		t.Errorf("draining: %q", got)
	}
	if got := submit("a", "o", two(), nil); got != "" {
		t.Errorf("the same again when draining: %q", got)
	}
}

func TestVerbsOfNoJob(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	ctx := t.Context()
	only := func(_ Job, err error) error { return err }
	for verb, err := range map[string]error{
		"get": only(r.e.Get(ctx, "x")), "cancel": only(r.e.Cancel(ctx, "x")), "pause": only(r.e.Pause(ctx, "x")),
		"resume": only(r.e.Resume(ctx, "x")), "limits": only(r.e.SetLimits(ctx, "x", Limits{})),
		"tickets": r.e.SetTickets(ctx, "x", nil), "remove": r.e.Remove(ctx, "x"),
	} {
		if got := reason(t, err); got != ReasonNotFound {
			t.Errorf("%s: %q", verb, got)
		}
	}
}

func TestLimitsAndTickets(t *testing.T) {
	t.Parallel()
	type heard struct {
		limits Limits
		ticket string
	}
	begun, next, said := make(chan *Task, 1), make(chan struct{}), make(chan heard, 1)
	r := newRig(t, Config{Transfer: func(ctx context.Context, k *Task) (Outcome, error) {
		l, changed := k.Limits()
		said <- heard{l, string(k.Ticket())}
		begun <- k
		<-changed
		l, _ = k.Limits()
		<-next
		said <- heard{l, string(k.Ticket())}
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	}}).run()
	ctx := t.Context()
	if _, _, err := r.e.Submit(ctx, "j", "o", one("/t"), map[string][]byte{"disk0": []byte("t1")}); err != nil {
		t.Fatal(err)
	}
	if got := <-said; got.ticket != "t1" || got.limits.Wire != 0 {
		t.Errorf("at the start: %+v", got)
	}
	<-begun
	if _, err := r.e.SetLimits(ctx, "j", Limits{Wire: -1}); reason(t, err) != ReasonInvalid {
		t.Errorf("bad limits: %v", err)
	}
	if j, err := r.e.SetLimits(ctx, "j", Limits{Wire: 5 << 20}); err != nil || j.Limits.Wire != 5<<20 || j.Spec.Limits.Wire != 0 {
		t.Errorf("limits: %+v (%v)", j.Limits, err)
	}
	if _, _, err := r.e.Submit(ctx, "j", "o", one("/t"), map[string][]byte{"disk0": []byte("t2")}); err != nil {
		t.Fatal(err)
	}
	close(next)
	if got := <-said; got.ticket != "t2" || got.limits.Wire != 5<<20 {
		t.Errorf("after the changes: %+v", got)
	}
	r.restart()
	r.run()
	if got := <-said; got.ticket != "t2" || got.limits.Wire != 5<<20 {
		t.Errorf("after a restart: %+v", got)
	}
	<-begun
	if _, err := r.e.Cancel(ctx, "j"); err != nil {
		t.Fatal(err)
	}
	// It waits for a change of limits, which a canceled job may still have.
	if _, err := r.e.SetLimits(ctx, "j", Limits{}); err != nil {
		t.Fatal(err)
	}
	<-said
	r.await("j", Canceled)
	// The end is seen before the ticket goes; a verb waits for both.
	if err := r.e.SetTickets(ctx, "j", nil); reason(t, err) != ReasonConflict {
		t.Errorf("tickets of an ended job: %v", err)
	}
	if x, err := r.db.Get(ctx, ticketKey+"j"); err == nil {
		t.Errorf("the ticket of an ended job is kept: %s", x.Value)
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	r := newRig(t, Config{Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}})
	var want []string
	for i := range 7 {
		s := one(fmt.Sprintf("/t%d", i))
		s.Labels = map[string]string{"odd": fmt.Sprint(i % 2)}
		owner := "a"
		if i == 6 {
			owner = "b"
		}
		if _, _, err := r.e.Submit(t.Context(), fmt.Sprint(i), owner, s, nil); err != nil {
			t.Fatal(err)
		}
		want = append([]string{fmt.Sprint(i)}, want...)
	}
	all := func(f Filter, size int) (ids []string) {
		p := Page{Size: size}
		for {
			jobs, next, err := r.e.List(t.Context(), f, p)
			if err != nil || len(jobs) > size {
				t.Fatal(len(jobs), err)
			}
			for _, j := range jobs {
				ids = append(ids, j.ID)
			}
			if p.Token = next; next == "" {
				return ids
			}
		}
	}
	if _, err := r.e.Cancel(t.Context(), "3"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "[6 5 4 3 2 1 0]"},
		{Filter{Owner: "b"}, "[6]"},
		{Filter{ID: "2"}, "[2]"},
		{Filter{Phases: []Phase{Canceled}}, "[3]"},
		{Filter{Labels: map[string]string{"odd": "1"}, Owner: "a"}, "[5 3 1]"},
		{Filter{Labels: map[string]string{"none": ""}}, "[]"},
	} {
		for _, size := range []int{1, 2, 3, 7, 100} {
			if got := fmt.Sprint(all(c.f, size)); got != c.want {
				t.Errorf("%+v by %d: %s, want %s", c.f, size, got, c.want)
			}
		}
	}
	for _, p := range []Page{{Size: -1}, {Size: 1001}, {Token: "?"}, {Token: "YQ"}} {
		if _, _, err := r.e.List(t.Context(), Filter{}, p); reason(t, err) != ReasonInvalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestPruneAndRemove(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxEnded: 3}).run()
	for i := range 6 {
		r.submit(fmt.Sprint(i), one("/t"))
		r.await(fmt.Sprint(i), Completed)
	}
	jobs, _, err := r.e.List(t.Context(), Filter{}, Page{})
	for end := time.Now().Add(time.Minute); err == nil && len(jobs) > 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		jobs, _, err = r.e.List(t.Context(), Filter{}, Page{}) // the last one is seen as Completed before others are dropped for it
	}
	if err != nil || len(jobs) != 3 || jobs[0].ID != "5" || jobs[2].ID != "3" {
		t.Fatalf("kept %d jobs, %+v (%v)", len(jobs), jobs, err)
	}
	r.submit("6", Spec{Mode: Copy, Disks: []Disk{{Source: "/s", Target: "/t"}}})
	r.await("6", Completed)
	if err := r.e.Remove(t.Context(), "6"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Get(t.Context(), "6"); reason(t, err) != ReasonNotFound {
		t.Errorf("get of the removed: %v", err)
	}
	entries, _, err := r.db.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range entries {
		if id := x.Key[strings.IndexByte(x.Key, '.')+1:]; strings.Contains("0126", id) {
			t.Errorf("%s is left of a job that has gone", x.Key)
		}
	}
}

func TestRemoveOfActive(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	r.submit("j", one("/t"))
	if err := r.e.Remove(t.Context(), "j"); reason(t, err) != ReasonConflict {
		t.Errorf("remove of one that waits: %v", err)
	}
}
