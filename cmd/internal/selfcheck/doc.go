// Package selfcheck looks at everything that an operator wants to know to be in
// order before a night: the state directory, the key, the peers, the disks of
// the exports, the limits of the system, and whether the peers answer. Nothing is
// made, written or changed; a key that is not there yet is not made.
//
// Not promised: that what was in order is so a moment later. A disk that opens
// for reading here may still be held, or fail, when a copy writes to it.
package selfcheck

// Level is how a check came out.
type Level string

// The levels. Warn does not fail a selfcheck: a night may go well with it.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Result is one check.
type Result struct {
	Name   string `json:"name"` // "state", "key", "export vm1-disk0", "peer dr": stable
	Level  Level  `json:"level"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	Usage  bool   `json:"-"` // a Fail that is a mistake in configuration
}

// Options say what is looked at.
type Options struct {
	File     string // configuration of the daemon; empty: there is none
	StateDir string // of a command line without a configuration; empty: the default
}
