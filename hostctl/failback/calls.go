package failback

import (
	"context"
	"time"
)

// Filter chooses failbacks. The zero Filter means all.
type Filter struct {
	VM    string // name of the Pair
	Group string
	Open  bool // only those that have not ended
}

// CommitOptions says how to commit.
type CommitOptions struct {
	DeleteProtective bool   // the replica's protective snapshot; else it stays as a restore point
	By               string // who says so
}

// UndoOptions says how to undo.
type UndoOptions struct {
	KeepOff bool   // leave the replica off
	By      string // who says so
}

// Decision is what somebody decided about a failback, for its record.
type Decision struct {
	What string // "start", "confirm", "switch", "commit", "undo", "cancel", "continue", "limits", "override"
	By   string // a caller of the API, "policy"
	At   time.Time
	Text string // for people: "power on although scsi0:1 is not verified"
}

type callerKey struct{}

// WithCaller keeps the name of who asks, for methods that have no place for it.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// Caller is who asks, or empty.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}
