package failback_test

import (
	"slices"
	"strings"
	"testing"
)

// TestFailbackBugsAreFound breaks the engine on purpose: a matrix that does not
// see it is worth nothing.
func TestFailbackBugsAreFound(t *testing.T) {
	for _, x := range []struct {
		bug    string
		from   string // what it changes begins a little before this event; empty: anywhere
		trips  []int
		stride int
		with   func(k int) trouble
	}{
		{"no intent", "", []int{0}, 1, func(k int) trouble { return trouble{at: k, crash: true, takeBack: true} }},
		{"blind", "", []int{0}, 1, func(k int) trouble { return trouble{at: k, crash: true} }},
		{"late terminal", "undo-", []int{1}, 1, func(k int) trouble { return trouble{at: k, crash: true, mind: true} }},
		{"no mark", "mark-target", []int{0}, 1, func(k int) trouble { return trouble{at: k, unmark: true} }},
		{"trust pass", "Move", []int{0}, 1, func(k int) trouble { return trouble{at: k, crash: true} }},
		{"ungated", "Move", []int{0}, 1, func(k int) trouble { return trouble{at: k, unproved: true} }},
		{"keep replica on", "power-off-replica", []int{0}, 1, func(k int) trouble { return trouble{at: k, outside: true} }},
		{"", "undo-", []int{1}, 3, func(k int) trouble { return trouble{at: k, crash: true, mind: true} }},
		{"", "", []int{0}, 1, func(k int) trouble { return trouble{at: k, outside: true} }},
		{"", "", []int{0}, 70, func(k int) trouble { return trouble{at: k, unmark: true} }},
		{"", "", []int{0}, 70, func(k int) trouble { return trouble{at: k, unproved: true} }},
	} {
		t.Run(x.bug, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && x.bug == "" {
				x.stride *= 10
			}
			for _, i := range x.trips {
				for k, n := begins(t, trips[i], x.from), 400; k <= n; k += x.stride {
					names, wrong := sail(t, trips[i], x.with(k), x.bug)
					n = len(names)
					if len(wrong) == 0 {
						continue
					}
					if x.bug != "" {
						t.Logf("found at event %d: %s", k, wrong[0])
						return
					}
					t.Fatalf("without a bug, at event %d (%s): %s", k, names[k-1], strings.Join(wrong, "\n"))
				}
			}
			if x.bug != "" {
				t.Errorf("nobody has found it")
			}
		})
	}
}

// begins is a little before the first event of a trip with this in its name.
func begins(t *testing.T, x trip, name string) int {
	if name == "" {
		return 1
	}
	names, _ := sail(t, x, trouble{}, "")
	i := slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, name) })
	if i < 0 {
		t.Fatalf("no event %q in %v", name, names)
	}
	return max(i-8, 1)
}
