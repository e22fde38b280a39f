package hostctl

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotFound means that the host does not have the VM, snapshot or place.
var ErrNotFound = errors.New("hostctl: not found on the host")

// ErrNoSpace means that a datastore is full. Nothing was done.
var ErrNoSpace = errors.New("hostctl: no space on the datastore")

// AmbiguousError means that more than one thing on the host answers to a name.
type AmbiguousError struct {
	What  string   // "VM \"web\""
	Found []string // each by what tells it from the others
}

// Error implements error.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s: there are %d: %s; name it by its UUID", e.What, len(e.Found), strings.Join(e.Found, ", "))
}

// PrivilegeError means that the login may not do what was asked.
type PrivilegeError struct {
	Host, User, Object string
	Missing            []string // the host's names of the privileges
}

// Error implements error.
func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("host %s: %s lacks %s on %s; give its role that", e.Host, e.User, strings.Join(e.Missing, ", "), e.Object)
}

// SnapshotName is the name of the snapshot that op makes. What a run has left
// behind is found by it.
func SnapshotName(op *Op) string { return SnapshotPrefix + op.Run + "-" + op.Step }

// SnapshotPrefix begins the names of all snapshots that haulback makes.
const SnapshotPrefix = "haulback-"

// The marks of a VM.
const (
	MarkRun          = "run"          // the run that uses the VM, with its controller: "RUN@CONTROLLER"
	MarkInconsistent = "inconsistent" // the run that has begun to overwrite its disks
	MarkMade         = "made"         // the run that has created it
)
