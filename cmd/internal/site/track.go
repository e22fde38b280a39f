package site

import (
	"fmt"
	"strings"
)

// The words of change tracking, in flags and in the configuration.
const (
	TrackFull   = "full"   // none: everything is read
	TrackExport = "export" // what the source's daemon has configured for its export
)

// trackers are the prefixes of change tracking that a driver of this version
// understands; what follows is for the driver.
var trackers = [...]string{"bitmap:", "fiemap:"}

// CheckTrack returns an error unless text names change tracking of a disk of
// this machine.
func CheckTrack(text string) error {
	for _, prefix := range trackers {
		if name, ok := strings.CutPrefix(text, prefix); ok && name != "" {
			return nil
		}
	}
	return fmt.Errorf("change tracking %q: bitmap:NAME (a dirty bitmap of an NBD export), fiemap:PATH (the file that this one was cloned from)", text)
}
