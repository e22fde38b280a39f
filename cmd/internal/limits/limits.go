// Package limits reads and writes limits of a job or a daemon as people do:
// "50MiB" per second, 20ms, "Mon-Fri 08:00-18:00 10MiB".
package limits

import (
	"fmt"
	"time"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover/throttle"
)

// Rate reads a number of bytes per second; empty means none.
func Rate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := size.Parse(s)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, fmt.Errorf("rate %q: leave it out for no limit", s)
	case n < throttle.Least:
		return 0, fmt.Errorf("rate %q: below 64KiB, one grain: the copy could not begin", s)
	}
	return n, nil
}

// Latency reads a latency target; empty means none.
func Latency(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("latency %q: write a number and a unit of us, ms or s, as in 20ms", s)
	}
	if d == 0 {
		return 0, fmt.Errorf("latency %q: leave it out for no target", s)
	}
	l := throttle.Limits{Latency: d}
	return d, l.Validate()
}
