package failback

import (
	"context"
	"time"
)

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
