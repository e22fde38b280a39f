package failback

import (
	"testing"
	"time"
)

// Of what powering off and on takes, only what will be done is reckoned.
func TestForecastAssumes(t *testing.T) {
	for _, c := range []struct {
		name    string
		grace   time.Duration
		tools   bool
		powerOn bool
		want    time.Duration
	}{
		{"a guest that is asked", 0, true, true, assumedShutdown + assumedPowerOn},
		{"a guest with little time", 10 * time.Second, true, true, 10*time.Second + assumedPowerOn},
		{"a guest that is not asked", -1, true, true, assumedPowerOff + assumedPowerOn},
		{"a guest without tools", 0, false, true, assumedPowerOff + assumedPowerOn},
		{"a target that stays off", 0, true, false, assumedShutdown},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &record{}
			r.Status.Spec.Grace, r.Status.Spec.PowerOn, r.Facts.ReplicaVM.Tools = c.grace, c.powerOn, c.tools
			if got := shutdownOf(r) + powerOnOf(r); got != c.want {
				t.Errorf("%v are reckoned, want %v", got, c.want)
			}
		})
	}
}
