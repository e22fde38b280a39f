package failback

import (
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/job"
)

// A limit makes pass 1 longer than what was measured without it.
func TestPlanKnowsItsLimits(t *testing.T) {
	p := Plan{Time: 6 * time.Second, Disks: []PlanDisk{
		{AtMost: 600 << 20, Differing: 40 << 20, Error: 20 << 20},
		{AtMost: 10 << 20, Differing: 8 << 20, Error: 8 << 20}, // more than there is cannot differ
		{AtMost: 1 << 40, Differing: 1 << 30, Excluded: true},
	}}
	for _, c := range []struct {
		name   string
		limits job.Limits
		want   time.Duration
	}{
		{"none", job.Limits{}, 6 * time.Second},
		{"wire", job.Limits{Wire: 7 << 20}, 16 * time.Second},
		{"read", job.Limits{Read: 61 << 20}, 10 * time.Second},
		{"both", job.Limits{Wire: 7 << 20, Read: 61 << 20}, 20 * time.Second},
		{"windows", job.Limits{Windows: []job.Window{{Wire: 1 << 20}}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := withLimits(&p, &c.limits); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	if got := withLimits(&Plan{}, &job.Limits{Wire: 1}); got != 0 {
		t.Errorf("%v, and nothing was measured", got)
	}
}
