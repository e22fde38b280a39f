package failback

import (
	"context"
	"slices"
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

// maxDecisions bounds what is kept: limits may be changed for ever.
const maxDecisions = 256

// decided remembers who decided what. Of too many the oldest go, but for the
// start of the failback and what belongs to it.
func (c *record) decided(e *Engine, what, by, text string) {
	const first = 3 // start, confirm, override
	list := slices.Clone(c.Status.Decisions)
	if len(list) >= maxDecisions {
		list = slices.Delete(list, first, first+1)
	}
	c.Status.Decisions = append(list, Decision{What: what, By: plain(by), At: e.now(), Text: plain(text)})
}

// text is a switch for people.
func (s *Switch) text() string {
	out := string(s.When)
	if s.When == WhenAt {
		out += " " + s.At.UTC().Format(time.RFC3339)
	}
	if s.Budget > 0 {
		out += ", budget " + s.Budget.String()
	}
	return out
}
