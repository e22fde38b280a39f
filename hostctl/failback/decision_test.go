package failback

import (
	"fmt"
	"testing"
	"time"
)

// TestDecided keeps who began a failback and who decided lately, however often
// somebody changes its limits, and writes into nothing that somebody has.
func TestDecided(t *testing.T) {
	e := &Engine{c: Config{Clock: func() time.Time { return time.Unix(7, 0) }}}
	c := &record{}
	for _, what := range []string{"start", "confirm", "override"} {
		c.decided(e, what, "uid 0", "")
	}
	for i := range 2 * maxDecisions {
		was := c.Status.Decisions
		last := was[len(was)-1]
		c.decided(e, "limits", "uid 7\x1b", fmt.Sprint(i))
		if was[len(was)-1] != last || was[0].What != "start" {
			t.Fatal("a status that somebody has was written into")
		}
	}
	list := c.Status.Decisions
	if len(list) != maxDecisions || list[0].What != "start" || list[2].What != "override" || list[3].Text != fmt.Sprint(2*maxDecisions-maxDecisions+3) {
		t.Errorf("%d: %+v ... %+v", len(list), list[:4], list[len(list)-1])
	}
	if d := list[len(list)-1]; d != (Decision{What: "limits", By: "uid 7", At: time.Unix(7, 0).UTC(), Text: fmt.Sprint(2*maxDecisions - 1)}) {
		t.Errorf("%+v", d)
	}
}
