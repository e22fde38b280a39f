package build

import (
	"runtime/debug"
	"time"
)

// Committed is when the newest commit of this program was made, or the zero time
// where the toolchain has not recorded it.
func Committed() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value) // the zero time of anything else
			return t
		}
	}
	return time.Time{}
}
