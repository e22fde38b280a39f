package job

import (
	"context"
	"strings"
	"testing"
)

// TestOneTargetTwice: two disks whose targets turn out to be one are no success,
// whatever each transfer has proved. The same identity on another machine is
// another disk.
func TestOneTargetTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxDisks: 1, Transfer: func(context.Context, *Task) (Outcome, error) {
		return Outcome{State: "Verified", Verified: true, TargetIdentity: "file:1:2:3"}, nil
	}}).run()
	for name, c := range map[string]struct {
		mode    Mode
		a, b    string
		phase   Phase
		reasons string
	}{
		"a link":      {Copy, "/dst", "/link", Failed, ReasonEndpoint},
		"two exports": {Copy, "haulback://h:1/a", "haulback://H:1/b", Failed, ReasonEndpoint},
		"two hosts":   {Copy, "haulback://h:1/a", "haulback://i:1/a", Completed, ""},
		"verify":      {Verify, "/dst", "/link", Completed, ""},
	} {
		id := strings.ReplaceAll(name, " ", "-")
		r.submit(id, Spec{Mode: c.mode, Disks: []Disk{{Source: "/a", Target: c.a}, {Source: "/b", Target: c.b}}})
		j := r.await(id, c.phase)
		for _, d := range j.Disks {
			if d.Phase != c.phase || d.Outcome.Verified != (c.phase == Completed) || c.phase == Failed && d.Failure.Reason != c.reasons {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
}
