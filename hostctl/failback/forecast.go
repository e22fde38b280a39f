package failback

import (
	"fmt"
	"strings"
	"time"
)

// What is assumed where nothing was measured yet.
const (
	assumedShutdown = 30 * time.Second // of a guest that is asked
	assumedPowerOff = time.Second      // of one that is not
	assumedSnapshot = 5 * time.Second
	assumedPowerOn  = 5 * time.Second
)

// shutdownOf is what is assumed for powering the replica off: a guest takes its
// time, but only where it is asked and has tools that hear it.
func shutdownOf(c *record) time.Duration {
	if grace := c.Status.Spec.Grace; grace < 0 || !c.Facts.ReplicaVM.Tools {
		return assumedPowerOff
	} else if grace > 0 {
		return min(grace, assumedShutdown)
	}
	return assumedShutdown
}

// powerOnOf is what is assumed for powering the target on, if it is.
func powerOnOf(c *record) time.Duration {
	if !c.Status.Spec.PowerOn {
		return 0
	}
	return assumedPowerOn
}

// reckon says after a pass how long the switch would take: shutdown, two
// snapshot actions, what changes until then, power-on.
func reckon(c *record, now time.Time) {
	f := &c.Status.Forecast
	pass := c.row(c.Facts.PassStep)
	if pass == nil || c.Facts.Finals > 0 {
		return
	}
	f.Passes++
	took := max(now.Sub(pass.Began), time.Millisecond)
	var total, scanned, differing int64
	hinted := true
	for _, i := range c.moved() {
		if p := lastPass(&c.Status.Disks[i]); p != nil {
			total += p.Counters.Total
			scanned += p.Counters.Scanned
			differing += p.Counters.Differing
			hinted = hinted && p.Used == "hint"
		}
	}
	rate := float64(max(scanned, 1)) / took.Seconds()
	if hinted && !c.Facts.PointAt.IsZero() {
		if over := c.Facts.PointAt.Sub(c.Facts.BaseBefore).Seconds(); over > 0 {
			f.Dirty = float64(differing) / over
		}
	}
	shutdown := tookOr(c, "power-off-target", shutdownOf(c))
	snapshot := tookOr(c, "track-replica-1", assumedSnapshot)
	var move time.Duration
	if canHint(c) {
		move = time.Duration(f.Dirty * (took + shutdown).Seconds() / rate * float64(time.Second))
	} else {
		move = time.Duration(float64(total) / rate * float64(time.Second))
	}
	f.Downtime = (shutdown + 2*snapshot + move + powerOnOf(c)).Round(time.Millisecond)
	f.Within = c.Status.Spec.Switch.Budget > 0 && f.Downtime <= c.Status.Spec.Switch.Budget
	how := []string{
		fmt.Sprintf("shutdown %v", shutdown.Round(time.Second)), fmt.Sprintf("2 snapshots of %v", snapshot.Round(time.Second)),
		fmt.Sprintf("final pass %v at %s/s", move.Round(time.Millisecond), sized(int64(rate))), fmt.Sprintf("power-on %v", powerOnOf(c)),
	}
	if f.Dirty > 0 {
		how = append(how, fmt.Sprintf("the replica changes %s/s", sized(int64(f.Dirty))))
	}
	f.Text = strings.Join(how, ", ")
}

// canHint reports whether the final pass will read only what changed.
func canHint(c *record) bool {
	for _, i := range c.moved() {
		if len(c.Facts.Bases) <= i || c.Facts.Bases[i] == "" {
			return false
		}
	}
	return true
}

// tookOr is how long a step took, or what is assumed.
func tookOr(c *record, step string, assumed time.Duration) time.Duration {
	if s := c.row(step); s != nil && s.State == Done && s.Before != "off" {
		return s.Ended.Sub(s.Began)
	}
	return assumed
}
