package failback

import (
	"maps"
	"strings"
	"testing"

	"github.com/haulback/haulback/hostctl"
)

// TestStepNumber has all steps that there can be in the table, and nothing else:
// a hook on a name that no step has would silently do nothing.
func TestStepNumber(t *testing.T) {
	missing := maps.Clone(numbers)
	look := func(c *record, list []step) {
		for _, s := range list {
			n := StepNumber(s.name)
			plain := strings.TrimSuffix(strings.TrimRight(s.name, "0123456789"), "-")
			if n != s.number {
				t.Errorf("%s of %s: StepNumber %d, it has %d", s.name, c.Status.Spec.Destination, n, s.number)
			}
			delete(missing, s.name)
			delete(missing, plain)
		}
	}
	names := map[string]bool{}
	c := &record{}
	for n := range 9 {
		for _, s := range append(syncScript(c, n+1), finalScript(c, n+1)...) {
			if names[s.name] {
				t.Errorf("two steps of one failback are called %s: the second one would be taken for done", s.name)
			}
			names[s.name] = true
		}
	}
	for _, destination := range []Destination{Original, Existing, New} {
		for _, unlisted := range []bool{false, destination == New} {
			c := &record{}
			c.Status.Spec = Spec{Destination: destination, Networks: map[string]string{"a": "b"}}
			c.Facts = facts{Unlisted: unlisted, OriginalVM: new(hostctl.VM), Finals: 1, Rollback: "r", Pass: 1, ReplicaOn: true, Commit: CommitOptions{DeleteProtective: true}}
			c.Facts.TargetVM.Path = "[ds] x/x.vmx"
			look(c, prepareScript(c))
			for n := range 3 {
				look(c, syncScript(c, n+1))
				look(c, finalScript(c, n+1))
			}
			look(c, homeScript(c))
			for name := range numbers { // all was begun
				c.Status.Steps = append(c.Status.Steps, Step{Name: name, State: Done, Task: asked})
			}
			look(c, commitScript(c))
			look(c, backScript(c, 11))
			look(c, backScript(c, 12))
		}
	}
	for name := range missing {
		t.Errorf("%s is in the table, and no step", name)
	}
	for name, want := range map[string]int{"": 0, "power": 0, "undo-": 0, "cancel-restore-replica": 0, "undo-restore-replica": 11, "pass-12": 3, "-1": 0} {
		if got := StepNumber(name); got != want {
			t.Errorf("StepNumber(%q) = %d, want %d", name, got, want)
		}
	}
}
